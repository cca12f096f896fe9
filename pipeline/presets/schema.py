"""Validation of untrusted values against a type; an error has the path of the wrong value and a sentence."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct, inspect

T = TypeVar("T")
ClassT = TypeVar("ClassT", bound=type[Any])

MAX_SAFE_INTEGER = 2**53 - 1  # JavaScript holds no larger integer exactly, and some clients are written in it
PositiveInt = Annotated[int, Meta(ge=1, le=MAX_SAFE_INTEGER)]
NonNegativeInt = Annotated[int, Meta(ge=0, le=MAX_SAFE_INTEGER)]


def schema_name(name: str) -> Callable[[ClassT], ClassT]:
    """Set a type's schema name, where another class of the product has the name that clients know."""

    def rename(cls: ClassT) -> ClassT:
        cls.__name__ = name  # msgspec takes the schema's name from here
        return cls

    return rename


class NoOptions(Struct, forbid_unknown_fields=True):
    """The options of a stage or a provider that has none."""


ValuePath = tuple[str | int, ...]


class SchemaError(ValueError):
    """A value of the wrong shape. `path` leads to it (empty: the whole value); `problem` says what was expected."""

    def __init__(self, path: ValuePath, problem: str) -> None:
        super().__init__(path, problem)
        self.path = path
        self.problem = problem

    def __str__(self) -> str:
        return f"{format_path(self.path)}: {self.problem}" if self.path else self.problem


def validate(value: Any, expected: type[T]) -> T:
    """Convert `value` (dicts, lists, strings, numbers, bytes) to the type `expected`. Raises SchemaError."""
    try:
        return msgspec.convert(value, expected)
    except msgspec.ValidationError as error:
        raise _to_schema_error(str(error), expected) from error
    except RecursionError as error:
        raise SchemaError((), "nested too deep") from error


def format_path(path: ValuePath) -> str:
    """The path in the notation of error messages: `limits.frames`, `frames[2]`."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")


def _to_schema_error(message: str, expected: type) -> SchemaError:
    """Translate msgspec's message (``Expected `int`, got `str` - at `$.max_tokens` ``) into a path and a problem."""
    problem, *locations = re.split(r" - at `(?:key` in `)?(\$[^`]*)`\Z", message)
    path = _parse_path(locations[0] if locations else "")
    if unknown := re.fullmatch(r"Object contains unknown field `(.*)`", problem, re.DOTALL):
        return SchemaError((*path, unknown[1]), "unknown field" + _known_fields(path, expected))
    if missing := re.fullmatch(r"Object missing required field `(.*)`", problem):
        return SchemaError((*path, missing[1]), "this field is required")
    if problem.startswith("Invalid enum value"):
        return SchemaError(path, f"expected one of {_literal_values(path, expected)}")
    if unknown := re.fullmatch(r"Invalid value '(.*)'", problem, re.DOTALL):
        return SchemaError(
            path, f"expected one of {', '.join(map(repr, _struct_tags(path, expected)))}, not {unknown[1]!r}"
        )
    problem = re.sub(r"`([^`]*)`", lambda name: _describe_type(name[1]), problem)
    where = "in a key: " if " - at `key` in `" in message else ""
    return SchemaError(path, where + problem[:1].lower() + problem[1:])


def _parse_path(text: str) -> ValuePath:
    steps = re.findall(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]", text)
    return tuple(name or (int(index) if index.isdigit() else index) for name, index in steps)


_TYPE_DESCRIPTIONS = {
    "int": "an integer",
    "float": "a number",
    "str": "a string",
    "bool": "true or false",
    "bytes": "bytes",
    "array": "a list",
    "object": "a mapping",
    "null": "null",
}


def _describe_type(name: str) -> str:
    return " or ".join(_TYPE_DESCRIPTIONS.get(part, part) for part in name.split(" | "))


def _type_at(path: ValuePath, expected: type) -> inspect.Type:
    """The type of the value at `path`."""
    info = inspect.type_info(expected)
    for step in path:
        info = _child_type(info, step)
    return info


def _child_type(info: inspect.Type, step: str | int) -> inspect.Type:
    match info:
        case inspect.StructType(fields=fields):
            return next((field.type for field in fields if field.encode_name == step), info)
        case inspect.VarTupleType(item_type=item) | inspect.ListType(item_type=item):
            return item
        case inspect.DictType(value_type=item):
            return item
        case inspect.UnionType(types=types):
            return next(
                (_child_type(member, step) for member in types if not isinstance(member, inspect.NoneType)), info
            )
        case _:
            return info


def _struct_tags(path: ValuePath, expected: type) -> list[str]:
    """The tags of the structs that are allowed where the last field of `path` is the tag field."""
    types = [inspect.type_info(expected)]
    for step in path[:-1]:
        types = [_child_type(member, step) for info in types for member in _union_members(info)]
    members = [member for info in types for member in _union_members(info)]
    tags = {m.tag: None for m in members if isinstance(m, inspect.StructType) and m.tag_field == path[-1]}
    return [str(tag) for tag in tags]


def _union_members(info: inspect.Type) -> tuple[inspect.Type, ...]:
    return info.types if isinstance(info, inspect.UnionType) else (info,)


def _literal_values(path: ValuePath, expected: type) -> str:
    members = _union_members(_type_at(path, expected))
    return ", ".join(repr(value) for m in members if isinstance(m, inspect.LiteralType) for value in m.values)


def _known_fields(path: ValuePath, expected: type) -> str:
    members = _union_members(_type_at(path, expected))
    names = [field.encode_name for m in members if isinstance(m, inspect.StructType) for field in m.fields]
    return f" (known are {', '.join(names)})" if names else ""
