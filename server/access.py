"""Who may come in: API keys, Host and Origin."""

from __future__ import annotations

import errno
import hashlib
import hmac
import ipaddress
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from tornado.httputil import HTTPHeaders

from server.errors import Forbidden, Unauthorized


class Access:
    """`keys` and those in `keys_file` are let in; `hosts` and `origins`, beside the server's own.

    Raises OSError where the file can't be read.
    """

    def __init__(
        self, keys: Sequence[str], keys_file: Path | None, hosts: Sequence[str], origins: Sequence[str]
    ) -> None:
        self._given = tuple(map(_digest, keys))
        self._file = keys_file
        self._signature: tuple[int, ...] = ()
        self._keys: tuple[str, ...] = self._given
        # A file without a key in it lets nobody in, rather than everybody.
        self._locked = bool(keys) or keys_file is not None
        self.read_keys()
        self._origins = frozenset(origins)
        self._is_known_host = lru_cache(maxsize=256)(lambda host: _is_local(host) or host in hosts)

    def read_keys(self) -> None:
        """Takes the keys as they are in the file now. Raises OSError, and keeps those it has."""
        if self._file is None:
            return
        stat = self._file.stat()
        signature = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        if signature != self._signature:
            self._keys = (*self._given, *map(_digest, _keys_in(self._file)))
            self._signature = signature

    def check_host(self, host: str) -> None:
        """Raises Forbidden for a name that is not this server's: a rebound one must not reach a local server."""
        if not self._is_known_host(_without_port(host.lower())):
            raise Forbidden("This Host is not served here; --allow-host lists the names that are.")

    def check_origin(self, origin: str | None, host: str) -> None:
        """Raises Forbidden for another site's page."""
        if origin is not None and not self.is_listed(origin) and origin.lower().partition("://")[2] != host.lower():
            raise Forbidden("This Origin may not call this server; --allow-origin lists those that may.")

    def is_listed(self, origin: str) -> bool:
        return origin.lower() in self._origins

    def owner(self, headers: HTTPHeaders, offered: str | None = None) -> str:
        """Who calls: the digest of their key; empty where no keys are configured. Raises Unauthorized.

        `offered` is a key that came elsewhere than in the headers.
        """
        if not self._locked:
            return ""
        scheme, _, token = headers.get("Authorization", "").partition(" ")
        key = token.strip() if scheme.lower() == "bearer" else headers.get("X-API-Key", offered or "")
        digest = _digest(key)
        # Every key is compared, so that the time taken says nothing about which one was close.
        matches = sum(hmac.compare_digest(digest, known) for known in self._keys)
        if not matches:
            raise Unauthorized("An API key is needed: Authorization: Bearer KEY, or X-API-Key: KEY.")
        return digest


def _keys_in(path: Path) -> tuple[str, ...]:
    """The keys in a file: one a line; empty lines and those that begin with # don't count. Raises OSError."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise OSError(errno.EILSEQ, "it is not UTF-8") from error
    lines = (line.strip() for line in text.splitlines())
    return tuple(line for line in lines if line and not line.startswith("#"))


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


_HOST = re.compile(r"(?:\[(?P<v6>[0-9a-f:.]+)\]|(?P<name>[^\[\]:]+))(?::\d+)?")


def _without_port(host: str) -> str:
    """The name or address in a Host header; empty where it is none."""
    found = _HOST.fullmatch(host)
    return (found["v6"] or found["name"]) if found else ""


def _is_local(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return True
