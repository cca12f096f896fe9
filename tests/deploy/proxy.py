"""nginx with the shipped configuration, in front of a server of a test; ports and certificate are the test's.

async with proxied(tmp_path, models={"m": says("echo")}) as proxy:
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

from tests.processes import ROOT, Process, running

SHIPPED = ROOT / "deploy" / "nginx" / "forgeline.conf"
NAME = "forgeline.example.com"
AROUND = """
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
    """`http` knows the certificate, and where the name leads."""

    def __init__(self, folder: Path, ports: tuple[int, int], server: Process, http: aiohttp.ClientSession) -> None:
        self.http = http
        self.server = server
        self.folder = folder
        self.url = f"https://{NAME}:{ports[1]}"
        self.port = ports[1]
        self._command = ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]
        self._child: asyncio.subprocess.Process | None = None

    async def check(self) -> str:
        """What nginx itself says of the configuration."""
        child = await asyncio.create_subprocess_exec(*self._command, "-t", stderr=asyncio.subprocess.PIPE)
        return (await child.communicate())[1].decode()

    async def start(self) -> None:
        self._child = await asyncio.create_subprocess_exec(*self._command, "-g", "daemon off;")
        while True:
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.close()
                return
            assert self._child.returncode is None, (self.folder / "error.log").read_text()
            await asyncio.sleep(0.02)  # it does not tell when it listens

    async def stop(self) -> None:
        """At once, with all that passes through it."""
        if self._child is not None:
            self._child.send_signal(signal.SIGTERM)
            await self._child.wait()
            self._child = None


class _Here(AbstractResolver):
    """Every name leads to this machine."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = ResolveResult(hostname=host, host="127.0.0.1", port=port, family=family, proto=0, flags=0)
        return [found]

    async def close(self) -> None:
        pass


@asynccontextmanager
async def proxied(folder: Path, *flags: str, models: Mapping[str, Mapping[str, Any]]) -> AsyncIterator[Proxy]:
    if shutil.which("nginx") is None or shutil.which("openssl") is None:
        pytest.skip("nginx or openssl is not installed")
    ports, home = _free_ports(), folder / "nginx"
    home.mkdir()
    async with running(folder, "--allow-host", NAME, *flags, models=models) as server:
        _configure(home, ports, server.url)
        tls = ssl.create_default_context(cafile=home / "cert.pem")
        connector = aiohttp.TCPConnector(limit=0, resolver=_Here(), ssl=tls)
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None)) as http:
            proxy = Proxy(home, ports, server, http)
            await proxy.start()
            try:
                yield proxy
            finally:
                await proxy.stop()


def _free_ports() -> tuple[int, int]:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        return one.getsockname()[1], other.getsockname()[1]


def _configure(home: Path, ports: tuple[int, int], server: str) -> None:
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    named = ["-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}"]
    subprocess.run([*make, *named, "-keyout", "key.pem", "-out", "cert.pem"], cwd=home, check=True, capture_output=True)
    text = SHIPPED.read_text()
    for shipped, here in (
        ("server 127.0.0.1:5000;", f"server {server.removeprefix('http://')};"),
        ("listen 80;", f"listen 127.0.0.1:{ports[0]};"),
        ("listen 443 ssl", f"listen 127.0.0.1:{ports[1]} ssl"),
        ("/etc/ssl/forgeline/fullchain.pem", str(home / "cert.pem")),
        ("/etc/ssl/forgeline/key.pem", str(home / "key.pem")),
    ):
        assert text.count(shipped) == 1, shipped
        text = text.replace(shipped, here)
    (home / "forgeline.conf").write_text(text)
    (home / "nginx.conf").write_text(AROUND.format(folder=home))
