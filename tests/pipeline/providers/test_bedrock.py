"""The bedrock provider against an AWS-shaped endpoint: what goes out, what comes back, and with whose credentials."""

from __future__ import annotations

import asyncio
import base64
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import Unavailable
from pipeline.frames import Frame, Video
from pipeline.messages import Message, Parameters, Reasoning, Stop, Usage
from pipeline.providers.aws import Clients
from pipeline.stage import Availability
from tests.aio import asynchronous, soon
from tests.aws import Key, fails, hangs, says, thinks
from tests.pipeline.drawn import plain
from tests.pipeline.making import cancel
from tests.pipeline.providers.asking import ENDED, ask, inference, read_all
from tests.pipeline.providers.on_bedrock import CLAUDE, NOVA, PLAIN, route, talking

# --- what goes out -----------------------------------------------------------------------------------


@asynchronous
async def test_sends_turns_system_and_only_the_parameters_that_were_said() -> None:
    turns = (Message("user", ("a", "b")), Message("assistant", ("c",)), Message("user", ("d",)))
    said = Parameters(max_tokens=7, temperature=None, top_p=0.5, stop=("END",))
    async with talking() as (aws, provider, to):
        await ask(provider, to, inference(*turns, system="Be kind.", parameters=said))
        (asked,) = aws.requests
    assert (asked.operation, asked.target, asked.region) == ("ConverseStream", CLAUDE, "us-west-2")
    assert asked.body == {
        "messages": [
            {"role": "user", "content": [{"text": "a"}, {"text": "b"}]},
            {"role": "assistant", "content": [{"text": "c"}]},
            {"role": "user", "content": [{"text": "d"}]},
        ],
        "system": [{"text": "Be kind."}],
        "inferenceConfig": {"maxTokens": 7, "topP": 0.5, "stopSequences": ["END"]},
    }


@asynchronous
async def test_the_temperature_goes_out_and_what_is_empty_does_not() -> None:
    async with talking() as (aws, provider, to):
        await ask(provider, to, inference(system="", parameters=Parameters(max_tokens=7, temperature=0.0)))
        assert aws.requests[0].body == {
            "messages": [{"role": "user", "content": [{"text": "Hi"}]}],
            "inferenceConfig": {"maxTokens": 7, "temperature": 0.0},
        }


@pytest.mark.parametrize("capabilities", [PLAIN, ("image", "stream")])
@asynchronous
async def test_pictures_go_out_whole_in_their_place_and_their_own_format(capabilities: tuple[str, ...]) -> None:
    pictures = [plain(8, 8, kind) for kind in ("png", "jpeg", "gif", "webp")]
    large = Frame(pictures[0].data + bytes(3_000_000), "png", 8, 8)
    async with talking(capabilities=capabilities) as (aws, provider, to):
        await ask(provider, to, inference(Message("user", (*pictures, "What?", large))))
        content = aws.requests[0].body["messages"][0]["content"]
    frames = [block.get("image") for block in content]
    assert [frame and frame["format"] for frame in frames] == ["png", "jpeg", "gif", "webp", None, "png"]
    sent = [base64.b64decode(frame["source"]["bytes"]) for frame in frames if frame]
    assert sent == [picture.data for picture in [*pictures, large]]
    assert content[4] == {"text": "What?"}


@asynchronous
async def test_a_whole_video_goes_out_as_a_video() -> None:
    clip = Video(b"clip", "three_gp")
    async with talking(model=NOVA) as (aws, provider, to):
        await ask(provider, to, inference(Message("user", (clip, "What?"))))
        block = aws.requests[0].body["messages"][0]["content"][0]
    assert block == {"video": {"format": "three_gp", "source": {"bytes": base64.b64encode(b"clip").decode()}}}


@asynchronous
async def test_a_blank_text_is_left_out_beside_pictures_because_bedrock_refuses_it() -> None:
    async with talking() as (aws, provider, to):
        await ask(provider, to, inference(Message("user", (" ", plain(8, 8)))))
        assert [[*block] for block in aws.requests[0].body["messages"][0]["content"]] == [["image"]]


@asynchronous
async def test_what_looks_like_the_marks_of_our_media_in_a_text_stays_as_it_is() -> None:
    text = base64.b64encode(bytes(18)).decode() + ' "\\\u2028\U0001f600 é'
    async with talking() as (aws, provider, to):
        await ask(provider, to, inference(Message("user", (text, plain(8, 8)))))
        assert aws.requests[0].body["messages"][0]["content"][0] == {"text": text}


@pytest.mark.parametrize("model", [CLAUDE, NOVA, "amazon.nova-lite-v1:0"])
@asynchronous
async def test_claude_and_nova_are_asked_alike(model: str) -> None:
    async with talking(model=model) as (aws, provider, to):
        assert await ask(provider, to) == ["Hello", " world", *ENDED]
        assert aws.requests[0].target == model


# --- what comes back ---------------------------------------------------------------------------------


@asynchronous
async def test_thoughts_come_apart_from_the_text_and_tokens_from_the_cache_are_told() -> None:
    usage = {"inputTokens": 5, "outputTokens": 6, "cacheReadInputTokens": 7, "cacheWriteInputTokens": 8}
    async with talking(says(thinks("Hm."), "So", "", " it is", usage=usage)) as (_, provider, to):
        assert await ask(provider, to) == [Reasoning("Hm."), "So", " it is", Stop("end_turn"), Usage(5, 6, 7, 8)]


@pytest.mark.parametrize("capabilities", [PLAIN, ("text", "stream")])
@pytest.mark.parametrize(
    ("told", "reason"),
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
@asynchronous
async def test_why_it_stopped_is_one_of_our_words(capabilities: tuple[str, ...], told: str, reason: str) -> None:
    async with talking(says("a", stop=told), capabilities=capabilities) as (_, provider, to):
        assert await ask(provider, to) == ["a", Stop(reason), Usage(3, 2)]  # type: ignore[arg-type]


@asynchronous
async def test_a_model_that_does_not_stream_answers_at_once() -> None:
    async with talking(says(thinks("Hm."), "Hello"), capabilities=PLAIN) as (aws, provider, to):
        reply = await provider.open(to, inference())
        assert not reply.streamed
        assert await read_all(reply) == [Reasoning("Hm."), "Hello", *ENDED]
        assert aws.calls == {"Converse": 1}


@asynchronous
async def test_the_reply_is_there_with_the_first_chunk_and_has_awss_id() -> None:
    gate = asyncio.Event()
    async with talking(says("Hello", gate, " world")) as (_, provider, to):
        reply = await provider.open(to, inference())
        assert await anext(aiter(reply)) == ["Hello"]
        assert reply.streamed
        assert len(reply.id) == 36
        assert reply.model == CLAUDE
        gate.set()
        assert await read_all(reply) == [" world", *ENDED]


@asynchronous
async def test_an_answer_without_text_is_an_empty_answer() -> None:
    async with talking(says()) as (_, provider, to):
        assert await ask(provider, to) == ENDED


@asynchronous
async def test_an_account_in_the_models_name_stays_out_of_the_answer() -> None:
    model = f"arn:aws:bedrock:us-west-2:123456789012:inference-profile/{CLAUDE}"
    async with talking(model=model) as (aws, provider, to):
        reply = await provider.open(to, inference())
        await reply.aclose()
        assert aws.requests[0].target == model
        assert reply.model == f"arn:aws:bedrock:us-west-2:[account]:inference-profile/{CLAUDE}"


# --- connections -------------------------------------------------------------------------------------


@asynchronous
async def test_a_connection_is_used_again_once_its_answer_was_read_to_its_end() -> None:
    async with talking() as (aws, provider, to):
        for _ in range(5):
            await ask(provider, to)
        assert aws.connections == 1


@asynchronous
async def test_a_reply_that_is_closed_early_closes_its_connection_at_once() -> None:
    async with talking(says("Hello", asyncio.Event())) as (aws, provider, to):
        reply = await provider.open(to, inference())
        closing = reply.aclose()
        with pytest.raises(StopIteration):
            closing.send(None)  # it awaits nothing
        await soon(aws.idle())
        assert aws.aborted == 1


@pytest.mark.parametrize("capabilities", [PLAIN, ("text", "stream")])
@pytest.mark.parametrize("gate", [hangs, lambda: says({"messageStart": {"role": "assistant"}}, asyncio.Event())])
@asynchronous
async def test_an_open_that_is_cancelled_closes_its_connection(capabilities: tuple[str, ...], gate: object) -> None:
    assert callable(gate)
    async with talking(gate(), capabilities=capabilities) as (aws, provider, to):
        operation = "ConverseStream" if "stream" in capabilities else "Converse"
        await cancel(provider.open(to, inference()), aws.asked(1, operation))
        await soon(aws.idle())
        assert aws.aborted == 1


@asynchronous
async def test_all_who_ask_at_once_share_one_client_and_one_who_leaves_takes_it_from_nobody() -> None:
    async with talking() as (_, _provider, _to):
        clients = Clients()
        asking = [asyncio.create_task(clients.get("bedrock-runtime", "us-west-2")) for _ in range(20)]
        await asyncio.sleep(0)
        asking[0].cancel()
        made = await asyncio.gather(*asking[1:])
        assert len({*map(id, made)}) == 1
        assert await clients.get("bedrock-runtime", "eu-west-1") is not made[0]
        await clients.close()


@asynchronous
async def test_sixty_four_streams_run_at_once() -> None:
    gate = asyncio.Event()
    async with talking(says("Hello", gate, " world")) as (aws, provider, to):
        replies = await asyncio.gather(*(provider.open(to, inference()) for _ in range(64)))
        assert aws.streams == 64
        gate.set()
        for parts in await asyncio.gather(*map(read_all, replies)):
            assert parts == ["Hello", " world", *ENDED]


# --- credentials and regions: AWS's own chain --------------------------------------------------------


@asynchronous
async def test_a_bearer_token_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with talking() as (aws, provider, to):
        monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", aws.bearer)
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        assert await ask(provider, to) == ["Hello", " world", *ENDED]
        assert aws.requests[0].headers["Authorization"] == f"Bearer {aws.bearer}"


@asynchronous
async def test_a_role_that_a_profile_names_is_assumed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    role = "[profile work]\nrole_arn = arn:aws:iam::123456789012:role/forgeline\nsource_profile = base\n"
    async with talking() as (aws, provider, to):
        ((access, key),) = aws.keys.items()
        base = f"[profile base]\naws_access_key_id = {access}\naws_secret_access_key = {key.secret}\n"
        (tmp_path / "config").write_text(role + base)
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        monkeypatch.setenv("AWS_PROFILE", "work")
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        assert await ask(provider, to) == ["Hello", " world", *ENDED]
        assert [asked.operation for asked in aws.requests] == ["AssumeRole", "ConverseStream"]
        assert aws.requests[1].key != access


@asynchronous
async def test_a_web_identity_is_exchanged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("a.web.identity")
    async with talking() as (aws, provider, to):
        monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
        monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/forgeline")
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        assert await ask(provider, to) == ["Hello", " world", *ENDED]
        assert [asked.operation for asked in aws.requests] == ["AssumeRoleWithWebIdentity", "ConverseStream"]


@asynchronous
async def test_without_a_region_in_the_preset_the_sdks_own_holds() -> None:
    async with talking(region=None) as (aws, provider, to):
        await ask(provider, to)
        assert aws.requests[0].region == "us-west-2"


@asynchronous
async def test_without_any_region_it_says_where_to_set_one(monkeypatch: pytest.MonkeyPatch) -> None:
    async with talking(region=None) as (_, provider, to):
        monkeypatch.delenv("AWS_DEFAULT_REGION")
        with pytest.raises(Unavailable, match="set region in its preset, or AWS_DEFAULT_REGION"):
            await provider.open(to, inference())


@asynchronous
async def test_credentials_that_come_later_are_found_without_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    async with talking() as (aws, provider, to):
        with monkeypatch.context() as patch:
            patch.delenv("AWS_ACCESS_KEY_ID")
            with pytest.raises(Unavailable, match="No AWS credentials were found"):
                await provider.open(to, inference())
        assert aws.requests == []
        assert await ask(provider, to) == ["Hello", " world", *ENDED]


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (Key("another secret"), "refused the credentials for claude4: the keys, or this machine's clock, are wrong"),
        (Key("forgeline/secret+for/tests", token="another"), "refused the credentials"),  # noqa: S106 - made up
        (Key("forgeline/secret+for/tests", expired=True), "have expired: renew them"),
    ],
)
@asynchronous
async def test_credentials_that_aws_refuses_are_said_to_be_refused(key: Key, words: str) -> None:
    async with talking() as (aws, provider, to):
        aws.keys = dict.fromkeys(aws.keys, key)
        with pytest.raises(Unavailable, match=words):
            await provider.open(to, inference())
        assert aws.calls == {"ConverseStream": 1}


@asynchronous
async def test_a_profile_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    async with talking() as (_, provider, to):
        monkeypatch.setenv("AWS_PROFILE", "nobody")
        with pytest.raises(Unavailable, match="nobody"):
            await provider.open(to, inference())


# --- availability ------------------------------------------------------------------------------------


@asynchronous
async def test_availability_is_what_the_last_call_showed() -> None:
    async with talking() as (aws, provider, to):
        assert (await provider.availability(to.preset)).status == "unknown"
        aws.next(CLAUDE, fails("AccessDeniedException"), fails("ThrottlingException"))
        for _ in range(2):  # a throttle says nothing of whether it is available
            with pytest.raises(Exception, match="claude4"):
                await provider.open(to, inference())
            told = await provider.availability(to.preset)
            assert (told.status, "does not allow claude4" in (told.reason or "")) == ("unavailable", True)
        await ask(provider, to)
        assert await provider.availability(to.preset) == Availability("available")
        assert (await provider.availability(route(model=NOVA).preset)).status == "unknown"


def test_a_start_does_not_wait_for_the_sdks_client_to_be_imported() -> None:
    code = "import sys, run; sys.exit('aiobotocore.session' in sys.modules or 'botocore.session' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
