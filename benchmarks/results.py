"""What a run found, as it is kept in results/latest.json, and how much of it is to be believed."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import statistics
import subprocess
from pathlib import Path

import msgspec

from benchmarks.figures import AnyAim
from benchmarks.scenario import FLOOR

FOLDER = Path(__file__).parent / "results"
LATEST, PREVIOUS = FOLDER / "latest.json", FOLDER / "previous.json"
PACKAGES = ("tornado", "aiohttp", "aiobotocore", "msgspec", "watchdog")


class Line(msgspec.Struct, kw_only=True):
    """One figure of one scenario: its values by side, one for each round in which nothing failed."""

    scenario: str
    beside: str
    label: str
    unit: str
    aim: AnyAim | None
    rounds: dict[str, list[float | None]] = {}

    def values(self, side: str) -> list[float]:
        return [value for value in self.rounds.get(side, []) if value is not None]

    def compared(self, side: str) -> list[float]:
        """Round by round: what disturbs the machine for a while disturbs both sides."""
        pairs = zip(self.rounds.get(side, []), self.rounds.get(FLOOR, []), strict=False)
        found = (self._compare(mine, floor) for mine, floor in pairs if mine is not None and floor is not None)
        return [value for value in found if value is not None]

    def _compare(self, mine: float, floor: float) -> float | None:
        if self.aim is not None:
            return self.aim.compared(mine, floor)
        return mine / floor if floor > 0 else None

    def met(self, side: str) -> bool | None:
        """None where there is no aim, or no figure."""
        values, compared = self.values(side), self.compared(side)
        if self.aim is None or not values:
            return None
        return self.aim.met(statistics.median(values), statistics.median(compared) if compared else None)


class Results(msgspec.Struct, kw_only=True):
    at: str
    took: float  # seconds
    machine: dict[str, str]
    versions: dict[str, str]
    sides: list[str]  # the columns, the floor first
    lines: list[Line]
    distributions: dict[str, dict[str, list[float]]]  # by scenario and side: latencies in ms, in half percents
    failed: list[str]
    doubts: list[str]

    def save(self) -> None:
        """As the latest; the one that was becomes the previous."""
        FOLDER.mkdir(exist_ok=True)
        if LATEST.exists():
            LATEST.replace(PREVIOUS)
        LATEST.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n")


def load(path: Path = LATEST) -> Results:
    return msgspec.json.decode(path.read_bytes(), type=Results)


def machine() -> dict[str, str]:
    info = Path("/proc/cpuinfo").read_text()
    model = next((line.split(":", 1)[1].strip() for line in info.splitlines() if line.startswith("model name")), "?")
    return {"cpu": model, "cores": str(len(os.sched_getaffinity(0))), "kernel": platform.release()}


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    found |= {name: importlib.metadata.version(name) for name in PACKAGES}
    if shutil.which("nginx"):
        said = subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=False).stderr  # noqa: S607
        found["nginx"] = said.strip().rpartition("/")[2]
    return found
