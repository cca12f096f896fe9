"""The options of the server: each a flag, and an environment variable (`--max-body` is FORGELINE_MAX_BODY)."""

from __future__ import annotations

import argparse
import ipaddress
import os
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

VERSION = version("forgeline")
"""As setup.cfg has it."""


def find_shipped_presets() -> Path:
    """Return the presets of the checkout, else those that the wheel has installed under `share/` (setup.cfg)."""
    checkout = Path(__file__).resolve().parent.parent / "presets"
    installed = Path(sysconfig.get_path("data")) / "share" / "forgeline" / "presets"
    return checkout if (checkout / "pipeline.yaml").is_file() else installed


@dataclass(frozen=True)
class ServerOptions:
    """All options, validated. `keys` are the API keys in FORGELINE_API_KEYS; no flag sets them."""

    address: str
    port: int
    presets: Path
    data: Path
    infraforge: Path | None
    dry_run: bool
    allow_host: tuple[str, ...]
    allow_origin: tuple[str, ...]
    allow_open: bool
    max_body: int
    max_frames: int
    max_streams: int
    max_sockets: int
    heartbeat: float
    stream_keep: float
    grace: float
    drain: float
    jobs_at_once: int
    keep_jobs: int
    keep_days: float
    log_format: str
    api_keys_file: Path | None
    check: Path | None
    keys: tuple[str, ...]


def parse_options(argv: Sequence[str], environ: Mapping[str, str] = os.environ) -> ServerOptions:
    """Parse flags and environment. Exits with code 2 and a message where they are wrong."""
    parser = _parser(environ)
    values = vars(parser.parse_args(argv))
    keys = tuple(filter(None, (key.strip() for key in environ.get("FORGELINE_API_KEYS", "").split(","))))
    if environ.get("FORGELINE_API_KEYS") and not keys:
        parser.error("FORGELINE_API_KEYS holds no key: unset it, or give it keys, separated by commas")
    options = ServerOptions(**values, keys=keys)
    if not (options.allow_open or options.keys or options.api_keys_file or _is_loopback(options.address)):
        parser.error(
            f"--address {options.address} can be reached from other machines: set FORGELINE_API_KEYS or"
            " --api-keys-file, or say --allow-open if everybody who reaches it may use it"
        )
    return options


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


class _OptionAdder:
    """Adds flags whose defaults come from the environment."""

    def __init__(self, parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
        self._parser = parser
        self._environ = environ

    def add(self, flag: str, default: object, help: str, type: object = str, metavar: str | None = None) -> None:
        variable = "FORGELINE_" + flag.removeprefix("--").replace("-", "_").upper()
        # argparse passes a string default through `type`, so a wrong variable is reported like a wrong flag.
        value = self._environ.get(variable) or default  # an empty variable counts as unset
        default_note = "" if default in (None, "") else f" (default: {default})"
        self._parser.add_argument(
            flag,
            default=value,
            type=type,  # type: ignore[arg-type] # any callable from a string; argparse has no public name for it
            metavar=metavar,
            help=f"{help}{default_note} [{variable}]".replace("%", "%%"),
            **({"nargs": "?", "const": True} if type is _boolean else {}),  # type: ignore[arg-type] # as above
        )


def _parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="forgeline",
        description="Foundation models and the clusters they run on, behind one door.",
        allow_abbrev=False,
    )
    add = _OptionAdder(parser, environ).add
    add("--address", "127.0.0.1", "address to listen on")
    add("--port", "5000", "port to listen on; 0 picks one", _port)
    add("--presets", str(find_shipped_presets()), "folder of presets", Path, "DIR")
    add("--data", "data", "folder for what the server keeps", _absolute_path, "DIR")
    add("--infraforge", None, "InfraForge's checkout", _optional_path, "DIR")
    add("--dry-run", "true", "whether a deploy that doesn't say so is a dry run", _boolean, "true|false")
    add("--allow-host", "", "further Host names to answer to, separated by commas", _names, "HOSTS")
    add(
        "--allow-origin", "", "Origins of other sites that may call this server, separated by commas", _names, "ORIGINS"
    )
    add("--allow-open", "false", "serve an open address without API keys", _boolean, "true|false")
    add("--max-body", "67108864", "largest body of a request, in bytes", _positive, "BYTES")
    add("--max-frames", "100", "most frames in one request", _positive, "N")
    add("--max-streams", "2000", "most answers at once", _positive, "N")
    add("--max-sockets", "2000", "most WebSockets at once", _positive, "N")
    add("--heartbeat", "10", "seconds of silence before a heartbeat", _positive_seconds, "SECONDS")
    add("--stream-keep", "300", "seconds that an ended stream can still be read", _seconds, "SECONDS")
    add("--grace", "60", "seconds that a resumable stream runs on without a reader", _seconds, "SECONDS")
    add("--drain", "30", "seconds that streams have to end at shutdown", _seconds, "SECONDS")
    add("--jobs-at-once", "4", "deploy jobs that run at once", _positive, "N")
    add("--keep-jobs", "1000", "finished deploy jobs that are kept", _positive, "N")
    add("--keep-days", "90", "days that a finished deploy job is kept", _days, "DAYS")
    add("--log-format", "auto", "json, console, or auto: console on a terminal", _log_format, "FORMAT")
    add("--api-keys-file", None, "file of API keys, one a line", _optional_path, "FILE")
    parser.add_argument(
        "--check", type=Path, metavar="DIR", help="check a folder of presets, say what is wrong, and exit"
    )
    return parser


def _boolean(text: str) -> bool:
    if text.lower() in ("true", "1", "yes", "on"):
        return True
    if text.lower() in ("false", "0", "no", "off"):
        return False
    raise argparse.ArgumentTypeError(f"expected true or false, not {text!r}")


def _whole_number(text: str, minimum: int, maximum: int) -> int:
    if not text.isascii() or not text.isdigit() or not minimum <= int(text) <= maximum:
        raise argparse.ArgumentTypeError(f"expected a whole number from {minimum} to {maximum}, not {text!r}")
    return int(text)


def _port(text: str) -> int:
    return _whole_number(text, 0, 65535)


def _positive(text: str) -> int:
    return _whole_number(text, 1, 2**40)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1e6:
        raise argparse.ArgumentTypeError(f"expected a number of seconds, not {text!r}")
    return value


def _positive_seconds(text: str) -> float:
    value = _seconds(text)
    if value == 0:
        raise argparse.ArgumentTypeError("expected a number of seconds above 0")
    return value


def _days(text: str) -> float:
    return float(_whole_number(text, 1, 36_500))


def _optional_path(text: str) -> Path | None:
    return Path(text).absolute() if text else None


def _absolute_path(text: str) -> Path:
    return Path(text).absolute()  # absolute: jobs have working directories of their own


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip().lower() for name in text.split(",") if name.strip())


def _log_format(text: str) -> str:
    if text not in ("auto", "json", "console"):
        raise argparse.ArgumentTypeError(f"expected auto, json or console, not {text!r}")
    return text
