"""Forgeline as a target: started with default options, except for port, data folder, and presets for the mock."""

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

from benchmarks.processes import ServerProcess, StartError
from benchmarks.targets import ForgelineTarget, RequestSpec

ROOT = Path(__file__).resolve().parent.parent
READY_TIMEOUT = 20  # seconds
JOB_TIMEOUT = 120  # seconds: a job outlives its server, also when the benchmark was killed
LOG_PRESET = "lines"  # of the job whose log is followed
AWS_VARIABLES = {
    "AWS_ACCESS_KEY_ID": "AKIABENCHMARK",
    "AWS_SECRET_ACCESS_KEY": "what-the-mock-does-not-check",
    "AWS_REGION": "us-west-2",
    "AWS_DEFAULT_REGION": "us-west-2",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
}
# Prints each line from the pipe with a timestamp.
LOG_SCRIPT = """while IFS= read -r line; do echo "@$EPOCHREALTIME@ $line"; done < {pipe}\n"""


def aws_environment(upstream: int) -> dict[str, str]:
    """Variables that send all AWS calls to the mock."""
    return AWS_VARIABLES | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{upstream}"}


def command(work_dir: Path, *options: str) -> list[str]:
    script = ROOT / "run.py"
    if not script.exists():
        raise StartError("there is no run.py")
    return [sys.executable, str(script), "--port", "0", "--data", str(work_dir / "data"), *options]


def start(core: int, upstream: int, work_dir: Path, specs: Iterable[RequestSpec]) -> ForgelineTarget:
    write_presets(work_dir, upstream, specs)
    process = ServerProcess(
        command(work_dir, "--presets", str(work_dir / "presets")),
        core,
        work_dir / "forgeline.log",
        variables=aws_environment(upstream),
    )
    try:
        wait_ready(process.port)
    except BaseException:
        process.stop()
        raise
    return ForgelineTarget(process, work_dir)


def log_pipe(work_dir: Path) -> Path:
    """The named pipe whose lines the job prints."""
    return work_dir / "lines.pipe"


def write_presets(work_dir: Path, upstream: int, specs: Iterable[RequestSpec]) -> None:
    folder = work_dir / "presets"
    (folder / "models").mkdir(parents=True)
    (folder / "hyperpod").mkdir()
    shutil.copy(ROOT / "presets" / "pipeline.yaml", folder)
    for spec in specs:
        base_url = f"base_url: http://127.0.0.1:{upstream}/v1\n" if spec.provider == "openai_compatible" else ""
        for model in (spec.model, *spec.more_models):
            name = spec.preset if model == spec.model else model
            stream = ", stream" if spec.chunks else ""
            (folder / "models" / f"{name}.yaml").write_text(
                f"provider: {spec.provider}\nmodel: {model}\n{base_url}capabilities: [text, image{stream}]\n"
            )
    (folder / "hyperpod" / f"{LOG_PRESET}.sh").write_text(LOG_SCRIPT.format(pipe=log_pipe(work_dir)))
    (folder / "hyperpod" / f"{LOG_PRESET}.yaml").write_text(
        f"config: {{global: {{stackName: {LOG_PRESET}}}}}\n"
        f"scripts: {{deploy: hyperpod/{LOG_PRESET}.sh}}\n"
        f"timeout: {JOB_TIMEOUT}\n"
    )


def wait_ready(port: int) -> None:
    deadline, last_response = time.monotonic() + READY_TIMEOUT, "nothing"
    while time.monotonic() < deadline:
        try:
            call(port, "/readyz")
            return
        except urllib.error.HTTPError as error:
            last_response = f"{error.code} {error.read(200)!r}"
        except OSError as error:
            last_response = str(error)
        time.sleep(0.01)
    raise StartError(f"/readyz did not answer 200 within {READY_TIMEOUT} s; its last answer: {last_response}")


def call(port: int, path: str, body: dict[str, object] | None = None) -> Any:
    """The JSON response to one request. Raises OSError."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, headers)
    with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310
        return json.load(response)
