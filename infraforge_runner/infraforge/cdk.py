"""Parses the CDK's output: phase, progress, failed resources, outputs. Pure.

    NAME: deploying... [1/1]
    NAME | 3/12 | 7:08:02 PM | CREATE_FAILED  | AWS::S3::Bucket | path (LogicalId) the reason
     ✅  NAME
    Outputs:
    NAME.Key = value

Other output costs next to nothing: a piece without any of the CDK's markers is only searched for those.
"""

from __future__ import annotations

import re
from typing import Final, Literal

from msgspec import Struct

from infraforge_runner.jobs.model import Progress

Phase = Literal["starting", "synthesizing", "publishing", "deploying", "destroying", "rolling_back", "done", "failed"]
"""In the order in which they come. `publishing` uploads what the stack refers to; `rolling_back` undoes a failure."""

MAX_LINE_BYTES: Final = 16_384  # none of the CDK's is longer; longer ones are skipped
MAX_FAILURES: Final = 50


class ResourceFailure(Struct, frozen=True):
    """A resource that could not be created, updated or deleted."""

    resource: str
    type: str
    reason: str

    def __str__(self) -> str:
        return f"{self.resource} ({self.type}): {self.reason}"


_EVENT_LINE = re.compile(
    r"\S+ \| (?:\s*(?P<done>\d+)(?:/(?P<total>\d+))? \| )?[^|]{5,20} \| (?P<status>[A-Z_]+)"
    r"(?P<skipped> \(skipped\))?\s* \| (?P<type>[\w:]+)\s* \| (?P<rest>.*)"
)
_NAME_AND_REASON = re.compile(r"(?P<path>\S+)(?: \((?P<id>[A-Za-z0-9]+)\))? ?(?P<reason>.*)")
_IN_PROGRESS_LINE = re.compile(r"\s*(?P<done>\d+)(?:/(?P<total>\d+))? Currently in progress: .*")
_ERROR_LINE = re.compile(
    r"(?:❌\s+\S+ failed: |❌\s+\S+: \w+ failed |‣ )(?P<cdk>.+)|(?P<infraforge>Error (?:loading|creating) .+)"
)
_OUTPUT_LINE = re.compile(r"(?P<stack>\S+?)\.(?P<key>[A-Za-z0-9]+) = (?P<value>.*)")
_ANSI = re.compile(rb"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")

_PHASE_LINES: Final[tuple[tuple[re.Pattern[str], Phase], ...]] = (
    (re.compile(r"Loaded configuration from "), "synthesizing"),
    (re.compile(r"\S+: start: (?:Building|Publishing) "), "publishing"),
    (re.compile(r"\S+: (?:creating CloudFormation changeset\.\.\.|deploying\.\.\. \[)"), "deploying"),
    (re.compile(r"\S+: destroying\.\.\. \["), "destroying"),
    (re.compile(r"✅\s+\S+"), "done"),
    (re.compile(r"❌\s+\S+"), "failed"),
)
# Every line that is parsed has one of these, and few other lines have.
_STATES: Final = ("_IN_PROG", "_COMPLETE", "_FAILED")  # without the ends, which the CDK cuts off long ones
_MARKERS: Final = (
    *_STATES,
    "changeset...",
    "ing... [",
    "✅",
    "❌",
    ": start: ",
    "Outputs:",
    "Loaded configuration",
    "Error ",
    "‣ ",
    "Currently in progress: ",
)
_MARKER_BYTES: Final = tuple(marker.encode() for marker in _MARKERS)


class CdkOutputParser:
    """Parses the output of one run, fed in pieces of any size."""

    def __init__(self) -> None:
        self.phase: Phase = "starting"
        self.progress: Progress | None = None
        self.failures: list[ResourceFailure] = []
        self.outputs: dict[str, str] = {}
        self.error_line = ""  # the first line about a failure that is no resource's
        self._partial_line = b""
        self._skips_to_line_end = False  # the rest of a line that was too long
        self._in_outputs = False

    def feed(self, data: bytes) -> bool:
        """Parse the next piece of output. Returns whether phase or progress have changed."""
        before = (self.phase, self.progress)
        lines, newline, rest = data.rpartition(b"\n")
        if newline:
            block = lines.partition(b"\n")[2] if self._skips_to_line_end else self._partial_line + lines
            self._partial_line, self._skips_to_line_end = b"", False
            if self._in_outputs or any(marker in block for marker in _MARKER_BYTES):
                self._parse_lines(block)
        self._buffer_partial_line(rest)
        return before != (self.phase, self.progress)

    def _buffer_partial_line(self, rest: bytes) -> None:
        if self._skips_to_line_end:
            return
        self._partial_line += rest
        if len(self._partial_line) > MAX_LINE_BYTES:
            self._partial_line, self._skips_to_line_end = b"", True

    def _parse_lines(self, block: bytes) -> None:
        for line in block.split(b"\n"):
            if len(line) <= MAX_LINE_BYTES and (self._in_outputs or any(marker in line for marker in _MARKER_BYTES)):
                self._parse_line(_ANSI.sub(b"", line).decode(errors="replace").strip())

    def _parse_line(self, line: str) -> None:
        if self._in_outputs and (output := _OUTPUT_LINE.fullmatch(line)):
            self.outputs[output["key"]] = output["value"]
            return
        self._in_outputs = line == "Outputs:"
        if event := _EVENT_LINE.fullmatch(line):
            self._parse_event(event)
        elif count := _IN_PROGRESS_LINE.fullmatch(line):
            self._set_progress(count)
        else:
            self.phase = next((phase for pattern, phase in _PHASE_LINES if pattern.match(line)), self.phase)
            if not self.error_line and (error := _ERROR_LINE.fullmatch(line)):
                self.error_line = error["cdk"] or error["infraforge"]

    def _parse_event(self, event: re.Match[str]) -> None:
        self._set_progress(event)
        status = event["status"]
        if status.endswith("_FAILED") and not event["skipped"]:
            self._add_failure(event)
        elif "ROLLBACK_IN_PROG" in status and event["type"] == "AWS::CloudFormation::Stack":
            self.phase = "rolling_back"

    def _set_progress(self, match: re.Match[str]) -> None:
        if match["done"] is not None:
            self.progress = Progress(int(match["done"]), None if match["total"] is None else int(match["total"]))

    def _add_failure(self, event: re.Match[str]) -> None:
        resource = _NAME_AND_REASON.fullmatch(event["rest"])
        if resource is None or event["type"] == "AWS::CloudFormation::Stack" or len(self.failures) >= MAX_FAILURES:
            return
        failure = ResourceFailure(resource["id"] or resource["path"], event["type"], resource["reason"].strip())
        # The CDK repeats failures at the end.
        is_known = any(known.resource == failure.resource for known in self.failures)
        if not is_known and not is_secondary_failure(failure.reason):
            self.failures.append(failure)


def is_secondary_failure(reason: str) -> bool:
    """Whether CloudFormation cancelled this resource only because another one failed."""
    return re.fullmatch(r"Resource (creation|update|deletion) cancell?ed\.?", reason.strip(), re.IGNORECASE) is not None
