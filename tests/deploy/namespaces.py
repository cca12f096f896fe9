"""Processes in pid namespaces of their own, as they are seen from out here."""

from __future__ import annotations

from infraforge_runner.processes import PROC, descendants


def numbers_of(pid: int) -> list[int]:
    """Its pid out here, then in each namespace further in; empty where it has ended (proc(5), NSpid)."""
    try:
        lines = (PROC / str(pid) / "status").read_text().splitlines()
    except OSError:
        return []
    return [int(number) for number in next(line for line in lines if line.startswith("NSpid:")).split()[1:]]


def first_below(pid: int) -> int | None:
    """The first process of a namespace that this one, or one that it has started, has made."""
    return next((one for one in descendants(pid) if numbers_of(one)[1:] == [1]), None)


def known_inside_as(number: int, first: int) -> int:
    """The pid out here of the process that has this number in the namespace of that first process."""
    return next(pid for pid in descendants(first) if numbers_of(pid)[1:] == [number])
