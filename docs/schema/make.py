"""Writes the JSON Schemas of the presets, from the types that check them: `python docs/schema/make.py`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from infraforge_runner.infraforge.presets import HyperPodPreset
from pipeline.presets.models import ModelPreset
from pipeline.presets.pipeline import PipelineFile

SCHEMAS = {"model": ModelPreset, "pipeline": PipelineFile, "hyperpod": HyperPodPreset}


def main(folder: Path) -> None:
    for name, preset in SCHEMAS.items():
        schema: dict[str, Any] = {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            **msgspec.json.schema(preset),
        }
        (folder / f"{name}.json").write_text(json.dumps(schema, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
