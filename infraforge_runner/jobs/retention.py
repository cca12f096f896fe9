"""Which finished jobs are removed, so that a data folder does not grow without bound."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

from infraforge_runner.jobs.scheduler import TrackedJob


def select_expired(
    jobs: Iterable[TrackedJob], *, keep_jobs: int, keep_days: float, now: datetime
) -> Iterator[TrackedJob]:
    """The finished jobs beyond the newest `keep_jobs`, and those older than `keep_days`, unless they are in use.

    `jobs` are ordered from the oldest to the newest.
    """
    finished = [tracked for tracked in jobs if tracked.job.is_finished]
    oldest = (now - timedelta(days=keep_days)).isoformat()
    excess = len(finished) - keep_jobs
    for number, tracked in enumerate(finished):
        if (number < excess or tracked.job.spec.created_at < oldest) and not tracked.is_in_use:
            yield tracked
