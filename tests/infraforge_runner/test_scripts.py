"""The shell scripts: their form, what they ask the CDK for, and what they say where something is missing."""

# ruff: noqa: S607 - bash, git and shellcheck are those of the PATH
from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from infraforge_runner.presets import SCRIPTS
from tests.infraforge_runner.sites import make_checkout

RUNNABLE = ("deploy", "destroy", "diff")
SYSTEM = "/usr/bin:/bin"
GIT = ["git", "-c", "user.name=a", "-c", "user.email=a@example.com"]


def run(script: str, cwd: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", SCRIPTS / script, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


def put_tool(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/bash\n{script}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A work directory, beside a folder of tools that only say how they were called."""
    work = tmp_path / "work"
    work.mkdir()
    put_tool(work, "infraforge", "")
    for name in ("cdk", "node"):
        put_tool(tmp_path / "tools", name, 'echo "$0 $*"; echo "telemetry $CDK_DISABLE_CLI_TELEMETRY"')
    return work


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="needs shellcheck")
def test_shellcheck_finds_nothing() -> None:
    scripts = sorted(SCRIPTS.glob("*.sh"))
    assert len(scripts) >= 4
    found = subprocess.run(
        ["shellcheck", "-x", "-P", SCRIPTS, *scripts],
        cwd=SCRIPTS.parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.stdout == ""


@pytest.mark.parametrize(
    ("script", "asked"),
    [
        ("deploy", "deploy --force --require-approval=never --progress=events"),
        ("destroy", "destroy --force"),
        ("diff", "diff --method=template"),
    ],
)
def test_the_cdk_is_asked_for_what_needs_no_terminal(work: Path, script: str, asked: str) -> None:
    path = f"{work.parent / 'tools'}:{SYSTEM}"
    done = run(f"{script}.sh", work, PATH=path, AWS_REGION="eu-west-1")
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        f"{work.parent / 'tools' / 'cdk'} --app ./infraforge --no-notices --no-version-reporting {asked}",
        "telemetry true",
    ]


@pytest.mark.parametrize("script", RUNNABLE)
@pytest.mark.parametrize("missing", ["cdk", "node"])
def test_a_tool_that_is_missing_is_named(work: Path, script: str, missing: str) -> None:
    tools = work.parent / "tools"
    (tools / missing).unlink()
    put_tool(tools, "dirname", 'exec /usr/bin/dirname "$@"')
    bash = shutil.which("bash", path=SYSTEM)
    assert bash is not None
    (tools / "bash").symlink_to(bash)
    done = run(f"{script}.sh", work, PATH=str(tools), AWS_REGION="eu-west-1")
    assert done.returncode == 127
    assert done.stderr.startswith(f"{missing} is not on the PATH")
    assert done.stdout == ""


@pytest.mark.parametrize("script", RUNNABLE)
def test_neither_without_a_region_nor_without_infraforge_is_anything_run(work: Path, script: str) -> None:
    path = f"{work.parent / 'tools'}:{SYSTEM}"
    done = run(f"{script}.sh", work, PATH=path)
    assert done.returncode != 0
    assert "AWS_REGION is not set" in done.stderr
    (work / "infraforge").unlink()
    done = run(f"{script}.sh", work, PATH=path, AWS_REGION="eu-west-1")
    assert (done.returncode, done.stdout) == (127, "")
    assert "--infraforge" in done.stderr


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
        subprocess.run([*GIT, *command], cwd=checkout, check=True)
    return checkout


def fetch(
    tmp_path: Path, repository: Path, go: str = "go1.24.1", commit: str | None = None
) -> subprocess.CompletedProcess[str]:
    put_tool(tmp_path / "tools", "go", f"echo {go}")
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=repository, capture_output=True, text=True, check=True)
    return run(
        "fetch_infraforge.sh",
        tmp_path,
        "checkout",
        PATH=f"{tmp_path / 'tools'}:{os.environ['PATH']}",
        INFRAFORGE_REPOSITORY=str(repository),
        INFRAFORGE_COMMIT=commit or head.stdout.strip(),
    )


def test_infraforge_is_fetched_and_built_once_and_again(tmp_path: Path, repository: Path) -> None:
    for _ in range(2):
        done = fetch(tmp_path, repository)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.endswith(f"start Forgeline with --infraforge {tmp_path / 'checkout'}\n")
    assert os.access(tmp_path / "checkout/cmd/infraforge/infraforge", os.X_OK)


def test_an_old_go_is_refused_before_anything_is_fetched(tmp_path: Path, repository: Path) -> None:
    done = fetch(tmp_path, repository, "go1.19.8")
    assert done.returncode == 1
    assert done.stderr == "Go 1.19.8 is too old: building InfraForge needs Go 1.23 or later.\n"
    assert not (tmp_path / "checkout").exists()


def test_a_commit_that_the_repository_has_not_is_not_replaced_by_another(tmp_path: Path, repository: Path) -> None:
    assert fetch(tmp_path, repository).returncode == 0
    binary = tmp_path / "checkout/cmd/infraforge/infraforge"
    before = binary.stat()
    done = fetch(tmp_path, repository, commit="0123456789" * 4)
    assert done.returncode != 0
    assert "InfraForge is built" not in done.stdout
    assert binary.stat() == before


def test_a_build_that_fails_is_not_called_built(tmp_path: Path, repository: Path) -> None:
    (repository / "scripts/build.sh").write_text("echo 'no module'; exit 3\n")
    subprocess.run([*GIT, "commit", "--quiet", "--all", "--message", "broken"], cwd=repository, check=True)
    done = fetch(tmp_path, repository)
    assert (done.returncode, done.stdout) == (3, "no module\n")
