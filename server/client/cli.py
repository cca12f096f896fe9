"""The commands and options of `forgeline`. docs/CLI.md documents them.

Each command imports what it needs when it runs, so that `--help` and completion are quick.
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import replace
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import msgspec
import typer

from server.client.errors import UsageError

if TYPE_CHECKING:
    from server.client.jobs import JobSubmission
    from server.client.session import CommandFunction, CommandSession

app = typer.Typer(
    name="forgeline",
    help="Foundation models and the clusters they run on, behind one door.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

FileOption = partial(typer.Option, exists=True, dir_okay=False, readable=True, metavar="FILE")

# Every command that talks to a server repeats these four parameters: Typer reads options from signatures.
ServerOption = Annotated[str, typer.Option("--server", envvar="FORGELINE_SERVER", metavar="URL", help="The server.")]
KeyFileOption = Annotated[
    Path | None,
    FileOption("--key-file", envvar="FORGELINE_KEY_FILE", help="File with the API key; else FORGELINE_API_KEY."),
]
ReconnectOption = Annotated[
    float, typer.Option("--reconnect", min=0, metavar="SECONDS", help="How long to try, where the server goes away.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
DEFAULT_SERVER = "http://127.0.0.1:5000"
DEFAULT_RECONNECT = 60.0  # seconds

OverridesOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Override what the preset lets you. Repeatable.")
]
LiveOption = Annotated[
    bool | None,
    typer.Option("--live/--dry-run", help="For real, or only to see what would happen.", show_default="the server's"),
]
FollowOption = Annotated[bool, typer.Option("--follow", "-f", help="Follow the log to the job's end.")]
PresetArgument = Annotated[str, typer.Argument(metavar="PRESET", help="A name that `forgeline presets` lists.")]
JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="An id that `forgeline jobs` lists.")]


def main() -> None:
    """Run the command line; the entry point."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a closed stream is None
            stream.reconfigure(errors="replace")
    app()


def _print_version(requested: bool) -> None:
    if requested:
        from importlib.metadata import version

        print(f"forgeline {version('forgeline')}")
        raise typer.Exit


@app.callback()
def common_options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version, and exit.")
    ] = False,
) -> None:
    """Foundation models and the clusters they run on, behind one door."""


@app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True}, add_help_option=False)
def serve(context: typer.Context) -> None:
    """Start the server. `forgeline serve --help` lists its options."""
    import run  # the only import of the server itself

    raise typer.Exit(run.main(context.args))


@app.command()
def ask(
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What to ask; - reads it from standard input.")],
    models: Annotated[
        list[str],
        typer.Option("--model", "-m", envvar="FORGELINE_MODEL", help="Who is asked. Repeated: all of them, compared."),
    ],
    frames: Annotated[
        list[Path] | None, FileOption("--frame", "-i", help="A picture to ask about. Repeatable.")
    ] = None,
    video: Annotated[bool, typer.Option("--video", help="The frames are those of a video, or one video file.")] = False,
    system: Annotated[
        str | None, typer.Option("--system", "-s", help="Instructions that stand above the prompt.")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option("--max-tokens", min=1, help="Longest answer.")] = None,
    temperature: Annotated[float | None, typer.Option("--temperature", min=0, max=2, help="Randomness.")] = None,
    top_p: Annotated[float | None, typer.Option("--top-p", min=0, max=1, help="Nucleus sampling.")] = None,
    stop: Annotated[list[str] | None, typer.Option("--stop", help="Text that ends the answer. Repeatable.")] = None,
    json: JsonOption = False,
    server: ServerOption = DEFAULT_SERVER,
    key_file: KeyFileOption = None,
    reconnect: ReconnectOption = DEFAULT_RECONNECT,
) -> None:
    """Ask one model, or compare several; the answer comes as it is made."""
    from server.client.ask import run_ask

    body: dict[str, Any] = {
        "text": _read_stdin() if prompt == "-" else prompt,
        "models": models,
        "frames": [path.read_bytes() for path in frames or ()],
        "mediaType": "video" if video else "image",
    }
    optional = {"system": system, "max_tokens": max_tokens, "temperature": temperature, "top_p": top_p, "stop": stop}
    body |= {name: value for name, value in optional.items() if value is not None}
    _run_and_exit(
        _create_session(server, key_file, json, reconnect),
        lambda api, output, reconnect: run_ask(api, output, body, reconnect),
    )


@app.command("batch")
def batch_command(
    source: Annotated[
        Path, typer.Argument(metavar="IN.jsonl", exists=True, dir_okay=False, help="One request a line.")
    ],
    target: Annotated[Path, typer.Argument(metavar="OUT.jsonl", dir_okay=False, help="One record a line.")],
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Who answers all lines; else each line names its own.")
    ] = None,
    concurrency: Annotated[int, typer.Option("--concurrency", "-c", min=1, max=1000, help="Requests at once.")] = 8,
    retries: Annotated[int, typer.Option("--retries", min=0, help="Further attempts for each line.")] = 8,
    timeout: Annotated[float, typer.Option("--timeout", min=0.01, metavar="SECONDS", help="For one answer.")] = 600.0,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try the lines again that have failed.")] = False,
    json: JsonOption = False,
    server: ServerOption = DEFAULT_SERVER,
    key_file: KeyFileOption = None,
    reconnect: ReconnectOption = 600.0,
) -> None:
    """Answer every line of a file once. Stopped, or killed, the same command goes on where it was."""
    from server.client.batch import BatchOptions, run_batch

    options = BatchOptions(source, target, model, concurrency, retries, timeout, retry_failed)
    _run_and_exit(
        _create_session(server, key_file, json, reconnect),
        lambda api, output, reconnect: run_batch(api, output, options, reconnect),
    )


@app.command()
def deploy(
    preset: PresetArgument,
    overrides: OverridesOption = None,
    live: LiveOption = None,
    follow: FollowOption = False,
    json: JsonOption = False,
    server: ServerOption = DEFAULT_SERVER,
    key_file: KeyFileOption = None,
    reconnect: ReconnectOption = DEFAULT_RECONNECT,
) -> None:
    """Begin a job that builds a preset's cluster."""
    from server.client.jobs import JobSubmission, submit_job

    submission = JobSubmission("deploy", preset, _dry_run(live), _parse_overrides(overrides))
    _run_and_exit(
        _create_session(server, key_file, json, reconnect),
        lambda api, output, reconnect: submit_job(api, output, submission, reconnect, follow=follow),
    )


@app.command()
def destroy(
    preset: PresetArgument,
    confirm: Annotated[
        str | None, typer.Option("--confirm", metavar="NAME", help="The stack's name: it is to go. For scripts.")
    ] = None,
    overrides: OverridesOption = None,
    live: LiveOption = None,
    follow: FollowOption = False,
    json: JsonOption = False,
    server: ServerOption = DEFAULT_SERVER,
    key_file: KeyFileOption = None,
    reconnect: ReconnectOption = DEFAULT_RECONNECT,
) -> None:
    """Begin a job that takes a preset's cluster down. At a terminal you are asked for the stack's name."""
    from server.client.jobs import JobSubmission

    submission = JobSubmission("destroy", preset, _dry_run(live), _parse_overrides(overrides), confirm)
    session = _create_session(server, key_file, json, reconnect)
    raise typer.Exit(session.run_with_exit_code(lambda: _confirm_and_destroy(session, submission, follow)))


def _confirm_and_destroy(session: CommandSession, submission: JobSubmission, follow: bool) -> int:
    """Submit the job; if the server requires a confirmation, ask for it at the terminal and submit again."""
    from server.client.jobs import ConfirmationRequired, submit_job

    def command(submission: JobSubmission) -> CommandFunction:
        return lambda api, output, reconnect: submit_job(api, output, submission, reconnect, follow=follow)

    try:
        return session.run(command(submission))
    except ConfirmationRequired as error:
        name = _prompt_for_stack_name(session, str(error))
        if not name:
            raise UsageError(f"{error} --confirm NAME says it.") from error
        # A second event loop: reading a line inside the first one would block Ctrl-C.
        return session.run(command(replace(submission, confirm=name)))


@app.command()
def logs(
    job: JobArgument,
    follow: FollowOption = False,
    tail: Annotated[int | None, typer.Option("--tail", "-n", min=0, help="Only so many last lines.")] = None,
    json: JsonOption = False,
    server: ServerOption = DEFAULT_SERVER,
    key_file: KeyFileOption = None,
    reconnect: ReconnectOption = DEFAULT_RECONNECT,
) -> None:
    """Print a job's log."""
    from server.client.jobs import follow_log, print_log

    show = follow_log if follow else print_log
    _run_and_exit(
        _create_session(server, key_file, json, reconnect),
        lambda api, output, reconnect: show(api, output, job, tail, reconnect),
    )


@app.command()
def cancel(
    job: JobArgument,
    json: JsonOption = False,
    server: ServerOption = DEFAULT_SERVER,
    key_file: KeyFileOption = None,
    reconnect: ReconnectOption = DEFAULT_RECONNECT,
) -> None:
    """Stop a job."""
    from server.client.jobs import cancel_job

    _run_and_exit(
        _create_session(server, key_file, json, reconnect),
        lambda api, output, reconnect: cancel_job(api, output, job, reconnect),
    )


@app.command("jobs")
def jobs_command(
    status: Annotated[str | None, typer.Option("--status", help="Only those that stand so.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="So many, newest first.")] = 20,
    json: JsonOption = False,
    server: ServerOption = DEFAULT_SERVER,
    key_file: KeyFileOption = None,
    reconnect: ReconnectOption = DEFAULT_RECONNECT,
) -> None:
    """List jobs, newest first."""
    params = {"limit": str(limit)} | ({} if status is None else {"status": status})
    _show_table("JOBS", _create_session(server, key_file, json, reconnect), params)


@app.command()
def stacks(
    json: JsonOption = False,
    server: ServerOption = DEFAULT_SERVER,
    key_file: KeyFileOption = None,
    reconnect: ReconnectOption = DEFAULT_RECONNECT,
) -> None:
    """List what live deploys have left standing."""
    _show_table("STACKS", _create_session(server, key_file, json, reconnect))


@app.command()
def presets(
    json: JsonOption = False,
    server: ServerOption = DEFAULT_SERVER,
    key_file: KeyFileOption = None,
    reconnect: ReconnectOption = DEFAULT_RECONNECT,
) -> None:
    """List the presets that can be deployed."""
    _show_table("PRESETS", _create_session(server, key_file, json, reconnect))


@app.command()
def models(
    json: JsonOption = False,
    server: ServerOption = DEFAULT_SERVER,
    key_file: KeyFileOption = None,
    reconnect: ReconnectOption = DEFAULT_RECONNECT,
) -> None:
    """List the models, and why one can't answer."""
    _show_table("MODELS", _create_session(server, key_file, json, reconnect))


def _show_table(name: str, session: CommandSession, params: dict[str, str] | None = None) -> NoReturn:
    from server.client import tables

    table: tables.ResourceTable = getattr(tables, name)
    _run_and_exit(session, lambda api, output, reconnect: table.show(api, output, reconnect, params))


def _create_session(server: str, key_file: Path | None, json: bool, reconnect: float) -> CommandSession:
    from server.client.session import CommandSession

    key = os.environ.get("FORGELINE_API_KEY")  # never a flag: `ps` would show it
    return CommandSession(server, key, key_file, json=json, reconnect=reconnect)


def _run_and_exit(session: CommandSession, command: CommandFunction) -> NoReturn:
    raise typer.Exit(session.run_with_exit_code(lambda: session.run(command)))


def _dry_run(live: bool | None) -> bool | None:
    return None if live is None else not live


def _parse_overrides(items: list[str] | None) -> dict[str, Any]:
    """Parse NAME=VALUE items. Numbers, true, false and quoted strings are read as JSON, anything else as text."""
    overrides: dict[str, Any] = {}
    for item in items or ():
        name, separator, text = item.partition("=")
        if not (separator and name):
            raise typer.BadParameter(f"expected NAME=VALUE, not {item!r}", param_hint="--set")
        literal = re.fullmatch(r'-?(0|[1-9]\d{0,18})|true|false|".*"', text)
        try:
            overrides[name] = msgspec.json.decode(text) if literal else text
        except msgspec.DecodeError:
            overrides[name] = text
    return overrides


def _read_stdin() -> str:
    return sys.stdin.read() if sys.stdin is not None else ""


def _prompt_for_stack_name(session: CommandSession, message: str) -> str:
    """Read the name of the stack from the terminal. Empty if standard input is not a terminal."""
    if sys.stdin is None or not sys.stdin.isatty():
        return ""
    session.output.print_message(message)
    print("The name of the stack that is to go: ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip()
