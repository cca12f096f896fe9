"""docs/CLI.md lists exactly the commands, options and exit codes of the command line."""

from __future__ import annotations

import re

import typer

from server.client import errors
from server.client.cli import app
from tests.processes import ROOT

PAGE = (ROOT / "docs/CLI.md").read_text(encoding="utf-8")
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined] # it is a group
OPTIONS = {
    option
    for command in COMMANDS.values()
    for parameter in command.params
    for option in (*parameter.opts, *parameter.secondary_opts)
    if option.startswith("-")
}


def first_cells() -> set[str]:
    """The names in the first columns of all tables."""
    cells = re.findall(r"^\| (.*?) \|", PAGE, re.MULTILINE)
    return {word for cell in cells for word in re.findall(r"`([^`]+)`", cell)}


def test_cli_docs_list_exactly_the_commands() -> None:
    listed = {cell.split()[0] for cell in first_cells() if not cell.startswith("-")}
    assert listed == set(COMMANDS)


def test_cli_docs_list_exactly_the_options() -> None:
    listed = {cell.split()[0] for cell in first_cells() if cell.startswith("-")}
    assert listed == OPTIONS - {"--help", "-h"}


def test_cli_docs_list_exit_codes() -> None:
    codes = {
        getattr(errors, name) for name in ("OK", "FAILED", "USAGE_ERROR", "UNREACHABLE", "INTERRUPTED", "BROKEN_PIPE")
    }
    table = PAGE.partition("## Exit codes")[2]
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)} == codes


def test_every_command_and_option_has_help() -> None:
    for command in COMMANDS.values():
        assert command.help
        for parameter in command.params:
            assert parameter.name == "context" or parameter.help, (command.name, parameter.name)
