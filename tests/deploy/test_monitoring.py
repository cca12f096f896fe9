"""The shipped alerts and dashboard, held to what /metrics serves, to the runbook, and to a real Prometheus."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.aio import asynchronous, unhurried
from tests.deploy.rules import (
    DASHBOARD,
    PROMETHEUS,
    RULES,
    alerts,
    asked_by,
    dashboard_queries,
    label_queries,
    panels,
)
from tests.jobs import ended, submit, write_hyperpod
from tests.processes import ROOT, Process, running
from tests.server.scraping import Numbers, scrape
from tests.serving import says, serving, write_presets

HI = {"text": "hi"}
MODELS = {"m": says("say:Hello there; usage:3,4"), "bad": says("fail:model_error")}
CASES = ROOT / "tests" / "deploy" / "forgeline-rules_test.yml"


def names_of(numbers: Numbers) -> dict[str, set[str]]:
    """The names of samples that a scrape has, or could have had, and the labels of those that it has."""
    found: dict[str, set[str]] = {}
    for family in numbers.families:
        ends = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"], "gauge": [""]}[family.type]
        labels = {label for sample in family.samples for label in sample.labels}
        found |= {family.name + end: labels for end in ends}
    return found


@asynchronous
async def test_every_metric_in_an_alert_or_on_the_dashboard_is_served_with_its_labels(tmp_path: Path) -> None:
    write_hyperpod(tmp_path / "presets", deploy="true")
    async with serving(tmp_path, models=MODELS) as server:
        for model in MODELS:
            await server.post(f"/api/models/{model}", HI)
        await ended(server, (await submit(server))["job_id"])
        served = names_of(await scrape(server)) | {"up": set()}
    expressions = [rule["expr"] for rule in alerts().values()] + label_queries()
    expressions += [query for queries in dashboard_queries().values() for query in queries]
    assert len(expressions) > 40
    for expression in expressions:
        asked = asked_by(expression)
        assert asked, expression
        for name, labels in asked:
            assert name in served, f"{name}, in {expression}"
            assert labels <= (served[name] or labels), f"{labels - served[name]}, in {expression}"


def test_every_alert_has_an_entry_in_the_runbook_and_a_case_and_nothing_else_has() -> None:
    runbook = (ROOT / "docs" / "RUNBOOK.md").read_text()
    assert re.findall(r"^## (Forgeline\w+)$", runbook, re.MULTILINE) == list(alerts())
    cases = yaml.safe_load(CASES.read_text())["tests"]
    named = [check["alertname"] for case in cases for check in case["alert_rule_test"]]
    assert sorted(set(named)) == sorted(alerts())
    for name, rule in alerts().items():
        assert set(rule["annotations"]) == {"summary"}, name
        assert rule["labels"]["severity"] in {"page", "ticket"}, name


def test_an_entry_of_the_runbook_says_what_it_means_and_what_to_do() -> None:
    entries = (ROOT / "docs" / "RUNBOOK.md").read_text().split("\n## ")[1:]
    for entry in entries:
        assert [word for word in ("**Means**", "**Look**", "**Do**") if word not in entry] == [], entry.split("\n")[0]


def test_grafanas_own_types_take_the_dashboard_and_lose_nothing_of_it() -> None:
    register_default_plugins()
    shipped = json.loads(DASHBOARD.read_text())
    read = json.loads(JSONEncoder(sort_keys=True).encode(Dashboard.from_json(shipped)))
    assert list(lost(shipped, read)) == []


def lost(shipped: Any, read: Any, path: str = "") -> Any:
    """The paths of what is in the first and not, or otherwise, in the second."""
    if isinstance(shipped, dict) and isinstance(read, dict):
        for key, value in shipped.items():
            yield from lost(value, read.get(key), f"{path}.{key}")
    elif isinstance(shipped, list) and isinstance(read, list) and len(shipped) == len(read):
        for at, (one, other) in enumerate(zip(shipped, read, strict=True)):
            yield from lost(one, other, f"{path}[{at}]")
    elif shipped != read:
        yield f"{path}: {shipped!r} became {read!r}"


def test_the_dashboard_s_panels_have_numbers_and_places_of_their_own() -> None:
    shipped = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in shipped}) == len(shipped)
    taken: set[tuple[int, int]] = set()
    for panel in shipped:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24, panel["title"]
        assert not cells & taken, panel["title"]
        taken |= cells
    assert all(target["legendFormat"] for panel in panels() for target in panel["targets"])


# --- Prometheus itself -----------------------------------------------------------------------------


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@pytest.mark.slow
@pytest.mark.parametrize("command", [["check", "rules", RULES], ["test", "rules", CASES]], ids=["check", "cases"])
def test_promtool_finds_no_fault_in_the_alerts(command: list[Any]) -> None:
    told = subprocess.run([tool("promtool"), *command], capture_output=True, text=True, check=False, cwd=CASES.parent)
    assert told.returncode == 0, told.stdout + told.stderr


class Prometheus:
    def __init__(self, url: str, http: aiohttp.ClientSession) -> None:
        self.url = url
        self.http = http

    async def ask(self, path: str, **parameters: str) -> Any:
        async with self.http.get(f"{self.url}/api/v1/{path}", params=parameters) as response:
            told = await response.json()
            assert told["status"] == "success", (parameters, told)
            return told["data"]

    async def query(self, expression: str) -> list[Any]:
        result: list[Any] = (await self.ask("query", query=expression))["result"]
        return result

    async def is_ready(self) -> bool:
        try:
            async with self.http.get(self.url + "/-/ready") as response:
                return response.status == 200
        except aiohttp.ClientConnectionError:
            return False

    async def is_up(self) -> bool:
        return [sample["value"][1] for sample in await self.query('up{job="forgeline"}')] == ["1"]

    async def shows(self, queries: list[str]) -> bool:
        """Whether each of them has an answer."""
        return all([await self.query(query) for query in queries])

    async def has(self, alert: str, state: str) -> bool:
        """Whether this alert is firing, pending, or inactive."""
        told = await self.ask("rules")
        return state in [rule["state"] for group in told["groups"] for rule in group["rules"] if rule["name"] == alert]


def _configure(folder: Path, server: Process, key: str) -> None:
    folder.mkdir()
    (folder / "key").write_text(key)
    text = (PROMETHEUS / "prometheus.yml").read_text()
    for shipped, here in (
        ("127.0.0.1:5000", server.url.removeprefix("http://")),
        ("/etc/prometheus/forgeline.key", str(folder / "key")),
        ("_interval: 15s", "_interval: 1s"),
    ):
        assert shipped in text
        text = text.replace(shipped, here)
    (folder / "prometheus.yml").write_text(text)
    shutil.copy(RULES, folder)


@asynccontextmanager
async def prometheus(folder: Path, server: Process, key: str) -> AsyncIterator[Prometheus]:
    """With the shipped configuration, but that it looks each second."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    _configure(folder, server, key)
    child = await asyncio.create_subprocess_exec(
        *(tool("prometheus"), "--config.file=prometheus.yml", "--storage.tsdb.path=db"),
        *(f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"),
        cwd=folder,
    )
    try:
        async with aiohttp.ClientSession() as http:
            asked = Prometheus(f"http://127.0.0.1:{port}", http)
            await until_so(asked.is_ready)
            yield asked
    finally:
        with suppress(ProcessLookupError):
            child.terminate()
        await child.wait()


async def until_so(holds: Callable[[], Awaitable[object]]) -> None:
    """Returns when this holds: a process of its own tells nobody."""
    while not await holds():  # noqa: ASYNC110 - as said
        await asyncio.sleep(0.1)


@pytest.mark.slow
@unhurried
async def test_a_real_prometheus_scrapes_it_answers_every_panel_and_raises_alerts(tmp_path: Path) -> None:
    tool("prometheus")
    write_hyperpod(tmp_path / "presets", deploy="exit 3")
    environ = {"FORGELINE_API_KEYS": "secret-key"}
    async with running(tmp_path, models=MODELS, environ=environ) as server:
        server.http.headers["X-API-Key"] = "secret-key"
        async with prometheus(tmp_path / "prometheus", server, "secret-key") as asked:
            await until_so(asked.is_up)
            write_presets(tmp_path / "presets", {"new": says("echo")})
            await ended(server, (await submit(server))["job_id"])
            asking = asyncio.create_task(ask_on(server))
            for queries in dashboard_queries().values():
                await until_so(partial(asked.shows, queries))
            asking.cancel()
            await until_so(partial(asked.has, "ForgelineJobFailed", "firing"))
            assert await asked.has("ForgelineDown", "inactive")
            await server.stopped()
            await until_so(partial(asked.has, "ForgelineDown", "pending"))


async def ask_on(server: Process) -> None:
    while True:
        for model in MODELS:
            async with server.http.post(f"{server.url}/api/models/{model}", json=HI) as response:
                await response.read()
        await asyncio.sleep(0.1)
