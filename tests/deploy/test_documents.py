"""docs/OPERATION.md, held to the code and to the tests that it names."""

from __future__ import annotations

import ast
import re

from tests.deploy.documented import OPERATION
from tests.processes import ROOT

UNIT = (ROOT / "deploy" / "systemd" / "forgeline.service").read_text()


def table_under(heading: str) -> list[list[str]]:
    """The cells of the rows of the first table below a heading."""
    section = OPERATION.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows[2:]]


def test_whatever_survives_is_shown_by_a_test_that_is_there() -> None:
    rows = table_under("What survives what")
    assert len(rows) > 25
    for *_, shown_by in rows:
        path, _, name = shown_by.strip("`| ").partition("::")
        tree = ast.parse((ROOT / path).read_text())
        names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert name in names, shown_by


def test_what_it_says_of_the_unit_is_in_the_unit() -> None:
    for setting, _ in table_under("On a machine, under systemd"):
        for name, value in re.findall(r"`(\w+)(?:=([^`]*))?`", setting):
            line = re.search(rf"^{name}=(.*)$", UNIT, re.MULTILINE)
            if setting.startswith("no "):
                assert line is None, setting
            else:
                assert line is not None, setting
                assert line[1] == value, setting


def test_what_it_says_of_nginx_is_in_its_configuration() -> None:
    shipped = (ROOT / "deploy" / "nginx" / "forgeline.conf").read_text()
    for switch, _ in table_under("Behind nginx"):
        for words in re.findall(r"`([^`]*)`", switch):
            assert words in shipped, words
