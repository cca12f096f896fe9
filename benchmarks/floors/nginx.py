"""nginx as a second floor, where it is installed: one worker that proxies without buffering."""

from __future__ import annotations

import shutil
from pathlib import Path

from benchmarks.processes import ServerProcess, StartError, free_port

CONFIG = """
daemon off;
# One process, which is also the worker, so that its costs are complete.
master_process off;
pid {work_dir}/nginx.pid;
error_log stderr;
worker_rlimit_nofile 8192;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path {work_dir}/nginx-body;
  proxy_temp_path {work_dir}/nginx-proxy;
  fastcgi_temp_path {work_dir}/nginx-fastcgi;
  uwsgi_temp_path {work_dir}/nginx-uwsgi;
  scgi_temp_path {work_dir}/nginx-scgi;
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


def start(core: int, upstream: int, work_dir: Path) -> ServerProcess:
    """Raises StartError if nginx is not installed."""
    program = shutil.which("nginx")
    if program is None:
        raise StartError("nginx is not installed")
    port, config = free_port(), work_dir / "nginx.conf"
    config.write_text(CONFIG.format(work_dir=work_dir, upstream=upstream, port=port))
    command = [program, "-c", str(config), "-e", "stderr", "-p", str(work_dir)]
    return ServerProcess(command, core, work_dir / "nginx.log", port=port)
