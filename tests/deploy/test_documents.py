"""docs/OPERATION.md matches the shipped files and the tests that it names."""

from __future__ import annotations

import ast
import re

from tests.deploy.documented import OPERATION
from tests.processes import ROOT

UNIT = (ROOT / "deploy" / "systemd" / "forgeline.service").read_text()


def first_table_under(heading: str) -> list[list[str]]:
    """The rows of the first table below a heading."""
    section = OPERATION.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows[2:]]


def test_operation_docs_survival_rows_name_existing_tests() -> None:
    rows = first_table_under("What survives what")
    assert len(rows) > 25
    for *_, test_id in rows:
        path, _, name = test_id.strip("`| ").partition("::")
        tree = ast.parse((ROOT / path).read_text())
        names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert name in names, test_id


def test_operation_docs_match_systemd_unit() -> None:
    for setting, _ in first_table_under("On a machine, under systemd"):
        for name, value in re.findall(r"`(\w+)(?:=([^`]*))?`", setting):
            line = re.search(rf"^{name}=(.*)$", UNIT, re.MULTILINE)
            if setting.startswith("no "):
                assert line is None, setting
            else:
                assert line is not None, setting
                assert line[1] == value, setting


def test_operation_docs_match_nginx_configuration() -> None:
    shipped = (ROOT / "deploy" / "nginx" / "forgeline.conf").read_text()
    for switch, _ in first_table_under("Behind nginx"):
        for words in re.findall(r"`([^`]*)`", switch):
            assert words in shipped, words
