"""docs/PRESETS.md has every key that a preset may have, with its default, and every stage with its options."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_origin

import msgspec
import pytest

from infraforge_runner import rendering
from infraforge_runner.presets import HyperPodPreset
from pipeline.plugins import PROVIDERS, STAGES
from pipeline.presets import DEFAULT_STAGES, ModelPreset
from pipeline.schema import NoOptions
from tests.docs.pages import ROOT, Table, code_in, table

WITHOUT = {"none", "no limit", "AWS's own", "ours", "from `model`", "required in `deploy`", "required in `serves`"}
"""How the page says that a key has no default."""


def keys_of(preset: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key, by its dotted path, with its default."""
    for field in msgspec.structs.fields(preset):
        options = getattr(field.type, "__args__", ()) or (field.type,)
        nested = [kind for kind in options if isinstance(kind, type) and issubclass(kind, msgspec.Struct)]
        if nested:
            item = "NAME." if get_origin(field.type) is dict else ""
            yield from keys_of(nested[0], f"{prefix}{field.name}.{item}")
        else:
            made = field.default_factory is not msgspec.NODEFAULT
            yield prefix + field.encode_name, field.default_factory() if made else field.default


def spelled(default: Any) -> str:
    """A default as a page has it."""
    match default:
        case msgspec.NODEFAULT:
            return "required"
        case bool():
            return str(default).lower()
        case float():
            return f"{default:g}"
        case tuple():
            return f"[{', '.join(default)}]"
    return str(default)


def is_so(told: str, default: Any) -> bool:
    """Whether a page's cell says this default, or in words that there is none."""
    return told.strip("`") == spelled(default) or (
        told in WITHOUT and default in (None, "", msgspec.NODEFAULT, msgspec.UNSET)
    )


@pytest.mark.parametrize(
    ("one", "preset"),
    [
        (table("docs/PRESETS.md", "key", "`models/NAME.yaml`"), ModelPreset),
        (table("docs/PRESETS.md", "key", "`hyperpod/NAME.yaml`"), HyperPodPreset),
    ],
)
def test_every_key_of_a_preset_has_its_entry_and_its_default(one: Table, preset: Any) -> None:
    told = dict(zip(one.names(), one.column(1), strict=True))
    keys = dict(keys_of(preset))
    assert told.keys() == keys.keys()
    assert [(name, cell) for name, cell in told.items() if not is_so(cell, keys[name])] == []


def test_the_providers_are_those_that_there_are() -> None:
    (row,) = (row for row in table("docs/PRESETS.md", "key", "`models/NAME.yaml`").rows if row[0] == "`provider`")
    assert set(code_in(row[2])) == set(PROVIDERS)


def test_every_stage_is_listed_in_its_order() -> None:
    assert table("docs/PRESETS.md", "stage").names() == [*STAGES] == [*DEFAULT_STAGES]


def test_every_option_of_a_stage_has_its_entry_and_its_default() -> None:
    page = table("docs/PRESETS.md", "option")
    stages = {name: getattr(sys.modules[create.__module__], "Options", NoOptions) for name, create in STAGES.items()}
    made = msgspec.defstruct("Stages", [(name, options, msgspec.NODEFAULT) for name, options in stages.items()])
    told = dict(zip(page.names(), page.column(1), strict=True))
    keys = dict(keys_of(made))
    assert told == {name: spelled(default) for name, default in keys.items()}


def test_the_variables_that_mean_more_are_those_of_the_code() -> None:
    assert set(table("docs/PRESETS.md", "variable").names()) == {
        rendering.REGION_VARIABLES[0],
        rendering.CLUSTER_TAG,
        rendering.STACK_NAME,
        rendering.AVAILABILITY_ZONE,
    }


def test_the_schemas_for_editors_are_those_of_the_code(tmp_path: Path) -> None:
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "docs/schema/make.py", tmp_path], cwd=ROOT, env=environ, check=True)
    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert made == {path.name: path.read_text() for path in (ROOT / "docs/schema").glob("*.json")}
