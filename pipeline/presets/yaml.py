"""Parsing of one YAML document, with the line number of each of its values."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import yaml

MAX_BYTES = 64_000  # parsing blocks the event loop
MAX_VALUES = 100_000  # aliases expanded: a few lines of nested aliases can mean billions of values
_FORBIDDEN_CHARACTERS = re.compile("[\0\ud800-\udfff]")


class YamlError(ValueError):
    """Invalid content. `line` counts from 1; 0 means the whole file. `cause` is the underlying error, if any."""

    def __init__(self, line: int, problem: str, cause: Exception | None = None) -> None:
        super().__init__(line, problem)
        self.line = line
        self.problem = problem
        self.cause = cause


@dataclass(frozen=True)
class Document:
    value: dict[str, Any]
    _root: yaml.Node

    def line_of(self, path: tuple[str | int, ...]) -> int:
        """The line number of the value at `path`, or of the nearest parent where the value is missing."""
        node = self._root
        line = node.start_mark.line
        for step in path:
            child = _find_child(node, step)
            if child is None:
                break
            line, node = child
        return int(line) + 1


class _StrictLoader(yaml.SafeLoader):
    """A safe loader that also rejects duplicate keys, recursive aliases and too many aliases."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self._value_counts: dict[yaml.Node, int] = {}  # values in each node, itself included

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        is_alias = self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        if node is None:
            return None
        line = node.start_mark.line + 1
        if isinstance(node, yaml.ScalarNode) and _FORBIDDEN_CHARACTERS.search(node.value):
            raise YamlError(line, "holds a NUL, or half of a surrogate pair, by an escape: no text has those")
        if not is_alias:
            self._value_counts[node] = 1 + sum(self._value_counts[child] for child in _children(node))
        elif node not in self._value_counts:
            raise YamlError(line, "this value contains itself, by an alias")
        if self._value_counts[node] > MAX_VALUES:
            raise YamlError(line, f"more than {MAX_VALUES:,} values, with what its aliases stand for")
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        keys = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in keys:
                    raise YamlError(key.start_mark.line + 1, f"{key.value!r} stands here a second time")
                keys.add(key.value)
        return node


def parse(content: bytes) -> Document:
    """The mapping in this file. Raises YamlError, with the line, for anything else."""
    if len(content) > MAX_BYTES:
        raise YamlError(0, f"larger than {MAX_BYTES:,} bytes")
    loader = None
    try:
        loader = _StrictLoader(content)
        root = loader.get_single_node()
        value = loader.construct_document(root) if root is not None else None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise YamlError(mark.line + 1 if mark else 0, f"not valid YAML: {error.problem or error.context}") from error
    except YamlError:
        raise
    except Exception as error:  # yaml raises a KeyError for `!!bool maybe`, an IndexError for `!!int ""`, and more
        raise YamlError(0, f"not valid YAML: {(str(error).splitlines() or [repr(error)])[0]}") from error
    finally:
        if loader is not None:
            loader.dispose()
    if root is None or not isinstance(value, dict):
        raise YamlError(1 if content.strip() else 0, "expected a mapping (key: value); the file is empty or holds none")
    return Document(value, root)


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [child for pair in node.value for child in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []


def _find_child(node: yaml.Node, step: str | int) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        return next(((key.start_mark.line, value) for key, value in node.value if key.value == str(step)), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step].start_mark.line, node.value[step]
    return None
