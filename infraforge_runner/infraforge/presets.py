"""HyperPod presets: the content of `hyperpod/NAME.yaml`, and the rules for what a request may override.

docs/PRESETS.md documents the same for users, key by key.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import re2
from msgspec import Meta, Struct

from pipeline.errors import InvalidRequest
from pipeline.presets.schema import MAX_SAFE_INTEGER, SchemaError, ValuePath, validate
from pipeline.presets.store import NAME_PATTERN

OverrideValue = str | int | bool
TimeoutSeconds = Annotated[float, Meta(gt=0, le=604_800)]

SafeInteger = Annotated[int, Meta(ge=-MAX_SAFE_INTEGER, le=MAX_SAFE_INTEGER)]
"""An integer that every reader of JSON represents exactly."""

# `(?!\n)`: in Python, but not in the editors that get this pattern, `$` also matches before a final newline.
RegionName = Annotated[str, Meta(pattern=r"^[a-z]{2}(-[a-z]+)+-\d{1,2}(?!\n)$")]
MAX_OVERRIDE_CHARS = 200  # of an override's value
MAX_CONFIG_DEPTH = 50  # of a configuration; InfraForge's has 5
SCRIPTS_FOLDER = Path(__file__).resolve().parent / "scripts"
"""Forgeline's own scripts, which run InfraForge: for presets without scripts of their own."""

VARIABLE_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
# The safety of a script, and of the tools that it calls, depends on these. Of AWS's, a preset may set the region.
FORBIDDEN_VARIABLES = re.compile(
    r"PATH|HOME|IFS|ENV|SHELL|SHELLOPTS|BASHOPTS|PS4|TMPDIR|CDPATH|PERL5.*|RUBY.*|LD_.*|GLIBC_.*|BASH_.*|NODE_.*"
    r"|JSII_.*|PYTHON.*|GIT_.*|LC_.*|LANG|LANGUAGE|FORGELINE_.*|AWS_(?!REGION$|DEFAULT_REGION$).*"
)

Action = Literal["deploy", "destroy"]


class Override(Struct, frozen=True, forbid_unknown_fields=True):
    """A value that a request may choose: its constraints, its variable in scripts, and where it is written to.

    `sets` are dotted paths into `config`; a number is an index into a list.
    """

    env: str
    type: Literal["string", "integer", "boolean"] = "string"
    minimum: SafeInteger | None = None
    maximum: SafeInteger | None = None
    pattern: str | None = None
    enum: tuple[OverrideValue, ...] | None = None
    sets: tuple[str, ...] = ()
    description: str = ""

    def validate(self, name: str, value: Any) -> OverrideValue:
        """The value, if it is accepted. Raises InvalidRequest."""
        if not self.accepts(value):
            raise InvalidRequest(f"overrides.{name}: expected {self.constraint}.")
        accepted: OverrideValue = value
        return accepted

    def accepts(self, value: Any) -> bool:
        if self.enum is not None and not any(type(value) is type(choice) and value == choice for choice in self.enum):
            return False
        match self.type:
            case "boolean":
                return isinstance(value, bool)
            case "integer":
                low = self.minimum if self.minimum is not None else -MAX_SAFE_INTEGER
                high = self.maximum if self.maximum is not None else MAX_SAFE_INTEGER
                return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
            case "string":
                return isinstance(value, str) and 0 < len(value) <= MAX_OVERRIDE_CHARS and self._matches_pattern(value)

    def _matches_pattern(self, value: str) -> bool:
        # A control character could end a line in a script, a log or a header; none belongs in a name.
        if not value.isprintable():
            return False
        return self.pattern is None or compile_pattern(self.pattern).fullmatch(value) is not None

    @property
    def constraint(self) -> str:
        """What is accepted, for people."""
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


class ScriptPaths(Struct, frozen=True, forbid_unknown_fields=True):
    """The preset's own scripts, relative to the folder of presets; Forgeline's where one is left out."""

    deploy: str | None = None
    destroy: str | None = None


class ServedModel(Struct, frozen=True, forbid_unknown_fields=True):
    """The model that a successful deploy makes available. `${outputs.KEY}` stands for an output of the stack.

    `model` is its name at its server; `name` its name at Forgeline, if that is different.
    """

    model: str
    base_url: str
    name: Annotated[str, Meta(pattern=rf"^{NAME_PATTERN.pattern}(?!\n)$")] | None = None
    api_key_env: str | None = None
    capabilities: tuple[Literal["text", "image", "video", "stream"], ...] = ("text", "stream")


class HyperPodPreset(Struct, frozen=True, forbid_unknown_fields=True):
    """`hyperpod/NAME.yaml`. `timeout` in seconds; `config` is InfraForge's own."""

    description: str = ""
    region: RegionName = "us-east-1"
    timeout: TimeoutSeconds = 7200.0
    config: dict[str, Any] = {}
    scripts: ScriptPaths = ScriptPaths()
    serves: ServedModel | None = None
    overrides: dict[str, Override] = {}

    def validate_overrides(self, values: Mapping[str, Any]) -> dict[str, OverrideValue]:
        """The values, if this preset declares and accepts them all. Raises InvalidRequest."""
        unknown = sorted(values.keys() - self.overrides.keys())
        if unknown:
            allowed = (
                "; ".join(f"{name} ({rule.constraint})" for name, rule in sorted(self.overrides.items())) or "none"
            )
            raise InvalidRequest(
                f"overrides.{unknown[0][:80]}: this preset does not declare it; allowed are: {allowed}."
            )
        return {name: self.overrides[name].validate(name, value) for name, value in sorted(values.items())}


def parse_preset(value: Any) -> HyperPodPreset:
    """A preset from a file's content. Raises SchemaError, with the path to what is wrong."""
    overrides = value.get("overrides") if isinstance(value, dict) else None
    for name, rule in overrides.items() if isinstance(overrides, dict) else ():
        _validate_override(("overrides", str(name)), rule)
    preset = validate(value, HyperPodPreset)
    _validate_json(preset.config, ("config",))
    owners: dict[str, str] = {}
    for name, rule in preset.overrides.items():
        path = ("overrides", name)
        _validate_variable_name((*path, "env"), rule.env)
        if (owner := owners.setdefault(rule.env, name)) != name:
            raise SchemaError((*path, "env"), f"{rule.env} is the variable of overrides.{owner} already")
        _validate_constraints(path, rule)
        for index, target in enumerate(rule.sets):
            _validate_target((*path, "sets", index), preset.config, target)
    for action in ("deploy", "destroy"):
        script = getattr(preset.scripts, action)
        if script is not None and not _is_inside_presets(script):
            raise SchemaError(("scripts", action), "expected a path inside the folder of presets, relative to it")
    return preset


def _validate_override(path: ValuePath, value: Any) -> None:
    """Validate each override by itself: msgspec does not say which item of a mapping is wrong."""
    try:
        validate(value, Override)
    except SchemaError as error:
        raise SchemaError((*path, *error.path), error.problem) from error


def _validate_json(value: Any, path: ValuePath) -> None:
    """Raise SchemaError for what YAML has and JSON has not: dates, sets, infinite numbers, keys that are no strings."""
    if len(path) > MAX_CONFIG_DEPTH:
        raise SchemaError(path, "nested too deep")
    match value:
        case None | bool() | str():
            return
        case int() if abs(value) <= MAX_SAFE_INTEGER:
            return
        case float() if math.isfinite(value):
            return
        case list():
            for index, child in enumerate(value):
                _validate_json(child, (*path, index))
        case dict():
            for key, child in value.items():
                if not isinstance(key, str):
                    raise SchemaError(path, f"the key {key} is no string: put it into quotes")
                _validate_json(child, (*path, key))
        case _:
            raise SchemaError(path, f"{str(value)[:80]} can't be written as JSON: put it into quotes, or change it")


def _validate_variable_name(path: ValuePath, name: str) -> None:
    if not VARIABLE_NAME.fullmatch(name):
        raise SchemaError(path, f"{name!r} is no name for a variable: expected {VARIABLE_NAME.pattern}")
    if FORBIDDEN_VARIABLES.fullmatch(name):
        raise SchemaError(path, f"no request may set {name}")


def _validate_constraints(path: ValuePath, rule: Override) -> None:
    if (rule.minimum is not None or rule.maximum is not None) and rule.type != "integer":
        raise SchemaError(path, "minimum and maximum are for integers")
    if rule.minimum is not None and rule.maximum is not None and rule.minimum > rule.maximum:
        raise SchemaError((*path, "minimum"), f"is above the maximum, {rule.maximum}")
    if rule.pattern is not None:
        if rule.type != "string":
            raise SchemaError((*path, "pattern"), "a pattern is for strings")
        try:
            compile_pattern(rule.pattern)
        except re2.error as error:
            reason = error.args[0].decode(errors="replace")
            raise SchemaError((*path, "pattern"), f"is no regular expression of RE2's: {reason}") from error
    for index, value in enumerate(rule.enum or ()):
        if not rule.accepts(value):
            raise SchemaError((*path, "enum", index), f"{value!r} is not what the rest of the rule takes")


def _validate_target(path: ValuePath, config: Mapping[str, Any], target: str) -> None:
    try:
        parent, key = resolve_path(config, target)
    except KeyError as error:
        raise SchemaError(path, f"config has no {error.args[0]}") from error
    if isinstance(parent.get(key) if isinstance(parent, dict) else parent[key], dict | list):
        raise SchemaError(path, f"{target} of config is no single value")


@lru_cache
def compile_pattern(pattern: str) -> Any:
    """Compile with RE2, whose time is bounded: no client's value may hold the server, whatever the preset's pattern is.

    Raises re2.error.
    """
    options = re2.Options()
    options.log_errors = False
    return re2.compile(pattern, options)


def resolve_path(config: Mapping[str, Any], target: str) -> tuple[Any, str | int]:
    """The mapping or list that holds the value at a dotted path, and its key there. Raises KeyError.

    A mapping need not have the last key: keys for which InfraForge has a default are often left out.
    """
    parent: Any = None
    key: str | int = ""
    value: Any = config
    steps = target.split(".")
    for depth, step in enumerate(steps, 1):
        parent, key = value, int(step) if isinstance(value, list) and _is_index(step) else step
        try:
            value = parent[key]
        except (LookupError, TypeError) as error:
            if depth < len(steps) or not isinstance(parent, dict):
                raise KeyError(".".join(steps[:depth])) from error
    return parent, key


def _is_index(step: str) -> bool:
    return step.isascii() and step.isdigit() and len(step) <= 6


def _is_inside_presets(script: str) -> bool:
    path = PurePosixPath(script)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and "\0" not in script
