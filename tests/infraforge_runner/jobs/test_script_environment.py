"""What a script gets: its environment, descriptors and work folder; and what becomes of its output."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from tests.async_tests import async_test
from tests.jobs import get_job, get_log, submit, wait_for_job, wait_for_log_text, write_hyperpod_preset
from tests.running_server import RunningServer, running_server, scripted_model

MODELS = {"m": scripted_model("echo")}
COPY_ENVIRONMENT = f"""#!{sys.executable}
from pathlib import Path
Path("environment").write_bytes(Path("/proc/self/environ").read_bytes())
"""
"""The environment at the start of the script: a shell adds to it, and a log would be masked."""


def work_folder(tmp_path: Path, job_id: str) -> Path:
    return tmp_path / "data" / "jobs" / job_id / "work"


async def get_log_of_success(server: RunningServer, job_id: str) -> bytes:
    """The log of a job at its end; it must have succeeded."""
    job = await wait_for_job(server, job_id)
    log = await get_log(server, job_id)
    assert job["status"] == "succeeded", log
    return log


@async_test
async def test_script_environment_has_declared_variables_and_none_of_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith(("LC_", "LANG"))]:
        monkeypatch.delenv(name)
    passed_on = {
        "HOME": "/home/of/somebody",
        "LANG": "C.UTF-8",
        "LC_TIME": "en_GB.UTF-8",
        "AWS_PROFILE": "of-a-test",
        "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "AWS_REGION": "eu-west-3",  # a job's own overrides the server's
    }
    withheld = {
        "FORGELINE_API_KEYS": "one,two",
        "FORGELINE_JOBS_AT_ONCE": "3",
        "OPENAI_API_KEY": "sk-of-the-server",
        "HF_TOKEN": "hf_of-the-server",
        "BASH_ENV": "/nowhere",
        "LD_LIBRARY_PATH": "/nowhere",
        "PYTHONPATH": "/nowhere",
        "SOMETHING": "else",
    }
    for name, value in {**passed_on, **withheld}.items():
        monkeypatch.setenv(name, value)
    size = {"size": {"env": "SIZE", "type": "integer"}, "tag": {"env": "CLUSTER_TAG"}}
    write_hyperpod_preset(tmp_path / "presets", deploy=COPY_ENVIRONMENT, overrides=size)
    async with running_server(tmp_path, models=MODELS) as server:
        job_id = (await submit(server, overrides={"size": 3}))["job_id"]
        await get_log_of_success(server, job_id)
    content = (work_folder(tmp_path, job_id) / "environment").read_bytes()
    environment = dict(line.decode().split("=", 1) for line in content.split(b"\0") if line)
    aws_variables = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    assert environment == {
        **aws_variables,
        **passed_on,
        "PATH": os.environ["PATH"],
        "SIZE": "3",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "FORGELINE_JOB": job_id,
    }


@async_test
async def test_script_stdin_is_empty(tmp_path: Path) -> None:
    write_hyperpod_preset(
        tmp_path / "presets", deploy='read -r answer; echo "code $?"; wc -c; readlink /proc/self/fd/0'
    )
    async with running_server(tmp_path, models=MODELS) as server:
        log = await get_log_of_success(server, (await submit(server))["job_id"])
    assert log.split(b"\n") == [b"code 1", b"0", b"/dev/null", b""]


@async_test
async def test_script_has_no_terminal_and_leads_process_group(tmp_path: Path) -> None:
    write_hyperpod_preset(
        tmp_path / "presets", deploy="(: < /dev/tty) 2>/dev/null || echo none; echo $$; ps -o pgid= -p $$"
    )
    async with running_server(tmp_path, models=MODELS) as server:
        none, pid, group = (await get_log_of_success(server, (await submit(server))["job_id"])).split()
    assert none == b"none"
    assert pid == group


@async_test
async def test_script_inherits_only_mark_descriptor(tmp_path: Path) -> None:
    write_hyperpod_preset(tmp_path / "presets", deploy="ls -l /proc/self/fd")
    async with running_server(tmp_path, models=MODELS) as server:
        job_id = (await submit(server))["job_id"]
        log = (await get_log_of_success(server, job_id)).decode()
    opened = dict(re.findall(r"(\d+) -> (.+)", log))
    assert opened.pop("0") == "/dev/null"
    assert opened.pop("1") == opened.pop("2")
    rest = {path for path in opened.values() if not path.startswith("/proc/")}  # the folder that ls reads
    assert rest == {str(tmp_path / "data" / "jobs" / job_id / "mark")}
    assert len(opened) == 2


@async_test
async def test_script_runs_in_work_folder(tmp_path: Path) -> None:
    write_hyperpod_preset(tmp_path / "presets", deploy="pwd; echo found > here")
    async with running_server(tmp_path, models=MODELS) as server:
        job_id = (await submit(server))["job_id"]
        assert (await get_log_of_success(server, job_id)).decode() == f"{work_folder(tmp_path, job_id)}\n"
    assert (work_folder(tmp_path, job_id) / "here").read_text() == "found\n"
    assert not (tmp_path / "presets" / "hyperpod" / "here").exists()


@pytest.mark.parametrize(
    ("script", "output"),
    [
        ('echo "${BASH_VERSION:+bash} [[" ; [[ a == a* ]] && echo yes', b"bash [[\nyes\n"),
        ("#!/usr/bin/env python3\nimport sys\nprint('python', sys.version_info.major)\n", b"python 3\n"),
        ("#!/bin/sh\necho plain\n", b"plain\n"),
        ("#!/bin/sh -e\nfalse || echo first; echo second", b"first\nsecond\n"),
    ],
)
@async_test
async def test_script_runs_by_shebang_or_bash(tmp_path: Path, script: str, output: bytes) -> None:
    write_hyperpod_preset(tmp_path / "presets", deploy=script)
    preset_script = tmp_path / "presets" / "hyperpod" / "small-deploy.sh"
    preset_script.chmod(0o644)  # an archive or a checkout may have lost its permission
    async with running_server(tmp_path, models=MODELS) as server:
        assert await get_log_of_success(server, (await submit(server))["job_id"]) == output
    assert preset_script.stat().st_mode & 0o777 == 0o644


@async_test
async def test_script_with_missing_interpreter_fails_job_with_error(tmp_path: Path) -> None:
    write_hyperpod_preset(tmp_path / "presets", deploy="#!/no/such/interpreter\necho hello")
    async with running_server(tmp_path, models=MODELS) as server:
        job = await wait_for_job(server, (await submit(server))["job_id"])
    assert job["status"] == "failed"
    assert "No such file" in job["result"]["error"]
    assert "Traceback" not in job["result"]["error"]


@async_test
async def test_log_keeps_output_bytes_unchanged(tmp_path: Path) -> None:
    script = "#!/usr/bin/env python3\nimport os\nfor _ in range(40): os.write(1, bytes(range(256)) * 16)\n"
    write_hyperpod_preset(tmp_path / "presets", deploy=script)
    async with running_server(tmp_path, models=MODELS) as server:
        assert await get_log_of_success(server, (await submit(server))["job_id"]) == bytes(range(256)) * 640


@async_test
async def test_log_keeps_order_of_stdout_and_stderr(tmp_path: Path) -> None:
    write_hyperpod_preset(tmp_path / "presets", deploy="for n in 1 2 3; do echo out $n; echo error $n >&2; done")
    async with running_server(tmp_path, models=MODELS) as server:
        log = await get_log_of_success(server, (await submit(server))["job_id"])
    assert log.split(b"\n") == [b"out 1", b"error 1", b"out 2", b"error 2", b"out 3", b"error 3", b""]


@async_test
async def test_secret_split_over_two_writes_is_masked_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret, token = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "made-up-Session/Value+that-is=unlike-others"
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    monkeypatch.setenv("AWS_SESSION_TOKEN", token)
    script = """
for value in "$AWS_SECRET_ACCESS_KEY" "$AWS_SESSION_TOKEN"; do
    printf 'here: %s' "${value:0:15}"; sleep 0.05; printf '%s :there\\n' "${value:15}"
done
until [ -e go ]; do sleep 0.05; done
"""
    write_hyperpod_preset(tmp_path / "presets", deploy=script)
    async with running_server(tmp_path, models=MODELS) as server:
        job_id = (await submit(server))["job_id"]
        seen = await wait_for_log_text(server, job_id, ":there\nhere: *** :there\n")  # while it still runs
        (work_folder(tmp_path, job_id) / "go").touch()
        assert (await get_log_of_success(server, job_id)).decode() == seen == "here: *** :there\n" * 2
        files = [path for path in (tmp_path / "data").rglob("*") if path.is_file()]
        for value in (secret, token):
            assert not [path for path in files if value[:15].encode() in path.read_bytes()]


@async_test
async def test_log_shows_progress_bar_while_it_is_drawn(tmp_path: Path) -> None:
    script = "for n in 10 20 30; do printf '\\r %s%%' $n; until [ -e $n ]; do sleep 0.02; done; done"
    write_hyperpod_preset(tmp_path / "presets", deploy=script)
    async with running_server(tmp_path, models=MODELS) as server:
        job_id = (await submit(server))["job_id"]
        for percent in (10, 20, 30):
            await wait_for_log_text(server, job_id, f" {percent}%")
            assert (await get_job(server, job_id))["status"] == "running"
            (work_folder(tmp_path, job_id) / str(percent)).touch()
        assert await get_log_of_success(server, job_id) == b"\r 10%\r 20%\r 30%"
