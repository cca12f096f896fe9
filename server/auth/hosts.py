"""Host and Origin: under which names this server answers, and which sites may call it."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from functools import lru_cache

from server.errors import Forbidden

_HOST = re.compile(r"(?:\[(?P<v6>[0-9a-f:.]+)\]|(?P<name>[^\[\]:]+))(?::\d+)?")


class HostPolicy:
    """`hosts` and `origins` are allowed beside localhost, IP addresses, and the server's own pages."""

    def __init__(self, hosts: Sequence[str], origins: Sequence[str]) -> None:
        self._origins = frozenset(origins)
        self._is_allowed_host = lru_cache(maxsize=256)(lambda host: _is_local(host) or host in hosts)

    def check_host(self, host: str) -> None:
        """Raises Forbidden for a name that is not this server's: DNS rebinding must not reach a local server."""
        if not self._is_allowed_host(_without_port(host.lower())):
            raise Forbidden("This Host is not served here; --allow-host lists the names that are.")

    def check_origin(self, origin: str | None, host: str) -> None:
        """Raises Forbidden for a page of a site that is not allowed."""
        if (
            origin is not None
            and not self.is_allowed_origin(origin)
            and origin.lower().partition("://")[2] != host.lower()
        ):
            raise Forbidden("This Origin may not call this server; --allow-origin lists those that may.")

    def is_allowed_origin(self, origin: str) -> bool:
        return origin.lower() in self._origins


def _without_port(host: str) -> str:
    """The name or address in a Host header; empty where it is malformed."""
    match = _HOST.fullmatch(host)
    return (match["v6"] or match["name"]) if match else ""


def _is_local(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return True
