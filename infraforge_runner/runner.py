"""The jobs of one data folder, as the server uses them: submit, cancel, list, follow, and adopt an earlier server's."""

from __future__ import annotations

import os
import shutil
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import structlog

from infraforge_runner.infraforge.presets import HyperPodPreset
from infraforge_runner.infraforge.stack_records import StackStore
from infraforge_runner.jobs.directory import JobDirectory, list_job_directories, try_lock
from infraforge_runner.jobs.log_follower import LogFollower
from infraforge_runner.jobs.model import Job, JobRequest, JobSpec, JobState, JobStatus
from infraforge_runner.jobs.retention import select_expired
from infraforge_runner.jobs.scheduler import JobScheduler, TrackedJob
from infraforge_runner.jobs.watch import Watcher
from infraforge_runner.kinds.kind import Submission, SubmissionContext
from infraforge_runner.kinds.registry import KINDS
from pipeline.errors import ForgelineError, IdempotencyConflict, JobFinished, Unavailable, UnknownJob

if TYPE_CHECKING:
    from pipeline.telemetry.otel import Tracing

log = structlog.get_logger(__name__)


class DataInUse(Exception):
    """Another server uses this data folder."""


@dataclass(frozen=True, slots=True)
class RunnerConfig:
    """Where jobs live, and how many.

    `presets` is the folder that a preset's scripts are relative to; `checkout` is InfraForge's. At most `max_running`
    jobs run at once; `keep_jobs` finished ones are kept, for `keep_days` each.
    """

    data: Path
    presets: Path
    checkout: Path | None = None
    max_running: int = 4
    keep_jobs: int = 1000
    keep_days: float = 90.0


class JobRunner:
    """All jobs of one data folder, which one server at a time uses; the jobs run in processes of their own.

    `presets` returns the HyperPod presets in force. `on_change` is called for each new job, and for each change of a
    job's status.
    """

    def __init__(
        self,
        config: RunnerConfig,
        watcher: Watcher,
        presets: Callable[[], Mapping[str, HyperPodPreset]],
        tracing: Tracing | None = None,
    ) -> None:
        self.on_change: Callable[[Job], None] = lambda job: None
        self.stacks = StackStore(config.data / "stacks")
        self._config = config
        self._folder = config.data / "jobs"
        self._watcher = watcher
        self._presets = presets
        self._tracing = tracing
        self._scheduler = JobScheduler(watcher, config.max_running, self._on_status_change)
        self._lock: int | None = None
        self._jobs: dict[str, TrackedJob] = {}  # oldest first
        self._last_created_at = datetime.min.replace(tzinfo=UTC)

    # --- start and stop ----------------------------------------------------------------------------

    def start(self) -> None:
        """Lock the data folder, and adopt the jobs in it. Raises DataInUse, OSError."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = try_lock(self._config.data / "lock")
        if self._lock is None:
            raise DataInUse(f"another server keeps its jobs in {self._config.data}")
        jobs = [tracked for tracked in map(_read_job, list_job_directories(self._folder)) if tracked is not None]
        for tracked in sorted(jobs, key=lambda tracked: tracked.job.spec.created_at):
            self._jobs[tracked.job.id] = tracked
            if not tracked.job.is_finished:
                log.info("job_adopted", job_id=tracked.job.id, status=tracked.job.status.status)
                self._scheduler.adopt(tracked)
                self.on_change(tracked.job)
        self._scheduler.start_queued()
        self._remove_expired()

    async def close(self) -> None:
        """Stop watching; the jobs go on."""
        await self._scheduler.close()
        if self._lock is not None:
            os.close(self._lock)

    # --- reading -----------------------------------------------------------------------------------

    def get(self, job_id: str) -> Job:
        """Raises UnknownJob."""
        return self._get_tracked(job_id).job

    def list_jobs(self, limit: int, status: JobState | None = None, before: str | None = None) -> list[Job]:
        """The newest first; with `before`, those that are older than that job. Raises UnknownJob."""
        jobs = [tracked.job for tracked in reversed(self._jobs.values())]
        if before is not None:
            jobs = jobs[jobs.index(self.get(before)) + 1 :]
        return [job for job in jobs if status is None or job.status.status == status][:limit]

    def count_by_state(self) -> Counter[JobState]:
        return Counter(tracked.job.status.status for tracked in self._jobs.values())

    @property
    def free_bytes(self) -> int:
        """Bytes that are free for jobs and their logs; 0 where their folder is gone."""
        try:
            return shutil.disk_usage(self._folder).free
        except OSError:
            return 0

    def log_path(self, job_id: str) -> Path:
        """Raises UnknownJob."""
        return self._get_tracked(job_id).directory.log

    def get_log_follower(self, job_id: str) -> LogFollower:
        """The one live reader of this job's log, shared by all its followers. Raises UnknownJob."""
        tracked = self._get_tracked(job_id)
        if tracked.log_follower is None:
            tracked.log_follower = LogFollower(tracked.directory.log, lambda: tracked.job.is_finished, self._watcher)
        return tracked.log_follower

    def disconnect_log_readers(self, error: ForgelineError) -> None:
        """End all followers of logs with this error; they can go on from their offset later."""
        for tracked in self._jobs.values():
            if tracked.log_follower is not None:
                tracked.log_follower.abort_readers(error)

    @property
    def log_reader_count(self) -> int:
        return sum(tracked.log_follower.readers for tracked in self._jobs.values() if tracked.log_follower is not None)

    # --- submitting and cancelling -----------------------------------------------------------------

    def submit(self, request: JobRequest) -> Job:
        """Queue a new job, or return the one that an earlier request with the same key made.

        Raises UnknownPreset, InvalidRequest, StackLocked, IdempotencyConflict, Unavailable.
        """
        if (duplicate := self._find_duplicate(request)) is not None:
            return duplicate
        context = SubmissionContext(
            self._presets(),
            self._config.presets,
            self._config.checkout,
            self.stacks,
            tuple(self._scheduler.unfinished_jobs),
        )
        submission = KINDS[request.action].submit(request, context)
        spec = self._make_spec(request, submission)
        try:
            directory = JobDirectory.create(
                self._folder, spec, JobStatus(updated_at=spec.created_at), submission.script
            )
        except OSError as error:
            raise Unavailable(f"The job can't be kept: {error.strerror}.") from error
        tracked = self._jobs[spec.job_id] = TrackedJob(directory, directory.read())
        self._scheduler.enqueue(tracked)
        self._on_status_change(tracked)
        self._scheduler.start_queued()
        return tracked.job

    def cancel(self, job_id: str) -> Job:
        """Request a job's end; one that is queued ends at once. Raises UnknownJob, JobFinished, Unavailable."""
        tracked = self._get_tracked(job_id)
        if tracked.job.is_finished:
            raise JobFinished(f"This job has ended already: it is {tracked.job.status.status}.")
        try:
            tracked.directory.request_cancel()
        except OSError as error:
            raise Unavailable(f"The wish to cancel can't be kept: {error.strerror}.") from error
        self._scheduler.cancel_queued(tracked)
        return tracked.job

    def _find_duplicate(self, request: JobRequest) -> Job | None:
        """The job of an earlier request with the same caller, key and action. Raises IdempotencyConflict."""
        if request.idempotency is None:
            return None
        owner, key, body_hash = request.idempotency
        for tracked in self._jobs.values():
            spec = tracked.job.spec
            if spec.idempotency is not None and spec.action == request.action and spec.idempotency[:2] == (owner, key):
                if spec.idempotency[2] != body_hash:
                    raise IdempotencyConflict(f"This Idempotency-Key made job {spec.job_id}, from another request.")
                return tracked.job
        return None

    def _make_spec(self, request: JobRequest, submission: Submission) -> JobSpec:
        # Strictly later than the last one: jobs are ordered by this time, also after a restart.
        self._last_created_at = max(datetime.now(UTC), self._last_created_at + timedelta(microseconds=1))
        rendered = submission.rendered
        return JobSpec(
            job_id=str(uuid.uuid4()),
            action=request.action,
            preset_name=request.preset,
            preset=submission.preset,
            dry_run=request.dry_run,
            region=rendered.region,
            stack_name=rendered.stack_name,
            overrides=submission.overrides,
            variables=rendered.variables,
            names=rendered.names,
            config=rendered.config,
            created_at=self._last_created_at.isoformat(timespec="microseconds"),
            own_script=submission.script is not None,
            checkout=None if self._config.checkout is None else str(self._config.checkout),
            idempotency=request.idempotency,
            trace={} if self._tracing is None else self._tracing.context_headers(),
        )

    # --- the jobs of this folder -------------------------------------------------------------------

    def _get_tracked(self, job_id: str) -> TrackedJob:
        tracked = self._jobs.get(job_id)
        if tracked is None:
            raise UnknownJob(f"There is no job {job_id[:80]!r}; GET /api/hyperpod/jobs lists those that are kept.")
        return tracked

    def _on_status_change(self, tracked: TrackedJob) -> None:
        job, status = tracked.job, tracked.job.status
        log.info(
            "job_status_changed",
            job_id=job.id,
            status=status.status,
            action=job.spec.action,
            preset=job.spec.preset_name,
            phase=status.phase,
            error=status.result.error if status.result else None,
        )
        self.on_change(job)
        if job.is_finished:
            self._remove_expired()

    def _remove_expired(self) -> None:
        config, now = self._config, datetime.now(UTC)
        expired = select_expired(self._jobs.values(), keep_jobs=config.keep_jobs, keep_days=config.keep_days, now=now)
        for tracked in list(expired):
            del self._jobs[tracked.job.id]
            try:
                tracked.directory.remove()
                log.info("job_removed", job_id=tracked.job.id)
            except OSError as error:  # it is read again at the next start
                log.warning("job_removal_failed", job_id=tracked.job.id, error=error.strerror)


def _read_job(directory: JobDirectory) -> TrackedJob | None:
    """None where the directory holds no job that can be run or shown; it is left alone."""
    try:
        job = directory.read()
    except (OSError, msgspec.DecodeError) as error:
        log.warning("job_directory_rejected", path=str(directory.path), error=str(error))
        return None
    if job.id != directory.path.name:  # somebody's copy: a queued one would run twice
        log.warning("job_directory_rejected", path=str(directory.path), error=f"it is a copy of {job.id}")
        return None
    if job.spec.action not in KINDS:  # a later version's
        log.warning("job_directory_rejected", path=str(directory.path), error=f"unknown action {job.spec.action!r}")
        return None
    return TrackedJob(directory, job)
