"""Deploy jobs, as the server sees them: submit, cancel, list, follow, and pick up what an earlier server left."""

from __future__ import annotations

import os
import shutil
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import structlog

from infraforge_runner.directory import JobDirectory, job_directories, take_lock
from infraforge_runner.job import Job, Spec, State, Status
from infraforge_runner.presets import Action, HyperPodPreset, Value
from infraforge_runner.rendering import Rendered, chooses_region, render
from infraforge_runner.stacks import Stack, Stacks
from infraforge_runner.supervision import Kept, Supervision
from infraforge_runner.tail import Tail
from infraforge_runner.watch import Watcher
from infraforge_runner.workspace import check_checkout
from pipeline.errors import (
    ForgelineError,
    IdempotencyConflict,
    InvalidRequest,
    JobFinished,
    StackLocked,
    Unavailable,
    UnknownJob,
    UnknownPreset,
)

if TYPE_CHECKING:
    from pipeline.otel import Tracing

log = structlog.get_logger(__name__)

MAX_SCRIPT = 1_000_000  # bytes


class DataInUse(Exception):
    """Another server keeps its jobs in this folder."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a request asks for. `idempotency` is the caller, their key, and what tells this body from another."""

    action: Action
    preset: str
    dry_run: bool
    overrides: Mapping[str, Any]
    confirm: str | None = None
    idempotency: tuple[str, str, str] | None = None


@dataclass(frozen=True, slots=True)
class Home:
    """Where jobs live, and how many. `presets` is the folder that a preset's scripts are relative to; `checkout`
    InfraForge's; `at_once` jobs run, `keep_jobs` that have finished are kept, for `keep_days` each."""

    data: Path
    presets: Path
    checkout: Path | None = None
    at_once: int = 4
    keep_jobs: int = 1000
    keep_days: float = 90.0


class JobRunner:
    """All jobs of one data folder. One server's at a time; the jobs themselves run in processes of their own.

    `presets` gives the HyperPod presets in force. `on_change` hears of each job that is new, and of each step that
    one makes.
    """

    def __init__(
        self,
        home: Home,
        watcher: Watcher,
        presets: Callable[[], Mapping[str, HyperPodPreset]],
        tracing: Tracing | None = None,
    ) -> None:
        self.on_change: Callable[[Job], None] = lambda job: None
        self.stacks = Stacks(home.data / "stacks")
        self._home = home
        self._folder = home.data / "jobs"
        self._watcher = watcher
        self._presets = presets
        self._tracing = tracing
        self._supervision = Supervision(watcher, home.at_once, self._stepped)
        self._lock: int | None = None
        self._jobs: dict[str, Kept] = {}  # oldest first
        self._last_time = datetime.min.replace(tzinfo=UTC)

    # --- start and stop ----------------------------------------------------------------------------

    def start(self) -> None:
        """Takes the folder, and picks up what is in it. Raises DataInUse, OSError."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = take_lock(self._home.data / "lock")
        if self._lock is None:
            raise DataInUse(f"another server keeps its jobs in {self._home.data}")
        found = [kept for kept in map(_read, job_directories(self._folder)) if kept is not None]
        for kept in sorted(found, key=lambda kept: kept.job.spec.created_at):
            self._jobs[kept.job.id] = kept
            if not kept.job.is_finished:
                log.info("job picked up", job_id=kept.job.id, status=kept.job.status.status)
                self._supervision.pick_up(kept)
                self.on_change(kept.job)
        self._supervision.begin_queued()
        self._forget_old()

    async def close(self) -> None:
        """Stops watching; the jobs go on."""
        await self._supervision.close()
        if self._lock is not None:
            os.close(self._lock)

    # --- what clients ask --------------------------------------------------------------------------

    def get(self, job_id: str) -> Job:
        """Raises UnknownJob."""
        return self._find(job_id).job

    def newest(self, limit: int, status: State | None = None, before: str | None = None) -> list[Job]:
        """The newest first; with `before`, those that are older than that job. Raises UnknownJob."""
        jobs = [kept.job for kept in reversed(self._jobs.values())]
        if before is not None:
            jobs = jobs[jobs.index(self.get(before)) + 1 :]
        return [job for job in jobs if status is None or job.status.status == status][:limit]

    def count(self) -> Counter[State]:
        """How many jobs there are in each state."""
        return Counter(kept.job.status.status for kept in self._jobs.values())

    @property
    def room(self) -> int:
        """Bytes that are free for jobs and their logs; 0 where their folder is gone."""
        try:
            return shutil.disk_usage(self._folder).free
        except OSError:
            return 0

    def log_path(self, job_id: str) -> Path:
        """Raises UnknownJob."""
        return self._find(job_id).directory.log

    def tail(self, job_id: str) -> Tail:
        """The one live reader of this job's log, for all who follow it. Raises UnknownJob."""
        kept = self._find(job_id)
        if kept.tail is None:
            kept.tail = Tail(kept.directory.log, lambda: kept.job.is_finished, self._watcher)
        return kept.tail

    def cut_followers(self, error: ForgelineError) -> None:
        """Ends all who follow a log, with this error; they can go on from their offset later."""
        for kept in self._jobs.values():
            if kept.tail is not None:
                kept.tail.cut(error)

    @property
    def followers(self) -> int:
        return sum(kept.tail.followers for kept in self._jobs.values() if kept.tail is not None)

    def submit(self, order: Order) -> Job:
        """A new job, or the one that a request with the same key has made. It begins when there is room.

        Raises UnknownPreset, InvalidRequest, StackLocked, IdempotencyConflict, Unavailable.
        """
        if (same := self._submitted_before(order)) is not None:
            return same
        preset = self._presets().get(order.preset)
        if preset is None:
            raise UnknownPreset(f"preset: there is no {order.preset[:80]!r}; GET /api/hyperpod/presets lists them.")
        overrides = preset.check_overrides(order.overrides)
        rendered = render(preset, order.preset, overrides)
        if order.action == "destroy":
            rendered = self._as_deployed(rendered, anywhere=not chooses_region(preset, overrides))
        else:
            self._check_names(rendered)
        self._check_confirmed(order, rendered)
        script = self._script_of(order, preset)
        if not order.dry_run:
            if script is None:
                check_checkout(self._home.checkout)
            self._check_free(rendered)
        spec = self._make_spec(order, preset, overrides, rendered, own_script=script is not None)
        try:
            directory = JobDirectory.create(self._folder, spec, Status(updated_at=spec.created_at), script)
        except OSError as error:
            raise Unavailable(f"The job can't be kept: {error.strerror}.") from error
        kept = self._jobs[spec.job_id] = Kept(directory, directory.read())
        self._supervision.enqueue(kept)
        self._stepped(kept)
        self._supervision.begin_queued()
        return kept.job

    def cancel(self, job_id: str) -> Job:
        """Asks a job to stop, at once where it has not begun. Raises UnknownJob, JobFinished, Unavailable."""
        kept = self._find(job_id)
        if kept.job.is_finished:
            raise JobFinished(f"This job has ended already: it is {kept.job.status.status}.")
        try:
            kept.directory.ask_to_cancel()
        except OSError as error:
            raise Unavailable(f"The wish to cancel can't be kept: {error.strerror}.") from error
        self._supervision.withdraw(kept)
        return kept.job

    # --- submitting --------------------------------------------------------------------------------

    def _submitted_before(self, order: Order) -> Job | None:
        if order.idempotency is None:
            return None
        owner, key, body = order.idempotency
        for kept in self._jobs.values():
            spec = kept.job.spec
            if spec.idempotency is not None and spec.action == order.action and spec.idempotency[:2] == (owner, key):
                if spec.idempotency[2] != body:
                    raise IdempotencyConflict(f"This Idempotency-Key made job {spec.job_id}, from another request.")
                return kept.job
        return None

    def _as_deployed(self, rendered: Rendered, *, anywhere: bool) -> Rendered:
        """What the stack was deployed with, and where: the preset may say something else by now.

        `anywhere`: the request leaves the region open. Raises InvalidRequest where that leaves several.
        """
        standing = {stack.region: stack for stack in self.stacks.all() if stack.stack_name == rendered.stack_name}
        if anywhere and len(standing) > 1 and rendered.region not in standing:
            raise InvalidRequest(f"{rendered.stack_name} stands in {' and '.join(standing)}: say in which region.")
        found = standing.get(rendered.region, next(iter(standing.values()), None) if anywhere else None)
        return rendered if found is None else found.rendered

    def _check_names(self, rendered: Rendered) -> None:
        """Two stacks can't bear one name, which AWS would say after half an hour. Raises StackLocked."""
        others: list[Spec | Stack] = [job.spec for job in self._supervision.unfinished if job.holds_stack]
        for other in [*others, *self.stacks.all()]:
            taken = next((name for name in rendered.names if name in other.names), None)
            if taken and other.region == rendered.region and other.stack_name != rendered.stack_name:
                raise StackLocked(
                    f"The {taken} would be made twice: it is part of the stack {other.stack_name} in {other.region}, by"
                    f" job {other.job_id}. Choose another name, or destroy that stack first."
                )

    def _check_confirmed(self, order: Order, rendered: Rendered) -> None:
        if order.action == "destroy" and not order.dry_run and order.confirm != rendered.stack_name:
            raise InvalidRequest(
                f'confirm: expected "{rendered.stack_name}", the name of the stack that this destroys for good.'
            )

    def _check_free(self, rendered: Rendered) -> None:
        wanted = (rendered.region, rendered.stack_name)
        for job in self._supervision.unfinished:
            if job.holds_stack == wanted:
                raise StackLocked(
                    f"Job {job.id} is at work on the stack {rendered.stack_name} in {rendered.region};"
                    " wait for its end, or cancel it."
                )

    def _script_of(self, order: Order, preset: HyperPodPreset) -> bytes | None:
        """The preset's own script, as it is now. None: ours. Raises Unavailable."""
        name = preset.scripts.of(order.action)
        if name is None:
            return None
        root = self._home.presets.resolve()
        try:
            path = (root / name).resolve()
            if not path.is_relative_to(root) or not path.is_file():  # never opened: a pipe would hold the server
                raise Unavailable(f"The preset's script {name} is no file in the folder of presets.")
            script = path.read_bytes() if path.stat().st_size <= MAX_SCRIPT else b""
        except OSError as error:
            raise Unavailable(f"The preset's script {name} can't be read: {error.strerror}.") from error
        except RuntimeError as error:  # how resolve() says it
            raise Unavailable(f"The preset's script {name} is a link that leads to itself.") from error
        if not script:
            raise Unavailable(f"The preset's script {name} is empty, or larger than {MAX_SCRIPT:,} bytes.")
        return script

    def _make_spec(
        self, order: Order, preset: HyperPodPreset, overrides: dict[str, Value], rendered: Rendered, *, own_script: bool
    ) -> Spec:
        # Strictly later than the last: it is by this that jobs are ordered, also after a restart.
        self._last_time = max(datetime.now(UTC), self._last_time + timedelta(microseconds=1))
        return Spec(
            job_id=str(uuid.uuid4()),
            action=order.action,
            preset_name=order.preset,
            preset=preset,
            dry_run=order.dry_run,
            region=rendered.region,
            stack_name=rendered.stack_name,
            overrides=overrides,
            variables=rendered.variables,
            names=rendered.names,
            config=rendered.config,
            created_at=self._last_time.isoformat(timespec="microseconds"),
            own_script=own_script,
            checkout=None if self._home.checkout is None else str(self._home.checkout),
            idempotency=order.idempotency,
            trace={} if self._tracing is None else self._tracing.carrier(),
        )

    # --- keeping -----------------------------------------------------------------------------------

    def _find(self, job_id: str) -> Kept:
        kept = self._jobs.get(job_id)
        if kept is None:
            raise UnknownJob(f"There is no job {job_id[:80]!r}; GET /api/hyperpod/jobs lists those that are kept.")
        return kept

    def _stepped(self, kept: Kept) -> None:
        job, result = kept.job, kept.job.status.result
        log.info("job", **_told(job), phase=job.status.phase, error=result.error if result else None)
        self.on_change(job)
        if job.is_finished:
            self._forget_old()

    def _forget_old(self) -> None:
        """Removes finished jobs beyond what is to be kept, the oldest first."""
        finished = [kept for kept in self._jobs.values() if kept.job.is_finished]
        oldest = (datetime.now(UTC) - timedelta(days=self._home.keep_days)).isoformat()
        excess = len(finished) - self._home.keep_jobs
        for number, kept in enumerate(finished):
            if (number < excess or kept.job.spec.created_at < oldest) and not kept.is_in_use:
                del self._jobs[kept.job.id]
                try:
                    kept.directory.remove()
                    log.info("job forgotten", job_id=kept.job.id)
                except OSError as error:  # it is read again at the next start
                    log.warning("a job can't be removed", job_id=kept.job.id, error=error.strerror)


def _told(job: Job) -> dict[str, Any]:
    """What the log says of a job."""
    spec = job.spec
    return {"job_id": job.id, "status": job.status.status, "action": spec.action, "preset": spec.preset_name}


def _read(directory: JobDirectory) -> Kept | None:
    try:
        job = directory.read()
    except (OSError, msgspec.DecodeError) as error:
        log.warning("this is no job", path=str(directory.path), error=str(error))
        return None
    if job.id != directory.path.name:  # somebody's copy: a queued one would run twice
        log.warning("this is no job", path=str(directory.path), error=f"it is a copy of {job.id}")
        return None
    return Kept(directory, job)
