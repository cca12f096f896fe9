"""The soak's crowd: how many users there are of each kind, and the loop in which each of them lives."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp

from benchmarks.soak import asking, leaving, operating
from benchmarks.soak.client import Client, Wrong

Turn = Callable[[Client], Awaitable[None]]

PATIENCE = 60  # seconds for one turn of a user


def crowd(models: Path) -> dict[str, tuple[Turn, int, float]]:
    """By name: what such a user does, how many there are, and the seconds that each waits between two turns."""

    async def saved(client: Client) -> None:
        await operating.saved(client, models)

    return {
        "plain": (asking.plain, 8, 0.15),
        "in OpenAI's shape": (asking.in_openai_shape, 2, 0.3),
        "with a picture": (asking.with_a_picture, 1, 1.0),
        "several models": (asking.several_models, 2, 0.5),
        "streamed": (asking.streamed, 4, 0.3),
        "on a socket": (asking.on_a_socket, 2, 0.5),
        "wrongly": (asking.wrongly, 3, 0.2),
        "not in HTTP": (asking.not_in_http, 1, 0.5),
        "stopped by DELETE": (leaving.stopped_by_delete, 3, 0.3),
        "stopped on a socket": (leaving.stopped_on_a_socket, 3, 0.3),
        "vanished": (leaving.vanished, 4, 0.3),
        "vanished from a socket": (leaving.vanished_from_a_socket, 2, 0.3),
        "resumed": (leaving.resumed, 3, 0.3),
        "ran": (operating.ran, 1, 1.0),
        "rehearsed": (operating.rehearsed, 1, 5.0),
        "tailed": (operating.tailed, 4, 0.5),
        "tailed on a socket": (operating.tailed_on_a_socket, 4, 0.5),
        "saved": (saved, 1, 1.0),
    }


async def one_of_each(client: Client, models: Path) -> None:
    async with asyncio.TaskGroup() as group:
        for name, (turn, _, _) in crowd(models).items():
            group.create_task(once(client, name, turn), name=name)


async def everybody(client: Client, models: Path, over: asyncio.Event) -> None:
    """Until it is over and each has ended its turn. Raises Wrong, in a group."""
    async with asyncio.TaskGroup() as group:
        for name, (turn, count, pause) in crowd(models).items():
            for _ in range(count):
                group.create_task(again_and_again(client, name, turn, pause, over), name=name)


async def again_and_again(client: Client, name: str, turn: Turn, pause: float, over: asyncio.Event) -> None:
    while not over.is_set():
        await once(client, name, turn)
        try:
            await asyncio.wait_for(over.wait(), pause * client.rng.uniform(0.5, 1.5))
        except TimeoutError:
            continue


async def once(client: Client, name: str, turn: Turn) -> None:
    try:
        async with asyncio.timeout(PATIENCE):
            await turn(client)
    except (Wrong, OSError, EOFError, TypeError, KeyError, aiohttp.ClientError) as error:
        raise Wrong(f"{name}: {type(error).__name__}: {error}") from error
    client.turns[name] += 1
