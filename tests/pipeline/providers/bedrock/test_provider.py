"""The bedrock provider against an AWS-shaped endpoint: requests, responses, connections and credentials."""

from __future__ import annotations

import asyncio
import base64
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.aws.clients import AwsClients
from pipeline.errors import Unavailable
from pipeline.media.frames import Frame, Video
from pipeline.messages import Finish, Message, Parameters, Reasoning, Usage
from pipeline.stage import Availability
from tests.async_tests import async_test, within_deadline
from tests.aws import Key, error_response, hanging_response, reasoning, text_response
from tests.pipeline.factories import cancel_when
from tests.pipeline.media.make_pictures import plain_picture
from tests.pipeline.providers.bedrock.helpers import CLAUDE, NOVA, WITHOUT_STREAM, aws_and_provider, make_target
from tests.pipeline.providers.helpers import FINAL_PARTS, collect_parts, make_inference, read_parts

# --- requests ----------------------------------------------------------------------------------------


@async_test
async def test_request_has_turns_system_and_only_given_parameters() -> None:
    turns = (Message("user", ("a", "b")), Message("assistant", ("c",)), Message("user", ("d",)))
    parameters = Parameters(max_tokens=7, temperature=None, top_p=0.5, stop=("END",))
    async with aws_and_provider() as (aws, provider, target):
        await collect_parts(provider, target, make_inference(*turns, system="Be kind.", parameters=parameters))
        (request,) = aws.requests
    assert (request.operation, request.target, request.region) == ("ConverseStream", CLAUDE, "us-west-2")
    assert request.body == {
        "messages": [
            {"role": "user", "content": [{"text": "a"}, {"text": "b"}]},
            {"role": "assistant", "content": [{"text": "c"}]},
            {"role": "user", "content": [{"text": "d"}]},
        ],
        "system": [{"text": "Be kind."}],
        "inferenceConfig": {"maxTokens": 7, "topP": 0.5, "stopSequences": ["END"]},
    }


@async_test
async def test_request_has_zero_temperature_and_no_empty_system() -> None:
    async with aws_and_provider() as (aws, provider, target):
        await collect_parts(
            provider, target, make_inference(system="", parameters=Parameters(max_tokens=7, temperature=0.0))
        )
        assert aws.requests[0].body == {
            "messages": [{"role": "user", "content": [{"text": "Hi"}]}],
            "inferenceConfig": {"maxTokens": 7, "temperature": 0.0},
        }


@pytest.mark.parametrize("capabilities", [WITHOUT_STREAM, ("image", "stream")])
@async_test
async def test_request_has_pictures_in_order_with_format(capabilities: tuple[str, ...]) -> None:
    pictures = [plain_picture(8, 8, kind) for kind in ("png", "jpeg", "gif", "webp")]
    large = Frame(pictures[0].data + bytes(3_000_000), "png", 8, 8)
    async with aws_and_provider(capabilities=capabilities) as (aws, provider, target):
        await collect_parts(provider, target, make_inference(Message("user", (*pictures, "What?", large))))
        content = aws.requests[0].body["messages"][0]["content"]
    frames = [block.get("image") for block in content]
    assert [frame and frame["format"] for frame in frames] == ["png", "jpeg", "gif", "webp", None, "png"]
    sent = [base64.b64decode(frame["source"]["bytes"]) for frame in frames if frame]
    assert sent == [picture.data for picture in [*pictures, large]]
    assert content[4] == {"text": "What?"}


@async_test
async def test_request_has_video() -> None:
    clip = Video(b"clip", "three_gp")
    async with aws_and_provider(model=NOVA) as (aws, provider, target):
        await collect_parts(provider, target, make_inference(Message("user", (clip, "What?"))))
        block = aws.requests[0].body["messages"][0]["content"][0]
    assert block == {"video": {"format": "three_gp", "source": {"bytes": base64.b64encode(b"clip").decode()}}}


@async_test
async def test_request_omits_blank_text_beside_pictures() -> None:
    async with aws_and_provider() as (aws, provider, target):
        await collect_parts(provider, target, make_inference(Message("user", (" ", plain_picture(8, 8)))))
        assert [[*block] for block in aws.requests[0].body["messages"][0]["content"]] == [["image"]]


@async_test
async def test_request_keeps_text_that_looks_like_media_marker() -> None:
    text = base64.b64encode(bytes(18)).decode() + ' "\\\u2028\U0001f600 é'
    async with aws_and_provider() as (aws, provider, target):
        await collect_parts(provider, target, make_inference(Message("user", (text, plain_picture(8, 8)))))
        assert aws.requests[0].body["messages"][0]["content"][0] == {"text": text}


@pytest.mark.parametrize("model", [CLAUDE, NOVA, "amazon.nova-lite-v1:0"])
@async_test
async def test_claude_and_nova_get_same_request(model: str) -> None:
    async with aws_and_provider(model=model) as (aws, provider, target):
        assert await collect_parts(provider, target) == ["Hello", " world", *FINAL_PARTS]
        assert aws.requests[0].target == model


# --- responses ---------------------------------------------------------------------------------------


@async_test
async def test_response_has_reasoning_and_cache_tokens() -> None:
    usage = {"inputTokens": 5, "outputTokens": 6, "cacheReadInputTokens": 7, "cacheWriteInputTokens": 8}
    async with aws_and_provider(text_response(reasoning("Hm."), "So", "", " it is", usage=usage)) as (
        _,
        provider,
        target,
    ):
        assert await collect_parts(provider, target) == [
            Reasoning("Hm."),
            "So",
            " it is",
            Finish("end_turn"),
            Usage(5, 6, 7, 8),
        ]


@pytest.mark.parametrize("capabilities", [WITHOUT_STREAM, ("text", "stream")])
@pytest.mark.parametrize(
    ("upstream_reason", "reason"),
    [
        ("end_turn", "end_turn"),
        ("max_tokens", "max_tokens"),
        ("model_context_window_exceeded", "max_tokens"),
        ("stop_sequence", "stop_sequence"),
        ("content_filtered", "content_filter"),
        ("guardrail_intervened", "content_filter"),
        ("tool_use", "tool_use"),
        ("invented_tomorrow", "other"),
    ],
)
@async_test
async def test_response_maps_stop_reason(capabilities: tuple[str, ...], upstream_reason: str, reason: str) -> None:
    async with aws_and_provider(text_response("a", stop_reason=upstream_reason), capabilities=capabilities) as (
        _,
        provider,
        target,
    ):
        assert await collect_parts(provider, target) == ["a", Finish(reason), Usage(3, 2)]  # type: ignore[arg-type]


@async_test
async def test_model_without_stream_capability_uses_converse() -> None:
    async with aws_and_provider(text_response(reasoning("Hm."), "Hello"), capabilities=WITHOUT_STREAM) as (
        aws,
        provider,
        target,
    ):
        response = await provider.open(target, make_inference())
        assert not response.streamed
        assert await read_parts(response) == [Reasoning("Hm."), "Hello", *FINAL_PARTS]
        assert aws.calls == {"Converse": 1}


@async_test
async def test_open_returns_at_first_chunk_with_request_id() -> None:
    gate = asyncio.Event()
    async with aws_and_provider(text_response("Hello", gate, " world")) as (_, provider, target):
        response = await provider.open(target, make_inference())
        assert await anext(aiter(response)) == ["Hello"]
        assert response.streamed
        assert len(response.id) == 36
        assert response.model == CLAUDE
        gate.set()
        assert await read_parts(response) == [" world", *FINAL_PARTS]


@async_test
async def test_response_without_text_yields_only_final_parts() -> None:
    async with aws_and_provider(text_response()) as (_, provider, target):
        assert await collect_parts(provider, target) == FINAL_PARTS


@async_test
async def test_account_id_in_model_arn_is_masked_in_response() -> None:
    model = f"arn:aws:bedrock:us-west-2:123456789012:inference-profile/{CLAUDE}"
    async with aws_and_provider(model=model) as (aws, provider, target):
        response = await provider.open(target, make_inference())
        await response.aclose()
        assert aws.requests[0].target == model
        assert response.model == f"arn:aws:bedrock:us-west-2:[account]:inference-profile/{CLAUDE}"


# --- connections -------------------------------------------------------------------------------------


@async_test
async def test_connection_is_reused_after_whole_response() -> None:
    async with aws_and_provider() as (aws, provider, target):
        for _ in range(5):
            await collect_parts(provider, target)
        assert aws.connection_count == 1


@async_test
async def test_close_response_early_closes_connection_without_waiting() -> None:
    async with aws_and_provider(text_response("Hello", asyncio.Event())) as (aws, provider, target):
        response = await provider.open(target, make_inference())
        closing = response.aclose()
        with pytest.raises(StopIteration):
            closing.send(None)  # it awaits nothing
        await within_deadline(aws.wait_until_idle())
        assert aws.aborted == 1


@pytest.mark.parametrize("capabilities", [WITHOUT_STREAM, ("text", "stream")])
@pytest.mark.parametrize(
    "gate", [hanging_response, lambda: text_response({"messageStart": {"role": "assistant"}}, asyncio.Event())]
)
@async_test
async def test_cancel_open_closes_connection(capabilities: tuple[str, ...], gate: object) -> None:
    assert callable(gate)
    async with aws_and_provider(gate(), capabilities=capabilities) as (aws, provider, target):
        operation = "ConverseStream" if "stream" in capabilities else "Converse"
        await cancel_when(provider.open(target, make_inference()), aws.wait_for_calls(1, operation))
        await within_deadline(aws.wait_until_idle())
        assert aws.aborted == 1


@async_test
async def test_concurrent_requests_share_client_and_cancel_of_one_keeps_it() -> None:
    async with aws_and_provider() as (_, _provider, _to):
        clients = AwsClients()
        provider = [asyncio.create_task(clients.get("bedrock-runtime", "us-west-2")) for _ in range(20)]
        await asyncio.sleep(0)
        provider[0].cancel()
        clients_returned = await asyncio.gather(*provider[1:])
        assert len({*map(id, clients_returned)}) == 1
        assert await clients.get("bedrock-runtime", "eu-west-1") is not clients_returned[0]
        await clients.close()


@async_test
async def test_64_concurrent_streams() -> None:
    gate = asyncio.Event()
    async with aws_and_provider(text_response("Hello", gate, " world")) as (aws, provider, target):
        responses = await asyncio.gather(*(provider.open(target, make_inference()) for _ in range(64)))
        assert aws.open_streams == 64
        gate.set()
        for parts in await asyncio.gather(*map(read_parts, responses)):
            assert parts == ["Hello", " world", *FINAL_PARTS]


# --- credentials and regions: AWS's own chain --------------------------------------------------------


@async_test
async def test_bearer_token_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with aws_and_provider() as (aws, provider, target):
        monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", aws.bearer)
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        assert await collect_parts(provider, target) == ["Hello", " world", *FINAL_PARTS]
        assert aws.requests[0].headers["Authorization"] == f"Bearer {aws.bearer}"


@async_test
async def test_profile_role_is_assumed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    role = "[profile work]\nrole_arn = arn:aws:iam::123456789012:role/forgeline\nsource_profile = base\n"
    async with aws_and_provider() as (aws, provider, target):
        ((access, key),) = aws.keys.items()
        base = f"[profile base]\naws_access_key_id = {access}\naws_secret_access_key = {key.secret}\n"
        (tmp_path / "config").write_text(role + base)
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        monkeypatch.setenv("AWS_PROFILE", "work")
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        assert await collect_parts(provider, target) == ["Hello", " world", *FINAL_PARTS]
        assert [request.operation for request in aws.requests] == ["AssumeRole", "ConverseStream"]
        assert aws.requests[1].key != access


@async_test
async def test_web_identity_is_exchanged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("a.web.identity")
    async with aws_and_provider() as (aws, provider, target):
        monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
        monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/forgeline")
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        assert await collect_parts(provider, target) == ["Hello", " world", *FINAL_PARTS]
        assert [request.operation for request in aws.requests] == ["AssumeRoleWithWebIdentity", "ConverseStream"]


@async_test
async def test_preset_without_region_uses_sdk_region() -> None:
    async with aws_and_provider(region=None) as (aws, provider, target):
        await collect_parts(provider, target)
        assert aws.requests[0].region == "us-west-2"


@async_test
async def test_missing_region_is_unavailable_with_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    async with aws_and_provider(region=None) as (_, provider, target):
        monkeypatch.delenv("AWS_DEFAULT_REGION")
        with pytest.raises(Unavailable, match="set region in its preset, or AWS_DEFAULT_REGION"):
            await provider.open(target, make_inference())


@async_test
async def test_credentials_added_later_are_used_without_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    async with aws_and_provider() as (aws, provider, target):
        with monkeypatch.context() as patch:
            patch.delenv("AWS_ACCESS_KEY_ID")
            with pytest.raises(Unavailable, match="No AWS credentials were found"):
                await provider.open(target, make_inference())
        assert aws.requests == []
        assert await collect_parts(provider, target) == ["Hello", " world", *FINAL_PARTS]


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (Key("another secret"), "refused the credentials for claude4: the keys, or this machine's clock, are wrong"),
        (Key("forgeline/secret+for/tests", token="another"), "refused the credentials"),  # noqa: S106 - made up
        (Key("forgeline/secret+for/tests", expired=True), "have expired: renew them"),
    ],
)
@async_test
async def test_rejected_credentials_are_unavailable_with_reason(key: Key, message: str) -> None:
    async with aws_and_provider() as (aws, provider, target):
        aws.keys = dict.fromkeys(aws.keys, key)
        with pytest.raises(Unavailable, match=message):
            await provider.open(target, make_inference())
        assert aws.calls == {"ConverseStream": 1}


@async_test
async def test_missing_profile_is_unavailable_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    async with aws_and_provider() as (_, provider, target):
        monkeypatch.setenv("AWS_PROFILE", "nobody")
        with pytest.raises(Unavailable, match="nobody"):
            await provider.open(target, make_inference())


# --- availability ------------------------------------------------------------------------------------


@async_test
async def test_availability_is_result_of_last_call() -> None:
    async with aws_and_provider() as (aws, provider, target):
        assert (await provider.availability(target.preset)).status == "unknown"
        aws.enqueue(CLAUDE, error_response("AccessDeniedException"), error_response("ThrottlingException"))
        for _ in range(2):  # throttling does not change the availability
            with pytest.raises(Exception, match="claude4"):
                await provider.open(target, make_inference())
            availability = await provider.availability(target.preset)
            assert (availability.status, "does not allow claude4" in (availability.reason or "")) == (
                "unavailable",
                True,
            )
        await collect_parts(provider, target)
        assert await provider.availability(target.preset) == Availability("available")
        assert (await provider.availability(make_target(model=NOVA).preset)).status == "unknown"


def test_import_run_does_not_import_sdk() -> None:
    code = "import sys, run; sys.exit('aiobotocore.session' in sys.modules or 'botocore.session' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
