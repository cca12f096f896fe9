"""The floor for Bedrock: aiobotocore reads ConverseStream responses and discards them.

This is a load client that is measured itself, since there is no proxy between it and the upstream.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import msgspec
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session

from benchmarks.clients.base import CostMeter, MeasuredProcesses, WrongResponse, main
from benchmarks.outcome import Outcome


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    model: str
    chunks: int  # that each response must have
    processes: MeasuredProcesses
    clients: int
    seconds: float  # no new request after that


async def run(plan: Plan) -> Outcome:
    """Endpoint and credentials come from environment variables, as for Forgeline."""
    config = AioConfig(max_pool_connections=plan.clients)
    async with get_session().create_client("bedrock-runtime", config=config) as client:
        await request_stream(client, plan)  # connects, and loads the service model
        meter = CostMeter(plan.processes)
        responses = sum(await asyncio.gather(*(run_client(client, plan, meter) for _ in range(plan.clients))))
        return meter.outcome(responses=responses, chunks=responses * plan.chunks)


async def run_client(client: Any, plan: Plan, meter: CostMeter) -> int:
    responses = 0
    while not responses or meter.seconds < plan.seconds:
        await request_stream(client, plan)
        responses += 1
    return responses


async def request_stream(client: Any, plan: Plan) -> None:
    messages = [{"role": "user", "content": [{"text": "What are these nodes for?"}]}]
    response = await client.converse_stream(modelId=plan.model, messages=messages)
    chunks = 0
    async for event in response["stream"]:
        chunks += "contentBlockDelta" in event
    if chunks != plan.chunks:
        raise WrongResponse(f"{chunks} chunks instead of {plan.chunks}")


if __name__ == "__main__":
    sys.exit(main(Plan, run))
