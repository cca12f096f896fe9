"""Tables of models, presets, stacks and jobs; with `--json`, the server's response unchanged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from server.client.api import ApiClient, Request
from server.client.errors import OK
from server.client.output import Output
from server.client.reconnect import ReconnectPolicy, request_with_retry

Item = Mapping[str, Any]


@dataclass(frozen=True)
class ResourceTable:
    """One address that lists resources. `list_key` names the list in the response; `columns` maps heading to cell."""

    path: str
    list_key: str
    empty_message: str
    columns: Mapping[str, Callable[[Item], object]]

    async def show(
        self, api: ApiClient, output: Output, reconnect: ReconnectPolicy, params: Mapping[str, str] | None = None
    ) -> int:
        response = await request_with_retry(api, Request("GET", self.path, params or {}), reconnect)
        if output.json:
            output.write_json(response)
        elif items := response[self.list_key]:
            output.print_table(list(self.columns), [[cell(item) for cell in self.columns.values()] for item in items])
        else:
            output.print_message(self.empty_message)
        return OK


def _field(key: str) -> Callable[[Item], object]:
    return lambda item: item.get(key)


def _enabled_keys(key: str) -> Callable[[Item], object]:
    """The keys of a mapping whose value is not false, which is how a missing capability is listed."""

    def join(item: Item) -> str:
        mapping: Mapping[str, object] = item.get(key) or {}
        return " ".join(name for name, value in mapping.items() if value is not False)

    return join


def _timestamp(key: str) -> Callable[[Item], object]:
    """A time to the minute: `2026-01-31 12:00`."""
    return lambda item: str(item.get(key) or "")[:16].replace("T", " ")


MODELS = ResourceTable(
    "/api/models",
    "models",
    "The server has no models.",
    {
        "name": _field("name"),
        "provider": _field("provider"),
        "status": _field("availability"),
        "takes": _enabled_keys("capabilities"),
        "why": _field("reason"),
    },
)
PRESETS = ResourceTable(
    "/api/hyperpod/presets",
    "catalogue",
    "The server has no presets for deploys.",
    {
        "name": _field("name"),
        "description": _field("description"),
        "overrides": _enabled_keys("overrides"),
    },
)
STACKS = ResourceTable(
    "/api/hyperpod/stacks",
    "stacks",
    "No deploy has left a stack standing.",
    {
        "stack": _field("stack_name"),
        "region": _field("region"),
        "preset": _field("preset"),
        "status": _field("state"),
        "since": _timestamp("since"),
        "serves": _field("serves"),
        "job": _field("job_id"),
    },
)
JOBS = ResourceTable(
    "/api/hyperpod/jobs",
    "jobs",
    "There are no jobs.",
    {
        "job": _field("job_id"),
        "what": lambda item: f"{item['action']} {item['preset']}" + " (dry run)" * item["dry_run"],
        "status": _field("status"),
        "stack": _field("stack_name"),
        "begun": _timestamp("created_at"),
    },
)
