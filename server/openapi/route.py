"""A line of the route table: the path of an address as a template, and its handler."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, get_type_hints
from urllib.parse import unquote_to_bytes

import msgspec
from tornado.httputil import HTTPServerRequest
from tornado.routing import Matcher, Rule
from tornado.web import RequestHandler
from tornado.websocket import WebSocketHandler

from server.openapi.operation import ApiOperation, ApiParameter, operation_of

UNKNOWN_PATH: Final = "unknown"  # the label of requests that no route matches
METHODS: Final = ("get", "post", "put", "patch", "delete")
_PARAMETER: Final = re.compile(r"{(?P<name>\w+)(?::(?P<pattern>[^}]+))?}")


class Route(Rule):
    """An address. Tornado's rule, the label of metrics and spans, and the API's description are made from it.

    `template` is a path with parameters: `{name}` is one segment, `{name:pattern}` what this regular expression
    matches. The handler's methods get them as arguments of these names, and `arguments` besides. `path` is the
    template without its patterns.
    """

    def __init__(self, template: str, handler: type[RequestHandler], **arguments: str) -> None:
        self.path = _PARAMETER.sub(r"{\g<name>}", template)
        self.handler = handler
        super().__init__(_TemplateMatcher(template, arguments), handler, {"route_path": self.path})

    @property
    def operations(self) -> Iterator[tuple[str, ApiOperation, list[ApiParameter]]]:
        """The methods that the handler declares: the name, the declaration, the parameters of the path."""
        for name, method in self._methods():
            operation = operation_of(method)
            if operation is not None:
                yield name, operation, self._path_parameters(method)

    @property
    def needs_key(self) -> bool:
        return bool(getattr(self.handler, "needs_key", True)) and not getattr(self.handler, "public", False)

    def _methods(self) -> Iterator[tuple[str, Callable[..., Any]]]:
        """A WebSocket's handshake is a GET, which `open` handles."""
        if issubclass(self.handler, WebSocketHandler):
            yield "get", self.handler.open
        else:
            yield from ((name, getattr(self.handler, name)) for name in METHODS)

    def _path_parameters(self, method: Callable[..., Any]) -> list[ApiParameter]:
        """The parameters of the path, described by the annotations of the method's arguments."""
        types = get_type_hints(method, include_extras=True)
        return [_path_parameter(match["name"], types[match["name"]]) for match in _PARAMETER.finditer(self.path)]


def _path_parameter(name: str, type: Any) -> ApiParameter:
    schema = msgspec.json.schema(type)
    description = schema.pop("description", name)
    return ApiParameter(name, description, "path", schema if len(schema) > 1 else {**schema, "minLength": 1})


class _TemplateMatcher(Matcher):
    def __init__(self, template: str, arguments: Mapping[str, str]) -> None:
        self._match = re.compile(_to_pattern(template)).fullmatch
        self._arguments = {name: value.encode() for name, value in arguments.items()}

    def match(self, request: HTTPServerRequest) -> dict[str, Any] | None:
        match = self._match(request.path)
        if match is None:
            return None
        values = {name: unquote_to_bytes(value) for name, value in match.groupdict().items()}
        return {"path_kwargs": values | self._arguments}


def _to_pattern(template: str) -> str:
    """The regular expression of a template."""
    pattern, end = "", 0
    for match in _PARAMETER.finditer(template):
        pattern += re.escape(template[end : match.start()]) + f"(?P<{match['name']}>{match['pattern'] or '[^/]+'})"
        end = match.end()
    return pattern + re.escape(template[end:])
