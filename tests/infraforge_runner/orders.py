"""What was asked of a job in tests that make its directory themselves."""

from __future__ import annotations

import uuid
from typing import Any

from infraforge_runner.job import Spec, Status
from infraforge_runner.presets import HyperPodPreset

NOW = "2026-01-02T03:04:05.000000+00:00"


def make_spec(**fields: Any) -> Spec:
    return Spec(
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


def queued() -> Status:
    return Status(updated_at=NOW)
