"""The expressions of the shipped alerts and dashboard, and the metrics that they reference."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import promql_parser
import yaml

from tests.processes import ROOT

PROMETHEUS = ROOT / "deploy" / "prometheus"
RULES = PROMETHEUS / "forgeline-rules.yml"
DASHBOARD = ROOT / "deploy" / "grafana" / "forgeline.json"
PROMETHEUS_LABELS = {"job", "instance", "le"}  # added by Prometheus, or part of every histogram
VARIABLES = {"$instance": ".*", "$model": ".*", "$__rate_interval": "10s"}


class MetricReference(NamedTuple):
    """A metric in an expression, and the labels that the expression selects by."""

    name: str
    labels: frozenset[str]


def alerts() -> dict[str, dict[str, Any]]:
    """The alert rules by name."""
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"]: rule for rule in group["rules"]}


def panels() -> Iterator[dict[str, Any]]:
    """The panels that show data."""
    return (panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row")


def dashboard_queries() -> dict[str, list[str]]:
    """The queries of each panel, by its title, with Grafana's variables filled in."""
    return {panel["title"]: [fill_variables(target["expr"]) for target in panel["targets"]] for panel in panels()}


def fill_variables(expression: str) -> str:
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    return expression


def label_queries() -> list[str]:
    """The selectors of Grafana's variables: label_values(SELECTOR, LABEL)."""
    variables = json.loads(DASHBOARD.read_text())["templating"]["list"]
    queries = [variable["query"]["query"] for variable in variables if variable["type"] == "query"]
    return [fill_variables(re.fullmatch(r"label_values\((.*), \w+\)", query)[1]) for query in queries]  # type: ignore[index]


def metric_references(expression: str) -> list[MetricReference]:
    """The metrics of a PromQL expression. Raises ValueError if it is invalid."""
    references: list[MetricReference] = []

    def visit(node: promql_parser.Expr) -> bool:
        if isinstance(node, promql_parser.VectorSelector):
            labels = frozenset(matcher.name for matcher in node.matchers.matchers)
            references.append(MetricReference(node.name or "", labels - PROMETHEUS_LABELS))
        return True

    promql_parser.walk(promql_parser.parse(expression), visit)
    return references
