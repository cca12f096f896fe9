"""Forgeline, started as shipped: no option but where it listens, its presets, which name the mock, and its data."""

from __future__ import annotations

import json
import shutil
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.proc import Served, StartFailed
from benchmarks.targets import Forgeline, Question

ROOT = Path(__file__).resolve().parent.parent
READY_WITHIN = 20  # seconds
JOB_ENDS = 120  # seconds: it outlives a server, also one whose benchmark was killed
LINES = "lines"  # the preset of the job whose log is followed
AWS = {
    "AWS_ACCESS_KEY_ID": "AKIABENCHMARK",
    "AWS_SECRET_ACCESS_KEY": "what-the-mock-does-not-check",
    "AWS_REGION": "us-west-2",
    "AWS_DEFAULT_REGION": "us-west-2",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
}
# Says each line that comes through the pipe, with the time at which it says it.
SCRIPT = """while IFS= read -r line; do echo "@$EPOCHREALTIME@ $line"; done < {pipe}\n"""


def aws_environment(upstream: int) -> dict[str, str]:
    """Every service of AWS's is the mock."""
    return AWS | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{upstream}"}


def command(work: Path, *options: str) -> list[str]:
    script = ROOT / "run.py"
    if not script.exists():
        raise StartFailed("there is no run.py")
    return [sys.executable, str(script), "--port", "0", "--data", str(work / "data"), *options]


def start(core: int, upstream: int, work: Path, questions: Iterable[Question]) -> Forgeline:
    write_presets(work, upstream, questions)
    served = Served(
        command(work, "--presets", str(work / "presets")),
        core,
        work / "forgeline.log",
        variables=aws_environment(upstream),
    )
    try:
        wait_ready(served.port)
    except BaseException:
        served.end()
        raise
    return Forgeline(served, work)


def pipe_of(work: Path) -> Path:
    """What is written to it, the job says."""
    return work / "lines.pipe"


def write_presets(work: Path, upstream: int, questions: Iterable[Question]) -> None:
    folder = work / "presets"
    (folder / "models").mkdir(parents=True)
    (folder / "hyperpod").mkdir()
    shutil.copy(ROOT / "presets" / "pipeline.yaml", folder)
    for question in questions:
        base = f"base_url: http://127.0.0.1:{upstream}/v1\n" if question.provider == "openai_compatible" else ""
        for model in (question.model, *question.others):
            name = question.preset if model == question.model else model
            stream = ", stream" if question.chunks else ""
            (folder / "models" / f"{name}.yaml").write_text(
                f"provider: {question.provider}\nmodel: {model}\n{base}capabilities: [text, image{stream}]\n"
            )
    (folder / "hyperpod" / f"{LINES}.sh").write_text(SCRIPT.format(pipe=pipe_of(work)))
    (folder / "hyperpod" / f"{LINES}.yaml").write_text(
        f"config: {{global: {{stackName: {LINES}}}}}\nscripts: {{deploy: hyperpod/{LINES}.sh}}\ntimeout: {JOB_ENDS}\n"
    )


def wait_ready(port: int) -> None:
    deadline, last = time.monotonic() + READY_WITHIN, "nothing"
    while time.monotonic() < deadline:
        try:
            ask(port, "/readyz")
            return
        except urllib.error.HTTPError as error:
            last = f"{error.code} {error.read(200)!r}"
        except OSError as error:
            last = str(error)
        time.sleep(0.01)
    raise StartFailed(f"/readyz did not answer 200 within {READY_WITHIN} s; its last answer: {last}")


def ask(port: int, path: str, body: dict[str, object] | None = None) -> Any:
    """One request; its JSON. Raises OSError."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, headers)
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        return json.load(answer)
