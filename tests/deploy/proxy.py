"""nginx with the shipped configuration in front of a server; only ports and certificate are replaced.

async with start_proxy(tmp_path, models={"m": scripted_model("echo")}) as proxy:
    async with proxy.http.get(proxy.url + "/readyz") as response: ...
    await proxy.stop()
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from tests.processes import ROOT, ServerProcess, running_process

SHIPPED_CONFIG = ROOT / "deploy" / "nginx" / "forgeline.conf"
HOST_NAME = "forgeline.example.com"
NGINX_TEMPLATE = """
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/forgeline.conf;
}}
"""


class Proxy:
    """`http` trusts the certificate and resolves the host name."""

    def __init__(
        self, folder: Path, ports: tuple[int, int], server: ServerProcess, http: aiohttp.ClientSession
    ) -> None:
        self.http = http
        self.server = server
        self.folder = folder
        self.url = f"https://{HOST_NAME}:{ports[1]}"
        self.port = ports[1]
        self._command = ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]
        self._process: asyncio.subprocess.Process | None = None

    async def check(self) -> str:
        """Return the output of `nginx -t`."""
        child = await asyncio.create_subprocess_exec(*self._command, "-t", stderr=asyncio.subprocess.PIPE)
        return (await child.communicate())[1].decode()

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(*self._command, "-g", "daemon off;")
        while True:
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.close()
                return
            assert self._process.returncode is None, (self.folder / "error.log").read_text()
            await asyncio.sleep(0.02)  # nginx does not report when it listens

    async def stop(self) -> None:
        """Stop at once and drop all connections."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            await self._process.wait()
            self._process = None


class _LoopbackResolver(AbstractResolver):
    """Resolves every name to 127.0.0.1."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        result = ResolveResult(hostname=host, host="127.0.0.1", port=port, family=family, proto=0, flags=0)
        return [result]

    async def close(self) -> None:
        pass


@asynccontextmanager
async def start_proxy(folder: Path, *flags: str, models: Mapping[str, Mapping[str, Any]]) -> AsyncIterator[Proxy]:
    if shutil.which("nginx") is None or shutil.which("openssl") is None:
        pytest.skip("nginx or openssl is not installed")
    ports, nginx_folder = _free_ports(), folder / "nginx"
    nginx_folder.mkdir()
    async with running_process(folder, "--allow-host", HOST_NAME, *flags, models=models) as server:
        _write_configuration(nginx_folder, ports, server.url)
        tls = ssl.create_default_context(cafile=nginx_folder / "cert.pem")
        connector = aiohttp.TCPConnector(limit=0, resolver=_LoopbackResolver(), ssl=tls)
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None)) as http:
            proxy = Proxy(nginx_folder, ports, server, http)
            await proxy.start()
            try:
                yield proxy
            finally:
                await proxy.stop()


def _free_ports() -> tuple[int, int]:
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        return first.getsockname()[1], second.getsockname()[1]


def _write_configuration(nginx_folder: Path, ports: tuple[int, int], server: str) -> None:
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    subject = ["-subj", f"/CN={HOST_NAME}", "-addext", f"subjectAltName=DNS:{HOST_NAME}"]
    subprocess.run(
        [*command, *subject, "-keyout", "key.pem", "-out", "cert.pem"],
        cwd=nginx_folder,
        check=True,
        capture_output=True,
    )
    text = SHIPPED_CONFIG.read_text()
    for shipped, replacement in (
        ("server 127.0.0.1:5000;", f"server {server.removeprefix('http://')};"),
        ("listen 80;", f"listen 127.0.0.1:{ports[0]};"),
        ("listen 443 ssl", f"listen 127.0.0.1:{ports[1]} ssl"),
        ("/etc/ssl/forgeline/fullchain.pem", str(nginx_folder / "cert.pem")),
        ("/etc/ssl/forgeline/key.pem", str(nginx_folder / "key.pem")),
    ):
        assert text.count(shipped) == 1, shipped
        text = text.replace(shipped, replacement)
    (nginx_folder / "forgeline.conf").write_text(text)
    (nginx_folder / "nginx.conf").write_text(NGINX_TEMPLATE.format(folder=nginx_folder))
