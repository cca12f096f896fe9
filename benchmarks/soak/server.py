"""Forgeline in a process that also prints its asyncio tasks: one line of JSON for each SIGUSR1.

/metrics counts only what the server tracks; a leaked task is only in asyncio's own list.
"""

import asyncio
import json
import signal
import sys
from collections import Counter

import run
from benchmarks.launch import exit_with_parent


def print_task_counts(*_: object) -> None:
    """Print the number of tasks by the first word of their names: the second is an id."""
    print(json.dumps(Counter(task.get_name().split()[0].split("-")[0] for task in asyncio.all_tasks())), flush=True)


if __name__ == "__main__":
    exit_with_parent()
    signal.signal(signal.SIGUSR1, print_task_counts)
    sys.exit(run.main())
