"""YAML files: the line of every value and of every error."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.presets import yaml
from pipeline.presets.yaml import YamlError, parse

DOCUMENT = b"""\
# a comment
name: x
limits:
  frames: 3

  pixels: 4
stages:
  - one
  - two: {deep: 1}
"""


def catch_error(content: bytes) -> YamlError:
    with pytest.raises(YamlError) as caught:
        parse(content)
    return caught.value


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ((), 2),
        (("name",), 2),
        (("limits",), 3),
        (("limits", "frames"), 4),
        (("limits", "pixels"), 6),
        (("stages", 0), 8),
        (("stages", 1), 9),
        (("stages", 1, "two", "deep"), 9),
    ],
)
def test_line_of_every_value(path: tuple[str | int, ...], line: int) -> None:
    assert parse(DOCUMENT).line_of(path) == line


@pytest.mark.parametrize(("path", "line"), [(("nothing",), 2), (("limits", "nothing"), 3), (("stages", 7), 7)])
def test_line_of_missing_value_is_that_of_its_parent(path: tuple[str | int, ...], line: int) -> None:
    assert parse(DOCUMENT).line_of(path) == line


@pytest.mark.parametrize(
    ("content", "line", "problem"),
    [
        (b"", 0, "the file is empty or holds none"),
        (b"  \n", 0, "the file is empty or holds none"),
        (b"# only a comment\n", 1, "the file is empty or holds none"),
        (b"- a\n- b\n", 1, "expected a mapping"),
        (b"text", 1, "expected a mapping"),
        (b"a: 1\nb: [1\n", 3, "not valid YAML: expected ',' or ']'"),
        (b"a:\n\t- b\n", 2, "not valid YAML: found character '\\t'"),
        (b"a: 1\n---\nb: 2\n", 2, "another document"),
        (b"a: \xff\n", 0, "not valid YAML"),
        (b"a: \x00\n", 0, "not valid YAML"),
        (b"a: 2001-99-99\n", 0, "month must be in 1..12"),
        (b"a: !!python/object:os.system x\n", 1, "could not determine a constructor"),
        (b'a: 1\nb: "\\0"\n', 2, "holds a NUL"),
        (b'a: ["x", "\\uD83E"]\n', 1, "half of a surrogate pair"),
        (b"a: " + b"9" * 5000, 0, "not valid YAML"),
        (b"a: " + b"[" * 5000, 0, "not valid YAML: maximum recursion depth exceeded"),
    ],
)
def test_content_that_is_no_mapping_is_rejected_with_its_line(content: bytes, line: int, problem: str) -> None:
    error = catch_error(content)
    assert error.line == line
    assert problem in error.problem
    assert "\n" not in error.problem


@pytest.mark.parametrize(
    ("content", "line", "key"),
    [
        (b"a: 1\nb: 2\na: 3\n", 3, "'a'"),
        (b"x:\n  a: 1\n  a: 1\n", 3, "'a'"),
        (b"a: 1\n'a': 2\n", 2, "'a'"),
        (b"x: [{b: 1,\n b: 2}]\n", 2, "'b'"),
    ],
)
def test_duplicate_key_is_rejected(content: bytes, line: int, key: str) -> None:
    error = catch_error(content)
    assert (error.line, error.problem) == (line, f"{key} stands here a second time")


@pytest.mark.parametrize(
    "content",
    [b"? [a, b]\n: c", b"? {a: 1}\n: 2", b'a: !!int ""', b'a: !!float ""', b"a: !!bool maybe", b"a: !!timestamp no"],
)
def test_content_that_crashes_the_yaml_library_is_rejected(content: bytes) -> None:
    assert "not valid YAML" in catch_error(content).problem


def test_alias_can_be_merged_and_overridden() -> None:
    content = b"base: &base {a: 1, b: 2}\nuser:\n  inner: &inner {<<: *base, a: 3}\nlast: {<<: *inner}\n"
    assert parse(content).value["last"] == {"a": 3, "b": 2}


@pytest.mark.parametrize("step", [b"[%s]", b"{<<: [%s]}"])
def test_billion_laughs_are_rejected(step: bytes) -> None:
    content = b"a0: &a0 {x: 1}\n"
    for number in range(1, 12):
        content += b"a%d: &a%d " % (number, number) + step % b",".join([b"*a%d" % (number - 1)] * 10) + b"\n"
    error = catch_error(content)
    assert "100,000 values" in error.problem
    assert error.line > 1


def test_recursive_alias_is_rejected() -> None:
    assert catch_error(b"a: &a [*a]").problem == "this value contains itself, by an alias"


def test_file_over_64_kilobytes_is_rejected() -> None:
    comment = b"#" * (yaml.MAX_BYTES - 5)
    assert parse(b"a: 1\n" + comment).value == {"a": 1}
    assert catch_error(b"a: 1\n" + comment + b"#").problem == "larger than 64,000 bytes"


@given(st.one_of(st.binary(max_size=60), st.text("ab:-?!&*[]{}<|>'\"#%@,\n \t01~=", max_size=40).map(str.encode)))
def test_any_bytes_parse_or_raise_yaml_error(content: bytes) -> None:
    with suppress(YamlError):
        assert isinstance(parse(content).value, dict)
