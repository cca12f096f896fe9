"""The transitions of a job's status, and its description for clients."""

from __future__ import annotations

from typing import get_args

import pytest

from infraforge_runner.jobs.model import FINISHED_STATES, Job, JobState, JobStatus, Outcome, Progress
from tests.infraforge_runner.factories import NOW, make_spec, queued_status

LATER = "2026-01-02T03:05:00.000000+00:00"
OUTCOME = Outcome(returncode=0, command="bash script", duration_seconds=55.0)
ALLOWED = {
    "queued": {"running", "cancelled", "interrupted"},
    "running": {"succeeded", "failed", "cancelled", "interrupted"},
}


def step(status: JobStatus, to: JobState) -> JobStatus:
    return status.start(LATER) if to == "running" else status.finish(LATER, to, OUTCOME)


@pytest.mark.parametrize("before", get_args(JobState))
@pytest.mark.parametrize("after", get_args(JobState))
def test_status_allows_only_valid_transitions(before: JobState, after: JobState) -> None:
    status = JobStatus(status=before, updated_at=NOW)
    if after in ALLOWED.get(before, set()):
        assert step(status, after).status == after
    else:
        with pytest.raises(ValueError, match=f"{before} can't become {after}"):
            step(status, after)


def test_status_records_times_of_start_update_and_finish() -> None:
    started = queued_status().start(NOW)
    assert (started.started_at, started.finished_at, started.updated_at, started.phase) == (NOW, None, NOW, "starting")
    moved = started.update(LATER, "deploying", Progress(1, 5))
    assert (moved.status, moved.updated_at, moved.phase, moved.progress) == (
        "running",
        LATER,
        "deploying",
        Progress(1, 5),
    )
    finished = moved.finish(LATER, "succeeded", OUTCOME)
    assert (finished.started_at, finished.finished_at, finished.updated_at) == (NOW, LATER, LATER)
    assert (finished.phase, finished.progress, finished.result) == ("done", Progress(1, 5), OUTCOME)


@pytest.mark.parametrize(
    ("state", "phase"),
    [("succeeded", "done"), ("failed", "failed"), ("cancelled", "deploying"), ("interrupted", "deploying")],
)
def test_phase_of_stopped_job_stays_at_last_phase(state: JobState, phase: str) -> None:
    running = queued_status().start(NOW).update(NOW, "deploying", None)
    assert running.finish(LATER, state, None).phase == phase


@pytest.mark.parametrize("state", get_args(JobState))
@pytest.mark.parametrize("dry_run", [False, True])
def test_live_job_holds_stack_until_finished(state: JobState, dry_run: bool) -> None:
    job = Job(make_spec(dry_run=dry_run), JobStatus(status=state, updated_at=NOW))
    holds = not dry_run and state in ("queued", "running")
    assert job.held_stack == (("us-east-1", "small-stack") if holds else None)
    assert job.is_finished == (state in FINISHED_STATES)


def test_description_has_every_field_from_submission_on() -> None:
    spec = make_spec(overrides={"size": 2}, variables={"SECRET_TOKEN": "not told"})
    description = Job(spec, queued_status()).describe()
    assert description == {
        "job_id": spec.job_id,
        "action": "deploy",
        "preset": "small",
        "status": "queued",
        "dry_run": False,
        "region": "us-east-1",
        "stack_name": "small-stack",
        "overrides": {"size": 2},
        "created_at": NOW,
        "started_at": None,
        "finished_at": None,
        "updated_at": NOW,
        "phase": None,
        "progress": None,
        "result": None,
    }
    finished = Job(
        spec, queued_status().start(NOW).update(NOW, "deploying", Progress(3)).finish(LATER, "succeeded", OUTCOME)
    )
    assert finished.describe().keys() == description.keys()
    assert finished.describe()["progress"] == Progress(3)
    assert finished.describe()["result"] == {
        "returncode": 0,
        "command": "bash script",
        "duration_seconds": 55.0,
        "outputs": {},
    }
