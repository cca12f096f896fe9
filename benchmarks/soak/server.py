"""Forgeline as shipped, in a process that also tells which asyncio tasks it holds: one line of JSON for each SIGUSR1.

/metrics counts what the server knows of; a task that everybody has forgotten is only in asyncio's own list.
"""

import asyncio
import json
import signal
import sys
from collections import Counter

import run
from benchmarks.launch import end_with_parent


def tell_tasks(*_: object) -> None:
    """By the first word of their names: the second is an id."""
    print(json.dumps(Counter(task.get_name().split()[0].split("-")[0] for task in asyncio.all_tasks())), flush=True)


if __name__ == "__main__":
    end_with_parent()
    signal.signal(signal.SIGUSR1, tell_tasks)
    sys.exit(run.main())
