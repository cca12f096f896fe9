"""The shipped alerts and dashboard, as their readers see them: expressions, and the names that those hold."""

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
OF_PROMETHEUS = {"job", "instance", "le"}  # labels that it adds, and that a histogram's buckets have
VARIABLES = {"$instance": ".*", "$model": ".*", "$__rate_interval": "10s"}


class Asked(NamedTuple):
    """A metric in an expression, and the labels by which it is told apart."""

    name: str
    labels: frozenset[str]


def alerts() -> dict[str, dict[str, Any]]:
    """By name."""
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"]: rule for rule in group["rules"]}


def panels() -> Iterator[dict[str, Any]]:
    """Those that show something."""
    return (panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row")


def dashboard_queries() -> dict[str, list[str]]:
    """Each panel's, by its title, with Grafana's variables filled in."""
    return {panel["title"]: [filled(target["expr"]) for target in panel["targets"]] for panel in panels()}


def filled(expression: str) -> str:
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    return expression


def label_queries() -> list[str]:
    """What Grafana asks for the values of its variables: label_values(SELECTOR, LABEL)."""
    variables = json.loads(DASHBOARD.read_text())["templating"]["list"]
    asked = [variable["query"]["query"] for variable in variables if variable["type"] == "query"]
    return [filled(re.fullmatch(r"label_values\((.*), \w+\)", query)[1]) for query in asked]  # type: ignore[index]


def asked_by(expression: str) -> list[Asked]:
    """Raises ValueError for what is no PromQL."""
    found: list[Asked] = []

    def visit(node: promql_parser.Expr) -> bool:
        if isinstance(node, promql_parser.VectorSelector):
            labels = frozenset(matcher.name for matcher in node.matchers.matchers)
            found.append(Asked(node.name or "", labels - OF_PROMETHEUS))
        return True

    promql_parser.walk(promql_parser.parse(expression), visit)
    return found
