"""docs/METRICS.md lists exactly the metrics of /metrics, with types and labels."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client.metrics_core import Metric

from pipeline.presets.pipeline import DEFAULT_STAGES
from tests.async_tests import async_test
from tests.docs.pages import code_spans, find_table, page_paths, read_page
from tests.jobs import submit, wait_for_job, write_hyperpod_preset
from tests.running_server import RunningServer, running_server, scripted_model
from tests.server.observability.scraping import scrape

PAGE = find_table("docs/METRICS.md", "name")
SUFFIXES = ("_bucket", "_sum", "_count")


def metric_row(family: Metric) -> tuple[str, str, frozenset[str]]:
    """Name, type and labels of a metric, as the page lists them."""
    name = family.name + "_total" if family.type == "counter" else family.name
    return name, family.type, frozenset(label for sample in family.samples for label in sample.labels) - {"le"}


async def produce_samples(server: RunningServer, presets: Path) -> None:
    """Give every metric a sample, since only samples have labels."""
    for model in ("good", "bad"):
        await server.post(f"/api/models/{model}", {"text": "Hi"})
    (presets / "models" / "bad.yaml").write_text("provider: [")
    while not (await scrape(server))("preset_changes_total"):
        pass
    job = await submit(server)
    await wait_for_job(server, job["job_id"])
    while not (await scrape(server))("job_duration_seconds_count"):
        pass


@async_test
async def test_metrics_docs_list_exactly_the_metrics(tmp_path: Path) -> None:
    models = {"good": scripted_model("say:a; usage:1,2"), "bad": scripted_model("fail:invalid_request")}
    write_hyperpod_preset(tmp_path / "presets")
    async with running_server(tmp_path, models=models, stages=list(DEFAULT_STAGES)) as server:
        await produce_samples(server, tmp_path / "presets")
        families = (await scrape(server)).families
    documented = {
        (name, row[1], frozenset(code_spans(row[2]))) for name, row in zip(PAGE.code_names(), PAGE.rows, strict=True)
    }
    assert documented == set(map(metric_row, families))


def test_metrics_named_in_docs_exist() -> None:
    known = set(PAGE.code_names())
    for page in page_paths():
        for name in re.findall(r"\bforgeline_[a-z_]+", read_page(page)):
            plain = next((name.removesuffix(end) for end in SUFFIXES if name.endswith(end)), name)
            assert plain in known or name == "forgeline_extras", f"{page} names {name}"
