"""The gateways that people use, each as its makers say that it is run: one worker, no database, no key to enter.

`make bench PEERS=1` installs them. What each is told of the upstream is in its own kind of file, or in headers.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

SITE = "lib/python*/site-packages"
PORTKEY = "node_modules/@portkey-ai/gateway/build/start-server.js"
KEY = "no-key-is-asked-for"  # the mock takes any, but each gateway wants one to send


@dataclass(frozen=True)
class Place:
    """Where a gateway is installed, may write, and listens; the upstream's base URL, and the models that it has."""

    home: Path
    work: Path
    port: int
    base_url: str
    models: Sequence[str]


@dataclass(frozen=True)
class Gateway:
    """`program` has to be there under its home. `lengths`: streams of so many chunks are asked for shorter, which a
    slow one would else take minutes for; what is counted is per chunk and per second."""

    package: str  # as its registry names it
    program: str
    command: Callable[[Place], list[str]]
    variables: Callable[[Place], dict[str, str]] = lambda place: {}
    headers: Callable[[Place], dict[str, str]] = lambda place: {}
    lengths: Mapping[int, int] = field(default_factory=dict)
    end: str = "data: [DONE]\n\n"  # of its streams

    def version(self, home: Path) -> str:
        sites = [str(site) for site in home.glob(SITE)]
        if found := list(importlib.metadata.distributions(name=self.package, path=sites)):
            return found[0].version
        return str(json.loads((home / "node_modules" / self.package / "package.json").read_text())["version"])


def litellm(place: Place) -> list[str]:
    models = [
        {
            "model_name": model,
            "litellm_params": {"model": f"openai/{model}", "api_base": place.base_url, "api_key": KEY},
        }
        for model in place.models
    ]
    config = written(place.work / "litellm.yaml", {"model_list": models})
    where = ["--host", "127.0.0.1", "--port", str(place.port), "--num_workers", "1"]
    return [str(place.home / "bin" / "litellm"), "--config", config, *where]


def litellm_variables(place: Place) -> dict[str, str]:
    """As Forgeline here, it asks nobody for a key; and it does not look on the web for what models cost today."""
    return {"LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}


def mlflow(place: Place) -> list[str]:
    """What `mlflow gateway start` starts, without the process that watches the configuration for changes."""
    worker = ["--workers", "1", "--worker-class", "uvicorn.workers.UvicornWorker"]
    bind = ["--bind", f"127.0.0.1:{place.port}"]
    app = "mlflow.gateway.app:create_app_from_env()"
    return [str(place.home / "bin" / "python"), "-m", "gunicorn", *bind, *worker, app]


def mlflow_variables(place: Place) -> dict[str, str]:
    upstream = {"openai_api_key": KEY, "openai_api_base": place.base_url}
    endpoints = [
        {
            "name": model,
            "endpoint_type": "llm/v1/chat",
            "model": {"provider": "openai", "name": model, "config": upstream},
        }
        for model in place.models
    ]
    return {"MLFLOW_GATEWAY_CONFIG": written(place.work / "mlflow.yaml", {"endpoints": endpoints})}


def portkey(place: Place) -> list[str]:
    return ["node", str(place.home / PORTKEY), f"--port={place.port}", "--headless"]


def portkey_headers(place: Place) -> dict[str, str]:
    """It has no file: each request says whom it is for."""
    whom = {"x-portkey-provider": "openai", "x-portkey-custom-host": place.base_url}
    return whom | {"Authorization": f"Bearer {KEY}"}


def written(path: Path, config: object) -> str:
    path.write_text(json.dumps(config))  # JSON is YAML
    return str(path)


GATEWAYS = {
    "litellm": Gateway("litellm", "bin/litellm", litellm, litellm_variables, lengths={2000: 200, 50: 10}),
    "portkey": Gateway("@portkey-ai/gateway", PORTKEY, portkey, headers=portkey_headers),
    # It passes the usage on, and not the [DONE] behind it.
    "mlflow": Gateway("mlflow", "bin/gunicorn", mlflow, mlflow_variables, end='"provider":"openai"}\n\n'),
}
