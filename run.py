#!/usr/bin/env python3
"""Forgeline: parse the options, run the server."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from infraforge_runner.infraforge.rendering import HYPERPOD_PRESETS
from pipeline import plugins
from pipeline.presets.pipeline import UnusablePipeline
from pipeline.presets.store import PresetStore
from server.config import parse_options
from server.lifecycle import StartupError, run_server
from server.observability.logs import configure


def main(argv: Sequence[str] | None = None) -> int:
    """Run the server, or only check presets. Returns the exit code."""
    options = parse_options(sys.argv[1:] if argv is None else argv)
    configure(options.log_format)
    try:
        if options.check is not None:
            return check_presets(options.check)
        run_server(options)
    except (StartupError, plugins.PluginError, UnusablePipeline) as error:
        print(f"forgeline: {error}", file=sys.stderr)
        return 2
    return 0


def check_presets(folder: Path) -> int:
    """Print all errors and warnings of a folder of presets, with file and line. Returns 1 if there is an error."""
    if not folder.is_dir():
        raise StartupError(f"{folder} is no folder")
    installed = plugins.load_plugins()
    store = PresetStore([folder], [installed.model_presets, installed.pipeline_presets, HYPERPOD_PRESETS])
    store.reload()
    for error in store.snapshot.errors:
        print(error)
    for warning in store.snapshot.warnings:
        print(f"warning: {warning}")
    if store.snapshot.errors:
        return 1
    print(f"{sum(map(len, store.snapshot.presets.values()))} presets, no fault")
    return 0


if __name__ == "__main__":
    sys.exit(main())
