"""`python -m benchmarks`: start everything, measure in turns, print one table, end everything."""

import argparse
import contextlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from benchmarks import load, proc, report
from benchmarks.scenarios import FULL, QUESTIONS, QUICK, SCENARIOS, Effort, Scenario
from benchmarks.targets import OpenAI, Target, start_forgeline, start_passthrough

RESULTS = Path(__file__).parent / "results" / "latest.json"
LONGEST = 90  # seconds for one run of the load client, which has its own, shorter bounds


@dataclass(frozen=True)
class Bench:
    upstream: OpenAI
    targets: list[Target]  # the floor first
    notes: list[str]  # what failed
    doubts: dict[str, float]  # what made a figure doubtful -> how much of a core, at worst
    cores: tuple[int, int, int]  # of what is measured, of the upstream, of the client


def main() -> int:
    options = arguments()
    # A terminated benchmark unwinds as an interrupted one does, and so ends what it started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    effort, began = QUICK if options.quick else FULL, time.monotonic()
    try:
        with started(options.floor_only) as bench:
            lines = [line for one in chosen(options.only) for line in measure(bench, one, effort)]
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    except proc.StartFailed as error:
        say(f"the benchmark could not start: {error}")
        return 1
    return tell(bench, lines, effort, time.monotonic() - began)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under half a minute, with a wider spread")
    parser.add_argument("--only", default="", metavar="WORD", help="only the scenarios whose name has this in it")
    parser.add_argument("--floor-only", action="store_true", help="without Forgeline: the passthrough alone")
    return parser.parse_args()


def chosen(word: str) -> list[Scenario]:
    return [scenario for scenario in SCENARIOS if word in scenario.name]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def started(floor_only: bool) -> Iterator[Bench]:
    cores = measured, upstream_core, _ = proc.cores()
    notes: list[str] = []
    doubts = {"only one core, which everything shares": 1.0} if measured == upstream_core else {}
    with contextlib.ExitStack() as ends:
        work = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="forgeline-bench-")))
        served = proc.Served(proc.module("upstream"), upstream_core, work / "upstream.log")
        ends.callback(served.end)
        targets: list[Target] = [start_passthrough(measured, served, work)]
        ends.callback(targets[0].served.end)
        if not floor_only:
            try:
                targets.append(start_forgeline(measured, served, work, QUESTIONS))
                ends.callback(targets[-1].served.end)
            except proc.StartFailed as error:
                notes.append(f"Forgeline is not measured: {error}")
                say(notes[-1])
        yield Bench(OpenAI("upstream", served, work), targets, notes, doubts, cores)


def measure(bench: Bench, scenario: Scenario, effort: Effort) -> list[report.Line]:
    """All rounds of one scenario, the targets in turns, the order turned round each time."""
    say(f"{scenario.name} ...")
    lines = [report.Line(scenario.name, figure) for figure in scenario.figures]
    targets = [target for target in bench.targets if warmed(bench, scenario, target, lines)]
    for _ in range(effort.rounds):
        outcomes = {target.name: attempt(bench, scenario, target, effort, lines) for target in targets}
        asked = attempt(bench, scenario, bench.upstream, effort, lines) if scenario.direct else None
        for name, outcome in outcomes.items():
            if outcome is None:
                continue
            for line in lines:
                line.rounds.setdefault(name, []).append(line.figure.value(outcome, asked or outcome))
        targets = [target for target in reversed(targets) if outcomes[target.name]]
    return lines


def warmed(bench: Bench, scenario: Scenario, target: Target, lines: list[report.Line]) -> bool:
    """A few requests first: what is compiled, cached or connected on the first call is not what is measured."""
    gentle = replace(scenario, clients=min(scenario.clients, 8), seconds=0.2, repeats=20, ramp=0, unmeasured=0)
    return attempt(bench, gentle, target, Effort(rounds=1, scale=1), lines) is not None


def attempt(
    bench: Bench, scenario: Scenario, target: Target, effort: Effort, lines: list[report.Line]
) -> load.Outcome | None:
    command = proc.module("load")
    with proc.on_core(bench.cores[2]):
        client = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        said, why = client.communicate(msgspec.json.encode(plan(bench, scenario, target, effort)), LONGEST)
    except subprocess.TimeoutExpired:
        said, why = b"", b"the load client hung"
    finally:
        client.kill()
        client.wait()
    if said:
        outcome = msgspec.json.decode(said, type=load.Outcome)
        watch(bench, scenario, target, outcome)
        return outcome
    reason = f"{why.decode(errors='replace').strip()} {target.served.last_error()}".strip()
    bench.notes.append(f"{target.name}, {scenario.name}: failed: {reason}")
    say(bench.notes[-1])
    for line in lines:
        line.failed[target.name] = reason
    return None


def plan(bench: Bench, scenario: Scenario, target: Target, effort: Effort) -> load.Plan:
    asked = target.asked(scenario.question)
    return load.Plan(
        port=target.served.port,
        path=asked.path,
        body=str(asked.body),
        marker=asked.marker,
        chunks=asked.chunks,
        end=asked.end,
        measured=target.served.pid,
        upstream=bench.upstream.served.pid,
        cores=list(set(bench.cores)),
        accept=asked.accept,
        clients=scenario.clients,
        seconds=scenario.seconds * effort.scale,
        repeats=scenario.repeats,
        ramp=scenario.ramp,
        unmeasured=scenario.unmeasured,
    )


def watch(bench: Bench, scenario: Scenario, target: Target, outcome: load.Outcome) -> None:
    """Note what makes a figure doubtful: a load side at its limit while the target has time left; other work."""
    if target is bench.upstream or outcome.seconds < report.TOO_SHORT:
        return
    where, load_side = f"{target.name}, {scenario.name}", outcome.client_busy + outcome.upstream_busy
    if outcome.others_busy > report.DISTURBED:
        doubt(bench, f"{scenario.name}: other processes disturbed", outcome.others_busy)
    if load_side > report.BUSY and outcome.cpu < report.BUSY * outcome.seconds:
        doubt(bench, f"{where}: the load side may have been the limit", load_side)


def doubt(bench: Bench, what: str, share: float) -> None:
    bench.doubts[what] = max(share, bench.doubts.get(what, 0))


def tell(bench: Bench, lines: list[report.Line], effort: Effort, took: float) -> int:
    machine, versions = report.machine(), report.versions()
    print(f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}")
    print(", ".join(f"{name} {version}" for name, version in versions.items()))
    print(f"{effort.rounds} rounds in turns; median (least-most); {took:.0f} s in all\n")
    print(report.table(lines, [target.name for target in bench.targets]))
    notes = bench.notes + [f"{what} ({share:.2f} of a core)" for what, share in bench.doubts.items()]
    for note in notes:
        print(f"! {note}")
    report.write_json(RESULTS, lines, notes, at=datetime.now(UTC).isoformat(), rounds=effort.rounds)
    return 1 if bench.notes else 0


if __name__ == "__main__":
    sys.exit(main())
