"""Specs and statuses of jobs, for tests that create a job's directory themselves."""

from __future__ import annotations

import uuid
from typing import Any

from infraforge_runner.infraforge.presets import HyperPodPreset
from infraforge_runner.jobs.model import JobSpec, JobStatus

NOW = "2026-01-02T03:04:05.000000+00:00"


def make_spec(**fields: Any) -> JobSpec:
    return JobSpec(
        **{
            "job_id": str(uuid.uuid4()),
            "action": "deploy",
            "preset_name": "small",
            "preset": HyperPodPreset(config={}),
            "dry_run": False,
            "region": "us-east-1",
            "stack_name": "small-stack",
            "overrides": {},
            "variables": {},
            "names": (),
            "config": {},
            "created_at": NOW,
            "own_script": True,
            **fields,
        }
    )


def queued_status() -> JobStatus:
    return JobStatus(updated_at=NOW)
