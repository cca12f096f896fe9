"""HyperPod presets: what stands in `hyperpod/NAME.yaml`, and the rules for what a request may override.

docs/PRESETS.md tells users the same, key by key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from pipeline.errors import InvalidRequest
from pipeline.schema import Path as SchemaPath
from pipeline.schema import SchemaError, check
from pipeline.store import NAME, Kind

Value = str | int | bool
Seconds = Annotated[float, Meta(gt=0, le=604_800)]

REGION = Annotated[str, Meta(pattern=r"^[a-z]{2}(-[a-z]+)+-\d{1,2}$")]
MAX_TEXT = 200  # characters of an override's value
SCRIPTS = Path(__file__).resolve().parent / "scripts"
"""Ours, which drive InfraForge: for presets that bring none of their own."""

VARIABLE = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
# What a script's own safety, and that of the tools it calls, rests on. Of AWS's, a preset chooses the region.
FORBIDDEN_VARIABLES = re.compile(
    r"PATH|HOME|IFS|ENV|SHELL|SHELLOPTS|BASHOPTS|PS4|TMPDIR|PERL5.*|RUBY.*|LD_.*|BASH_.*|NODE_.*|npm_.*|PYTHON.*"
    r"|LC_.*|LANG|LANGUAGE|FORGELINE_.*|AWS_(?!REGION$|DEFAULT_REGION$).*"
)

Action = Literal["deploy", "destroy"]


class Override(Struct, frozen=True, forbid_unknown_fields=True):
    """A value that a request may choose: its rule, the variable that scripts get it in, the places it is written to.

    `sets` are dotted paths into `config`; a number is an index into a list.
    """

    env: str
    type: Literal["string", "integer", "boolean"] = "string"
    minimum: int | None = None
    maximum: int | None = None
    pattern: str | None = None
    enum: tuple[Value, ...] | None = None
    sets: tuple[str, ...] = ()
    description: str = ""

    def check(self, name: str, value: Any) -> Value:
        """The value, if the rule takes it. Raises InvalidRequest."""
        if not self._takes(value):
            raise InvalidRequest(f"overrides.{name}: expected {self.rule}.")
        taken: Value = value
        return taken

    def _takes(self, value: Any) -> bool:
        if self.enum is not None and not any(type(value) is type(one) and value == one for one in self.enum):
            return False
        match self.type:
            case "boolean":
                return isinstance(value, bool)
            case "integer":
                low = self.minimum if self.minimum is not None else -(2**53)
                high = self.maximum if self.maximum is not None else 2**53
                return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
            case "string":
                return isinstance(value, str) and 0 < len(value) <= MAX_TEXT and self._matches(value)

    def _matches(self, value: str) -> bool:
        # A control character could end a line of a script's, a log or a header; none belongs in a name.
        return value.isprintable() and (self.pattern is None or re.fullmatch(self.pattern, value) is not None)

    @property
    def rule(self) -> str:
        """What is allowed, as a person reads it."""
        parts = [{"string": "a string", "integer": "an integer", "boolean": "true or false"}[self.type]]
        if self.enum is not None:
            parts.append("one of " + ", ".join(map(str, self.enum)))
        if self.minimum is not None:
            parts.append(f"at least {self.minimum}")
        if self.maximum is not None:
            parts.append(f"at most {self.maximum}")
        if self.pattern is not None:
            parts.append(f"matching {self.pattern}")
        return ", ".join(parts)


class Scripts(Struct, frozen=True, forbid_unknown_fields=True):
    """The preset's own scripts, relative to the folder of presets; ours where one is left out."""

    deploy: str | None = None
    destroy: str | None = None

    def of(self, action: Action) -> str | None:
        return self.deploy if action == "deploy" else self.destroy


class Serves(Struct, frozen=True, forbid_unknown_fields=True):
    """The model that a successful deploy makes available. `${outputs.KEY}` stands for an output of the stack.

    `model` is what its server calls it; `name` what Forgeline does, where that is to be another.
    """

    model: str
    base_url: str
    name: Annotated[str, Meta(pattern=f"^{NAME.pattern}$")] | None = None
    api_key_env: str | None = None
    capabilities: tuple[Literal["text", "image", "video", "stream"], ...] = ("text", "stream")


class HyperPodPreset(Struct, frozen=True, forbid_unknown_fields=True):
    """`hyperpod/NAME.yaml`. `timeout` in seconds; `config` is InfraForge's own."""

    description: str = ""
    region: REGION = "us-east-1"
    timeout: Seconds = 7200.0
    config: dict[str, Any] = {}
    scripts: Scripts = Scripts()
    serves: Serves | None = None
    overrides: dict[str, Override] = {}

    def check_overrides(self, values: Mapping[str, Any]) -> dict[str, Value]:
        """The values, if this preset declares them all and their rules take them. Raises InvalidRequest."""
        unknown = sorted(values.keys() - self.overrides.keys())
        if unknown:
            allowed = "; ".join(f"{name} ({rule.rule})" for name, rule in sorted(self.overrides.items())) or "none"
            raise InvalidRequest(
                f"overrides.{unknown[0][:80]}: this preset does not declare it; allowed are: {allowed}."
            )
        return {name: self.overrides[name].check(name, value) for name, value in sorted(values.items())}


def parse(value: Any) -> HyperPodPreset:
    """A preset from a file's content. Raises SchemaError, with the path to what is wrong."""
    preset = check(value, HyperPodPreset)
    for name, rule in preset.overrides.items():
        _check_rule(("overrides", name), rule, preset.config)
    for action in ("deploy", "destroy"):
        script = getattr(preset.scripts, action)
        if script is not None and not _stays_inside(script):
            raise SchemaError(("scripts", action), "expected a path inside the folder of presets, relative to it")
    return preset


def _check_rule(path: SchemaPath, rule: Override, config: Mapping[str, Any]) -> None:
    if not VARIABLE.fullmatch(rule.env):
        raise SchemaError((*path, "env"), f"{rule.env!r} is no name for a variable: expected {VARIABLE.pattern}")
    if FORBIDDEN_VARIABLES.fullmatch(rule.env):
        raise SchemaError((*path, "env"), f"no request may set {rule.env}")
    if (rule.minimum is not None or rule.maximum is not None) and rule.type != "integer":
        raise SchemaError(path, "minimum and maximum are for integers")
    if rule.pattern is not None:
        if rule.type != "string":
            raise SchemaError((*path, "pattern"), "a pattern is for strings")
        try:
            re.compile(rule.pattern)
        except re.error as error:
            raise SchemaError((*path, "pattern"), f"is no regular expression: {error}") from error
    for index, target in enumerate(rule.sets):
        try:
            find(config, target)
        except KeyError as error:
            raise SchemaError((*path, "sets", index), f"config has no {error.args[0]}") from error


def find(config: Mapping[str, Any], target: str) -> tuple[Any, str | int]:
    """The mapping or list that holds the value at a dotted path, and its key there. Raises KeyError."""
    holder: Any = config
    *parents, last = target.split(".")
    for depth, step in enumerate(parents, 1):
        try:
            holder = holder[_key(holder, step)]
        except (LookupError, TypeError, ValueError) as error:
            raise KeyError(".".join(parents[:depth])) from error
    if not isinstance(holder, dict | list) or (isinstance(holder, list) and not _is_index(holder, last)):
        raise KeyError(target)
    return holder, _key(holder, last)


def _key(holder: Any, step: str) -> str | int:
    return int(step) if isinstance(holder, list) else step


def _is_index(holder: list[Any], step: str) -> bool:
    return step.isdigit() and int(step) < len(holder)


def _stays_inside(script: str) -> bool:
    path = PurePosixPath(script)
    return bool(script) and not path.is_absolute() and ".." not in path.parts and "\0" not in script


HYPERPOD: Kind[HyperPodPreset] = Kind("hyperpod", "hyperpod", parse)
