"""`batch`: every line of a file answered once, however often that is begun anew."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from server.client import batchline
from server.client.api import Api, Request
from server.client.batchfile import Line, Records, check_apart, count_lines, read_lines
from server.client.errors import FAILED, OK, ClientError, Lost, Misused, Refused, Unreachable
from server.client.following import Patience, jittered
from server.client.output import Output
from server.client.progress import BatchBar

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0  # seconds before a line is tried again, where the server names no time


@dataclass(frozen=True)
class Plan:
    """`model` None: each line names its own. `timeout`: seconds for one answer. `retries`: for each line."""

    source: Path
    target: Path
    model: str | None
    concurrency: int
    retries: int
    timeout: float
    retry_failed: bool


async def batch(api: Api, output: Output, plan: Plan, patience: Patience) -> int:
    """Answers the lines that have no record yet. FAILED where a line has failed, now or before."""
    check_apart(plan.source, plan.target)
    await _check(api, plan.model)
    patience.is_there()
    total = count_lines(plan.source)
    with Records(plan.target, drop_failed=plan.retry_failed) as records:
        before = records.done.count
        if before:
            output.say(f"{before} of {total} lines are done already; going on with the rest")
        with BatchBar(output, total, before, records.done.failed) as bar:
            run = _Run(api, plan, patience, records, bar)
            try:
                await run.through(line for line in read_lines(plan.source) if not records.done.has(line))
            except (asyncio.CancelledError, Unreachable):
                output.say(f"stopped with {records.done.count} of {total} lines done; the same command goes on there")
                raise
        return _conclude(output, plan, total, before, records)


async def _check(api: Api, model: str | None) -> None:
    """Says at once what would be wrong with every line."""
    names = [known["name"] for known in (await api.get("/api/models"))["models"]]
    if model is not None and model not in names:
        raise Misused(f"The server has no model {model!r}; it has {', '.join(names) or 'none'}.")


def _conclude(output: Output, plan: Plan, total: int, before: int, records: Records) -> int:
    failed = records.done.failed
    if output.json:
        output.document({"lines": total, "answered": total - failed, "failed": failed, "done_before": before})
    else:
        hint = f"; --retry-failed tries those again; see {plan.target}" if failed else ""
        output.say(f"{total} lines: {total - failed} answered, {failed} failed{hint}")
    return FAILED if failed else OK


class _Run:
    """One run over the lines, by so many workers as requests may be under way."""

    def __init__(self, api: Api, plan: Plan, patience: Patience, records: Records, bar: BatchBar) -> None:
        self._api = api
        self._plan = plan
        self._patience = patience
        self._records = records
        self._bar = bar

    async def through(self, lines: Iterator[Line]) -> None:
        workers = [asyncio.create_task(self._work(lines)) for _ in range(self._plan.concurrency)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def _work(self, lines: Iterator[Line]) -> None:
        for line in lines:
            record = await self._record(line)
            self._records.append(line, record)
            self._bar.advance(failed=record.get("error") is not None)

    async def _record(self, line: Line) -> dict[str, Any]:
        try:
            question = batchline.read(line.content, self._plan.model)
        except batchline.WrongLine as error:
            return batchline.wrong(line.content, error)
        try:
            return question.answered(await self._answer(question.request))
        except (Refused, Lost) as error:
            if isinstance(error, Refused) and error.status in (401, 403):  # so would be every other line
                raise
            return question.failed(error)

    async def _answer(self, request: Request) -> Any:
        """The answer, after as many attempts as allowed. A server that is not there at all does not count as one."""
        tried = 0
        while True:
            try:
                answer = await self._api.ask(request, self._plan.timeout)
                self._patience.is_there()
                return answer
            except (Refused, Lost) as error:
                if isinstance(error, Refused):
                    self._patience.is_there()
                if tried >= self._plan.retries or not _may_pass(error):
                    raise
                await asyncio.sleep(_pause(error, tried))
                tried += 1
            except Unreachable as error:
                await self._patience.wait(error)


def _may_pass(error: ClientError) -> bool:
    """Whether the same request may well be answered later."""
    if not isinstance(error, Refused):
        return True
    return error.code != "model_not_deployed" and error.status in (408, 429, 500, 502, 503, 504)


def _pause(error: ClientError, tried: int) -> float:
    """Seconds. Never less than the server asked for."""
    if isinstance(error, Refused) and error.retry_after is not None:
        return error.retry_after + random.uniform(0, max(1.0, error.retry_after / 4))  # noqa: S311 - jitter
    return jittered(min(FIRST_PAUSE * 2**tried, LONGEST_PAUSE))
