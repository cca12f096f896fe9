"""What the CDK says about its own progress, read off the lines it prints. Pure.

    NAME: deploying... [1/1]
    NAME | 3/12 | 7:08:02 PM | CREATE_FAILED  | AWS::S3::Bucket | path (LogicalId) the reason
     ✅  NAME
    Outputs:
    NAME.Key = value

Lines that are not the CDK's cost next to nothing: a piece of output without any of its marks is only looked through.
"""

from __future__ import annotations

import re
from typing import Final, Literal

from msgspec import Struct

from infraforge_runner.job import Progress

Phase = Literal["starting", "synthesizing", "publishing", "deploying", "destroying", "rolling_back", "done", "failed"]
"""In the order in which they come. `publishing` uploads what the stack refers to; `rolling_back` undoes a failure."""

MAX_LINE: Final = 16_384  # bytes; none of the CDK's is longer, and what has no end is not kept
MAX_FAILED: Final = 50


class Failure(Struct, frozen=True):
    """A resource that could not be made, changed or removed."""

    resource: str
    type: str
    reason: str

    def __str__(self) -> str:
        return f"{self.resource} ({self.type}): {self.reason}"


_EVENT = re.compile(
    r"\S+ \| (?:\s*(?P<done>\d+)(?:/(?P<total>\d+))? \| )?[^|]{5,20} \| (?P<status>[A-Z_]+)"
    r"(?P<skipped> \(skipped\))?\s* \| (?P<type>[\w:]+)\s* \| (?P<rest>.*)"
)
_NAME_AND_REASON = re.compile(r"(?P<path>\S+)(?: \((?P<id>[A-Za-z0-9]+)\))? ?(?P<reason>.*)")
_WAITING = re.compile(r"\s*(?P<done>\d+)(?:/(?P<total>\d+))? Currently in progress: .*")
_COMPLAINT = re.compile(
    r"(?:❌\s+\S+ failed: |❌\s+\S+: \w+ failed |‣ )(?P<cdk>.+)|(?P<infraforge>Error (?:loading|creating) .+)"
)
_OUTPUT = re.compile(r"(?P<stack>\S+?)\.(?P<key>[A-Za-z0-9]+) = (?P<value>.*)")
_ANSI = re.compile(rb"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")

_LANDMARKS: Final[tuple[tuple[re.Pattern[str], Phase], ...]] = (
    (re.compile(r"Loaded configuration from "), "synthesizing"),
    (re.compile(r"\S+: start: (?:Building|Publishing) "), "publishing"),
    (re.compile(r"\S+: (?:creating CloudFormation changeset\.\.\.|deploying\.\.\. \[)"), "deploying"),
    (re.compile(r"\S+: destroying\.\.\. \["), "destroying"),
    (re.compile(r"✅\s+\S+"), "done"),
    (re.compile(r"❌\s+\S+"), "failed"),
)
# One of these is in every line that means something, and in few others.
_STATES: Final = ("_IN_PROG", "_COMPLETE", "_FAILED")  # the CDK cuts long ones
_WORDS: Final = (
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
_MARKS: Final = tuple(word.encode() for word in _WORDS)


class CdkProgress:
    """Reads the output of one run, in pieces of any size."""

    def __init__(self) -> None:
        self.phase: Phase = "starting"
        self.progress: Progress | None = None
        self.failed: list[Failure] = []
        self.outputs: dict[str, str] = {}
        self.complaint = ""  # the first words about a failure that is no resource's
        self._rest = b""
        self._is_skipping = False  # the rest of a line that was too long
        self._in_outputs = False

    def read(self, data: bytes) -> bool:
        """Takes what was written; says whether phase or progress are others now."""
        before = self.phase, self.progress
        whole, newline, rest = data.rpartition(b"\n")
        if newline:
            block = whole.partition(b"\n")[2] if self._is_skipping else self._rest + whole
            self._rest, self._is_skipping = b"", False
            if self._in_outputs or any(mark in block for mark in _MARKS):
                self._read_lines(block)
        self._keep(rest)
        return before != (self.phase, self.progress)

    def _keep(self, rest: bytes) -> None:
        if self._is_skipping:
            return
        self._rest += rest
        if len(self._rest) > MAX_LINE:
            self._rest, self._is_skipping = b"", True

    def _read_lines(self, block: bytes) -> None:
        for line in block.split(b"\n"):
            if len(line) <= MAX_LINE and (self._in_outputs or any(mark in line for mark in _MARKS)):
                self._read_line(_ANSI.sub(b"", line).decode(errors="replace").strip())

    def _read_line(self, line: str) -> None:
        if self._in_outputs and (output := _OUTPUT.fullmatch(line)):
            self.outputs[output["key"]] = output["value"]
            return
        self._in_outputs = line == "Outputs:"
        if event := _EVENT.fullmatch(line):
            self._read_event(event)
        elif waiting := _WAITING.fullmatch(line):
            self._count(waiting)
        else:
            self.phase = next((phase for begin, phase in _LANDMARKS if begin.match(line)), self.phase)
            if not self.complaint and (complaint := _COMPLAINT.fullmatch(line)):
                self.complaint = complaint["cdk"] or complaint["infraforge"]

    def _read_event(self, event: re.Match[str]) -> None:
        self._count(event)
        status = event["status"]
        if status.endswith("_FAILED") and not event["skipped"]:
            self._fail(event)
        elif "ROLLBACK_IN_PROG" in status and event["type"] == "AWS::CloudFormation::Stack":
            self.phase = "rolling_back"

    def _count(self, found: re.Match[str]) -> None:
        if found["done"] is not None:
            self.progress = Progress(int(found["done"]), None if found["total"] is None else int(found["total"]))

    def _fail(self, event: re.Match[str]) -> None:
        named = _NAME_AND_REASON.fullmatch(event["rest"])
        if named is None or event["type"] == "AWS::CloudFormation::Stack" or len(self.failed) >= MAX_FAILED:
            return
        failure = Failure(named["id"] or named["path"], event["type"], named["reason"].strip())
        # Failures are said a second time at the end, and what was cancelled for another's sake is no cause.
        if all(one.resource != failure.resource for one in self.failed) and not is_consequence(failure.reason):
            self.failed.append(failure)


def is_consequence(reason: str) -> bool:
    """Whether CloudFormation gave up on this resource only because of another."""
    return re.fullmatch(r"Resource (creation|update|deletion) cancell?ed\.?", reason.strip(), re.IGNORECASE) is not None
