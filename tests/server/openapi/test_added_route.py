"""An address that is one more line of the route table is described, shown, counted and fuzzed by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pytest
from msgspec import Meta, Struct
from playwright.async_api import expect

from server.app import ROUTES
from server.handlers.base import ApiHandler
from server.inference.parsing import check_body
from server.openapi.operation import ApiOperation, ApiParameter, in_both_formats
from server.openapi.route import Route
from tests.async_tests import async_test, slow_async_test
from tests.console.browser import browser_test, open_page
from tests.running_server import running_server
from tests.server.openapi.schemathesis_run import run_schemathesis


class EchoBody(Struct, forbid_unknown_fields=True):
    text: Annotated[str, Meta(min_length=1)]


class EchoAnswer(Struct):
    """What was said, and to whom."""

    name: str
    text: str


class EchoHandler(ApiHandler):
    """POST /api/echo/{name}."""

    @ApiOperation(
        tag="Echo",
        summary="Says it again",
        parameters=(ApiParameter("volume", "how loud"),),
        body=EchoBody,
        answers=in_both_formats(EchoAnswer),
        errors=(406,),
    )
    def post(self, name: Annotated[str, Meta(description="who hears it", min_length=1)]) -> None:
        content_type = self.negotiate(*in_both_formats(EchoAnswer))
        self.send_body(EchoAnswer(name, check_body(self.read_body(), EchoBody).text), content_type)


ADDED_ROUTES = (*ROUTES, Route("/api/echo/{name}", EchoHandler))


@async_test
async def test_added_route_answers_and_is_described_and_counted(tmp_path: Path) -> None:
    async with running_server(tmp_path, routes=ADDED_ROUTES) as server:
        response = await server.post("/api/echo/Ann%20B", {"text": "hi"})
        document = (await server.get("/api/openapi.json")).json
        metrics = (await server.get("/metrics")).content.decode()
    assert (response.status, response.json) == (200, {"name": "Ann B", "text": "hi"})
    described = document["paths"]["/api/echo/{name}"]["post"]
    assert (described["operationId"], described["tags"]) == ("post /api/echo/{name}", ["Echo"])
    assert {"name": "Echo"} in document["tags"]
    assert [(parameter["name"], parameter["in"]) for parameter in described["parameters"]] == [
        ("name", "path"),
        ("volume", "query"),
    ]
    assert described["parameters"][0]["schema"] == {"type": "string", "minLength": 1}
    assert set(described["responses"]) == {"200", "400", "401", "403", "406", "408", "413", "415"}
    assert document["components"]["schemas"]["EchoAnswer"]["required"] == ["name", "text"]
    assert 'address="/api/echo/{name}"' in metrics


@browser_test()
async def test_added_route_is_on_docs_page(tmp_path: Path) -> None:
    async with running_server(tmp_path, routes=ADDED_ROUTES) as server, open_page(server.url) as page:
        await page.goto(server.url + "/api/docs")
        section = page.locator("section", has=page.get_by_role("heading", name="Echo", exact=True))
        await expect(section.locator("summary").first).to_contain_text("/api/echo/{name}")


@pytest.mark.slow
@slow_async_test
async def test_added_route_is_fuzzed(tmp_path: Path) -> None:
    async with running_server(tmp_path, routes=ADDED_ROUTES) as server:
        code, output = await run_schemathesis(server.url, tmp_path, "--include-path", "/api/echo/{name}")
    assert code == 0, output
    assert "1 selected" in output
