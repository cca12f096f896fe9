"""The results of a run, as stored in results/latest.json."""

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
REPORTED_PACKAGES = ("tornado", "aiohttp", "aiobotocore", "msgspec", "watchdog")


class Line(msgspec.Struct, kw_only=True):
    """One figure of one scenario: its values by side, one for each round in which nothing failed."""

    scenario: str
    floor_label: str = msgspec.field(name="beside")
    label: str
    unit: str
    aim: AnyAim | None
    rounds: dict[str, list[float | None]] = {}

    def values(self, side: str) -> list[float]:
        return [value for value in self.rounds.get(side, []) if value is not None]

    def compare_to_floor(self, side: str) -> list[float]:
        """Compare each round by itself: a disturbance of the machine affects both sides of a round."""
        pairs = zip(self.rounds.get(side, []), self.rounds.get(FLOOR, []), strict=False)
        figures = (self._compare(value, floor) for value, floor in pairs if value is not None and floor is not None)
        return [value for value in figures if value is not None]

    def _compare(self, value: float, floor: float) -> float | None:
        if self.aim is not None:
            return self.aim.compare(value, floor)
        return value / floor if floor > 0 else None

    def is_met(self, side: str) -> bool | None:
        """None without an aim or without a figure."""
        values, compared = self.values(side), self.compare_to_floor(side)
        if self.aim is None or not values:
            return None
        return self.aim.is_met(statistics.median(values), statistics.median(compared) if compared else None)


class Results(msgspec.Struct, kw_only=True):
    """A whole run. JSON keys that differ from the names here are kept, so that `--compare` reads older files."""

    finished_at: str = msgspec.field(name="at")
    duration: float = msgspec.field(name="took")  # seconds
    machine: dict[str, str]
    versions: dict[str, str]
    sides: list[str]  # the columns of the table, the floor first
    lines: list[Line]
    distributions: dict[str, dict[str, list[float]]]  # by scenario and side: latencies in ms, in half percents
    failures: list[str] = msgspec.field(name="failed")
    warnings: list[str] = msgspec.field(name="doubts")

    def save(self) -> None:
        """Write latest.json; the old one becomes previous.json."""
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
    by_name = {"python": platform.python_version()}
    by_name |= {name: importlib.metadata.version(name) for name in REPORTED_PACKAGES}
    if shutil.which("nginx"):
        output = subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=False).stderr  # noqa: S607
        by_name["nginx"] = output.strip().rpartition("/")[2]
    return by_name
