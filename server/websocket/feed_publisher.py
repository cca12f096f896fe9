"""Publishes changes of jobs, presets and models to the change feed, and takes snapshots of them."""

from __future__ import annotations

import asyncio
from collections.abc import Set
from typing import Any

from infraforge_runner.jobs.model import Job
from infraforge_runner.runner import JobRunner
from pipeline.events.feed import Feed
from pipeline.presets.store import PresetChange
from pipeline.runtime import Runtime
from server.inference.recent_answers import RecentAnswers
from server.inference.views import describe_change, describe_model, list_models, list_presets

MAX_SNAPSHOT_JOBS = 100  # the newest ones; GET /api/hyperpod/jobs has them all


class FeedPublisher:
    """The only writer of `feed`. Topics are `jobs`, `presets` and `models`."""

    def __init__(self, runtime: Runtime, jobs: JobRunner, recent_answers: RecentAnswers) -> None:
        self.feed = Feed()
        self._runtime = runtime
        self._jobs = jobs
        self._recent_answers = recent_answers
        self._tasks: set[asyncio.Task[None]] = set()

    def publish_job(self, job: Job) -> None:
        self.feed.append("jobs", {"type": "job", **job.describe()})

    def publish_preset_change(self, change: PresetChange) -> None:
        self.feed.append("presets", {"type": "preset", **describe_change(change)})

    async def publish_model(self, model: str) -> None:
        """Publish the model's state as it is now."""
        self.feed.append(
            "models", {"type": "model", **await describe_model(self._runtime, self._recent_answers, model)}
        )

    def publish_model_soon(self, model: str) -> None:
        task = asyncio.create_task(self.publish_model(model), name=f"publish model {model}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def snapshot(self, topics: Set[str]) -> dict[str, Any]:
        """The message with which a subscription to these topics begins."""
        message: dict[str, Any] = {"type": "snapshot"}
        if "presets" in topics:
            message["presets"] = list_presets(self._runtime.store.snapshot)
        if "models" in topics:
            message["models"] = await list_models(self._runtime, self._recent_answers)
        if "jobs" in topics:
            message["jobs"] = [job.summarize() for job in self._jobs.list_jobs(MAX_SNAPSHOT_JOBS)]
        return message
