"""Jobs for tests of log followers: the server's own runner knows them, and a process of the test writes their log.

async with running_server(tmp_path) as server, open_written_job(server) as job:
    await job.writer.write(b"hello\n")
    job.finish()
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from infraforge_runner.infraforge.presets import HyperPodPreset
from infraforge_runner.jobs.directory import JobDirectory
from infraforge_runner.jobs.model import Job, JobSpec, JobStatus
from infraforge_runner.jobs.scheduler import TrackedJob
from tests.running_server import RunningServer
from tests.writer import Writer, open_writer


@dataclass
class WrittenJob:
    tracked: TrackedJob
    writer: Writer

    @property
    def id(self) -> str:
        return self.tracked.job.id

    @property
    def logs(self) -> str:
        return f"/api/hyperpod/jobs/{self.id}/logs"

    @property
    def socket(self) -> str:
        return f"/ws/hyperpod/jobs/{self.id}/logs"

    @property
    def followers(self) -> int:
        return 0 if self.tracked.log_follower is None else self.tracked.log_follower.readers

    def finish(self) -> None:
        """End the job as the runner does, once the supervisor has written its end."""
        self.tracked.job = Job(self.tracked.job.spec, self.tracked.job.status.finish(_now(), "succeeded", None))
        if self.tracked.log_follower is not None:
            self.tracked.log_follower.refresh()


@asynccontextmanager
async def open_written_job(server: RunningServer) -> AsyncIterator[WrittenJob]:
    """A running job, whose log does not exist yet."""
    spec = JobSpec(
        job_id=str(uuid.uuid4()),
        action="deploy",
        preset_name="small",
        preset=HyperPodPreset(),
        dry_run=True,
        region="us-east-1",
        stack_name="test",
        overrides={},
        variables={},
        names=(),
        config={},
        created_at=_now(),
        own_script=False,
    )
    status = JobStatus(updated_at=_now())
    directory = JobDirectory.create(server.services.options.data / "jobs", spec, status, None)
    tracked = server.services.jobs._jobs[spec.job_id] = TrackedJob(directory, Job(spec, status.start(_now())))
    async with open_writer(directory.log) as writer:
        yield WrittenJob(tracked, writer)


def _now() -> str:
    return datetime.now(UTC).isoformat()
