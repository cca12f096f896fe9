"""`python -m benchmarks`: start everything, measure in turns, print one table, end everything."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import plots, processes, report, results
from benchmarks.effort import FULL, QUICK
from benchmarks.harness import Harness
from benchmarks.peers.targets import Peers
from benchmarks.peers.targets import find_installed as find_peers
from benchmarks.runner import MAX_REPEATS, Runner
from benchmarks.scenario import FLOOR, FORGELINE, Scenario
from benchmarks.scenarios import REQUEST_SPECS, SCENARIOS

DOCS = Path(__file__).resolve().parent.parent / "docs"
BEGIN_MARKER, END_MARKER = "<!-- run: python -m benchmarks --publish -->", "<!-- end of run -->"


def main() -> int:
    options = parse_arguments()
    if options.publish:
        publish(results.load())
        return 0
    if options.compare:
        return compare(results.load(results.PREVIOUS), results.load())
    # On SIGTERM the stack unwinds as on SIGINT, which stops all processes that were started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    processes.raise_open_file_limit()
    try:
        run_results = run_benchmark(options)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except processes.StartError as error:
        print(f"the benchmark could not start: {error}", file=sys.stderr)
        return 1
    print(report.as_text(run_results))
    run_results.save()
    plots.draw(run_results, results.FOLDER)
    return 1 if run_results.failures else 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds, with a wider spread")
    parser.add_argument("--only", default="", metavar="WORD", help="only the scenarios whose name has this in it")
    parser.add_argument("--publish", action="store_true", help="only put the last run's table and plots into docs/")
    parser.add_argument("--compare", action="store_true", help="only say where the last two runs do not agree")
    parser.add_argument("--peers", metavar="DIR", type=Path, help="measure the gateways that are installed there too")
    return parser.parse_args()


def publish(run_results: results.Results) -> None:
    """Replace the table and the plots of the previous run."""
    page = DOCS / "PERFORMANCE.md"
    before, begin_marker, rest = page.read_text().partition(BEGIN_MARKER)
    _, end_marker, after = rest.partition(END_MARKER)
    if not (begin_marker and end_marker):
        raise SystemExit(f"{page.name} has no {BEGIN_MARKER} and {END_MARKER} to put the run between")
    pictures = DOCS / "performance"
    pictures.mkdir(exist_ok=True)
    links = [f"![{path.stem}]({pictures.name}/{path.name})" for path in plots.draw(run_results, pictures)]
    page.write_text("\n\n".join([before + BEGIN_MARKER, report.as_markdown(run_results), *links, END_MARKER + after]))


def compare(before: results.Results, after: results.Results) -> int:
    differing = report.disagreements(before, after)
    print("\n".join(differing or ["the last two runs agree within their spread"]))
    return 1 if differing else 0


def select_scenarios(substring: str) -> list[Scenario]:
    return [scenario for scenario in SCENARIOS if substring.lower() in scenario.name.lower()]


def run_benchmark(options: argparse.Namespace) -> results.Results:
    other_targets = ["nginx"] if shutil.which("nginx") else []
    peers = find_peers(options.peers, REQUEST_SPECS) if options.peers else Peers()
    started_at = time.monotonic()
    with Harness(REQUEST_SPECS, peers.starts) as harness:
        other_targets += peers.start_all(harness)
        runner = Runner(harness, QUICK if options.quick else FULL, other_targets)
        if harness.target_core == harness.upstream_core:
            runner.warnings["only one core, which everything shares"] = 1.0
        try:
            runner.run(select_scenarios(options.only))
        except KeyboardInterrupt:
            runner.failures.append("interrupted: what was measured until then is here")
    return results.Results(
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
        duration=time.monotonic() - started_at,
        machine=results.machine(),
        versions=results.versions() | peers.versions,
        sides=[FLOOR, *other_targets, FORGELINE],
        lines=runner.lines,
        distributions=runner.distributions,
        failures=peers.split_failures(runner.failures),
        warnings=[
            *(f"{warning} ({share:.2f} of a core)" for warning, share in runner.warnings.items()),
            *repeat_note(runner),
            *peers.notes,
        ],
    )


def repeat_note(runner: Runner) -> list[str]:
    repeats = MAX_REPEATS - runner.repeats_left
    return [f"rounds that other processes disturbed, and that were measured again: {repeats}"] if repeats else []


if __name__ == "__main__":
    sys.exit(main())
