"""docs/METRICS.md has every metric that /metrics serves, with its type and its labels, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client.metrics_core import Metric

from pipeline.presets import DEFAULT_STAGES
from tests.aio import asynchronous
from tests.docs.pages import code_in, pages, table, text_of
from tests.jobs import ended, submit, write_hyperpod
from tests.server.scraping import scrape
from tests.serving import Server, says, serving

PAGE = table("docs/METRICS.md", "name")
SUFFIXES = ("_bucket", "_sum", "_count")


def row_of(family: Metric) -> tuple[str, str, frozenset[str]]:
    """A metric as the page has it."""
    name = family.name + "_total" if family.type == "counter" else family.name
    return name, family.type, frozenset(label for sample in family.samples for label in sample.labels) - {"le"}


async def do_something_of_each(server: Server, presets: Path) -> None:
    """So that no metric is without a sample, whose labels tell the metric's."""
    for model in ("good", "bad"):
        await server.post(f"/api/models/{model}", {"text": "Hi"})
    (presets / "models" / "bad.yaml").write_text("provider: [")
    while not (await scrape(server))("preset_changes_total"):
        pass
    job = await submit(server)
    await ended(server, job["job_id"])
    while not (await scrape(server))("job_duration_seconds_count"):
        pass


@asynchronous
async def test_every_metric_is_listed_with_its_type_and_labels_and_no_other(tmp_path: Path) -> None:
    models = {"good": says("say:a; usage:1,2"), "bad": says("fail:invalid_request")}
    write_hyperpod(tmp_path / "presets")
    async with serving(tmp_path, models=models, stages=list(DEFAULT_STAGES)) as server:
        await do_something_of_each(server, tmp_path / "presets")
        families = (await scrape(server)).families
    told = {(name, row[1], frozenset(code_in(row[2]))) for name, row in zip(PAGE.names(), PAGE.rows, strict=True)}
    assert told == set(map(row_of, families))


def test_every_metric_that_a_page_names_is_one() -> None:
    known = set(PAGE.names())
    for page in pages():
        for name in re.findall(r"\bforgeline_[a-z_]+", text_of(page)):
            plain = next((name.removesuffix(end) for end in SUFFIXES if name.endswith(end)), name)
            assert plain in known or name == "forgeline_extras", f"{page} names {name}"
