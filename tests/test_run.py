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

from tests.async_tests import async_test
from tests.pipeline.media.make_pictures import plain_picture
from tests.processes import ROOT, ProcessResult, ServerProcess, run_to_end, running_process
from tests.running_server import parse_sse, scripted_model, upstream_model, write_presets
from tests.server.checks import check_stream, text_of
from tests.upstream import Upstream, stream_response

HI = {"text": "hi"}


def check_rejected(ended: ProcessResult, *words: str) -> None:
    """Exit code 2, and a sentence that has these words."""
    assert (ended.code, ended.out) == (2, "")
    assert all(word in ended.err for word in words), ended.err
    assert "Traceback" not in ended.err


# --- serving and ending ----------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@async_test
async def test_run_prints_url_and_exits_0_on_signal(tmp_path: Path, number: int) -> None:
    async with running_process(tmp_path, models={"m": scripted_model("echo")}) as process:
        assert await process.get_status("/readyz") == 200
        ended = await process.stop(number)
    assert ended.code == 0
    assert ended.out == f"listening on {process.url}\n"
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@async_test
async def test_shutdown_lets_running_stream_finish(tmp_path: Path, number: int) -> None:
    gate = asyncio.Event()
    async with Upstream() as up, running_process(tmp_path, models={"m": upstream_model(up.base_url)}) as process:
        up.response = stream_response(["Hello", gate, " world"])
        async with process.http.post(process.url + "/api/stream/m", json=HI) as response:
            await response.content.readuntil(b"chunk")
            ending = asyncio.create_task(process.stop(number))
            while await process.get_status("/readyz") == 200:
                pass
            assert await process.get_status("/readyz") == 503
            assert await process.get_status("/healthz") == 200
            async with process.http.post(process.url + "/api/models/m", json=HI) as refused:
                assert (refused.status, (await refused.json())["code"]) == (503, "unavailable")
            gate.set()
            rest = await response.read()
        assert rest.rstrip().endswith(b'"type":"complete","seq":4}')
        assert b"Hello world" in rest
        assert (await ending).code == 0
        assert len(up.requests) == 1


@async_test
async def test_shutdown_stops_stream_after_drain(tmp_path: Path) -> None:
    models = {"m": scripted_model("say:Hello; hang"), "p": scripted_model("hang")}
    async with running_process(tmp_path, "--drain", "0.1", models=models) as process:
        waiting = asyncio.create_task(post_inference(process, "/api/models/p"))
        async with process.http.post(process.url + "/api/stream/m", json=HI) as response:
            begun = await response.content.readuntil(b"\n\n")
            ending = asyncio.create_task(process.stop())
            events = parse_sse(begun + await response.read())
        assert check_stream(events)["m"]["code"] == "unavailable"
        assert await waiting == (503, "unavailable")
        assert (await ending).code == 0


async def post_inference(process: ServerProcess, path: str) -> tuple[int, str]:
    async with process.http.post(process.url + path, json=HI) as response:
        return response.status, (await response.json())["code"]


@async_test
async def test_run_rejects_broken_preset_and_serves_others(tmp_path: Path) -> None:
    models = {"m": scripted_model("echo"), "broken": {"provider": "scripted", "model": "echo", "modle": 1}}
    async with running_process(tmp_path, "--log-format", "json", models=models) as process:
        async with process.http.get(process.url + "/api/models") as response:
            assert [model["name"] for model in (await response.json())["models"]] == ["m"]
        ended = await process.stop()
    (rejected,) = [line for line in map(json.loads, ended.err.splitlines()) if line.get("name") == "broken"]
    assert rejected["level"] == "warning"
    assert rejected["error"].startswith("models/broken.yaml:2: modle: unknown field")


@async_test
async def test_run_log_is_json_without_texts_frames_or_keys(tmp_path: Path) -> None:
    frame = plain_picture(8, 8).as_base64()
    texts = [{"text": "my-secret-text", "frames": [frame]}, {"text": "my-secret-text", "nope": "my-secret-text"}]
    environ = {"FORGELINE_API_KEYS": "my-secret-key", "FORGELINE_LOG_FORMAT": "json"}
    models = {
        "m": scripted_model("echo"),
        "late": scripted_model("echo; fail:model_error"),
        "early": scripted_model("fail:model_error"),
    }
    async with running_process(tmp_path, models=models, environ=environ) as process:
        statuses = []
        for path in ["models/m", "models/early", "stream/late", "models/nobody"]:
            for body in texts:
                headers = {"X-API-Key": "my-secret-key", "X-Request-Id": "r-1"}
                async with process.http.post(f"{process.url}/api/{path}", json=body, headers=headers) as response:
                    statuses.append(response.status)
                    await response.read()
        ended = await process.stop()
    assert statuses == [200, 400, 500, 400, 200, 400, 404, 400]
    lines = [json.loads(line) for line in ended.err.splitlines()]
    requests = [line for line in lines if line["event"] == "request"]
    assert [line["status"] for line in requests] == statuses
    assert {line["request_id"] for line in requests} == {"r-1"}
    assert "my-secret" not in ended.err
    assert frame[:16] not in ended.err
    assert not [line for line in lines if line["level"] == "error"]


@async_test
async def test_run_log_has_no_error_for_client_disconnect(tmp_path: Path) -> None:
    models = {"m": scripted_model("say:Hello; hang"), "p": scripted_model("hang")}
    async with running_process(tmp_path, "--log-format", "json", models=models) as process:
        async with process.http.post(process.url + "/api/stream/m", json=HI) as response:
            await response.content.readuntil(b"\n\n")
            response.close()
        with pytest.raises(TimeoutError):
            await process.http.post(process.url + "/api/models/p", json=HI, timeout=aiohttp.ClientTimeout(total=0.1))
        ended = await process.stop()
    lines = [json.loads(line) for line in ended.err.splitlines()]
    assert {line["level"] for line in lines} == {"info"}


@async_test
async def test_run_open_address_with_keys_starts(tmp_path: Path) -> None:
    keys = {"FORGELINE_API_KEYS": "k"}
    async with running_process(
        tmp_path, "--address", "0.0.0.0", models={"m": scripted_model("echo")}, environ=keys
    ) as process:
        url = f"http://127.0.0.1:{process.url.rpartition(':')[2]}/api/stream/m"
        async with process.http.post(url, json=HI, headers={"X-API-Key": "k"}) as response:
            assert text_of(check_stream(parse_sse(await response.read()))["m"]) == "hi"


# --- refusing to start -----------------------------------------------------------------------------


@async_test
async def test_run_port_in_use_is_exit_2(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        check_rejected(await run_to_end(tmp_path, "--port", port), port, "taken", "--port")


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
@async_test
async def test_run_wrong_option_is_exit_2(
    tmp_path: Path, flags: Sequence[str], environ: Mapping[str, str], words: Sequence[str]
) -> None:
    check_rejected(await run_to_end(tmp_path, *flags, environ=environ), *words)


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        (["decode_frames", "dance", "invoke", "normalize_envelope"], ["pipeline.yaml", "'dance'"]),
        (["route_model", "normalize_envelope"], ["pipeline.yaml", "invoke"]),
        (["route_model", "invoke", "normalize_envelope", "limit"], ["normalize_envelope", "last"]),
        ([{"decode_frames": {"max_pixels": 0}}, "invoke", "normalize_envelope"], ["max_pixels"]),
    ],
)
@async_test
async def test_run_unusable_pipeline_is_exit_2(tmp_path: Path, stages: list[Any], words: Sequence[str]) -> None:
    write_presets(tmp_path / "presets", {}, stages)
    check_rejected(await run_to_end(tmp_path), *words)


# --- --check and --help ----------------------------------------------------------------------------


@async_test
async def test_check_shipped_presets_have_no_errors(tmp_path: Path) -> None:
    ended = await run_to_end(tmp_path, "--check", str(ROOT / "presets"))
    assert (ended.code, ended.err) == (0, "")
    assert "no fault" in ended.out


@async_test
async def test_check_prints_every_error_with_file_and_line(tmp_path: Path) -> None:
    models = tmp_path / "presets" / "models"
    write_presets(tmp_path / "presets", {"good": scripted_model("echo")}, ["decode_frames", "dance"])
    (models / "typo.yaml").write_text("provider: scripted\nmodel: m\nlimits:\n  frame: 1\n")
    (models / "torn.yaml").write_text("provider: [\nmodel: m\n")
    (models / "empty.yaml").write_text("")
    (models / "Wrong Name.yaml").write_text("provider: scripted\nmodel: m\n")
    (models / ".swap.yaml").write_text("[")
    (models / "notes.txt").write_text("[")
    ended = await run_to_end(tmp_path, "--check", str(tmp_path / "presets"))
    assert ended.code == 1
    places = sorted(line.partition(": ")[0] for line in ended.out.splitlines())
    assert places == sorted(
        ["models/Wrong Name.yaml", "models/empty.yaml", "models/torn.yaml:3", "models/typo.yaml:4", "pipeline.yaml:3"]
    )


@async_test
async def test_check_warns_of_outdated_stage_order(tmp_path: Path) -> None:
    stages = ["route_model", "limit", "circuit_breaker", "retry", "invoke", "normalize_envelope"]
    write_presets(tmp_path / "presets", {"m": scripted_model("echo")}, stages)
    ended = await run_to_end(tmp_path, "--check", str(tmp_path / "presets"))
    warning, summary = ended.out.splitlines()
    assert warning.startswith("warning: pipeline.yaml:4: ")
    assert "circuit_breaker should stand before limit" in warning
    assert (ended.code, summary) == (0, "2 presets, no fault")


@async_test
async def test_run_help_lists_options(tmp_path: Path) -> None:
    ended = await run_to_end(tmp_path, "--help")
    assert ended.code == 0
    assert "FORGELINE_MAX_BODY" in ended.out
