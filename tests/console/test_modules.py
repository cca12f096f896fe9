"""The console's modules, read and not run: each says what it is, none is left over, and eslint finds nothing."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.console.browser import ROOT

STATIC = ROOT / "server" / "static"
MODULES = sorted((STATIC / "js").rglob("*.js"))
SHEETS = sorted((STATIC / "css").glob("*.css"))
ESLINT = Path(__file__).parent / "node_modules" / ".bin" / "eslint"
EXPORT = re.compile(r"^export (?:async )?(?:function|class|const) (\w+)", re.MULTILINE)
IMPORT = re.compile(r"^import \{ ([^}]+) \} from '([^']+)';$", re.MULTILINE)


def imports() -> set[tuple[Path, str]]:
    """Every name that some module imports, with the module that it comes from."""
    return {
        ((module.parent / source).resolve(), name)
        for module in MODULES
        for names, source in IMPORT.findall(module.read_text())
        for name in names.split(", ")
    }


def test_every_module_and_sheet_begins_with_a_line_that_says_what_it_is() -> None:
    assert [path for path in MODULES if not re.match(r"// [A-Z].{20,}", path.read_text())] == []
    assert [path for path in SHEETS if not re.match(r"/\* [A-Z].{20,}\*/", path.read_text())] == []


def test_the_page_loads_every_sheet_and_nothing_that_is_exported_is_left_over() -> None:
    page = (STATIC / "index.html").read_text()
    assert [path.name for path in SHEETS if f"/static/css/{path.name}" not in page] == []
    imported = imports()
    exported = {(path, name) for path in MODULES for name in EXPORT.findall(path.read_text())}
    assert exported - imported == set()
    assert {path for path in MODULES if f"/static/js/{path.name}" not in page} == {path for path, _ in imported}


@pytest.mark.slow
def test_eslint_finds_nothing() -> None:
    if not ESLINT.exists():
        pytest.skip("eslint is not installed: `make test-slow` gets it where npm is")
    config = Path(__file__).with_name("eslint.config.mjs")
    checked = subprocess.run(
        [ESLINT, "--config", config, STATIC], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
