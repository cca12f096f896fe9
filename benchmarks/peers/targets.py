"""Peers as targets: which there are, how each is started and asked, and what of theirs is a note and no failure."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks import proc
from benchmarks.peers.gateways import GATEWAYS, Gateway, Place
from benchmarks.targets import Asked, OpenAI, Question
from benchmarks.world import World

STARTS_WITHIN = 90  # seconds: one imports for twenty, on a core that it shares


class Peer(OpenAI):
    """Asked as the upstream would be, with headers of its own, and maybe for shorter streams."""

    def __init__(self, name: str, served: proc.Served, place: Place) -> None:
        super().__init__(name, served, place.work)
        self._gateway, self._headers = GATEWAYS[name], GATEWAYS[name].headers(place)

    def asked(self, question: Question) -> Asked:
        asked = super().asked(shorter(question, self._gateway))
        end = self._gateway.end if question.chunks else asked.end
        return replace(asked, end=end, headers=self._headers)


@dataclass(frozen=True)
class Start:
    """Starts one. Raises StartFailed."""

    name: str
    home: Path
    models: Sequence[str]

    def __call__(self, core: int, upstream: int, work: Path) -> Peer:
        gateway = GATEWAYS[self.name]
        place = Place(self.home, work, proc.free_port(), f"http://127.0.0.1:{upstream}/v1", self.models)
        served = proc.Served(
            proc.module("launch", *gateway.command(place)),
            core,
            work / f"{self.name}.log",
            port=place.port,
            variables=gateway.variables(place),
            timeout=STARTS_WITHIN,
        )
        try:
            wait_for_answer(place.port)
        except BaseException:
            served.end()
            raise
        return Peer(self.name, served, place)


@dataclass
class Peers:
    """`starts` are those that are installed; `notes` say what became of the others."""

    starts: dict[str, Start] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def begin(self, world: World) -> list[str]:
        """The names of those that do start."""
        return [name for name in self.starts if self._starts(world, name)]

    def _starts(self, world: World, name: str) -> bool:
        try:
            world.target(name)
        except proc.StartFailed as error:
            self.notes.append(f"{name} is not measured: {error}")
            return False
        return True

    def not_theirs(self, failed: Sequence[str]) -> list[str]:
        """What has failed without the peers' own, which become notes: the benchmark is Forgeline's."""
        theirs = [why for why in failed if why.partition(", ")[0] in self.starts]
        self.notes += theirs
        return [why for why in failed if why not in theirs]


def find(folder: Path, questions: Sequence[Question]) -> Peers:
    """Those that are installed in this folder."""
    peers = Peers()
    for name, gateway in GATEWAYS.items():
        home = folder.absolute() / name
        if not (home / gateway.program).exists():
            peers.notes.append(f"{name} is not measured: it could not be installed")
            continue
        models = sorted({model for one in questions for model in (one.model, shorter(one, gateway).model)})
        peers.starts[name] = Start(name, home, models)
        peers.versions[name] = gateway.version(home)
        if gateway.lengths:
            said = ", ".join(f"{short} chunks for {long}" for long, short in gateway.lengths.items())
            peers.notes.append(f"{name} is slow, and asked for shorter streams: {said}")
    return peers


def wait_for_answer(port: int) -> None:
    """Any at all: gunicorn takes connections before it has loaded what is to answer them. Raises StartFailed."""
    deadline = time.monotonic() + STARTS_WITHIN
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=STARTS_WITHIN):
                return
        except urllib.error.HTTPError:
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise proc.StartFailed(f"it does not answer within {STARTS_WITHIN} s: {error}") from error
        time.sleep(0.1)


def shorter(question: Question, gateway: Gateway) -> Question:
    chunks = gateway.lengths.get(question.chunks, question.chunks)
    return replace(question, model=question.model.replace(str(question.chunks), str(chunks), 1), chunks=chunks)
