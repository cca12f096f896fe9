"""The wheel, built and installed into an empty environment: it serves in another folder with what it carries."""

from __future__ import annotations

import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import requests

from server.config import VERSION
from tests.processes import ROOT

get = partial(requests.get, timeout=10)
IGNORED = shutil.ignore_patterns(".*", "node_modules", "build", "*.egg-info", "__pycache__")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` folder of an environment in which nothing but the wheel, and what it requires, is installed."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, folder / "source", ignore=IGNORED)
    _run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(folder), str(folder / "source"))
    (wheel,) = folder.glob("forgeline-*.whl")
    shutil.rmtree(folder / "source")
    _run(sys.executable, "-m", "venv", str(folder / "env"))
    _run(str(folder / "env/bin/pip"), "install", "--quiet", "--disable-pip-version-check", str(wheel))
    return folder / "env" / "bin"


def _run(*command: str, cwd: Path | None = None) -> str:
    return subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=cwd, env={"PATH": "/usr/bin:/bin"}
    ).stdout


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_wheel_in_empty_environment_serves_its_presets_console_and_docs(environment: Path, tmp_path: Path) -> None:
    assert _run(str(environment / "forgeline"), "--version") == f"forgeline {VERSION}\n"
    command = [str(environment / "forgeline"), "serve", "--port", "0"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, env={"PATH": "/usr/bin:/bin"}
    ) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().removeprefix("listening on ").strip()
            models = get(f"{url}/api/models").json()["models"]
            shipped = {path.stem for path in (ROOT / "presets" / "models").glob("*.yaml")}
            assert {model["name"] for model in models} == shipped
            presets = get(f"{url}/api/hyperpod/presets").json()["presets"]
            assert presets == ["large", "medium", "small"]
            assert get(f"{url}/healthz").json()["version"] == VERSION
            for path in ("/", "/static/js/main.js", "/api/docs", "/api/docs/docs.js", "/api/openapi.json"):
                assert get(f"{url}{path}").status_code == 200
            dry_run = [str(environment / "forgeline"), "deploy", "small", "--dry-run", "--follow", "--server", url]
            assert _run(*dry_run, cwd=tmp_path).startswith("Dry run of deploy small")
        finally:
            server.terminate()
    assert server.returncode == 0
