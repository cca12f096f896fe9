"""The shell scripts: shellcheck, their calls of the CDK, and their errors where something is missing."""

# ruff: noqa: S607 - bash, git and shellcheck are those of the PATH
from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from infraforge_runner.infraforge.presets import SCRIPTS_FOLDER
from tests.infraforge_runner.sites import make_checkout

SCRIPT_NAMES = ("deploy", "destroy", "diff")
SYSTEM_PATH = "/usr/bin:/bin"
GIT_COMMAND = ["git", "-c", "user.name=a", "-c", "user.email=a@example.com"]


def run_script(script: str, cwd: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", SCRIPTS_FOLDER / script, *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def write_tool(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/bash\n{script}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A work directory, beside a folder of tools that only print how they were called."""
    work = tmp_path / "work"
    work.mkdir()
    write_tool(work, "infraforge", "")
    for name in ("cdk", "node"):
        write_tool(tmp_path / "tools", name, 'echo "$0 $*"; echo "telemetry $CDK_DISABLE_CLI_TELEMETRY"')
    return work


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="needs shellcheck")
def test_scripts_pass_shellcheck() -> None:
    scripts = sorted(SCRIPTS_FOLDER.glob("*.sh"))
    assert len(scripts) >= 4
    result = subprocess.run(
        ["shellcheck", "-x", "-P", SCRIPTS_FOLDER, *scripts],
        cwd=SCRIPTS_FOLDER.parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("deploy", "deploy --force --require-approval=never --progress=events"),
        ("destroy", "destroy --force"),
        ("diff", "diff --method=template"),
    ],
)
def test_script_calls_cdk_without_terminal(work: Path, script: str, arguments: str) -> None:
    path = f"{work.parent / 'tools'}:{SYSTEM_PATH}"
    result = run_script(f"{script}.sh", work, PATH=path, AWS_REGION="eu-west-1")
    assert result.returncode == 0
    assert result.stdout.splitlines() == [
        f"{work.parent / 'tools' / 'cdk'} --app ./infraforge --no-notices --no-version-reporting {arguments}",
        "telemetry true",
    ]


@pytest.mark.parametrize("script", SCRIPT_NAMES)
@pytest.mark.parametrize("missing", ["cdk", "node"])
def test_script_names_missing_tool(work: Path, script: str, missing: str) -> None:
    tools = work.parent / "tools"
    (tools / missing).unlink()
    write_tool(tools, "dirname", 'exec /usr/bin/dirname "$@"')
    bash = shutil.which("bash", path=SYSTEM_PATH)
    assert bash is not None
    (tools / "bash").symlink_to(bash)
    result = run_script(f"{script}.sh", work, PATH=str(tools), AWS_REGION="eu-west-1")
    assert result.returncode == 127
    assert result.stderr.startswith(f"{missing} is not on the PATH")
    assert result.stdout == ""


@pytest.mark.parametrize("script", SCRIPT_NAMES)
def test_script_without_region_or_infraforge_runs_nothing(work: Path, script: str) -> None:
    path = f"{work.parent / 'tools'}:{SYSTEM_PATH}"
    result = run_script(f"{script}.sh", work, PATH=path)
    assert result.returncode != 0
    assert "AWS_REGION is not set" in result.stderr
    (work / "infraforge").unlink()
    result = run_script(f"{script}.sh", work, PATH=path, AWS_REGION="eu-west-1")
    assert (result.returncode, result.stdout) == (127, "")
    assert "--infraforge" in result.stderr


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository that is built as InfraForge is."""
    checkout = make_checkout(tmp_path / "upstream")
    (checkout / "cmd/infraforge/infraforge").unlink()
    (checkout / "scripts").mkdir()
    (checkout / "scripts/build.sh").write_text(
        "cd cmd/infraforge\necho '#!/bin/sh' > infraforge\nchmod +x infraforge\n"
    )
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "all"]):
        subprocess.run([*GIT_COMMAND, *command], cwd=checkout, check=True)
    return checkout


def run_fetch(
    tmp_path: Path, repository: Path, go: str = "go1.24.1", commit: str | None = None
) -> subprocess.CompletedProcess[str]:
    write_tool(tmp_path / "tools", "go", f"echo {go}")
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=repository, capture_output=True, text=True, check=True)
    return run_script(
        "fetch_infraforge.sh",
        tmp_path,
        "checkout",
        PATH=f"{tmp_path / 'tools'}:{os.environ['PATH']}",
        INFRAFORGE_REPOSITORY=str(repository),
        INFRAFORGE_COMMIT=commit or head.stdout.strip(),
    )


def test_fetch_builds_infraforge_and_can_be_repeated(tmp_path: Path, repository: Path) -> None:
    for _ in range(2):
        result = run_fetch(tmp_path, repository)
        assert (result.returncode, result.stderr) == (0, "")
        assert result.stdout.endswith(f"start Forgeline with --infraforge {tmp_path / 'checkout'}\n")
    assert os.access(tmp_path / "checkout/cmd/infraforge/infraforge", os.X_OK)


def test_fetch_with_old_go_fails_before_fetching(tmp_path: Path, repository: Path) -> None:
    result = run_fetch(tmp_path, repository, "go1.19.8")
    assert result.returncode == 1
    assert result.stderr == "Go 1.19.8 is too old: building InfraForge needs Go 1.23 or later.\n"
    assert not (tmp_path / "checkout").exists()


def test_fetch_of_unknown_commit_keeps_existing_build(tmp_path: Path, repository: Path) -> None:
    assert run_fetch(tmp_path, repository).returncode == 0
    binary = tmp_path / "checkout/cmd/infraforge/infraforge"
    before = binary.stat()
    result = run_fetch(tmp_path, repository, commit="0123456789" * 4)
    assert result.returncode != 0
    assert "InfraForge is built" not in result.stdout
    assert binary.stat() == before


def test_fetch_with_failing_build_fails(tmp_path: Path, repository: Path) -> None:
    (repository / "scripts/build.sh").write_text("echo 'no module'; exit 3\n")
    subprocess.run([*GIT_COMMAND, "commit", "--quiet", "--all", "--message", "broken"], cwd=repository, check=True)
    result = run_fetch(tmp_path, repository)
    assert (result.returncode, result.stdout) == (3, "no module\n")
