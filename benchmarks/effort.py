"""How much of it: how many rounds, and how long each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Effort:
    rounds: int
    scale: float = 1.0  # of a round's seconds
    most: int = 1_000_000  # clients, streams, sockets

    def clients(self, wanted: int) -> int:
        return min(wanted, self.most)


FULL = Effort(rounds=5)
QUICK = Effort(rounds=2, scale=0.3)
WARM = Effort(rounds=1, scale=0.15, most=8)
"""Before the first round: what is compiled, cached or connected on the first call is not what is measured."""
