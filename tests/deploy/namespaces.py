"""Find the processes of other pid namespaces."""

from __future__ import annotations

from infraforge_runner.jobs.process_tree import PROC, descendants


def namespace_pids(pid: int) -> list[int]:
    """The pids of a process, outermost namespace first (NSpid in proc(5)); empty if it has ended."""
    try:
        lines = (PROC / str(pid) / "status").read_text().splitlines()
    except OSError:
        return []
    return [int(number) for number in next(line for line in lines if line.startswith("NSpid:")).split()[1:]]


def find_namespace_init(pid: int) -> int | None:
    """The pid here of the first process of a namespace made by this process or a descendant."""
    return next((child for child in descendants(pid) if namespace_pids(child)[1:] == [1]), None)


def find_by_namespace_pid(namespace_pid: int, init_pid: int) -> int:
    """The pid here of the process with this pid inside the namespace."""
    return next(pid for pid in descendants(init_pid) if namespace_pids(pid)[1:] == [namespace_pid])
