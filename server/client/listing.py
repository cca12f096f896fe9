"""What there is: models, presets, stacks, jobs. A table for a person, the server's own answer as JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from server.client.api import Api, Request
from server.client.errors import OK
from server.client.following import Patience, insist
from server.client.output import Output

Item = Mapping[str, Any]


@dataclass(frozen=True)
class Listing:
    """`key` is where the answer holds the list; a column is a heading and what stands under it."""

    path: str
    key: str
    none: str
    columns: Mapping[str, Callable[[Item], object]]

    async def show(self, api: Api, output: Output, patience: Patience, params: Mapping[str, str] | None = None) -> int:
        answer = await insist(api, Request("GET", self.path, params or {}), patience)
        if output.json:
            output.document(answer)
        elif items := answer[self.key]:
            output.table(list(self.columns), [[value(item) for value in self.columns.values()] for item in items])
        else:
            output.say(self.none)
        return OK


def _of(key: str) -> Callable[[Item], object]:
    return lambda item: item.get(key)


def _names(key: str) -> Callable[[Item], object]:
    """Of a mapping, the names of what is there: a capability that a model has not is there as false."""

    def join(item: Item) -> str:
        found: Mapping[str, object] = item.get(key) or {}
        return " ".join(name for name, value in found.items() if value is not False)

    return join


def _minute(key: str) -> Callable[[Item], object]:
    """Of a time, what a person reads."""
    return lambda item: str(item.get(key) or "")[:16].replace("T", " ")


MODELS = Listing(
    "/api/models",
    "models",
    "The server has no models.",
    {
        "name": _of("name"),
        "provider": _of("provider"),
        "status": _of("availability"),
        "takes": _names("capabilities"),
        "why": _of("reason"),
    },
)
PRESETS = Listing(
    "/api/hyperpod/presets",
    "catalogue",
    "The server has no presets for deploys.",
    {
        "name": _of("name"),
        "description": _of("description"),
        "overrides": _names("overrides"),
    },
)
STACKS = Listing(
    "/api/hyperpod/stacks",
    "stacks",
    "No deploy has left a stack standing.",
    {
        "stack": _of("stack_name"),
        "region": _of("region"),
        "preset": _of("preset"),
        "status": _of("state"),
        "since": _minute("since"),
        "serves": _of("serves"),
        "job": _of("job_id"),
    },
)
JOBS = Listing(
    "/api/hyperpod/jobs",
    "jobs",
    "There are no jobs.",
    {
        "job": _of("job_id"),
        "what": lambda item: f"{item['action']} {item['preset']}" + " (dry run)" * item["dry_run"],
        "status": _of("status"),
        "stack": _of("stack_name"),
        "begun": _minute("created_at"),
    },
)
