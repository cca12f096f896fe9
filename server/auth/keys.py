"""API keys: which ones are valid, and whose request it is."""

from __future__ import annotations

import errno
import hashlib
import hmac
from collections.abc import Sequence
from pathlib import Path

import structlog
from tornado.httputil import HTTPHeaders

from server.errors import Unauthorized

log = structlog.get_logger(__name__)


class ApiKeys:
    """The valid keys: `keys`, and those in `file`. Raises OSError where the file can't be read."""

    def __init__(self, keys: Sequence[str], file: Path | None) -> None:
        self._static_digests = tuple(map(_digest, keys))
        self._file = file
        self._file_signature: tuple[int, ...] = ()
        self._digests: tuple[str, ...] = self._static_digests
        # A file without a key in it rejects everybody, rather than nobody.
        self._is_key_required = bool(keys) or file is not None
        self._last_error = ""
        self._load()

    def reload(self) -> None:
        """Take over the keys that the file has now. Where it can't be read, those loaded before remain valid."""
        try:
            self._load()
            self._last_error = ""
        except OSError as error:
            if str(error) != self._last_error:  # once, not at each attempt
                log.warning("api_keys_unreadable", error=error.strerror)
            self._last_error = str(error)

    def _load(self) -> None:
        if self._file is None:
            return
        stat = self._file.stat()
        signature = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        if signature != self._file_signature:
            self._digests = (*self._static_digests, *map(_digest, _read_keys(self._file)))
            self._file_signature = signature

    def authenticate(self, headers: HTTPHeaders, fallback_key: str | None = None) -> str:
        """The request's owner: the digest of its key; empty where no keys are configured. Raises Unauthorized.

        `fallback_key` counts where the headers have none.
        """
        if not self._is_key_required:
            return ""
        scheme, _, token = headers.get("Authorization", "").partition(" ")
        key = token.strip() if scheme.lower() == "bearer" else headers.get("X-API-Key", fallback_key or "")
        digest = _digest(key)
        # Every key is compared, so that the time taken says nothing about which one was close.
        matches = sum(hmac.compare_digest(digest, valid) for valid in self._digests)
        if not matches:
            raise Unauthorized("An API key is needed: Authorization: Bearer KEY, or X-API-Key: KEY.")
        return digest


def _read_keys(path: Path) -> tuple[str, ...]:
    """The keys in a file: one a line, without empty lines and those that begin with #. Raises OSError."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise OSError(errno.EILSEQ, "it is not UTF-8") from error
    lines = (line.strip() for line in text.splitlines())
    return tuple(line for line in lines if line and not line.startswith("#"))


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
