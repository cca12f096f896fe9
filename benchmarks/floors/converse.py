"""The floor for Bedrock: aiobotocore reads streams of ConverseStream and does nothing with them.

A load client that is measured itself: there is nothing between it and the upstream.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import msgspec
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session

from benchmarks.clients.base import Meter, Watched, WrongAnswer, main
from benchmarks.outcome import Outcome


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    model: str
    chunks: int  # that each answer must have
    watched: Watched
    clients: int
    seconds: float  # no new request after that


async def run(plan: Plan) -> Outcome:
    """The endpoint and the credentials are in the environment, as they are for Forgeline."""
    config = AioConfig(max_pool_connections=plan.clients)
    async with get_session().create_client("bedrock-runtime", config=config) as client:
        await ask(client, plan)  # connects, and reads the service's description
        meter = Meter(plan.watched)
        answers = sum(await asyncio.gather(*(ask_on(client, plan, meter) for _ in range(plan.clients))))
        return meter.outcome(answers=answers, chunks=answers * plan.chunks)


async def ask_on(client: Any, plan: Plan, meter: Meter) -> int:
    answers = 0
    while not answers or meter.seconds < plan.seconds:
        await ask(client, plan)
        answers += 1
    return answers


async def ask(client: Any, plan: Plan) -> None:
    messages = [{"role": "user", "content": [{"text": "What are these nodes for?"}]}]
    answer = await client.converse_stream(modelId=plan.model, messages=messages)
    chunks = 0
    async for event in answer["stream"]:
        chunks += "contentBlockDelta" in event
    if chunks != plan.chunks:
        raise WrongAnswer(f"{chunks} chunks instead of {plan.chunks}")


if __name__ == "__main__":
    sys.exit(main(Plan, run))
