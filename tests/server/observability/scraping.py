"""/metrics for tests: each number by its name and its labels."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.parser import text_string_to_metric_families

from tests.running_server import RunningServer


class Samples:
    """One scrape."""

    def __init__(self, text: str) -> None:
        self.families = list(text_string_to_metric_families(text))
        self.samples = [sample for family in self.families for sample in family.samples]

    def __call__(self, name: str, **labels: str) -> float:
        """The sum of the samples of this name that have these labels; `forgeline_` is left out."""
        return sum(
            sample.value
            for sample in self.samples
            if sample.name == f"forgeline_{name}" and labels.items() <= sample.labels.items()
        )

    def by_label(self, name: str, label: str) -> dict[str, float]:
        """The samples of this name by one of their labels, without those that are 0."""
        values = {value: self(name, **{label: value}) for value in self.values_of(name, label)}
        return {value: number for value, number in values.items() if number}

    def values_of(self, name: str, label: str) -> Iterator[str]:
        return (sample.labels[label] for sample in self.samples if sample.name == f"forgeline_{name}")


async def scrape(server: RunningServer) -> Samples:
    answer = await server.get("/metrics")
    assert answer.status == 200
    return Samples(answer.content.decode())
