"""Jobs for tests of who watches them: the server's own runner knows them, a process of the test's writes their log.

async with serving(tmp_path) as server, written_job(server) as job:
    await job.writer.write(b"hello\n")
    job.finish()
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from infraforge_runner.directory import JobDirectory
from infraforge_runner.job import Job, Spec, Status
from infraforge_runner.presets import HyperPodPreset
from infraforge_runner.supervision import Kept
from tests.serving import Server
from tests.writer import Writer, writing


@dataclass
class WrittenJob:
    kept: Kept
    writer: Writer

    @property
    def id(self) -> str:
        return self.kept.job.id

    @property
    def logs(self) -> str:
        return f"/api/hyperpod/jobs/{self.id}/logs"

    @property
    def socket(self) -> str:
        return f"/ws/hyperpod/jobs/{self.id}/logs"

    @property
    def followers(self) -> int:
        return 0 if self.kept.tail is None else self.kept.tail.followers

    def finish(self) -> None:
        """As the runner does, once the supervisor has written that the job has ended."""
        self.kept.job = Job(self.kept.job.spec, self.kept.job.status.finish(_now(), "succeeded", None))
        if self.kept.tail is not None:
            self.kept.tail.look()


@asynccontextmanager
async def written_job(server: Server) -> AsyncIterator[WrittenJob]:
    """A job that runs, whose log is not there yet."""
    spec = Spec(
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
    status = Status(updated_at=_now())
    directory = JobDirectory.create(server.services.options.data / "jobs", spec, status, None)
    kept = server.services.jobs._jobs[spec.job_id] = Kept(directory, Job(spec, status.begin(_now())))
    async with writing(directory.log) as writer:
        yield WrittenJob(kept, writer)


def _now() -> str:
    return datetime.now(UTC).isoformat()
