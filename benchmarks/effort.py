"""The effort of a run: the number of rounds, and the length of each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Effort:
    rounds: int
    scale: float = 1.0  # factor of a round's seconds
    max_clients: int = 1_000_000  # clients, streams, sockets

    def limit_clients(self, count: int) -> int:
        return min(count, self.max_clients)


FULL = Effort(rounds=5)
QUICK = Effort(rounds=2, scale=0.3)
WARM_UP = Effort(rounds=1, scale=0.15, max_clients=8)
"""Before the first round: excludes what is compiled, cached or connected on the first call."""
