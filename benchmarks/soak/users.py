"""The soak's virtual users: the kinds, the number of users of each kind, and the loop of a user."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp

from benchmarks.soak import disconnect_turns, inference_turns, job_turns
from benchmarks.soak.client import Client, SoakFailure

Turn = Callable[[Client], Awaitable[None]]

TURN_TIMEOUT = 60  # seconds


def user_kinds(models: Path) -> dict[str, tuple[Turn, int, float]]:
    """By name: the turn of such a user, the number of users, and the mean seconds between two turns."""

    async def save_preset(client: Client) -> None:
        await job_turns.save_preset(client, models)

    return {
        "plain": (inference_turns.plain_request, 8, 0.15),
        "in OpenAI's shape": (inference_turns.openai_chat, 2, 0.3),
        "with a picture": (inference_turns.picture_request, 1, 1.0),
        "several models": (inference_turns.multi_model_request, 2, 0.5),
        "streamed": (inference_turns.http_stream, 4, 0.3),
        "on a socket": (inference_turns.socket_streams, 2, 0.5),
        "wrongly": (inference_turns.invalid_request, 3, 0.2),
        "not in HTTP": (inference_turns.malformed_http, 1, 0.5),
        "stopped by DELETE": (disconnect_turns.cancel_by_delete, 3, 0.3),
        "stopped on a socket": (disconnect_turns.cancel_on_socket, 3, 0.3),
        "vanished": (disconnect_turns.drop_connection, 4, 0.3),
        "vanished from a socket": (disconnect_turns.drop_socket, 2, 0.3),
        "resumed": (disconnect_turns.resume_stream, 3, 0.3),
        "ran": (job_turns.run_job, 1, 1.0),
        "rehearsed": (job_turns.run_dry_run, 1, 5.0),
        "tailed": (job_turns.follow_log, 4, 0.5),
        "tailed on a socket": (job_turns.follow_log_on_socket, 4, 0.5),
        "saved": (save_preset, 1, 1.0),
    }


async def run_each_once(client: Client, models: Path) -> None:
    async with asyncio.TaskGroup() as group:
        for name, (turn, _, _) in user_kinds(models).items():
            group.create_task(run_turn(client, name, turn), name=name)


async def run_all(client: Client, models: Path, stop: asyncio.Event) -> None:
    """Run all users until `stop` is set and their turns have ended. Raises SoakFailure, in a group."""
    async with asyncio.TaskGroup() as group:
        for name, (turn, count, pause) in user_kinds(models).items():
            for _ in range(count):
                group.create_task(run_user(client, name, turn, pause, stop), name=name)


async def run_user(client: Client, name: str, turn: Turn, pause: float, stop: asyncio.Event) -> None:
    while not stop.is_set():
        await run_turn(client, name, turn)
        try:
            await asyncio.wait_for(stop.wait(), pause * client.rng.uniform(0.5, 1.5))
        except TimeoutError:
            continue


async def run_turn(client: Client, name: str, turn: Turn) -> None:
    try:
        async with asyncio.timeout(TURN_TIMEOUT):
            await turn(client)
    except (SoakFailure, OSError, EOFError, TypeError, KeyError, aiohttp.ClientError) as error:
        raise SoakFailure(f"{name}: {type(error).__name__}: {error}") from error
    client.turns[name] += 1
