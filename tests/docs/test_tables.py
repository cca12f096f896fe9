"""Tables in the documentation match the code: options, commands, errors; no table is left unchecked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, get_args

import msgspec
import pytest
import typer

from pipeline import stage
from pipeline.errors import ForgelineError
from server.client import errors
from server.client.cli import app
from server.compat.anthropic.messages_parser import MessagesRequest
from server.compat.openai.chat_parser import ChatCompletionRequest
from server.config import find_shipped_presets, parse_options
from server.errors import STATUS_CODES, status_of
from tests.docs.pages import ROOT, Table, code_spans, find_table, page_paths, read_page, tables_of

UNCHECKED_TABLES = {
    ("docs/API-SHAPES.md", "client"): "where the two clients are pointed; tests/sdks drives both so",
    ("docs/CLI.md", "shape"): "what records hold; tests/server/client/test_batch*.py",
    (
        "docs/CLUSTERS.md",
        "what happens",
    ): "tests/infraforge_runner/jobs/test_lifecycle.py, test_kills.py and test_full_disk.py show it",
    ("docs/EMD.md", ""): "tests/pipeline/providers/emd/test_real_emd.py compares both",
    ("docs/METRICS.md", "question"): "its names are checked with all that pages say of metrics",
    ("docs/SECURITY.md", "what"): "bounds in words; tests/fuzz and tests/server/inference/test_bodies.py show them",
    ("docs/ARCHITECTURE.md", "word"): "a glossary",
    ("docs/PLUGINS.md", "0.1.0"): "the old and the new names of the plugin API",
    ("docs/CONSOLE.md", "what"): "figures, which tests/console/test_busy.py and test_long_log.py print",
    ("docs/OPERATION.md", "*"): "tests/deploy/test_documents.py holds it to the code",
    ("docs/PERFORMANCE.md", "*"): "the benchmark's rows, whose figures `--publish` writes",
    ("docs/TRACES.md", "*"): "tests/docs/test_traces.py holds it to the code",
    ("benchmarks/README.md", "where"): "a map of its folder",
    ("docs/COMPARISON.md", "*"): "other people's programs",
    ("docs/LONG-TESTS.md", "test"): "results, which tests/long_tests.py writes",
    ("docs/CONTRIBUTING.md", "*"): "walks; test_references.py checks their paths",
}
"""Tables that are not compared with code, with the reason; `*` means all tables of a page."""


def test_every_docs_table_is_checked_or_excused() -> None:
    tests = "".join(path.read_text() for path in ROOT.glob("tests/**/test_*.py"))
    unchecked = [
        (page, table.header[0], table.heading)
        for page in page_paths()
        for table in tables_of(page)
        if f'table("{page}", "{table.header[0]}"' not in tests
        and not {(page, table.header[0]), (page, "*")} & {*UNCHECKED_TABLES}
    ]
    assert unchecked == []


# --- options ---------------------------------------------------------------------------------------


@pytest.fixture
def help_options(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> dict[str, tuple[str, str]]:
    """The variable and the default of each option in `run.py --help`; empty and "none" if it has none."""
    monkeypatch.setenv("COLUMNS", "1000")
    with pytest.raises(SystemExit):
        parse_options(["--help"], {})
    options = {}
    for text in capsys.readouterr().out.split("\n  --")[1:]:
        variable = re.search(r"\[(FORGELINE_\w+)\]", text)
        default = re.search(r"\(default: (.*?)\)", text)
        flag = re.split(r"[\s\[]", text)[0]
        options[f"--{flag}"] = (variable[1] if variable else "", default[1] if default else "none")
    return options


def test_options_docs_list_variables_and_defaults(help_options: dict[str, tuple[str, str]]) -> None:
    page = find_table("docs/OPTIONS.md", "option")
    documented = {
        flag.strip("`"): (variable.strip("`"), default.strip("`")) for flag, variable, default, _ in page.rows
    }
    variable, _ = help_options["--presets"]
    assert documented == {**help_options, "--presets": (variable, "the checkout's `presets")}
    assert help_options["--presets"] == (variable, str(find_shipped_presets()))


def test_clusters_docs_options_have_server_defaults(help_options: dict[str, tuple[str, str]]) -> None:
    for flag, default, _ in find_table("docs/CLUSTERS.md", "option").rows:
        assert help_options[flag.strip("`").split()[0]][1] == default.strip("`")


# --- the command line ------------------------------------------------------------------------------

COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined] # it is a group


def command_options(commands: list[str]) -> set[str]:
    parameters = [parameter for name in commands for parameter in COMMANDS[name].params]
    return {option for parameter in parameters for option in (*parameter.opts, *parameter.secondary_opts)}


OPTION_TABLES = [
    (find_table("docs/CLI.md", "option", "ask"), ["ask"]),
    (find_table("docs/CLI.md", "option", "deploy, destroy, logs, jobs"), ["deploy", "destroy", "logs", "jobs"]),
    (find_table("docs/CLI.md", "option", "batch"), ["batch"]),
    (find_table("docs/CLI.md", "option", "Options of every command but `serve`"), sorted({*COMMANDS} - {"serve"})),
]


@pytest.mark.parametrize(("page", "commands"), OPTION_TABLES)
def test_cli_docs_options_belong_to_their_command(page: Table, commands: list[str]) -> None:
    options = command_options(commands)
    assert {name.split()[0] for name in page.code_names() if name.startswith("-")} <= options


def test_cli_docs_list_commands_in_order() -> None:
    assert [name.split()[0] for name in find_table("docs/CLI.md", "command").code_names() if name[0] != "-"] == [
        *COMMANDS
    ]


def test_cli_docs_list_exit_codes() -> None:
    codes = (errors.OK, errors.FAILED, errors.USAGE_ERROR, errors.UNREACHABLE, errors.INTERRUPTED, errors.BROKEN_PIPE)
    assert find_table("docs/CLI.md", "code").column() == [str(code) for code in codes]


# --- errors ----------------------------------------------------------------------------------------


def error_classes(of: type[ForgelineError] = ForgelineError) -> Iterator[type[ForgelineError]]:
    """All subclasses in the product; tests may define further ones."""
    for error_class in of.__subclasses__():
        if error_class.__module__.partition(".")[0] in ("pipeline", "server", "infraforge_runner"):
            yield error_class
            yield from error_classes(error_class)


def test_errors_docs_list_codes_and_statuses() -> None:
    documented = {row[0].strip("`"): row[1] for row in find_table("docs/ERRORS.md", "code").rows}
    expected = {
        error_class.code: str(status_of(error_class.__new__(error_class)))
        if {*error_class.__mro__} & {*STATUS_CODES}
        else "none"
        for error_class in error_classes()
    }
    assert documented == expected


def test_errors_docs_explain_cause_and_action() -> None:
    for code, _, when, todo in find_table("docs/ERRORS.md", "code").rows:
        assert when
        assert todo or code == "`conflict`"


# --- other tables --------------------------------------------------------------------------------------


def test_emd_docs_list_deployment_statuses() -> None:
    assert set(find_table("docs/EMD.md", "status").code_names()) >= set(get_args(stage.DeploymentStatus))
    assert len(find_table("docs/EMD.md", "status").rows) == len(get_args(stage.DeploymentStatus))


@pytest.mark.parametrize(
    ("shape", "body"),
    [("OpenAI", ChatCompletionRequest), ("Anthropic", MessagesRequest)],
)
def test_api_shapes_docs_list_every_field(shape: str, body: Any) -> None:
    (page,) = (page for page in tables_of("docs/API-SHAPES.md") if page.heading.startswith(shape))
    documented = {re.split(r"[.:]", name)[0] for row in page.rows for cell in row for name in code_spans(cell)}
    assert {field.encode_name for field in msgspec.structs.fields(body)} - documented == set()
    assert page == find_table("docs/API-SHAPES.md", "field", page.heading)


def test_console_docs_list_places() -> None:
    for place in find_table("docs/CONSOLE.md", "place").column():
        assert f">{place}<" in read_page("server/static/index.html")
