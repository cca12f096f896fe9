"""Errors of untrusted values: the path of the wrong value and a message."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from msgspec import Struct

from pipeline.presets.schema import NoOptions, PositiveInt, SchemaError, format_path, validate


class Inner(Struct, frozen=True, forbid_unknown_fields=True):
    count: PositiveInt = 1
    kind: Literal["red", "green"] = "red"
    share: float = 0.5


class Outer(Struct, forbid_unknown_fields=True):
    name: str
    inner: Inner = Inner()
    inners: list[Inner] = []
    colors: tuple[Literal["red", "green"], ...] = ()
    maybe: Literal["red", "green"] | None = None
    perhaps: Inner | None = None
    by_name: dict[str, Inner] = {}


VALID = {"name": "n"}


def catch_error(value: Any) -> str:
    with pytest.raises(SchemaError) as caught:
        validate(value, Outer)
    return str(caught.value)


def test_valid_value_is_converted() -> None:
    assert validate({"name": "n", "inner": {"count": 3}}, Outer) == Outer("n", Inner(3))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": 3}, "name: expected a string, got an integer"),
        ({"name": None}, "name: expected a string, got null"),
        ({"inner": []}, "inner: expected a mapping, got a list"),
        ({"inner": {"count": True}}, "inner.count: expected an integer, got true or false"),
        ({"inner": {"count": 1.5}}, "inner.count: expected an integer, got a number"),
        ({"inner": {"count": "1"}}, "inner.count: expected an integer, got a string"),
        ({"inner": {"count": 0}}, "inner.count: expected an integer >= 1"),
        ({"inner": {"share": "x"}}, "inner.share: expected a number, got a string"),
        ({"inners": {}}, "inners: expected a list, got a mapping"),
        ({"inners": [{}, {}, {"count": "x"}]}, "inners[2].count: expected an integer, got a string"),
        ({"colors": "red"}, "colors: expected a list, got a string"),
    ],
)
def test_wrong_type_names_expected_and_actual_type(fields: dict[str, Any], message: str) -> None:
    assert catch_error(VALID | fields) == message


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"inner": {"kind": "blue"}}, "inner.kind: expected one of 'green', 'red'"),
        ({"colors": ["red", "blue"]}, "colors[1]: expected one of 'green', 'red'"),
        ({"maybe": "blue"}, "maybe: expected one of 'green', 'red'"),
        ({"perhaps": {"kind": "blue"}}, "perhaps.kind: expected one of 'green', 'red'"),
        ({"inners": [{"kind": "blue"}]}, "inners[0].kind: expected one of 'green', 'red'"),
    ],
)
def test_value_outside_a_literal_lists_the_allowed_values(fields: dict[str, Any], message: str) -> None:
    assert catch_error(VALID | fields) == message


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"inner": {"colour": 1}}, "inner.colour"),
        ({"inners": [{}, {"colour": 1}]}, "inners[1].colour"),
        ({"perhaps": {"colour": 1}}, "perhaps.colour"),
    ],
)
def test_unknown_field_lists_the_known_fields(fields: dict[str, Any], path: str) -> None:
    assert catch_error(VALID | fields) == f"{path}: unknown field (known are count, kind, share)"


@pytest.mark.parametrize("name", ["x", "x - at y", "a\nb", "a`b", "ünï", "x - at `$.y`z", ""])
def test_unknown_field_with_any_name_is_named(name: str) -> None:
    assert catch_error(VALID | {name: 1}).startswith(f"{name}: unknown field (known are name, inner,")


def test_missing_field_is_named() -> None:
    assert catch_error({}) == "name: this field is required"


def test_error_inside_a_dict_has_no_key_in_its_path() -> None:
    assert catch_error(VALID | {"by_name": {"x": {"count": "y"}}}).endswith(".count: expected an integer, got a string")


def test_wrong_top_level_type_has_an_empty_path() -> None:
    assert catch_error([]) == "expected a mapping, got a list"


def test_nan_is_rejected_for_a_constrained_integer() -> None:
    class Constrained(Struct):
        count: PositiveInt

    with pytest.raises(SchemaError, match="count: expected an integer"):
        validate({"count": float("nan")}, Constrained)


def test_no_options_rejects_every_field() -> None:
    assert isinstance(validate({}, NoOptions), NoOptions)
    with pytest.raises(SchemaError, match=r"^speed: unknown field$"):
        validate({"speed": 1}, NoOptions)


def test_deeply_nested_value_is_rejected() -> None:
    value: Any = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(SchemaError):
        validate({"name": value}, Outer)


def test_path_is_formatted_with_dots_and_indices() -> None:
    assert format_path(("frames", 2, "data", "x")) == "frames[2].data.x"
