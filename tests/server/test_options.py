"""Options: each a flag and a variable, each checked, each in --help."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.options import PRESETS, Options, parse

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


def variable(flag: str) -> str:
    return "FORGELINE_" + flag[2:].replace("-", "_").upper()


def refusal(capsys: pytest.CaptureFixture[str], argv: list[str], environ: dict[str, str] | None = None) -> str:
    """What is said of options that are refused, with exit code 2."""
    with pytest.raises(SystemExit) as caught:
        parse(argv, environ or {})
    assert caught.value.code == 2
    return capsys.readouterr().err


def test_the_defaults_are_those_of_the_contract() -> None:
    options = parse([], {})
    assert (options.address, options.port, options.presets) == ("127.0.0.1", 5000, PRESETS)
    assert options.dry_run
    assert not options.allow_open
    assert (options.heartbeat, options.keys, options.allow_host) == (10.0, (), ())


def check_all(options: Options) -> None:
    assert (options.presets, options.data, options.infraforge) == (Path("p"), Path.cwd() / "d", Path.cwd() / "i")
    assert (options.dry_run, options.allow_open) == (False, True)
    assert (options.allow_host, options.allow_origin) == (("a.example", "b.example"), ("https://a.example",))
    assert (options.max_body, options.max_frames, options.max_streams, options.max_sockets) == (1, 2, 3, 4)
    assert (options.heartbeat, options.stream_keep, options.grace, options.drain) == (0.5, 6.0, 7.0, 8.0)
    assert (options.port, options.jobs_at_once, options.log_format) == (0, 9, "json")
    assert options.api_keys_file == Path.cwd() / "k"


def test_every_option_of_the_contract_is_a_flag() -> None:
    check_all(parse([f"{flag}={value}" for flag, value in FLAGS.items()], {}))


def test_every_option_of_the_contract_is_a_variable() -> None:
    check_all(parse([], {variable(flag): value for flag, value in FLAGS.items()}))


def test_a_flag_counts_more_than_its_variable() -> None:
    assert parse(["--port", "1"], {"FORGELINE_PORT": "2"}).port == 1


def test_help_lists_every_option_and_its_variable(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(["--help"], {})
    assert caught.value.code == 0
    said = capsys.readouterr().out
    for flag in FLAGS:
        assert flag in said
        assert f"[{variable(flag)}]" in "".join(said.split())
    assert "--check" in said


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
def test_a_wrong_value_is_refused_by_flag_and_by_variable(
    capsys: pytest.CaptureFixture[str], flag: str, value: str
) -> None:
    for said in (refusal(capsys, [f"{flag}={value}"]), refusal(capsys, [], {variable(flag): value})):
        assert flag in said
        assert "expected" in said
        assert value in said


@pytest.mark.parametrize("argv", [["--nope"], ["--prot=1"], ["stray"], ["--por", "1"], ["--api-keys", "k"]])
def test_an_unknown_option_is_refused(capsys: pytest.CaptureFixture[str], argv: list[str]) -> None:
    assert "unrecognized" in refusal(capsys, argv)


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.168.1.1", "example.com", ""])
def test_an_open_address_wants_keys_or_consent(capsys: pytest.CaptureFixture[str], address: str) -> None:
    assert "FORGELINE_API_KEYS" in refusal(capsys, ["--address", address])
    assert parse(["--address", address, "--allow-open"], {}).allow_open
    assert parse(["--address", address, "--api-keys-file", "k"], {}).address == address
    assert parse(["--address", address], {"FORGELINE_API_KEYS": "k"}).keys == ("k",)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_needs_no_keys(address: str) -> None:
    assert parse(["--address", address], {}).keys == ()


def test_keys_are_separated_by_commas_and_empty_ones_do_not_count(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse([], {"FORGELINE_API_KEYS": " a, ,b,"}).keys == ("a", "b")
    assert "FORGELINE_API_KEYS" in refusal(capsys, ["--address", "0.0.0.0"], {"FORGELINE_API_KEYS": " , "})


@pytest.mark.parametrize("flag", ["--drain", "--grace", "--stream-keep"])
def test_zero_seconds_are_a_choice(flag: str) -> None:
    assert getattr(parse([flag, "0"], {}), flag[2:].replace("-", "_")) == 0


def test_a_variable_that_is_empty_is_not_set() -> None:
    assert parse([], {"FORGELINE_PRESETS": "", "FORGELINE_PORT": ""}) == parse([], {})
