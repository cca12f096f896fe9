"""What is wrong with a value from outside is said by its path and in a sentence."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from msgspec import Struct

from pipeline.schema import NoOptions, Positive, SchemaError, check, spell


class Inner(Struct, frozen=True, forbid_unknown_fields=True):
    count: Positive = 1
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


GOOD = {"name": "n"}


def refusal(value: Any) -> str:
    with pytest.raises(SchemaError) as caught:
        check(value, Outer)
    return str(caught.value)


def test_a_good_value_becomes_the_type() -> None:
    assert check({"name": "n", "inner": {"count": 3}}, Outer) == Outer("n", Inner(3))


@pytest.mark.parametrize(
    ("more", "sentence"),
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
def test_a_wrong_type_says_what_was_expected_and_what_came(more: dict[str, Any], sentence: str) -> None:
    assert refusal(GOOD | more) == sentence


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"inner": {"kind": "blue"}}, "inner.kind: expected one of 'green', 'red'"),
        ({"colors": ["red", "blue"]}, "colors[1]: expected one of 'green', 'red'"),
        ({"maybe": "blue"}, "maybe: expected one of 'green', 'red'"),
        ({"perhaps": {"kind": "blue"}}, "perhaps.kind: expected one of 'green', 'red'"),
        ({"inners": [{"kind": "blue"}]}, "inners[0].kind: expected one of 'green', 'red'"),
    ],
)
def test_a_value_that_is_not_in_the_list_is_told_the_list(more: dict[str, Any], sentence: str) -> None:
    assert refusal(GOOD | more) == sentence


@pytest.mark.parametrize(
    ("more", "where"),
    [
        ({"inner": {"colour": 1}}, "inner.colour"),
        ({"inners": [{}, {"colour": 1}]}, "inners[1].colour"),
        ({"perhaps": {"colour": 1}}, "perhaps.colour"),
    ],
)
def test_an_unknown_field_is_told_those_that_are_known(more: dict[str, Any], where: str) -> None:
    assert refusal(GOOD | more) == f"{where}: unknown field (known are count, kind, share)"


@pytest.mark.parametrize("name", ["x", "x - at y", "a\nb", "a`b", "ünï", "x - at `$.y`z", ""])
def test_an_unknown_field_is_named_whatever_its_name(name: str) -> None:
    assert refusal(GOOD | {name: 1}).startswith(f"{name}: unknown field (known are name, inner,")


def test_a_missing_field_is_named() -> None:
    assert refusal({}) == "name: this field is required"


def test_what_is_wrong_in_a_mapping_of_any_names_is_told_without_a_name() -> None:
    assert refusal(GOOD | {"by_name": {"x": {"count": "y"}}}).endswith(".count: expected an integer, got a string")


def test_the_whole_may_be_wrong() -> None:
    assert refusal([]) == "expected a mapping, got a list"


def test_a_number_that_is_none_is_refused_where_there_is_a_rule() -> None:
    class Ruled(Struct):
        count: Positive

    with pytest.raises(SchemaError, match="count: expected an integer"):
        check({"count": float("nan")}, Ruled)


def test_no_options_takes_none() -> None:
    assert isinstance(check({}, NoOptions), NoOptions)
    with pytest.raises(SchemaError, match=r"^speed: unknown field$"):
        check({"speed": 1}, NoOptions)


def test_what_is_nested_too_deep_is_refused() -> None:
    value: Any = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(SchemaError):
        check({"name": value}, Outer)


def test_a_path_is_spelled_as_a_person_writes_it() -> None:
    assert spell(("frames", 2, "data", "x")) == "frames[2].data.x"
