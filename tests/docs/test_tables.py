"""Tables of pages that list what the code has: options, commands, errors, and that no table is left unchecked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, get_args

import msgspec
import pytest
import typer

from pipeline.errors import ForgelineError
from pipeline.providers import emd_stacks
from server.client import errors
from server.client.cli import app
from server.errors import STATUS, status_of
from server.options import PRESETS, parse
from server.shapes.anthropic import MessagesRequest
from server.shapes.openai import ChatCompletionRequest
from tests.docs.pages import ROOT, Table, code_in, pages, table, tables, text_of

PROSE = {
    ("docs/API-SHAPES.md", "client"): "where the two clients are pointed; tests/sdks drives both so",
    ("docs/CLI.md", "shape"): "what records hold; tests/server/client/test_batch*.py",
    (
        "docs/CLUSTERS.md",
        "what happens",
    ): "tests/infraforge_runner/test_life.py, test_kills.py and test_full_disk.py show it",
    ("docs/EMD.md", ""): "tests/pipeline/providers/test_emd_itself.py compares both",
    ("docs/METRICS.md", "question"): "its names are checked with all that pages say of metrics",
    ("docs/SECURITY.md", "what"): "bounds in words; tests/fuzz and tests/server/test_bodies.py show them",
    ("docs/ARCHITECTURE.md", "word"): "a glossary",
    ("docs/CONSOLE.md", "what"): "figures, which tests/console/test_busy.py and test_long_log.py print",
    ("docs/OPERATION.md", "*"): "tests/deploy/test_documents.py holds it to the code",
    ("docs/PERFORMANCE.md", "*"): "the benchmark's rows, whose figures `--publish` writes",
    ("docs/TRACES.md", "*"): "tests/test_docs_of_traces.py holds it to the code",
    ("benchmarks/README.md", "where"): "a map of its folder",
    ("docs/COMPARISON.md", "*"): "other people's programs",
    ("docs/CONTRIBUTING.md", "*"): "walks; test_references.py checks their paths",
}
"""Tables that list nothing that code could be asked for; `*`: all of a page."""


def test_every_table_is_checked_or_is_prose() -> None:
    tests = "".join(path.read_text() for path in ROOT.glob("tests/**/test_*.py"))
    unchecked = [
        (page, one.header[0], one.heading)
        for page in pages()
        for one in tables(page)
        if f'table("{page}", "{one.header[0]}"' not in tests and not {(page, one.header[0]), (page, "*")} & {*PROSE}
    ]
    assert unchecked == []


# --- options ---------------------------------------------------------------------------------------


@pytest.fixture
def told_options(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> dict[str, tuple[str, str]]:
    """What `run.py --help` says: of each option its variable and its default, where it has them."""
    monkeypatch.setenv("COLUMNS", "1000")
    with pytest.raises(SystemExit):
        parse(["--help"], {})
    found = {}
    for text in capsys.readouterr().out.split("\n  --")[1:]:
        variable = re.search(r"\[(FORGELINE_\w+)\]", text)
        default = re.search(r"\(default: (.*?)\)", text)
        flag = re.split(r"[\s\[]", text)[0]
        found[f"--{flag}"] = (variable[1] if variable else "", default[1] if default else "none")
    return found


def test_every_option_has_its_entry_its_variable_and_its_default(told_options: dict[str, tuple[str, str]]) -> None:
    page = table("docs/OPTIONS.md", "option")
    told = {flag.strip("`"): (variable.strip("`"), default.strip("`")) for flag, variable, default, _ in page.rows}
    variable, _ = told_options["--presets"]
    assert told == {**told_options, "--presets": (variable, "the checkout's `presets")}
    assert told_options["--presets"] == (variable, str(PRESETS))


def test_the_options_of_jobs_are_those_of_the_server(told_options: dict[str, tuple[str, str]]) -> None:
    for flag, default, _ in table("docs/CLUSTERS.md", "option").rows:
        assert told_options[flag.strip("`").split()[0]][1] == default.strip("`")


# --- the command line ------------------------------------------------------------------------------

COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined] # it is a group


def options_of(commands: list[str]) -> set[str]:
    found = [parameter for name in commands for parameter in COMMANDS[name].params]
    return {option for one in found for option in (*one.opts, *one.secondary_opts)}


OF_COMMANDS = [
    (table("docs/CLI.md", "option", "ask"), ["ask"]),
    (table("docs/CLI.md", "option", "deploy, destroy, logs, jobs"), ["deploy", "destroy", "logs", "jobs"]),
    (table("docs/CLI.md", "option", "batch"), ["batch"]),
    (table("docs/CLI.md", "option", "Options of every command but `serve`"), sorted({*COMMANDS} - {"serve"})),
]


@pytest.mark.parametrize(("one", "commands"), OF_COMMANDS)
def test_an_option_of_a_command_stands_under_a_command_that_has_it(one: Table, commands: list[str]) -> None:
    there = options_of(commands)
    assert {name.split()[0] for name in one.names() if name.startswith("-")} <= there


def test_every_command_is_listed() -> None:
    assert [name.split()[0] for name in table("docs/CLI.md", "command").names() if name[0] != "-"] == [*COMMANDS]


def test_every_exit_code_is_listed() -> None:
    codes = (errors.OK, errors.FAILED, errors.MISUSED, errors.UNREACHABLE, errors.INTERRUPTED, errors.BROKEN_PIPE)
    assert table("docs/CLI.md", "code").column() == [str(code) for code in codes]


# --- errors ----------------------------------------------------------------------------------------


def kinds(of: type[ForgelineError] = ForgelineError) -> Iterator[type[ForgelineError]]:
    """The tree of errors, as far as clients can meet it: tests may have kinds of their own."""
    for kind in of.__subclasses__():
        if kind.__module__.partition(".")[0] in ("pipeline", "server", "infraforge_runner"):
            yield kind
            yield from kinds(kind)


def test_every_error_is_listed_by_its_code_and_its_status() -> None:
    told = {row[0].strip("`"): row[1] for row in table("docs/ERRORS.md", "code").rows}
    expected = {
        kind.code: str(status_of(kind.__new__(kind))) if {*kind.__mro__} & {*STATUS} else "none" for kind in kinds()
    }
    assert told == expected


def test_every_error_says_when_it_comes_and_what_to_do() -> None:
    for code, _, when, todo in table("docs/ERRORS.md", "code").rows:
        assert when
        assert todo or code == "`conflict`"


# --- the rest --------------------------------------------------------------------------------------


def test_every_status_of_emds_is_listed() -> None:
    assert set(table("docs/EMD.md", "status").names()) >= set(get_args(emd_stacks.Status))
    assert len(table("docs/EMD.md", "status").rows) == len(get_args(emd_stacks.Status))


@pytest.mark.parametrize(
    ("shape", "body"),
    [("OpenAI", ChatCompletionRequest), ("Anthropic", MessagesRequest)],
)
def test_every_field_of_a_foreign_shape_is_listed(shape: str, body: Any) -> None:
    (one,) = (one for one in tables("docs/API-SHAPES.md") if one.heading.startswith(shape))
    said = {re.split(r"[.:]", name)[0] for row in one.rows for cell in row for name in code_in(cell)}
    assert {field.encode_name for field in msgspec.structs.fields(body)} - said == set()
    assert one == table("docs/API-SHAPES.md", "field", one.heading)


def test_the_places_of_the_console_are_those_of_its_page() -> None:
    for place in table("docs/CONSOLE.md", "place").column():
        assert f">{place}<" in text_of("server/static/index.html")
