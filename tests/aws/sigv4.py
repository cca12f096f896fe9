"""AWS Signature Version 4, checked as AWS does it: the signature is computed again from the request."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

ALGORITHM = "AWS4-HMAC-SHA256"
MAX_CLOCK_SKEW = timedelta(minutes=15)
AUTHORIZATION = re.compile(
    rf"{ALGORITHM} Credential=(?P<key>[^/,]+)/(?P<date>\d{{8}})/(?P<region>[^/,]+)/(?P<service>[^/,]+)/aws4_request, ?"
    r"SignedHeaders=(?P<headers>[^,]+), ?Signature=(?P<signature>[0-9a-f]{64})"
)
MISMATCH = (
    "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key"
    " and signing method. Consult the service documentation for details."
)


@dataclass(frozen=True)
class Key:
    """The secret of an access key. `expired`: its session token has expired."""

    secret: str
    token: str | None = None
    expired: bool = False


@dataclass(frozen=True)
class Scope:
    key: str
    date: str
    region: str
    service: str
    headers: tuple[str, ...] = ()
    signature: str = ""


class SignatureRejected(Exception):
    """The signature is rejected. `kind` is missing, mismatch, unknown or expired: each protocol has its own code."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


def read_scope(headers: Mapping[str, str]) -> Scope | None:
    """The scope that the request claims; None if it is not signed."""
    match = AUTHORIZATION.fullmatch(headers.get("Authorization", ""))
    if match is None:
        return None
    names = tuple(match["headers"].split(";"))
    return Scope(match["key"], match["date"], match["region"], match["service"], names, match["signature"])


def check_signature(  # noqa: PLR0913, PLR0917 - the parts of a request
    method: str,
    path: str,
    headers: Mapping[str, str],
    body: bytes,
    keys: Mapping[str, Key],
    now: datetime | None = None,
) -> None:
    """Raise `SignatureRejected` unless one of these keys signed the request.

    `path` is raw, with its query; `headers` are case-insensitive.
    """
    scope = read_scope(headers)
    if scope is None:
        raise SignatureRejected("missing", "Missing Authentication Token")
    key = keys.get(scope.key)
    if key is None or headers.get("X-Amz-Security-Token") != key.token:
        raise SignatureRejected("unknown", "The security token included in the request is invalid.")
    if key.expired:
        raise SignatureRejected("expired", "The security token included in the request is expired")
    stamp = headers.get("X-Amz-Date", "")
    signed = "\n".join([ALGORITHM, stamp, f"{scope.date}/{scope.region}/{scope.service}/aws4_request"])
    signed += "\n" + hashlib.sha256(_canonical(method, path, headers, body, scope).encode()).hexdigest()
    expected = hmac.new(_signing_key(key.secret, scope), signed.encode(), hashlib.sha256).hexdigest()
    if not hmac.compare_digest(expected, scope.signature) or "host" not in scope.headers:
        raise SignatureRejected("mismatch", MISMATCH)
    _check_time(stamp, scope, now or datetime.now(UTC))


def _check_time(stamp: str, scope: Scope, now: datetime) -> None:
    try:
        then = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise SignatureRejected("mismatch", "Date must be in ISO-8601 'basic format'.") from None
    if abs(now - then) > MAX_CLOCK_SKEW or not stamp.startswith(scope.date):
        raise SignatureRejected(
            "mismatch", f"Signature expired: {stamp} is now earlier than {now - MAX_CLOCK_SKEW:%Y%m%dT%H%M%SZ}"
        )


def _canonical(method: str, path: str, headers: Mapping[str, str], body: bytes, scope: Scope) -> str:
    path, _, query = path.partition("?")
    if scope.service != "s3":
        path = quote(path, safe="/~")  # AWS encodes the path a second time
    pairs = sorted(pair.partition("=")[::2] for pair in query.split("&") if pair)
    digest = headers.get("X-Amz-Content-SHA256", hashlib.sha256(body).hexdigest())
    lines = [f"{name}:{' '.join(headers.get(name, '').split())}" for name in scope.headers]
    query = "&".join(f"{name}={value}" for name, value in pairs)
    return "\n".join([method, path, query, *lines, "", ";".join(scope.headers), digest])


def _signing_key(secret: str, scope: Scope) -> bytes:
    key = f"AWS4{secret}".encode()
    for part in (scope.date, scope.region, scope.service, "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key
