"""Other gateways, each run as its documentation says: one worker, no database, no client keys.

`make bench PEERS=1` installs them. Each learns of the upstream from its own kind of configuration, or from headers.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

SITE_PACKAGES = "lib/python*/site-packages"
PORTKEY = "node_modules/@portkey-ai/gateway/build/start-server.js"
PLACEHOLDER_KEY = "no-key-is-asked-for"  # the mock accepts any, but each gateway requires one to send


@dataclass(frozen=True)
class GatewayInstance:
    """Where a gateway is installed, writes and listens, with the upstream's base URL and models."""

    home: Path
    work_dir: Path
    port: int
    base_url: str
    models: Sequence[str]


@dataclass(frozen=True)
class Gateway:
    """`program`: its path under `home`.

    `shorter_streams`: chunk counts by the original ones, for a slow gateway, whose rounds would take minutes. Figures
    are per chunk and per second, so they stay comparable.
    """

    package: str  # its name in its registry
    program: str
    command: Callable[[GatewayInstance], list[str]]
    variables: Callable[[GatewayInstance], dict[str, str]] = lambda instance: {}
    headers: Callable[[GatewayInstance], dict[str, str]] = lambda instance: {}
    shorter_streams: Mapping[int, int] = field(default_factory=dict)
    end: str = "data: [DONE]\n\n"  # of a stream

    def version(self, home: Path) -> str:
        sites = [str(site) for site in home.glob(SITE_PACKAGES)]
        if distributions := list(importlib.metadata.distributions(name=self.package, path=sites)):
            return distributions[0].version
        return str(json.loads((home / "node_modules" / self.package / "package.json").read_text())["version"])


def litellm(instance: GatewayInstance) -> list[str]:
    models = [
        {
            "model_name": model,
            "litellm_params": {"model": f"openai/{model}", "api_base": instance.base_url, "api_key": PLACEHOLDER_KEY},
        }
        for model in instance.models
    ]
    config = write_config(instance.work_dir / "litellm.yaml", {"model_list": models})
    listen = ["--host", "127.0.0.1", "--port", str(instance.port), "--num_workers", "1"]
    return [str(instance.home / "bin" / "litellm"), "--config", config, *listen]


def litellm_variables(instance: GatewayInstance) -> dict[str, str]:
    """No client keys, as for Forgeline here, and no download of model prices."""
    return {"LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}


def mlflow(instance: GatewayInstance) -> list[str]:
    """The process that `mlflow gateway start` starts, without the watcher of its configuration."""
    worker = ["--workers", "1", "--worker-class", "uvicorn.workers.UvicornWorker"]
    bind = ["--bind", f"127.0.0.1:{instance.port}"]
    app = "mlflow.gateway.app:create_app_from_env()"
    return [str(instance.home / "bin" / "python"), "-m", "gunicorn", *bind, *worker, app]


def mlflow_variables(instance: GatewayInstance) -> dict[str, str]:
    upstream = {"openai_api_key": PLACEHOLDER_KEY, "openai_api_base": instance.base_url}
    endpoints = [
        {
            "name": model,
            "endpoint_type": "llm/v1/chat",
            "model": {"provider": "openai", "name": model, "config": upstream},
        }
        for model in instance.models
    ]
    return {"MLFLOW_GATEWAY_CONFIG": write_config(instance.work_dir / "mlflow.yaml", {"endpoints": endpoints})}


def portkey(instance: GatewayInstance) -> list[str]:
    return ["node", str(instance.home / PORTKEY), f"--port={instance.port}", "--headless"]


def portkey_headers(instance: GatewayInstance) -> dict[str, str]:
    """Portkey has no configuration file: headers of each request name the provider."""
    headers = {"x-portkey-provider": "openai", "x-portkey-custom-host": instance.base_url}
    return headers | {"Authorization": f"Bearer {PLACEHOLDER_KEY}"}


def write_config(path: Path, config: object) -> str:
    path.write_text(json.dumps(config))  # JSON is YAML
    return str(path)


GATEWAYS = {
    "litellm": Gateway("litellm", "bin/litellm", litellm, litellm_variables, shorter_streams={2000: 200, 50: 10}),
    "portkey": Gateway("@portkey-ai/gateway", PORTKEY, portkey, headers=portkey_headers),
    # It forwards the usage, but not the [DONE] after it.
    "mlflow": Gateway("mlflow", "bin/gunicorn", mlflow, mlflow_variables, end='"provider":"openai"}\n\n'),
}
