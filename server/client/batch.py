"""`forgeline batch`: answer every line of a file exactly once, over any number of runs."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from server.client.api import ApiClient, Request
from server.client.batch_files import BatchOutput, InputLine, check_distinct, count_lines, read_lines
from server.client.batch_lines import InvalidLine, invalid_line_record, parse_line
from server.client.errors import (
    FAILED,
    OK,
    ApiError,
    ClientError,
    ConnectionLost,
    ServerUnreachable,
    UsageError,
)
from server.client.output import Output
from server.client.progress import BatchProgressBar
from server.client.reconnect import ReconnectPolicy, add_jitter

INITIAL_RETRY_DELAY, MAX_RETRY_DELAY = 0.5, 60.0  # seconds until a line is retried, without a Retry-After


@dataclass(frozen=True)
class BatchOptions:
    """`model` None: each line names its own. `timeout`: seconds for one answer. `retries`: per line."""

    source: Path
    target: Path
    model: str | None
    concurrency: int
    retries: int
    timeout: float
    retry_failed: bool


async def run_batch(api: ApiClient, output: Output, options: BatchOptions, reconnect: ReconnectPolicy) -> int:
    """Answer the lines that have no record yet. Returns FAILED if any line failed, in this run or an earlier one."""
    check_distinct(options.source, options.target)
    await _check_model(api, options.model)
    reconnect.mark_connected()
    total = count_lines(options.source)
    with BatchOutput(options.target, drop_failed=options.retry_failed) as records:
        completed_before = records.completed.count
        if completed_before:
            output.print_message(f"{completed_before} of {total} lines are done already; going on with the rest")
        with BatchProgressBar(output, total, completed_before, records.completed.failed) as bar:
            run = _BatchRun(api, options, reconnect, records, bar)
            try:
                await run.process(line for line in read_lines(options.source) if not records.completed.has(line))
            except (asyncio.CancelledError, ServerUnreachable):
                output.print_message(
                    f"stopped with {records.completed.count} of {total} lines done; the same command goes on there"
                )
                raise
        failed = records.completed.failed
    if output.json:
        answered = total - failed
        output.write_json({"lines": total, "answered": answered, "failed": failed, "done_before": completed_before})
    else:
        hint = f"; --retry-failed tries those again; see {options.target}" if failed else ""
        output.print_message(f"{total} lines: {total - failed} answered, {failed} failed{hint}")
    return FAILED if failed else OK


async def _check_model(api: ApiClient, model: str | None) -> None:
    """Fail early on what would fail every line: no server, no valid key, no such model. Raises ClientError."""
    names = [item["name"] for item in (await api.get("/api/models"))["models"]]
    if model is not None and model not in names:
        raise UsageError(f"The server has no model {model!r}; it has {', '.join(names) or 'none'}.")


class _BatchRun:
    """One run over the lines, with `concurrency` tasks."""

    def __init__(
        self,
        api: ApiClient,
        options: BatchOptions,
        reconnect: ReconnectPolicy,
        records: BatchOutput,
        bar: BatchProgressBar,
    ) -> None:
        self._api = api
        self._options = options
        self._reconnect = reconnect
        self._records = records
        self._bar = bar

    async def process(self, lines: Iterator[InputLine]) -> None:
        tasks = [asyncio.create_task(self._process_lines(lines)) for _ in range(self._options.concurrency)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _process_lines(self, lines: Iterator[InputLine]) -> None:
        """Take lines from an iterator that all tasks share."""
        for line in lines:
            record = await self._create_record(line)
            self._records.append(line, record)
            self._bar.advance(failed=record.get("error") is not None)

    async def _create_record(self, line: InputLine) -> dict[str, Any]:
        try:
            batch_line = parse_line(line.content, self._options.model)
        except InvalidLine as error:
            return invalid_line_record(line.content, error)
        try:
            return batch_line.success_record(await self._send_with_retry(batch_line.request))
        except (ApiError, ConnectionLost) as error:
            if isinstance(error, ApiError) and error.status in (401, 403):  # every other line would fail too
                raise
            return batch_line.error_record(error)

    async def _send_with_retry(self, request: Request) -> Any:
        """Send a request up to 1 + `retries` times. While the server is unreachable no attempt is counted."""
        retries = 0
        while True:
            try:
                response = await self._api.send(request, self._options.timeout)
                self._reconnect.mark_connected()
                return response
            except (ApiError, ConnectionLost) as error:
                if isinstance(error, ApiError):
                    self._reconnect.mark_connected()
                if retries >= self._options.retries or not _is_retryable(error):
                    raise
                await asyncio.sleep(_retry_delay(error, retries))
                retries += 1
            except ServerUnreachable as error:
                await self._reconnect.wait_before_retry(error)


def _is_retryable(error: ClientError) -> bool:
    """Whether the same request may succeed later."""
    if not isinstance(error, ApiError):
        return True
    return error.code != "model_not_deployed" and error.status in (408, 429, 500, 502, 503, 504)


def _retry_delay(error: ClientError, retries: int) -> float:
    """Seconds; never less than the server's Retry-After."""
    if isinstance(error, ApiError) and error.retry_after is not None:
        return error.retry_after + random.uniform(0, max(1.0, error.retry_after / 4))  # noqa: S311 - jitter
    return add_jitter(min(INITIAL_RETRY_DELAY * 2**retries, MAX_RETRY_DELAY))
