"""The world of a script: what it reads, what it is given, what becomes of what it prints."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from tests.aio import asynchronous
from tests.jobs import ended, job_of, log_of, said, submit, write_hyperpod
from tests.serving import Server, says, serving

MODELS = {"m": says("echo")}
COPY_ENVIRONMENT = f"""#!{sys.executable}
from pathlib import Path
Path("environment").write_bytes(Path("/proc/self/environ").read_bytes())
"""
"""As it was when the script began: a shell adds to it, and `python3` may be one. A file: a log is masked."""


def work(tmp_path: Path, job_id: str) -> Path:
    return tmp_path / "data" / "jobs" / job_id / "work"


async def log_after(server: Server, job_id: str) -> bytes:
    """The whole log of a job that is to succeed."""
    job = await ended(server, job_id)
    log = await log_of(server, job_id)
    assert job["status"] == "succeeded", log
    return log


@asynchronous
async def test_its_environment_is_what_was_declared_and_nothing_of_the_servers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith(("LC_", "LANG"))]:
        monkeypatch.delenv(name)
    given = {
        "HOME": "/home/of/somebody",
        "LANG": "C.UTF-8",
        "LC_TIME": "en_GB.UTF-8",
        "AWS_PROFILE": "of-a-test",
        "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "AWS_REGION": "eu-west-3",  # a job's own comes before the server's
    }
    kept_back = {
        "FORGELINE_API_KEYS": "one,two",
        "FORGELINE_JOBS_AT_ONCE": "3",
        "OPENAI_API_KEY": "sk-of-the-server",
        "HF_TOKEN": "hf_of-the-server",
        "BASH_ENV": "/nowhere",
        "LD_LIBRARY_PATH": "/nowhere",
        "PYTHONPATH": "/nowhere",
        "SOMETHING": "else",
    }
    for name, value in {**given, **kept_back}.items():
        monkeypatch.setenv(name, value)
    size = {"size": {"env": "SIZE", "type": "integer"}, "tag": {"env": "CLUSTER_TAG"}}
    write_hyperpod(tmp_path / "presets", deploy=COPY_ENVIRONMENT, overrides=size)
    async with serving(tmp_path, models=MODELS) as server:
        job_id = (await submit(server, overrides={"size": 3}))["job_id"]
        await log_after(server, job_id)
    content = (work(tmp_path, job_id) / "environment").read_bytes()
    found = dict(line.decode().split("=", 1) for line in content.split(b"\0") if line)
    of_aws = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    assert found == {
        **of_aws,
        **given,
        "PATH": os.environ["PATH"],
        "SIZE": "3",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "FORGELINE_JOB": job_id,
    }


@asynchronous
async def test_it_reads_nothing_and_waits_for_no_answer(tmp_path: Path) -> None:
    write_hyperpod(tmp_path / "presets", deploy='read -r answer; echo "code $?"; wc -c; readlink /proc/self/fd/0')
    async with serving(tmp_path, models=MODELS) as server:
        log = await log_after(server, (await submit(server))["job_id"])
    assert log.split(b"\n") == [b"code 1", b"0", b"/dev/null", b""]


@asynchronous
async def test_it_has_no_terminal_and_is_the_first_of_its_own_group(tmp_path: Path) -> None:
    write_hyperpod(tmp_path / "presets", deploy="(: < /dev/tty) 2>/dev/null || echo none; echo $$; ps -o pgid= -p $$")
    async with serving(tmp_path, models=MODELS) as server:
        none, pid, group = (await log_after(server, (await submit(server))["job_id"])).split()
    assert none == b"none"
    assert pid == group


@asynchronous
async def test_of_the_servers_files_none_is_open_in_it(tmp_path: Path) -> None:
    write_hyperpod(tmp_path / "presets", deploy="ls -l /proc/self/fd")
    async with serving(tmp_path, models=MODELS) as server:
        job_id = (await submit(server))["job_id"]
        log = (await log_after(server, job_id)).decode()
    opened = dict(re.findall(r"(\d+) -> (.+)", log))
    assert opened.pop("0") == "/dev/null"
    assert opened.pop("1") == opened.pop("2")
    rest = {path for path in opened.values() if not path.startswith("/proc/")}  # the folder that ls reads
    assert rest == {str(tmp_path / "data" / "jobs" / job_id / "mark")}
    assert len(opened) == 2


@asynchronous
async def test_it_runs_in_a_folder_of_its_own(tmp_path: Path) -> None:
    write_hyperpod(tmp_path / "presets", deploy="pwd; echo found > here")
    async with serving(tmp_path, models=MODELS) as server:
        job_id = (await submit(server))["job_id"]
        assert (await log_after(server, job_id)).decode() == f"{work(tmp_path, job_id)}\n"
    assert (work(tmp_path, job_id) / "here").read_text() == "found\n"
    assert not (tmp_path / "presets" / "hyperpod" / "here").exists()


@pytest.mark.parametrize(
    ("script", "said_by"),
    [
        ('echo "${BASH_VERSION:+bash} [[" ; [[ a == a* ]] && echo yes', b"bash [[\nyes\n"),
        ("#!/usr/bin/env python3\nimport sys\nprint('python', sys.version_info.major)\n", b"python 3\n"),
        ("#!/bin/sh\necho plain\n", b"plain\n"),
        ("#!/bin/sh -e\nfalse || echo first; echo second", b"first\nsecond\n"),
    ],
)
@asynchronous
async def test_it_is_run_by_its_own_first_line_or_by_bash(tmp_path: Path, script: str, said_by: bytes) -> None:
    write_hyperpod(tmp_path / "presets", deploy=script)
    of_preset = tmp_path / "presets" / "hyperpod" / "small-deploy.sh"
    of_preset.chmod(0o644)  # an archive or a checkout may have lost its permission
    async with serving(tmp_path, models=MODELS) as server:
        assert await log_after(server, (await submit(server))["job_id"]) == said_by
    assert of_preset.stat().st_mode & 0o777 == 0o644


@asynchronous
async def test_an_interpreter_that_is_not_there_fails_the_job_with_a_sentence(tmp_path: Path) -> None:
    write_hyperpod(tmp_path / "presets", deploy="#!/no/such/interpreter\necho hello")
    async with serving(tmp_path, models=MODELS) as server:
        job = await ended(server, (await submit(server))["job_id"])
    assert job["status"] == "failed"
    assert "No such file" in job["result"]["error"]
    assert "Traceback" not in job["result"]["error"]


@asynchronous
async def test_bytes_come_out_as_they_went_in(tmp_path: Path) -> None:
    script = "#!/usr/bin/env python3\nimport os\nfor _ in range(40): os.write(1, bytes(range(256)) * 16)\n"
    write_hyperpod(tmp_path / "presets", deploy=script)
    async with serving(tmp_path, models=MODELS) as server:
        assert await log_after(server, (await submit(server))["job_id"]) == bytes(range(256)) * 640


@asynchronous
async def test_output_and_errors_come_in_the_order_in_which_they_were_written(tmp_path: Path) -> None:
    write_hyperpod(tmp_path / "presets", deploy="for n in 1 2 3; do echo out $n; echo error $n >&2; done")
    async with serving(tmp_path, models=MODELS) as server:
        log = await log_after(server, (await submit(server))["job_id"])
    assert log.split(b"\n") == [b"out 1", b"error 1", b"out 2", b"error 2", b"out 3", b"error 3", b""]


@asynchronous
async def test_a_key_of_the_servers_that_is_split_over_two_writes_is_nowhere_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret, token = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "made-up-Session/Value+that-is=unlike-others"
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    monkeypatch.setenv("AWS_SESSION_TOKEN", token)
    script = """
for value in "$AWS_SECRET_ACCESS_KEY" "$AWS_SESSION_TOKEN"; do
    printf 'here: %s' "${value:0:15}"; sleep 0.05; printf '%s :there\\n' "${value:15}"
done
until [ -e go ]; do sleep 0.05; done
"""
    write_hyperpod(tmp_path / "presets", deploy=script)
    async with serving(tmp_path, models=MODELS) as server:
        job_id = (await submit(server))["job_id"]
        seen = await said(server, job_id, ":there\nhere: *** :there\n")  # while it still runs
        (work(tmp_path, job_id) / "go").touch()
        assert (await log_after(server, job_id)).decode() == seen == "here: *** :there\n" * 2
        files = [path for path in (tmp_path / "data").rglob("*") if path.is_file()]
        for value in (secret, token):
            assert not [path for path in files if value[:15].encode() in path.read_bytes()]


@asynchronous
async def test_a_progress_bar_is_seen_while_it_is_drawn(tmp_path: Path) -> None:
    script = "for n in 10 20 30; do printf '\\r %s%%' $n; until [ -e $n ]; do sleep 0.02; done; done"
    write_hyperpod(tmp_path / "presets", deploy=script)
    async with serving(tmp_path, models=MODELS) as server:
        job_id = (await submit(server))["job_id"]
        for percent in (10, 20, 30):
            await said(server, job_id, f" {percent}%")
            assert (await job_of(server, job_id))["status"] == "running"
            (work(tmp_path, job_id) / str(percent)).touch()
        assert await log_after(server, job_id) == b"\r 10%\r 20%\r 30%"
