"""docs/PRESETS.md documents every preset key with its default, and every stage with its options."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_origin

import msgspec
import pytest

from infraforge_runner.infraforge import rendering
from infraforge_runner.infraforge.presets import HyperPodPreset
from pipeline.plugins import PROVIDERS, STAGES, model_options_type, options_type
from pipeline.presets.models import ModelPresetCore
from pipeline.presets.pipeline import DEFAULT_STAGES
from tests.docs.pages import ROOT, Table, code_spans, find_table

MODEL_KEYS = [ModelPresetCore, *map(model_options_type, [*STAGES.values(), *PROVIDERS.values()])]
NO_DEFAULT = {"none", "no limit", "AWS's own", "ours", "from `model`", "required in `deploy`", "required in `serves`"}
"""The cells of the page for keys without a default."""


def list_keys(preset: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """All keys of a preset, by their dotted paths, with their defaults."""
    for field in msgspec.structs.fields(preset):
        options = getattr(field.type, "__args__", ()) or (field.type,)
        nested = [kind for kind in options if isinstance(kind, type) and issubclass(kind, msgspec.Struct)]
        if nested:
            item = "NAME." if get_origin(field.type) is dict else ""
            yield from list_keys(nested[0], f"{prefix}{field.name}.{item}")
        else:
            has_factory = field.default_factory is not msgspec.NODEFAULT
            yield prefix + field.encode_name, field.default_factory() if has_factory else field.default


def format_default(default: Any) -> str:
    """A default as the page writes it."""
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


def is_documented_default(cell: str, default: Any) -> bool:
    """Whether a cell of the page has this default, or says that there is none."""
    return cell.strip("`") == format_default(default) or (
        cell in NO_DEFAULT and default in (None, "", msgspec.NODEFAULT, msgspec.UNSET)
    )


@pytest.mark.parametrize(
    ("table", "structs"),
    [
        (find_table("docs/PRESETS.md", "key", "`models/NAME.yaml`"), MODEL_KEYS),
        (find_table("docs/PRESETS.md", "key", "`hyperpod/NAME.yaml`"), [HyperPodPreset]),
    ],
)
def test_preset_keys_are_documented_with_their_defaults(table: Table, structs: list[Any]) -> None:
    cells = dict(zip(table.code_names(), table.column(1), strict=True))
    keys = {key: default for struct in structs for key, default in list_keys(struct)}
    assert cells.keys() == keys.keys()
    assert [(name, cell) for name, cell in cells.items() if not is_documented_default(cell, keys[name])] == []


def test_providers_are_documented() -> None:
    (row,) = (row for row in find_table("docs/PRESETS.md", "key", "`models/NAME.yaml`").rows if row[0] == "`provider`")
    assert set(code_spans(row[2])) == set(PROVIDERS)


def test_stages_are_documented_in_order() -> None:
    assert find_table("docs/PRESETS.md", "stage").code_names() == [*STAGES] == [*DEFAULT_STAGES]


def test_stage_options_are_documented_with_their_defaults() -> None:
    table = find_table("docs/PRESETS.md", "option")
    stages = {name: options_type(factory) for name, factory in STAGES.items()}
    all_options = msgspec.defstruct("Stages", [(name, options, msgspec.NODEFAULT) for name, options in stages.items()])
    cells = dict(zip(table.code_names(), table.column(1), strict=True))
    keys = dict(list_keys(all_options))
    assert cells == {name: format_default(default) for name, default in keys.items()}


def test_special_variables_are_documented() -> None:
    assert set(find_table("docs/PRESETS.md", "variable").code_names()) == {
        rendering.REGION_VARIABLES[0],
        rendering.CLUSTER_TAG_VARIABLE,
        rendering.STACK_NAME_VARIABLE,
        rendering.ZONE_VARIABLE,
    }


def test_json_schemas_are_up_to_date(tmp_path: Path) -> None:
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "docs/schema/make.py", tmp_path], cwd=ROOT, env=environ, check=True)
    generated = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert generated == {path.name: path.read_text() for path in (ROOT / "docs/schema").glob("*.json")}


def test_shipped_pipeline_is_up_to_date(tmp_path: Path) -> None:
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    generated = tmp_path / "pipeline.yaml"
    subprocess.run([sys.executable, "docs/schema/make_pipeline.py", generated], cwd=ROOT, env=environ, check=True)
    assert generated.read_text() == (ROOT / "presets/pipeline.yaml").read_text()
