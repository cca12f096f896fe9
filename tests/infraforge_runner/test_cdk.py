"""The CDK's own lines, from runs of it: phase, progress, what failed, outputs; in pieces of any size."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from infraforge_runner.cdk import MAX_LINE, CdkProgress, Failure
from infraforge_runner.job import Progress

SAMPLES = Path(__file__).parent / "samples"
FAILURE = Failure(
    "KarpenterNodeRole",
    "AWS::IAM::Role",
    "EntityAlreadyExists: Role with name KarpenterNodeRole-small-bad-us-west-2 already exists.",
)


def after(data: bytes, size: int | None = None) -> CdkProgress:
    cdk = CdkProgress()
    for start in range(0, len(data), size or len(data)):
        cdk.read(data[start : start + (size or len(data))])
    return cdk


def phases(data: bytes) -> list[str]:
    cdk, found = CdkProgress(), ["starting"]
    for line in data.splitlines(keepends=True):
        if cdk.read(line) and cdk.phase != found[-1]:
            found.append(cdk.phase)
    return found


@pytest.mark.parametrize("size", [1, 7, 4096, None])
def test_a_deploy_is_followed_to_its_outputs(size: int | None) -> None:
    data = (SAMPLES / "deploy.log").read_bytes()
    cdk = after(data, size)
    assert (cdk.phase, cdk.progress, cdk.failed) == ("done", Progress(6, 6), [])
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
def test_the_phases_come_in_their_order(sample: str, expected: list[str]) -> None:
    assert phases((SAMPLES / f"{sample}.log").read_bytes()) == expected


@pytest.mark.parametrize("size", [1, 64, None])
def test_what_failed_is_named_once_with_its_reason(size: int | None) -> None:
    assert after((SAMPLES / "deploy_failed.log").read_bytes(), size).failed == [FAILURE]


def test_a_destroy_counts_without_a_total() -> None:
    assert after((SAMPLES / "destroy.log").read_bytes()).progress == Progress(1)


def test_colours_change_nothing() -> None:
    data = (SAMPLES / "deploy_failed.log").read_bytes()
    coloured = data.replace(b"CREATE_FAILED  ", b"\x1b[31mCREATE_FAILED  \x1b[39m").replace(
        b"KarpenterNodeRole Entity", b"\x1b[31m\x1b[1mKarpenterNodeRole\x1b[22m\x1b[39m \x1b[31m\x1b[1mEntity"
    )
    assert coloured != data
    cdk = after(coloured)
    assert (cdk.failed, cdk.phase) == ([FAILURE], "failed")


def test_a_rollback_of_an_update_is_known_by_what_the_cdk_leaves_of_its_name() -> None:
    row = "s | 4/9 | 7:08:02 PM | UPDATE_ROLLBACK_IN_PROG | AWS::CloudFormation::Stack | s The following failed\n"
    assert phases(row.encode()) == ["starting", "rolling_back"]


def test_a_long_wait_still_counts() -> None:
    assert after(b" 17/93 Currently in progress: eks, hyperpod\n").progress == Progress(17, 93)


def test_what_was_cancelled_for_anothers_sake_or_skipped_has_not_failed() -> None:
    row = "s | 1/2 | 7:08:02 PM | {} | AWS::S3::Bucket | Bucket{} {}\n"
    lines = [
        row.format("CREATE_FAILED", 1, "Resource creation cancelled"),
        row.format("DELETE_FAILED (skipped)", 2, "(this will take a few minutes to recover)"),
        row.format("CREATE_FAILED", 3, "it is taken"),
    ]
    assert after("".join(lines).encode()).failed == [Failure("Bucket3", "AWS::S3::Bucket", "it is taken")]


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ("❌  s failed: ToolkitError: s: not bootstrapped\n❌  s failed: other\n", "ToolkitError: s: not"),
        ("❌  s failed to deploy\n‣ BootstrapError: Has it been bootstrapped?\n", "BootstrapError: Has it"),
        (" ❌  s: destroy failed Error: x\n", "Error: x"),
        ("Error creating forge fsx: no such zone\nSubprocess exited with error 1\n", "Error creating forge fsx: no s"),
        ("Error loading config: bad\n", "Error loading config: bad"),
        ("❌  s failed to deploy\nWarning: Error creating it\n", ""),
    ],
)
def test_a_failure_that_is_no_resources_is_told_in_its_first_words(lines: str, complaint: str) -> None:
    found = after(lines.encode()).complaint
    assert found.startswith(complaint)
    assert bool(found) == bool(complaint)


def test_a_line_without_an_end_is_not_kept_and_the_next_is_read() -> None:
    cdk = CdkProgress()
    for _ in range(100):
        cdk.read(b"x" * 1000)
    assert len(cdk._rest) <= MAX_LINE
    cdk.read(" 1/2 Currently in progress: this is still the long line\n✅  stack\n".encode())
    assert (cdk.phase, cdk.progress) == ("done", None)


def test_lines_that_are_not_the_cdks_change_nothing() -> None:
    cdk = CdkProgress()
    lines = (
        b"a | b | c | d | e\n... waiting ...\n\xff\xfe | 1/2 | x\nOutputs:\nno output = here\n| 3/4 | time | UP | A |\n"
    )
    assert not cdk.read(lines)
    assert (cdk.phase, cdk.progress, cdk.outputs, cdk.failed) == ("starting", None, {}, [])


@pytest.mark.parametrize(
    "line", [b"some line of a script's output, of the usual length\n", b"a table | with | rows...\n"]
)
def test_other_output_costs_next_to_nothing(line: bytes) -> None:
    pieces = [line * 1000] * 100
    cdk = CdkProgress()
    began = time.process_time()
    for piece in pieces:
        cdk.read(piece)
    assert time.process_time() - began < 1.0  # of which it takes a small part: 100,000 lines
