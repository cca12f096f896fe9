"""Writes the shipped pipeline.yaml, from the default stages: `python docs/schema/make_pipeline.py`."""

from __future__ import annotations

import sys
from pathlib import Path

from pipeline.plugins import STAGES
from pipeline.presets.pipeline import DEFAULT_STAGES

HEAD = """\
# yaml-language-server: $schema=../docs/schema/pipeline.json
# The stages that every request passes, in order. `make schema` writes this list.
# An item is the name of a stage, or its name with options: `- decode_frames: {max_pixels: 50000000}`.
stages:
"""


def render() -> str:
    return HEAD + "".join(f"  - {name} # {_summary(name)}\n" for name in DEFAULT_STAGES)


def _summary(stage: str) -> str:
    """The first line of the stage's module, without the name."""
    module = sys.modules[STAGES[stage].__module__]
    return (module.__doc__ or "").partition("\n")[0].removeprefix(f"{stage}: ").rstrip(".")


if __name__ == "__main__":
    default = Path(__file__).parents[2] / "presets" / "pipeline.yaml"
    (Path(sys.argv[1]) if len(sys.argv) > 1 else default).write_text(render(), encoding="utf-8")
