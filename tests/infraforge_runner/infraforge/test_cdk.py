"""The CDK's output, recorded from runs of it, in pieces of any size: phase, progress, failures, outputs."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from infraforge_runner.infraforge.cdk import MAX_LINE_BYTES, CdkOutputParser, ResourceFailure
from infraforge_runner.jobs.model import Progress

SAMPLES = Path(__file__).parent / "samples"
ROLE_FAILURE = ResourceFailure(
    "KarpenterNodeRole",
    "AWS::IAM::Role",
    "EntityAlreadyExists: Role with name KarpenterNodeRole-small-bad-us-west-2 already exists.",
)


def parse(data: bytes, size: int | None = None) -> CdkOutputParser:
    cdk = CdkOutputParser()
    for start in range(0, len(data), size or len(data)):
        cdk.feed(data[start : start + (size or len(data))])
    return cdk


def list_phases(data: bytes) -> list[str]:
    cdk, phases = CdkOutputParser(), ["starting"]
    for line in data.splitlines(keepends=True):
        if cdk.feed(line) and cdk.phase != phases[-1]:
            phases.append(cdk.phase)
    return phases


@pytest.mark.parametrize("size", [1, 7, 4096, None])
def test_deploy_output_gives_phase_progress_and_outputs(size: int | None) -> None:
    data = (SAMPLES / "deploy.log").read_bytes()
    cdk = parse(data, size)
    assert (cdk.phase, cdk.progress, cdk.failures) == ("done", Progress(6, 6), [])
    assert cdk.outputs["NlbDns"] == "127.0.0.1"
    assert cdk.outputs["ClusterEndpoint"] == "https://small-demo.eks.us-west-2.example"
    assert len(cdk.outputs) == 6


@pytest.mark.parametrize(
    ("sample", "expected"),
    [
        ("deploy", ["starting", "synthesizing", "deploying", "done"]),
        ("deploy_simple", ["starting", "deploying", "done"]),
        ("deploy_failed", ["starting", "synthesizing", "deploying", "rolling_back", "failed"]),
        ("destroy", ["starting", "destroying", "done"]),
    ],
)
def test_phases_come_in_order(sample: str, expected: list[str]) -> None:
    assert list_phases((SAMPLES / f"{sample}.log").read_bytes()) == expected


@pytest.mark.parametrize("size", [1, 64, None])
def test_failed_resource_is_listed_once_with_reason(size: int | None) -> None:
    assert parse((SAMPLES / "deploy_failed.log").read_bytes(), size).failures == [ROLE_FAILURE]


def test_destroy_progress_has_no_total() -> None:
    assert parse((SAMPLES / "destroy.log").read_bytes()).progress == Progress(1)


def test_colours_are_ignored() -> None:
    data = (SAMPLES / "deploy_failed.log").read_bytes()
    coloured = data.replace(b"CREATE_FAILED  ", b"\x1b[31mCREATE_FAILED  \x1b[39m").replace(
        b"KarpenterNodeRole Entity", b"\x1b[31m\x1b[1mKarpenterNodeRole\x1b[22m\x1b[39m \x1b[31m\x1b[1mEntity"
    )
    assert coloured != data
    cdk = parse(coloured)
    assert (cdk.failures, cdk.phase) == ([ROLE_FAILURE], "failed")


def test_update_rollback_is_recognised_by_truncated_state() -> None:
    row = "s | 4/9 | 7:08:02 PM | UPDATE_ROLLBACK_IN_PROG | AWS::CloudFormation::Stack | s The following failed\n"
    assert list_phases(row.encode()) == ["starting", "rolling_back"]


def test_currently_in_progress_line_gives_progress() -> None:
    assert parse(b" 17/93 Currently in progress: eks, hyperpod\n").progress == Progress(17, 93)


def test_cancelled_or_skipped_resource_is_no_failure() -> None:
    row = "s | 1/2 | 7:08:02 PM | {} | AWS::S3::Bucket | Bucket{} {}\n"
    lines = [
        row.format("CREATE_FAILED", 1, "Resource creation cancelled"),
        row.format("DELETE_FAILED (skipped)", 2, "(this will take a few minutes to recover)"),
        row.format("CREATE_FAILED", 3, "it is taken"),
    ]
    assert parse("".join(lines).encode()).failures == [ResourceFailure("Bucket3", "AWS::S3::Bucket", "it is taken")]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("❌  s failed: ToolkitError: s: not bootstrapped\n❌  s failed: other\n", "ToolkitError: s: not"),
        ("❌  s failed to deploy\n‣ BootstrapError: Has it been bootstrapped?\n", "BootstrapError: Has it"),
        (" ❌  s: destroy failed Error: x\n", "Error: x"),
        ("Error creating forge fsx: no such zone\nSubprocess exited with error 1\n", "Error creating forge fsx: no s"),
        ("Error loading config: bad\n", "Error loading config: bad"),
        ("❌  s failed to deploy\nWarning: Error creating it\n", ""),
    ],
)
def test_error_line_is_first_line_of_failure_without_resource(lines: str, expected: str) -> None:
    error_line = parse(lines.encode()).error_line
    assert error_line.startswith(expected)
    assert bool(error_line) == bool(expected)


def test_overlong_line_is_dropped_and_next_line_parsed() -> None:
    cdk = CdkOutputParser()
    for _ in range(100):
        cdk.feed(b"x" * 1000)
    assert len(cdk._partial_line) <= MAX_LINE_BYTES
    cdk.feed(" 1/2 Currently in progress: this is still the long line\n✅  stack\n".encode())
    assert (cdk.phase, cdk.progress) == ("done", None)


def test_other_lines_change_nothing() -> None:
    cdk = CdkOutputParser()
    lines = (
        b"a | b | c | d | e\n... waiting ...\n\xff\xfe | 1/2 | x\nOutputs:\nno output = here\n| 3/4 | time | UP | A |\n"
    )
    assert not cdk.feed(lines)
    assert (cdk.phase, cdk.progress, cdk.outputs, cdk.failures) == ("starting", None, {}, [])


@pytest.mark.parametrize(
    "line", [b"some line of a script's output, of the usual length\n", b"a table | with | rows...\n"]
)
def test_other_output_is_parsed_in_little_time(line: bytes) -> None:
    pieces = [line * 1000] * 100
    cdk = CdkOutputParser()
    began = time.process_time()
    for piece in pieces:
        cdk.feed(piece)
    assert time.process_time() - began < 1.0  # of which it takes a small part: 100,000 lines
