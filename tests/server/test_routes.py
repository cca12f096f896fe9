"""The route table through Tornado's own test client: every address is there, and answers in JSON."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tornado.httpclient import AsyncHTTPClient
from tornado.web import Application

from infraforge_runner.jobs.watch import Watcher
from server.app import ROUTES, make_app
from server.config import parse_options
from server.lifecycle import make_services
from server.openapi.route import Route
from tests.running_server import scripted_model, write_presets


@pytest.fixture
def app(tmp_path: Path) -> Application:
    write_presets(tmp_path, {"echo": scripted_model("echo")})
    options = parse_options(["--presets", str(tmp_path), "--data", str(tmp_path / "data")], {})
    return make_app(make_services(options, Watcher()))


@pytest.mark.gen_test
async def test_healthz_is_ok_before_readyz(http_client: AsyncHTTPClient, base_url: str) -> None:
    alive = await http_client.fetch(base_url + "/healthz")
    ready = await http_client.fetch(base_url + "/readyz", raise_error=False)
    assert (alive.code, ready.code, json.loads(ready.body)["code"]) == (200, 503, "unavailable")


@pytest.mark.gen_test
@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.path)
async def test_every_route_answers_unsupported_method_in_json(
    route: Route, http_client: AsyncHTTPClient, base_url: str
) -> None:
    path = re.sub("{.+?}", "x", route.path)
    answer = await http_client.fetch(base_url + path, method="PUT", body=b"{}", raise_error=False)
    error = json.loads(answer.body)["error"]
    error_code = json.loads(answer.body)["code"] if isinstance(error, str) else error["type"]
    assert (answer.code, error_code) == (
        405,
        "invalid_request_error" if path.startswith("/v1/") else "method_not_allowed",
    )
    assert answer.headers["Allow"]
