"""Options: each a flag and a variable, each checked, each in --help."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.config import ServerOptions, find_shipped_presets, parse_options

FLAGS = {
    "--address": "127.0.0.1",
    "--port": "0",
    "--presets": "p",
    "--data": "d",
    "--infraforge": "i",
    "--dry-run": "false",
    "--allow-host": "a.example,b.example",
    "--allow-origin": "https://a.example",
    "--allow-open": "true",
    "--max-body": "1",
    "--max-frames": "2",
    "--max-streams": "3",
    "--max-sockets": "4",
    "--heartbeat": "0.5",
    "--stream-keep": "6",
    "--grace": "7",
    "--drain": "8",
    "--jobs-at-once": "9",
    "--log-format": "json",
    "--api-keys-file": "k",
}


def variable_of(flag: str) -> str:
    return "FORGELINE_" + flag[2:].replace("-", "_").upper()


def rejection_message(
    capsys: pytest.CaptureFixture[str], argv: list[str], environ: dict[str, str] | None = None
) -> str:
    """What is said of options that are refused, with exit code 2."""
    with pytest.raises(SystemExit) as caught:
        parse_options(argv, environ or {})
    assert caught.value.code == 2
    return capsys.readouterr().err


def test_option_defaults_are_documented_ones() -> None:
    options = parse_options([], {})
    assert (options.address, options.port, options.presets) == ("127.0.0.1", 5000, find_shipped_presets())
    assert options.dry_run
    assert not options.allow_open
    assert (options.heartbeat, options.keys, options.allow_host) == (10.0, (), ())


def check_all_options(options: ServerOptions) -> None:
    assert (options.presets, options.data, options.infraforge) == (Path("p"), Path.cwd() / "d", Path.cwd() / "i")
    assert (options.dry_run, options.allow_open) == (False, True)
    assert (options.allow_host, options.allow_origin) == (("a.example", "b.example"), ("https://a.example",))
    assert (options.max_body, options.max_frames, options.max_streams, options.max_sockets) == (1, 2, 3, 4)
    assert (options.heartbeat, options.stream_keep, options.grace, options.drain) == (0.5, 6.0, 7.0, 8.0)
    assert (options.port, options.jobs_at_once, options.log_format) == (0, 9, "json")
    assert options.api_keys_file == Path.cwd() / "k"


def test_option_is_settable_by_flag() -> None:
    check_all_options(parse_options([f"{flag}={value}" for flag, value in FLAGS.items()], {}))


def test_option_is_settable_by_variable() -> None:
    check_all_options(parse_options([], {variable_of(flag): value for flag, value in FLAGS.items()}))


def test_option_flag_overrides_variable() -> None:
    assert parse_options(["--port", "1"], {"FORGELINE_PORT": "2"}).port == 1


def test_option_help_lists_flag_and_variable(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_options(["--help"], {})
    assert caught.value.code == 0
    output = capsys.readouterr().out
    for flag in FLAGS:
        assert flag in output
        assert f"[{variable_of(flag)}]" in "".join(output.split())
    assert "--check" in output


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--port", "65536"),
        ("--port", "-1"),
        ("--port", "http"),
        ("--max-body", "0"),
        ("--max-body", "64MB"),
        ("--max-frames", "1.5"),
        ("--heartbeat", "0"),
        ("--heartbeat", "nan"),
        ("--heartbeat", "inf"),
        ("--drain", "soon"),
        ("--dry-run", "maybe"),
        ("--log-format", "xml"),
    ],
)
def test_option_wrong_value_is_rejected(capsys: pytest.CaptureFixture[str], flag: str, value: str) -> None:
    for output in (
        rejection_message(capsys, [f"{flag}={value}"]),
        rejection_message(capsys, [], {variable_of(flag): value}),
    ):
        assert flag in output
        assert "expected" in output
        assert value in output


@pytest.mark.parametrize("argv", [["--nope"], ["--prot=1"], ["stray"], ["--por", "1"], ["--api-keys", "k"]])
def test_option_unknown_is_rejected(capsys: pytest.CaptureFixture[str], argv: list[str]) -> None:
    assert "unrecognized" in rejection_message(capsys, argv)


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.168.1.1", "example.com", ""])
def test_open_address_requires_keys_or_allow_open(capsys: pytest.CaptureFixture[str], address: str) -> None:
    assert "FORGELINE_API_KEYS" in rejection_message(capsys, ["--address", address])
    assert parse_options(["--address", address, "--allow-open"], {}).allow_open
    assert parse_options(["--address", address, "--api-keys-file", "k"], {}).address == address
    assert parse_options(["--address", address], {"FORGELINE_API_KEYS": "k"}).keys == ("k",)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_address_requires_no_keys(address: str) -> None:
    assert parse_options(["--address", address], {}).keys == ()


def test_api_keys_variable_is_split_at_commas(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse_options([], {"FORGELINE_API_KEYS": " a, ,b,"}).keys == ("a", "b")
    assert "FORGELINE_API_KEYS" in rejection_message(capsys, ["--address", "0.0.0.0"], {"FORGELINE_API_KEYS": " , "})


@pytest.mark.parametrize("flag", ["--drain", "--grace", "--stream-keep"])
def test_option_seconds_may_be_zero(flag: str) -> None:
    assert getattr(parse_options([flag, "0"], {}), flag[2:].replace("-", "_")) == 0


def test_option_empty_variable_counts_as_unset() -> None:
    assert parse_options([], {"FORGELINE_PRESETS": "", "FORGELINE_PORT": ""}) == parse_options([], {})
