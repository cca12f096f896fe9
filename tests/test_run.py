"""The real process: how it starts, refuses to, and ends."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.aio import asynchronous
from tests.pipeline.drawn import plain
from tests.processes import ROOT, Ended, Process, ran, running
from tests.server.checks import check_stream, text_of
from tests.serving import asks, says, sse_events, write_presets
from tests.upstream import Upstream, stream_of

HI = {"text": "hi"}


def check_refused(ended: Ended, *words: str) -> None:
    """Exit code 2, and a sentence that has these words."""
    assert (ended.code, ended.out) == (2, "")
    assert all(word in ended.err for word in words), ended.err
    assert "Traceback" not in ended.err


# --- serving and ending ----------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@asynchronous
async def test_it_says_one_line_once_it_serves_and_exits_0_on_a_signal(tmp_path: Path, number: int) -> None:
    async with running(tmp_path, models={"m": says("echo")}) as process:
        assert await process.status("/readyz") == 200
        ended = await process.stopped(number)
    assert ended.code == 0
    assert ended.out == f"listening on {process.url}\n"
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@asynchronous
async def test_a_stream_under_way_finishes_while_nothing_new_begins(tmp_path: Path, number: int) -> None:
    gate = asyncio.Event()
    async with Upstream() as up, running(tmp_path, models={"m": asks(up.base_url)}) as process:
        up.answer = stream_of(["Hello", gate, " world"])
        async with process.http.post(process.url + "/api/stream/m", json=HI) as response:
            await response.content.readuntil(b"chunk")
            ending = asyncio.create_task(process.stopped(number))
            while await process.status("/readyz") == 200:
                pass
            assert await process.status("/readyz") == 503
            assert await process.status("/healthz") == 200
            async with process.http.post(process.url + "/api/models/m", json=HI) as refused:
                assert (refused.status, (await refused.json())["code"]) == (503, "unavailable")
            gate.set()
            rest = await response.read()
        assert rest.rstrip().endswith(b'"type":"complete","seq":4}')
        assert b"Hello world" in rest
        assert (await ending).code == 0
        assert len(up.requests) == 1


@asynchronous
async def test_a_stream_that_does_not_end_in_time_is_ended_with_error_and_complete(tmp_path: Path) -> None:
    models = {"m": says("say:Hello; hang"), "p": says("hang")}
    async with running(tmp_path, "--drain", "0.1", models=models) as process:
        waiting = asyncio.create_task(answer_of(process, "/api/models/p"))
        async with process.http.post(process.url + "/api/stream/m", json=HI) as response:
            begun = await response.content.readuntil(b"\n\n")
            ending = asyncio.create_task(process.stopped())
            events = sse_events(begun + await response.read())
        assert check_stream(events)["m"]["code"] == "unavailable"
        assert await waiting == (503, "unavailable")
        assert (await ending).code == 0


async def answer_of(process: Process, path: str) -> tuple[int, str]:
    async with process.http.post(process.url + path, json=HI) as response:
        return response.status, (await response.json())["code"]


@asynchronous
async def test_a_broken_preset_at_the_start_is_rejected_and_the_rest_is_served(tmp_path: Path) -> None:
    models = {"m": says("echo"), "broken": {"provider": "scripted", "model": "echo", "modle": 1}}
    async with running(tmp_path, "--log-format", "json", models=models) as process:
        async with process.http.get(process.url + "/api/models") as response:
            assert [model["name"] for model in (await response.json())["models"]] == ["m"]
        ended = await process.stopped()
    (rejected,) = [line for line in map(json.loads, ended.err.splitlines()) if line.get("name") == "broken"]
    assert rejected["level"] == "warning"
    assert rejected["fault"].startswith("models/broken.yaml:2: modle: unknown field")


@asynchronous
async def test_the_log_is_json_on_standard_error_and_holds_no_text_frame_or_key(tmp_path: Path) -> None:
    frame = plain(8, 8).as_base64()
    texts = [{"text": "my-secret-text", "frames": [frame]}, {"text": "my-secret-text", "nope": "my-secret-text"}]
    environ = {"FORGELINE_API_KEYS": "my-secret-key", "FORGELINE_LOG_FORMAT": "json"}
    models = {"m": says("echo"), "late": says("echo; fail:model_error"), "early": says("fail:model_error")}
    async with running(tmp_path, models=models, environ=environ) as process:
        statuses = []
        for path in ["models/m", "models/early", "stream/late", "models/nobody"]:
            for body in texts:
                headers = {"X-API-Key": "my-secret-key", "X-Request-Id": "r-1"}
                async with process.http.post(f"{process.url}/api/{path}", json=body, headers=headers) as response:
                    statuses.append(response.status)
                    await response.read()
        ended = await process.stopped()
    assert statuses == [200, 400, 500, 400, 200, 400, 404, 400]
    lines = [json.loads(line) for line in ended.err.splitlines()]
    requests = [line for line in lines if line["event"] == "request"]
    assert [line["status"] for line in requests] == statuses
    assert {line["request_id"] for line in requests} == {"r-1"}
    assert "my-secret" not in ended.err
    assert frame[:16] not in ended.err
    assert not [line for line in lines if line["level"] == "error"]


@asynchronous
async def test_a_client_that_leaves_is_no_error_in_the_log(tmp_path: Path) -> None:
    models = {"m": says("say:Hello; hang"), "p": says("hang")}
    async with running(tmp_path, "--log-format", "json", models=models) as process:
        async with process.http.post(process.url + "/api/stream/m", json=HI) as response:
            await response.content.readuntil(b"\n\n")
            response.close()
        with pytest.raises(TimeoutError):
            await process.http.post(process.url + "/api/models/p", json=HI, timeout=aiohttp.ClientTimeout(total=0.1))
        ended = await process.stopped()
    lines = [json.loads(line) for line in ended.err.splitlines()]
    assert {line["level"] for line in lines} == {"info"}


@asynchronous
async def test_an_open_address_with_keys_is_served(tmp_path: Path) -> None:
    keys = {"FORGELINE_API_KEYS": "k"}
    async with running(tmp_path, "--address", "0.0.0.0", models={"m": says("echo")}, environ=keys) as process:
        url = f"http://127.0.0.1:{process.url.rpartition(':')[2]}/api/stream/m"
        async with process.http.post(url, json=HI, headers={"X-API-Key": "k"}) as response:
            assert text_of(check_stream(sse_events(await response.read()))["m"]) == "hi"


# --- refusing to start -----------------------------------------------------------------------------


@asynchronous
async def test_a_port_that_is_taken_is_exit_2(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        check_refused(await ran(tmp_path, "--port", port), port, "taken", "--port")


@pytest.mark.parametrize(
    ("flags", "environ", "words"),
    [
        (["--address", "0.0.0.0"], {}, ["FORGELINE_API_KEYS"]),
        (["--address", "203.0.113.1", "--allow-open"], {}, ["203.0.113.1"]),
        (["--nope"], {}, ["--nope"]),
        (["--max-body", "big"], {}, ["--max-body", "whole number"]),
        ([], {"FORGELINE_HEARTBEAT": "soon"}, ["--heartbeat", "seconds"]),
        (["--api-keys-file", "missing"], {}, ["--api-keys-file", "missing"]),
        (["--check", "missing"], {}, ["missing"]),
    ],
)
@asynchronous
async def test_a_wrong_option_is_exit_2_with_a_sentence(
    tmp_path: Path, flags: Sequence[str], environ: Mapping[str, str], words: Sequence[str]
) -> None:
    check_refused(await ran(tmp_path, *flags, environ=environ), *words)


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        (["decode_frames", "dance", "invoke", "normalize_envelope"], ["pipeline.yaml", "'dance'"]),
        (["route_model", "normalize_envelope"], ["pipeline.yaml", "invoke"]),
        (["route_model", "invoke", "normalize_envelope", "limit"], ["normalize_envelope", "last"]),
        ([{"decode_frames": {"max_pixels": 0}}, "invoke", "normalize_envelope"], ["max_pixels"]),
    ],
)
@asynchronous
async def test_a_pipeline_that_could_never_answer_is_exit_2(
    tmp_path: Path, stages: list[Any], words: Sequence[str]
) -> None:
    write_presets(tmp_path / "presets", {}, stages)
    check_refused(await ran(tmp_path), *words)


# --- --check and --help ----------------------------------------------------------------------------


@asynchronous
async def test_the_shipped_presets_have_no_fault(tmp_path: Path) -> None:
    ended = await ran(tmp_path, "--check", str(ROOT / "presets"))
    assert (ended.code, ended.err) == (0, "")
    assert "no fault" in ended.out


@asynchronous
async def test_check_says_every_fault_with_file_and_line(tmp_path: Path) -> None:
    models = tmp_path / "presets" / "models"
    write_presets(tmp_path / "presets", {"good": says("echo")}, ["decode_frames", "dance"])
    (models / "typo.yaml").write_text("provider: scripted\nmodel: m\nlimits:\n  frame: 1\n")
    (models / "torn.yaml").write_text("provider: [\nmodel: m\n")
    (models / "empty.yaml").write_text("")
    (models / "Wrong Name.yaml").write_text("provider: scripted\nmodel: m\n")
    (models / ".swap.yaml").write_text("[")
    (models / "notes.txt").write_text("[")
    ended = await ran(tmp_path, "--check", str(tmp_path / "presets"))
    assert ended.code == 1
    places = sorted(line.partition(": ")[0] for line in ended.out.splitlines())
    assert places == sorted(
        ["models/Wrong Name.yaml", "models/empty.yaml", "models/torn.yaml:3", "models/typo.yaml:4", "pipeline.yaml:3"]
    )


@asynchronous
async def test_help_says_how_to_start_it(tmp_path: Path) -> None:
    ended = await ran(tmp_path, "--help")
    assert ended.code == 0
    assert "FORGELINE_MAX_BODY" in ended.out
