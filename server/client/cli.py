"""The commands of `forgeline`: what can be typed, and what it means. docs/CLI.md tells users the same.

A command loads what it needs when it runs, so that `--help` and completion are quick.
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

from server.client.errors import Misused

if TYPE_CHECKING:
    from server.client.jobs import Wanted
    from server.client.session import Session, Work

app = typer.Typer(
    name="forgeline",
    help="Foundation models and the clusters they run on, behind one door.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

File = partial(typer.Option, exists=True, dir_okay=False, readable=True, metavar="FILE")

# Every command that talks to a server has these four: Typer reads options off signatures.
Server = Annotated[str, typer.Option("--server", envvar="FORGELINE_SERVER", metavar="URL", help="The server.")]
KeyFile = Annotated[
    Path | None, File("--key-file", envvar="FORGELINE_KEY_FILE", help="File with the API key; else FORGELINE_API_KEY.")
]
Reconnect = Annotated[
    float, typer.Option("--reconnect", min=0, metavar="SECONDS", help="How long to try, where the server goes away.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
LOCAL = "http://127.0.0.1:5000"
A_MINUTE = 60.0

Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Override what the preset lets you. Repeatable.")
]
Live = Annotated[
    bool | None,
    typer.Option("--live/--dry-run", help="For real, or only to see what would happen.", show_default="the server's"),
]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Follow the log to the job's end.")]
Preset = Annotated[str, typer.Argument(metavar="PRESET", help="A name that `forgeline presets` lists.")]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="An id that `forgeline jobs` lists.")]


def main() -> None:
    """The entry point."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # None where it is closed
            stream.reconfigure(errors="replace")
    app()


@app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True}, add_help_option=False)
def serve(context: typer.Context) -> None:
    """Start the server. `forgeline serve --help` lists its options."""
    import run  # the one thing of the server that the client knows

    raise typer.Exit(run.main(context.args))


@app.command()
def ask(
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What to ask; - reads it from standard input.")],
    models: Annotated[
        list[str],
        typer.Option("--model", "-m", envvar="FORGELINE_MODEL", help="Who is asked. Repeated: all of them, compared."),
    ],
    frames: Annotated[list[Path] | None, File("--frame", "-i", help="A picture to ask about. Repeatable.")] = None,
    video: Annotated[bool, typer.Option("--video", help="The frames are those of a video, or one video file.")] = False,
    system: Annotated[
        str | None, typer.Option("--system", "-s", help="Instructions that stand above the prompt.")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option("--max-tokens", min=1, help="Longest answer.")] = None,
    temperature: Annotated[float | None, typer.Option("--temperature", min=0, max=2, help="Randomness.")] = None,
    top_p: Annotated[float | None, typer.Option("--top-p", min=0, max=1, help="Nucleus sampling.")] = None,
    stop: Annotated[list[str] | None, typer.Option("--stop", help="Text that ends the answer. Repeatable.")] = None,
    json: Json = False,
    server: Server = LOCAL,
    key_file: KeyFile = None,
    reconnect: Reconnect = A_MINUTE,
) -> None:
    """Ask one model, or compare several; the answer comes as it is made."""
    from server.client import asking

    body: dict[str, Any] = {
        "text": _read_standard_input() if prompt == "-" else prompt,
        "models": models,
        "frames": [path.read_bytes() for path in frames or ()],
        "mediaType": "video" if video else "image",
    }
    optional = {"system": system, "max_tokens": max_tokens, "temperature": temperature, "top_p": top_p, "stop": stop}
    body |= {name: value for name, value in optional.items() if value is not None}
    _perform(
        _session(server, key_file, json, reconnect),
        lambda api, output, patience: asking.ask(api, output, body, patience),
    )


@app.command("batch")
def batch_(
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
    json: Json = False,
    server: Server = LOCAL,
    key_file: KeyFile = None,
    reconnect: Reconnect = 600.0,
) -> None:
    """Answer every line of a file once. Stopped, or killed, the same command goes on where it was."""
    from server.client import batch

    plan = batch.Plan(source, target, model, concurrency, retries, timeout, retry_failed)
    _perform(
        _session(server, key_file, json, reconnect),
        lambda api, output, patience: batch.batch(api, output, plan, patience),
    )


@app.command()
def deploy(
    preset: Preset,
    overrides: Overrides = None,
    live: Live = None,
    follow: Follow = False,
    json: Json = False,
    server: Server = LOCAL,
    key_file: KeyFile = None,
    reconnect: Reconnect = A_MINUTE,
) -> None:
    """Begin a job that builds a preset's cluster."""
    from server.client import jobs

    wanted = jobs.Wanted("deploy", preset, _dry_run(live), _read_overrides(overrides))
    _perform(
        _session(server, key_file, json, reconnect),
        lambda api, output, patience: jobs.begin(api, output, wanted, patience, watch=follow),
    )


@app.command()
def destroy(
    preset: Preset,
    confirm: Annotated[
        str | None, typer.Option("--confirm", metavar="NAME", help="The stack's name: it is to go. For scripts.")
    ] = None,
    overrides: Overrides = None,
    live: Live = None,
    follow: Follow = False,
    json: Json = False,
    server: Server = LOCAL,
    key_file: KeyFile = None,
    reconnect: Reconnect = A_MINUTE,
) -> None:
    """Begin a job that takes a preset's cluster down. At a terminal you are asked for the stack's name."""
    from server.client import jobs

    wanted = jobs.Wanted("destroy", preset, _dry_run(live), _read_overrides(overrides), confirm)
    session = _session(server, key_file, json, reconnect)
    raise typer.Exit(session.guard(lambda: _destroy(session, wanted, follow)))


def _destroy(session: Session, wanted: Wanted, follow: bool) -> int:
    from server.client import jobs

    def work(wanted: Wanted) -> Work:
        return lambda api, output, patience: jobs.begin(api, output, wanted, patience, watch=follow)

    try:
        return session.run(work(wanted))
    except jobs.Unconfirmed as error:
        name = _ask_for_name(session, str(error))
        if not name:
            raise Misused(f"{error} --confirm NAME says it.") from error
        # Not inside the loop of the first attempt: there, waiting for a line would be deaf to Ctrl-C.
        return session.run(work(replace(wanted, confirm=name)))


@app.command()
def logs(
    job: JobId,
    follow: Follow = False,
    tail: Annotated[int | None, typer.Option("--tail", "-n", min=0, help="Only so many last lines.")] = None,
    json: Json = False,
    server: Server = LOCAL,
    key_file: KeyFile = None,
    reconnect: Reconnect = A_MINUTE,
) -> None:
    """Print a job's log."""
    from server.client import jobs

    show = jobs.watch_job if follow else jobs.show_logs
    _perform(
        _session(server, key_file, json, reconnect),
        lambda api, output, patience: show(api, output, job, tail, patience),
    )


@app.command()
def cancel(
    job: JobId,
    json: Json = False,
    server: Server = LOCAL,
    key_file: KeyFile = None,
    reconnect: Reconnect = A_MINUTE,
) -> None:
    """Stop a job."""
    from server.client import jobs

    _perform(
        _session(server, key_file, json, reconnect),
        lambda api, output, patience: jobs.cancel(api, output, job, patience),
    )


@app.command("jobs")
def jobs_(
    status: Annotated[str | None, typer.Option("--status", help="Only those that stand so.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="So many, newest first.")] = 20,
    json: Json = False,
    server: Server = LOCAL,
    key_file: KeyFile = None,
    reconnect: Reconnect = A_MINUTE,
) -> None:
    """List jobs, newest first."""
    params = {"limit": str(limit)} | ({} if status is None else {"status": status})
    _list("JOBS", _session(server, key_file, json, reconnect), params)


@app.command()
def stacks(
    json: Json = False, server: Server = LOCAL, key_file: KeyFile = None, reconnect: Reconnect = A_MINUTE
) -> None:
    """List what live deploys have left standing."""
    _list("STACKS", _session(server, key_file, json, reconnect))


@app.command()
def presets(
    json: Json = False, server: Server = LOCAL, key_file: KeyFile = None, reconnect: Reconnect = A_MINUTE
) -> None:
    """List the presets that can be deployed."""
    _list("PRESETS", _session(server, key_file, json, reconnect))


@app.command()
def models(
    json: Json = False, server: Server = LOCAL, key_file: KeyFile = None, reconnect: Reconnect = A_MINUTE
) -> None:
    """List the models, and why one can't answer."""
    _list("MODELS", _session(server, key_file, json, reconnect))


def _list(name: str, session: Session, params: dict[str, str] | None = None) -> NoReturn:
    from server.client import listing

    what: listing.Listing = getattr(listing, name)
    _perform(session, lambda api, output, patience: what.show(api, output, patience, params))


def _session(server: str, key_file: Path | None, json: bool, reconnect: float) -> Session:
    from server.client.session import Session

    key = os.environ.get("FORGELINE_API_KEY")  # never a flag: `ps` would show it
    return Session(server, key, key_file, json=json, reconnect=reconnect)


def _perform(session: Session, work: Work) -> NoReturn:
    raise typer.Exit(session.perform(work))


def _dry_run(live: bool | None) -> bool | None:
    return None if live is None else not live


def _read_overrides(given: list[str] | None) -> dict[str, Any]:
    """Values are what they look like in JSON (numbers, true, false, a quoted string); anything else is text."""
    overrides: dict[str, Any] = {}
    for item in given or ():
        name, separator, text = item.partition("=")
        if not (separator and name):
            raise typer.BadParameter(f"expected NAME=VALUE, not {item!r}", param_hint="--set")
        literal = re.fullmatch(r'-?(0|[1-9]\d{0,18})|true|false|".*"', text)
        try:
            overrides[name] = msgspec.json.decode(text) if literal else text
        except msgspec.DecodeError:
            overrides[name] = text
    return overrides


def _read_standard_input() -> str:
    return sys.stdin.read() if sys.stdin is not None else ""


def _ask_for_name(session: Session, sentence: str) -> str:
    """The name that somebody at the terminal types; empty where there is nobody."""
    if sys.stdin is None or not sys.stdin.isatty():
        return ""
    session.output.say(sentence)
    print("The name of the stack that is to go: ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip()
