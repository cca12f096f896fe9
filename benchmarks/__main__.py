"""`python -m benchmarks`: start everything, measure in turns, print one table, end everything."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import plots, proc, report, results
from benchmarks.effort import FULL, QUICK
from benchmarks.peers.targets import Peers
from benchmarks.peers.targets import find as find_peers
from benchmarks.runner import SPARE, Runner
from benchmarks.scenario import FLOOR, FORGELINE, Scenario
from benchmarks.scenarios import QUESTIONS, SCENARIOS
from benchmarks.world import World

DOCS = Path(__file__).resolve().parent.parent / "docs"
BEGIN, END = "<!-- run: python -m benchmarks --publish -->", "<!-- end of run -->"


def main() -> int:
    options = arguments()
    if options.publish:
        publish(results.load())
        return 0
    if options.compare:
        return compare(results.load(results.PREVIOUS), results.load())
    # A terminated benchmark unwinds as an interrupted one does, and so ends what it started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    proc.allow_open_files()
    try:
        found = measured(options)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except proc.StartFailed as error:
        print(f"the benchmark could not start: {error}", file=sys.stderr)
        return 1
    print(report.as_text(found))
    found.save()
    plots.draw(found, results.FOLDER)
    return 1 if found.failed else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds, with a wider spread")
    parser.add_argument("--only", default="", metavar="WORD", help="only the scenarios whose name has this in it")
    parser.add_argument("--publish", action="store_true", help="only put the last run's table and plots into docs/")
    parser.add_argument("--compare", action="store_true", help="only say where the last two runs do not agree")
    parser.add_argument("--peers", metavar="DIR", type=Path, help="measure the gateways that are installed there too")
    return parser.parse_args()


def publish(found: results.Results) -> None:
    """The table and the pictures take the place of those of the run before."""
    page = DOCS / "PERFORMANCE.md"
    before, begun, rest = page.read_text().partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not (begun and ended):
        raise SystemExit(f"{page.name} has no {BEGIN} and {END} to put the run between")
    pictures = DOCS / "performance"
    pictures.mkdir(exist_ok=True)
    links = [f"![{path.stem}]({pictures.name}/{path.name})" for path in plots.draw(found, pictures)]
    page.write_text("\n\n".join([before + BEGIN, report.as_markdown(found), *links, END + after]))


def compare(before: results.Results, after: results.Results) -> int:
    differing = report.disagreements(before, after)
    print("\n".join(differing or ["the last two runs agree within their spread"]))
    return 1 if differing else 0


def chosen(word: str) -> list[Scenario]:
    return [scenario for scenario in SCENARIOS if word.lower() in scenario.name.lower()]


def measured(options: argparse.Namespace) -> results.Results:
    others = ["nginx"] if shutil.which("nginx") else []
    peers = find_peers(options.peers, QUESTIONS) if options.peers else Peers()
    began = time.monotonic()
    with World(QUESTIONS, peers.starts) as world:
        others += peers.begin(world)
        runner = Runner(world, QUICK if options.quick else FULL, others)
        if world.measured == world.loading:
            runner.doubts["only one core, which everything shares"] = 1.0
        try:
            runner.run(chosen(options.only))
        except KeyboardInterrupt:
            runner.failed.append("interrupted: what was measured until then is here")
    return results.Results(
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        took=time.monotonic() - began,
        machine=results.machine(),
        versions=results.versions() | peers.versions,
        sides=[FLOOR, *others, FORGELINE],
        lines=runner.lines,
        distributions=runner.distributions,
        failed=peers.not_theirs(runner.failed),
        doubts=[
            *(f"{what} ({share:.2f} of a core)" for what, share in runner.doubts.items()),
            *repeated(runner),
            *peers.notes,
        ],
    )


def repeated(runner: Runner) -> list[str]:
    times = SPARE - runner.spare
    return [f"rounds that other processes disturbed, and that were measured again: {times}"] if times else []


if __name__ == "__main__":
    sys.exit(main())
