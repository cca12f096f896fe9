"""nginx as a second floor, where it is installed: one worker, which passes on what it gets as it gets it."""

from __future__ import annotations

import shutil
from pathlib import Path

from benchmarks.proc import Served, StartFailed, free_port

CONFIG = """
daemon off;
# One process, which is the worker too: its costs are all there are.
master_process off;
pid {work}/nginx.pid;
error_log stderr;
worker_rlimit_nofile 8192;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path {work}/nginx-body;
  proxy_temp_path {work}/nginx-proxy;
  fastcgi_temp_path {work}/nginx-fastcgi;
  uwsgi_temp_path {work}/nginx-uwsgi;
  scgi_temp_path {work}/nginx-scgi;
  client_max_body_size 64m;
  client_body_buffer_size 8m;
  keepalive_requests 1000000000;
  upstream mock {{ server 127.0.0.1:{upstream}; keepalive 1024; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    location / {{
      proxy_pass http://mock;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
      proxy_read_timeout 60s;
    }}
  }}
}}
"""


def start(core: int, upstream: int, work: Path) -> Served:
    """Raises StartFailed where it is not installed."""
    program = shutil.which("nginx")
    if program is None:
        raise StartFailed("nginx is not installed")
    port, config = free_port(), work / "nginx.conf"
    config.write_text(CONFIG.format(work=work, upstream=upstream, port=port))
    command = [program, "-c", str(config), "-e", "stderr", "-p", str(work)]
    return Served(command, core, work / "nginx.log", port=port)
