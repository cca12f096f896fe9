"""Static checks of the console's modules: first comment lines, unused modules and exports, eslint."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.console.browser import ROOT

STATIC = ROOT / "server" / "static"
MODULES = sorted((STATIC / "js").rglob("*.js"))
STYLESHEETS = sorted((STATIC / "css").glob("*.css"))
ESLINT = Path(__file__).parent / "node_modules" / ".bin" / "eslint"
EXPORT = re.compile(r"^export (?:async )?(?:function|class|const) (\w+)", re.MULTILINE)
IMPORT = re.compile(r"^import \{ ([^}]+) \} from '([^']+)';$", re.MULTILINE)


def imported_names() -> set[tuple[Path, str]]:
    """All imported names, with the modules that they come from."""
    return {
        ((module.parent / source).resolve(), name)
        for module in MODULES
        for names, source in IMPORT.findall(module.read_text())
        for name in names.split(", ")
    }


def test_modules_and_stylesheets_start_with_description() -> None:
    assert [path for path in MODULES if not re.match(r"// [A-Z].{20,}", path.read_text())] == []
    assert [path for path in STYLESHEETS if not re.match(r"/\* [A-Z].{20,}\*/", path.read_text())] == []


def test_page_loads_all_stylesheets_and_all_exports_are_imported() -> None:
    html = (STATIC / "index.html").read_text()
    assert [path.name for path in STYLESHEETS if f"/static/css/{path.name}" not in html] == []
    imported = imported_names()
    exported = {(path, name) for path in MODULES for name in EXPORT.findall(path.read_text())}
    assert exported - imported == set()
    assert {path for path in MODULES if f"/static/js/{path.name}" not in html} == {path for path, _ in imported}


@pytest.mark.slow
def test_eslint_reports_no_problem() -> None:
    if not ESLINT.exists():
        pytest.skip("eslint is not installed: `make test-slow` gets it where npm is")
    config = Path(__file__).with_name("eslint.config.mjs")
    result = subprocess.run([ESLINT, "--config", config, STATIC], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
