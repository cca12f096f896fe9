"""Values from outside, held against a type: what is wrong is said by its path and in a sentence."""

from __future__ import annotations

import re
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct, inspect

T = TypeVar("T")

LARGEST = 2**63 - 1  # what MessagePack's and most clients' integers hold
Positive = Annotated[int, Meta(ge=1, le=LARGEST)]
Natural = Annotated[int, Meta(ge=0, le=LARGEST)]


class NoOptions(Struct, forbid_unknown_fields=True):
    """For a stage or a provider that takes no options."""


Path = tuple[str | int, ...]


class SchemaError(ValueError):
    """`path` leads to the value that is wrong (empty: the whole); `problem` says what was expected."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(path, problem)
        self.path = path
        self.problem = problem

    def __str__(self) -> str:
        return f"{spell(self.path)}: {self.problem}" if self.path else self.problem


def check(value: Any, expected: type[T]) -> T:
    """`value` (of dicts, lists, strings, numbers, bytes) as `expected`. Raises SchemaError."""
    try:
        return msgspec.convert(value, expected)
    except msgspec.ValidationError as error:
        raise _explain(str(error), expected) from error
    except RecursionError as error:
        raise SchemaError((), "nested too deep") from error


def spell(path: Path) -> str:
    """A path as a person writes it: `limits.frames`, `frames[2]`."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")


def _explain(message: str, expected: type) -> SchemaError:
    """msgspec's sentence (``Expected `int`, got `str` - at `$.max_tokens` ``) as a path and a sentence of ours."""
    problem, *at = re.split(r" - at `(?:key` in `)?(\$[^`]*)`\Z", message)
    path = _parse_path(at[0] if at else "")
    if unknown := re.fullmatch(r"Object contains unknown field `(.*)`", problem, re.DOTALL):
        return SchemaError((*path, unknown[1]), "unknown field" + _known_fields(path, expected))
    if missing := re.fullmatch(r"Object missing required field `(.*)`", problem):
        return SchemaError((*path, missing[1]), "this field is required")
    if problem.startswith("Invalid enum value"):
        return SchemaError(path, f"expected one of {_allowed(path, expected)}")
    if unknown := re.fullmatch(r"Invalid value '(.*)'", problem, re.DOTALL):
        return SchemaError(path, f"expected one of {', '.join(map(repr, _kinds(path, expected)))}, not {unknown[1]!r}")
    problem = re.sub(r"`([^`]*)`", lambda name: _plain(name[1]), problem)
    where = "in a key: " if " - at `key` in `" in message else ""
    return SchemaError(path, where + problem[:1].lower() + problem[1:])


def _parse_path(text: str) -> Path:
    steps = re.findall(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]", text)
    return tuple(name or (int(index) if index.isdigit() else index) for name, index in steps)


_PLAIN = {
    "int": "an integer",
    "float": "a number",
    "str": "a string",
    "bool": "true or false",
    "bytes": "bytes",
    "array": "a list",
    "object": "a mapping",
    "null": "null",
}


def _plain(name: str) -> str:
    return " or ".join(_PLAIN.get(part, part) for part in name.split(" | "))


def _info(path: Path, expected: type) -> inspect.Type:
    """The type that stands at `path`."""
    info = inspect.type_info(expected)
    for step in path:
        info = _step_into(info, step)
    return info


def _step_into(info: inspect.Type, step: str | int) -> inspect.Type:
    match info:
        case inspect.StructType(fields=fields):
            return next((field.type for field in fields if field.encode_name == step), info)
        case inspect.VarTupleType(item_type=item) | inspect.ListType(item_type=item):
            return item
        case inspect.DictType(value_type=item):
            return item
        case inspect.UnionType(types=types):
            return next(
                (_step_into(option, step) for option in types if not isinstance(option, inspect.NoneType)), info
            )
        case _:
            return info


def _kinds(path: Path, expected: type) -> list[str]:
    """The tags by which the structs are told apart that may stand where the path's last field is."""
    found = [inspect.type_info(expected)]
    for step in path[:-1]:
        found = [_step_into(option, step) for option in _options(found)]
    kinds = {o.tag: None for o in _options(found) if isinstance(o, inspect.StructType) and o.tag_field == path[-1]}
    return [str(kind) for kind in kinds]


def _options(found: list[inspect.Type]) -> list[inspect.Type]:
    return [option for info in found for option in (info.types if isinstance(info, inspect.UnionType) else (info,))]


def _allowed(path: Path, expected: type) -> str:
    info = _info(path, expected)
    options = info.types if isinstance(info, inspect.UnionType) else (info,)
    return ", ".join(repr(value) for o in options if isinstance(o, inspect.LiteralType) for value in o.values)


def _known_fields(path: Path, expected: type) -> str:
    info = _info(path, expected)
    options = info.types if isinstance(info, inspect.UnionType) else (info,)
    names = [field.encode_name for o in options if isinstance(o, inspect.StructType) for field in o.fields]
    return f" (known are {', '.join(names)})" if names else ""
