"""The steps that a job may make, and which it may not."""

from __future__ import annotations

from typing import get_args

import pytest

from infraforge_runner.job import FINISHED, Job, Outcome, Progress, State, Status
from tests.infraforge_runner.orders import NOW, make_spec, queued

LATER = "2026-01-02T03:05:00.000000+00:00"
OUTCOME = Outcome(returncode=0, command="bash script", duration_seconds=55.0)
ALLOWED = {
    "queued": {"running", "cancelled", "interrupted"},
    "running": {"succeeded", "failed", "cancelled", "interrupted"},
}


def step(status: Status, to: State) -> Status:
    return status.begin(LATER) if to == "running" else status.finish(LATER, to, OUTCOME)


@pytest.mark.parametrize("begin", get_args(State))
@pytest.mark.parametrize("end", get_args(State))
def test_a_job_makes_the_steps_that_it_may_and_no_other(begin: State, end: State) -> None:
    status = Status(status=begin, updated_at=NOW)
    if end in ALLOWED.get(begin, set()):
        assert step(status, end).status == end
    else:
        with pytest.raises(ValueError, match=f"{begin} can't become {end}"):
            step(status, end)


def test_a_job_tells_when_it_began_moved_and_ended() -> None:
    began = queued().begin(NOW)
    assert (began.started_at, began.finished_at, began.updated_at, began.phase) == (NOW, None, NOW, "starting")
    moved = began.move(LATER, "deploying", Progress(1, 5))
    assert (moved.status, moved.updated_at, moved.phase, moved.progress) == (
        "running",
        LATER,
        "deploying",
        Progress(1, 5),
    )
    ended = moved.finish(LATER, "succeeded", OUTCOME)
    assert (ended.started_at, ended.finished_at, ended.updated_at) == (NOW, LATER, LATER)
    assert (ended.phase, ended.progress, ended.result) == ("done", Progress(1, 5), OUTCOME)


@pytest.mark.parametrize(
    ("state", "phase"),
    [("succeeded", "done"), ("failed", "failed"), ("cancelled", "deploying"), ("interrupted", "deploying")],
)
def test_the_phase_of_a_job_that_was_stopped_says_how_far_it_came(state: State, phase: str) -> None:
    running = queued().begin(NOW).move(NOW, "deploying", None)
    assert running.finish(LATER, state, None).phase == phase


@pytest.mark.parametrize("state", get_args(State))
@pytest.mark.parametrize("dry_run", [False, True])
def test_a_live_job_holds_its_stack_until_it_has_finished(state: State, dry_run: bool) -> None:
    job = Job(make_spec(dry_run=dry_run), Status(status=state, updated_at=NOW))
    holds = not dry_run and state in ("queued", "running")
    assert job.holds_stack == (("us-east-1", "small-stack") if holds else None)
    assert job.is_finished == (state in FINISHED)


def test_clients_are_told_every_field_from_the_beginning() -> None:
    spec = make_spec(overrides={"size": 2}, variables={"SECRET_TOKEN": "not told"})
    told = Job(spec, queued()).described()
    assert told == {
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
    ended = Job(spec, queued().begin(NOW).move(NOW, "deploying", Progress(3)).finish(LATER, "succeeded", OUTCOME))
    assert ended.described().keys() == told.keys()
    assert ended.described()["progress"] == {"done": 3, "total": None}
    assert ended.described()["result"] == {
        "returncode": 0,
        "command": "bash script",
        "duration_seconds": 55.0,
        "outputs": {},
    }
