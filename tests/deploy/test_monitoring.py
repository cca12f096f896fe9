"""The shipped alerts and dashboard match /metrics and the runbook, and work in a real Prometheus."""

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

from pipeline.presets.pipeline import DEFAULT_STAGES
from tests.async_tests import async_test, slow_async_test
from tests.deploy.rules import (
    DASHBOARD,
    PROMETHEUS,
    RULES,
    alerts,
    dashboard_queries,
    label_queries,
    metric_references,
    panels,
)
from tests.jobs import submit, wait_for_job, write_hyperpod_preset
from tests.processes import ROOT, ServerProcess, running_process
from tests.running_server import running_server, scripted_model, write_presets
from tests.server.observability.scraping import Samples, scrape

HI = {"text": "hi"}
MODELS = {"m": scripted_model("say:Hello there; usage:3,4"), "bad": scripted_model("fail:model_error")}
CASES = ROOT / "tests" / "deploy" / "forgeline-rules_test.yml"


def sample_labels(numbers: Samples) -> dict[str, set[str]]:
    """The labels of all samples of a scrape by name; an empty set for a metric without samples."""
    labels_by_name: dict[str, set[str]] = {}
    for family in numbers.families:
        suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"], "gauge": [""]}[family.type]
        labels = {label for sample in family.samples for label in sample.labels}
        labels_by_name |= {family.name + end: labels for end in suffixes}
    return labels_by_name


@async_test
async def test_alerts_and_dashboard_use_served_metrics_and_labels(tmp_path: Path) -> None:
    write_hyperpod_preset(tmp_path / "presets", deploy="true")
    async with running_server(tmp_path, models=MODELS, stages=list(DEFAULT_STAGES)) as server:
        for model in MODELS:
            await server.post(f"/api/models/{model}", HI)
        await wait_for_job(server, (await submit(server))["job_id"])
        served = sample_labels(await scrape(server)) | {"up": set()}
    expressions = [rule["expr"] for rule in alerts().values()] + label_queries()
    expressions += [query for queries in dashboard_queries().values() for query in queries]
    assert len(expressions) > 40
    for expression in expressions:
        references = metric_references(expression)
        assert references, expression
        for name, labels in references:
            assert name in served, f"{name}, in {expression}"
            assert labels <= (served[name] or labels), f"{labels - served[name]}, in {expression}"


def test_every_alert_has_runbook_entry_and_rule_test() -> None:
    runbook = (ROOT / "docs" / "RUNBOOK.md").read_text()
    assert re.findall(r"^## (Forgeline\w+)$", runbook, re.MULTILINE) == list(alerts())
    cases = yaml.safe_load(CASES.read_text())["tests"]
    tested = [check["alertname"] for case in cases for check in case["alert_rule_test"]]
    assert sorted(set(tested)) == sorted(alerts())
    for name, rule in alerts().items():
        assert set(rule["annotations"]) == {"summary"}, name
        assert rule["labels"]["severity"] in {"page", "ticket"}, name


def test_runbook_entries_have_means_look_and_do() -> None:
    entries = (ROOT / "docs" / "RUNBOOK.md").read_text().split("\n## ")[1:]
    for entry in entries:
        assert [word for word in ("**Means**", "**Look**", "**Do**") if word not in entry] == [], entry.split("\n")[0]


def test_dashboard_round_trips_through_grafana_types() -> None:
    register_default_plugins()
    shipped = json.loads(DASHBOARD.read_text())
    round_tripped = json.loads(JSONEncoder(sort_keys=True).encode(Dashboard.from_json(shipped)))
    assert list(find_differences(shipped, round_tripped)) == []


def find_differences(shipped: Any, round_tripped: Any, path: str = "") -> Any:
    """The paths at which the second value lacks or changes something of the first."""
    if isinstance(shipped, dict) and isinstance(round_tripped, dict):
        for key, value in shipped.items():
            yield from find_differences(value, round_tripped.get(key), f"{path}.{key}")
    elif isinstance(shipped, list) and isinstance(round_tripped, list) and len(shipped) == len(round_tripped):
        for index, (first, second) in enumerate(zip(shipped, round_tripped, strict=True)):
            yield from find_differences(first, second, f"{path}[{index}]")
    elif shipped != round_tripped:
        yield f"{path}: {shipped!r} became {round_tripped!r}"


def test_dashboard_panels_have_unique_ids_and_cells() -> None:
    shipped = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in shipped}) == len(shipped)
    taken: set[tuple[int, int]] = set()
    for panel in shipped:
        position = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(position["x"], position["x"] + position["w"])
            for y in range(position["y"], position["y"] + position["h"])
        }
        assert position["x"] + position["w"] <= 24, panel["title"]
        assert not cells & taken, panel["title"]
        taken |= cells
    assert all(target["legendFormat"] for panel in panels() for target in panel["targets"])


# --- Prometheus itself -----------------------------------------------------------------------------


def require_tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


@pytest.mark.slow
@pytest.mark.parametrize("command", [["check", "rules", RULES], ["test", "rules", CASES]], ids=["check", "cases"])
def test_promtool_accepts_alerts(command: list[Any]) -> None:
    result = subprocess.run(
        [require_tool("promtool"), *command], capture_output=True, text=True, check=False, cwd=CASES.parent
    )
    assert result.returncode == 0, result.stdout + result.stderr


class Prometheus:
    def __init__(self, url: str, http: aiohttp.ClientSession) -> None:
        self.url = url
        self.http = http

    async def get(self, path: str, **parameters: str) -> Any:
        async with self.http.get(f"{self.url}/api/v1/{path}", params=parameters) as response:
            result = await response.json()
            assert result["status"] == "success", (parameters, result)
            return result["data"]

    async def query(self, expression: str) -> list[Any]:
        result: list[Any] = (await self.get("query", query=expression))["result"]
        return result

    async def is_ready(self) -> bool:
        try:
            async with self.http.get(self.url + "/-/ready") as response:
                return response.status == 200
        except aiohttp.ClientConnectionError:
            return False

    async def is_up(self) -> bool:
        return [sample["value"][1] for sample in await self.query('up{job="forgeline"}')] == ["1"]

    async def has_data(self, queries: list[str]) -> bool:
        """Whether every query has a result."""
        return all([await self.query(query) for query in queries])

    async def alert_has_state(self, alert: str, state: str) -> bool:
        """Whether an alert is in a state: firing, pending or inactive."""
        result = await self.get("rules")
        return state in [
            rule["state"] for group in result["groups"] for rule in group["rules"] if rule["name"] == alert
        ]


def _write_configuration(folder: Path, server: ServerProcess, key: str) -> None:
    folder.mkdir()
    (folder / "key").write_text(key)
    text = (PROMETHEUS / "prometheus.yml").read_text()
    for shipped, replacement in (
        ("127.0.0.1:5000", server.url.removeprefix("http://")),
        ("/etc/prometheus/forgeline.key", str(folder / "key")),
        ("_interval: 15s", "_interval: 1s"),
    ):
        assert shipped in text
        text = text.replace(shipped, replacement)
    (folder / "prometheus.yml").write_text(text)
    shutil.copy(RULES, folder)


@asynccontextmanager
async def start_prometheus(folder: Path, server: ServerProcess, key: str) -> AsyncIterator[Prometheus]:
    """Start Prometheus with the shipped configuration, except that it scrapes every second."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    _write_configuration(folder, server, key)
    child = await asyncio.create_subprocess_exec(
        *(require_tool("prometheus"), "--config.file=prometheus.yml", "--storage.tsdb.path=db"),
        *(f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"),
        cwd=folder,
    )
    try:
        async with aiohttp.ClientSession() as http:
            prometheus = Prometheus(f"http://127.0.0.1:{port}", http)
            await poll_until(prometheus.is_ready)
            yield prometheus
    finally:
        with suppress(ProcessLookupError):
            child.terminate()
        await child.wait()


async def poll_until(condition: Callable[[], Awaitable[object]]) -> None:
    """Poll until a condition holds: another process sends no notification."""
    while not await condition():  # noqa: ASYNC110 - nothing signals the condition
        await asyncio.sleep(0.1)


@pytest.mark.slow
@slow_async_test
async def test_prometheus_scrapes_server_fills_panels_and_raises_alerts(tmp_path: Path) -> None:
    require_tool("prometheus")
    write_hyperpod_preset(tmp_path / "presets", deploy="exit 3")
    environ = {"FORGELINE_API_KEYS": "secret-key"}
    stages = list(DEFAULT_STAGES)
    async with running_process(tmp_path, models=MODELS, stages=stages, environ=environ) as server:
        server.http.headers["X-API-Key"] = "secret-key"
        async with start_prometheus(tmp_path / "prometheus", server, "secret-key") as prometheus:
            await poll_until(prometheus.is_up)
            write_presets(tmp_path / "presets", {"new": scripted_model("echo")}, stages)
            await wait_for_job(server, (await submit(server))["job_id"])
            requests = asyncio.create_task(send_requests_forever(server))
            for queries in dashboard_queries().values():
                await poll_until(partial(prometheus.has_data, queries))
            requests.cancel()
            await poll_until(partial(prometheus.alert_has_state, "ForgelineJobFailed", "firing"))
            assert await prometheus.alert_has_state("ForgelineDown", "inactive")
            await server.stop()
            await poll_until(partial(prometheus.alert_has_state, "ForgelineDown", "pending"))


async def send_requests_forever(server: ServerProcess) -> None:
    while True:
        for model in MODELS:
            async with server.http.post(f"{server.url}/api/models/{model}", json=HI) as response:
                await response.read()
        await asyncio.sleep(0.1)
