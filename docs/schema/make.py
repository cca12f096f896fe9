"""Writes the JSON Schemas of the presets, from the types that check them: `python docs/schema/make.py`.

The keys of installed plugins are in them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from infraforge_runner.infraforge.presets import HyperPodPreset
from pipeline.editor_schemas import model_schema, pipeline_schema
from pipeline.plugins import load_plugins


def main(folder: Path) -> None:
    plugins = load_plugins()
    schemas: dict[str, dict[str, Any]] = {
        "model": model_schema(plugins),
        "pipeline": pipeline_schema(plugins),
        "hyperpod": msgspec.json.schema(HyperPodPreset),
    }
    for name, schema in schemas.items():
        text = json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}, indent=2)
        (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
