"""emd against an AWS-shaped endpoint: what goes out by each way of invoking, and what comes back."""

from __future__ import annotations

import asyncio
import base64
import json
from contextlib import suppress
from typing import Any

import pytest

from pipeline.errors import InvalidRequest, ModelError, ModelNotDeployed, Unavailable
from pipeline.frames import Frame
from pipeline.messages import Message, Parameters, Reasoning, Reply, Stop
from pipeline.providers.emd_sagemaker import MAX_BODY
from tests.aio import asynchronous, soon
from tests.aws import fails, says, thinks
from tests.pipeline.providers.asking import ENDED, ask, inference, read_all
from tests.pipeline.providers.on_emd import COMMAND, GEMMA, NAME, PLAIN, World, emd, talking

STREAMED, WHOLE, ROUTED = "InvokeEndpointWithResponseStream", "InvokeEndpoint", "ChatCompletions"
WAYS = pytest.mark.parametrize("service", ["sagemaker_realtime", "ecs"])
SAID = ["Hello", " world", Stop("end_turn")]


def sent(world: World, operation: str) -> dict[str, Any]:
    """The body of the one call of this operation."""
    (asked,) = [asked for asked in world.aws.requests if asked.operation == operation]
    body: dict[str, Any] = asked.body if isinstance(asked.body, dict) else json.loads(asked.body)
    return body


async def open_reply(world: World) -> Reply:
    return await world.provider.open(world.route, inference())


# --- SageMaker -------------------------------------------------------------------------------------


@asynchronous
async def test_sagemaker_gets_a_chat_completion_without_a_model_at_the_stacks_own_endpoint() -> None:
    turn = Message("user", (Frame(b"picture", "png", 1, 1), "What?"))
    async with talking() as world:
        await world.aws.deploy_emd(GEMMA, endpoint="a-name-of-its-own")
        asked = inference(turn, system="Be kind.", parameters=Parameters(max_tokens=7, temperature=None, stop=("END",)))
        assert (await ask(world.provider, world.route, asked))[:3] == SAID
        url = "data:image/png;base64," + base64.b64encode(b"picture").decode()
        assert sent(world, STREAMED) == {
            "messages": [
                {"role": "system", "content": "Be kind."},
                {
                    "role": "user",
                    "content": [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What?"}],
                },
            ],
            "max_tokens": 7,
            "stop": ["END"],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        (call,) = [asked for asked in world.aws.requests if asked.operation == STREAMED]
        assert call.target == "a-name-of-its-own"
        assert call.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("sizes", [None, [1], [3, 50], [10_000]])
@asynchronous
async def test_lines_that_are_split_over_payload_parts_come_out_whole(sizes: list[int] | None) -> None:
    async with talking(says("Hello", " wörld ", "…", parts=sizes)) as world:
        assert await ask(world.provider, world.route) == ["Hello", " wörld ", "…", *ENDED]


@asynchronous
async def test_sse_lines_and_reasoning_are_understood_too() -> None:
    async with talking(says(thinks("Hm."), "Hello", sse=True, done=True)) as world:
        assert await ask(world.provider, world.route) == [Reasoning("Hm."), "Hello", *ENDED]


@asynchronous
async def test_a_model_that_does_not_stream_is_asked_plainly() -> None:
    async with talking(capabilities=PLAIN) as world:
        reply = await open_reply(world)
        assert not reply.streamed
        assert await read_all(reply) == ["Hello world", *ENDED]
        assert sent(world, WHOLE)["stream"] is False
        assert world.aws.calls[STREAMED] == 0


@asynchronous
async def test_a_body_that_sagemaker_would_refuse_is_not_sent() -> None:
    big = Message("user", (Frame(b"", "png", 1, 1, base64="A" * MAX_BODY),))
    async with talking() as world:
        with pytest.raises(InvalidRequest, match=r"SageMaker takes 6,291,456\. Send fewer or smaller pictures"):
            await world.provider.open(world.route, inference(big))
        assert world.aws.calls[STREAMED] == 0


@asynchronous
async def test_a_body_that_just_fits_is_sent() -> None:
    async with talking() as world:
        await ask(world.provider, world.route, inference(text=""))
        (call,) = [asked for asked in world.aws.requests if asked.operation == STREAMED]
        room = MAX_BODY - int(call.headers["Content-Length"])
        assert (await ask(world.provider, world.route, inference(text="a" * room)))[:3] == SAID
        with pytest.raises(InvalidRequest):
            await world.provider.open(world.route, inference(text="a" * (room + 1)))


# --- ECS -------------------------------------------------------------------------------------------


@asynchronous
async def test_the_router_gets_the_model_with_its_tag_and_the_key_of_the_secret() -> None:
    async with talking(service="ecs", key="made-up-key") as world:
        assert (await ask(world.provider, world.route))[:3] == SAID
        assert sent(world, ROUTED)["model"] == NAME
        (call,) = [asked for asked in world.aws.requests if asked.operation == ROUTED]
        assert call.headers["Authorization"] == "Bearer made-up-key"


@asynchronous
async def test_a_model_without_a_key_is_asked_without_one_and_the_secret_is_read_once() -> None:
    async with talking(service="ecs") as world:
        for _ in range(2):
            await ask(world.provider, world.route)
        assert not [asked for asked in world.aws.requests if "Authorization" in asked.headers and not asked.key]
        assert world.aws.calls["GetSecretValue"] == 1


@asynchronous
async def test_a_key_that_was_changed_is_read_again_after_a_401() -> None:
    async with talking(service="ecs", key="old") as world:
        await ask(world.provider, world.route)
        await world.aws.deploy_emd(GEMMA, service="ecs", key="new")
        assert (await ask(world.provider, world.route))[:3] == SAID
        assert world.aws.calls["GetSecretValue"] == 2


@asynchronous
async def test_a_key_that_can_not_be_read_matters_only_where_one_is_wanted() -> None:
    denied = fails("AccessDeniedException", "User: arn:aws:iam::123456789012:user/x is not authorized")
    async with talking(service="ecs") as world:
        world.aws.next("GetSecretValue", denied)
        assert (await ask(world.provider, world.route))[:3] == SAID
        await world.aws.deploy_emd(GEMMA, service="ecs", key="new")
        world.aws.next("GetSecretValue", denied, denied)
        with pytest.raises(Unavailable, match="EMD's router wants a key for") as caught:
            await open_reply(world)
        assert "123456789012" not in caught.value.message


@asynchronous
async def test_a_key_that_the_router_refuses_is_unavailable_and_not_shown() -> None:
    async with talking(service="ecs", key="made-up-key") as world:
        await ask(world.provider, world.route)
        world.aws.answer = fails("", "Unauthorized", 401)
        with pytest.raises(Unavailable, match="refused the key that EMD-APIKey-Secrets holds") as caught:
            await open_reply(world)
        assert "made-up-key" not in caught.value.message


# --- both ------------------------------------------------------------------------------------------


@WAYS
@asynchronous
async def test_open_returns_with_the_first_chunk_while_the_model_is_still_at_it(service: str) -> None:
    gate = asyncio.Event()
    async with talking(says("Hello", gate, " world"), service) as world:
        reply = await open_reply(world)
        assert (reply.id, reply.model, reply.streamed) == ("chatcmpl-1", GEMMA, True)
        parts = aiter(reply)
        assert await anext(parts) == ["Hello"]
        gate.set()
        assert [part async for batch in parts for part in batch][:2] == SAID[1:]
        await reply.aclose()


@WAYS
@asynchronous
async def test_closing_a_reply_ends_the_upstreams_work(service: str) -> None:
    async with talking(says("Hello", asyncio.Event()), service) as world:
        await (await open_reply(world)).aclose()
        await soon(world.aws.idle())


@WAYS
@asynchronous
async def test_cancelling_open_ends_the_upstreams_work(service: str) -> None:
    async with talking(says(asyncio.Event()), service) as world:
        opening = asyncio.create_task(world.provider.open(world.route, inference()))
        await soon(world.aws.asked(1, STREAMED if service == "sagemaker_realtime" else ROUTED))
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await soon(world.aws.idle())


EVERY_BYTE = [range(at, at + 300) for at in range(0, 1500, 300)]


@pytest.mark.parametrize(
    "cuts", [range(1, 1500, 23), *(pytest.param(cuts, marks=pytest.mark.slow) for cuts in EVERY_BYTE)]
)
@WAYS
@asynchronous
async def test_a_cut_at_any_byte_gives_the_whole_answer_or_a_model_error(service: str, cuts: range) -> None:
    whole = 0
    async with talking(service=service) as world:
        for at in cuts:
            world.aws.answer = says("Hello", " world", cut_at=at)
            with suppress(ModelError):
                assert (await ask(world.provider, world.route))[:3] == SAID
                whole += 1
    assert whole or cuts.stop < 1500


@asynchronous
async def test_many_streams_at_once_come_whole_over_both_ways() -> None:
    gate = asyncio.Event()
    for service in ("sagemaker_realtime", "ecs"):
        async with talking(says("Hello", gate, " world"), service) as world:
            replies = await asyncio.gather(*(open_reply(world) for _ in range(60)))
            gate.set()
            assert [(await read_all(reply))[:3] for reply in replies] == [SAID] * 60


@asynchronous
async def test_what_answers_no_request_directly_is_unavailable() -> None:
    async with talking(service="sagemaker_async") as world:
        with pytest.raises(Unavailable, match="can't be asked: it is deployed as sagemaker_async"):
            await open_reply(world)
        assert (await world.provider.availability(world.models["gemma"])).status == "unavailable"


# --- not up ----------------------------------------------------------------------------------------


@asynchronous
async def test_a_model_that_is_not_deployed_comes_with_the_line_that_deploys_it() -> None:
    async with emd() as world:
        await world.aws.bootstrap_emd()
        with pytest.raises(ModelNotDeployed) as caught:
            await open_reply(world)
        assert caught.value.message == COMMAND
        told = await world.provider.availability(world.models["gemma"])
        assert (told.status, told.reason) == ("not_deployed", COMMAND)


@pytest.mark.parametrize(
    ("status", "says"),
    [
        ("InProgress", "  # it is being deployed (Build)"),
        ("Failed", "  # its deployment failed (Build)"),
        ("DELETE_IN_PROGRESS", "  # its stack is DELETE_IN_PROGRESS"),
        ("ROLLBACK_COMPLETE", "  # its stack is ROLLBACK_COMPLETE: The primary container did not pass the ping"),
    ],
)
@asynchronous
async def test_what_is_on_its_way_or_failed_is_said_behind_that_line(status: str, says: str) -> None:
    async with emd() as world:
        await world.aws.deploy_emd(GEMMA, status=status)
        with pytest.raises(ModelNotDeployed) as caught:
            await open_reply(world)
        assert caught.value.message == COMMAND + says


@WAYS
@asynchronous
async def test_a_model_that_is_gone_since_the_last_look_is_not_deployed_at_once(service: str) -> None:
    async with talking(service=service) as world:
        await ask(world.provider, world.route)
        await world.aws.undeploy_emd(GEMMA)
        with pytest.raises(ModelNotDeployed) as caught:
            await open_reply(world)
        assert caught.value.message == COMMAND
        assert await world.status() == "not_deployed"
        assert world.told == ["gemma", "gemma"]


@asynchronous
async def test_a_stack_that_stands_without_its_endpoint_is_told_so() -> None:
    async with talking() as world:
        world.aws.next(NAME, fails("ValidationError", "Endpoint x of account 123456789012 not found."))
        with pytest.raises(ModelNotDeployed) as caught:
            await open_reply(world)
        assert caught.value.message == (
            f"{COMMAND}  # its stack EMD-Model-gemma-3-4b-it stands, but EMD-Model-gemma-3-4b-it-endpoint is not there"
        )
