"""AWS Signature Version 4, checked as AWS does it: the signature is computed again from what arrived."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

ALGORITHM = "AWS4-HMAC-SHA256"
SKEW = timedelta(minutes=15)
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
    """What belongs to an access key. `expired`: its token's time is over."""

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


class Refused(Exception):
    """`kind` is missing, mismatch, unknown or expired: each protocol has its own code for it."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


def scope_of(headers: Mapping[str, str]) -> Scope | None:
    """What the request claims to be for; None where it is not signed."""
    found = AUTHORIZATION.fullmatch(headers.get("Authorization", ""))
    if found is None:
        return None
    names = tuple(found["headers"].split(";"))
    return Scope(found["key"], found["date"], found["region"], found["service"], names, found["signature"])


def check(  # noqa: PLR0913, PLR0917 - all of a request
    method: str,
    path: str,
    headers: Mapping[str, str],
    body: bytes,
    keys: Mapping[str, Key],
    now: datetime | None = None,
) -> None:
    """Raises `Refused` unless one of these keys signed this. `path` is as it came, with its query; the names of
    `headers` are those of any case.
    """
    scope = scope_of(headers)
    if scope is None:
        raise Refused("missing", "Missing Authentication Token")
    key = keys.get(scope.key)
    if key is None or headers.get("X-Amz-Security-Token") != key.token:
        raise Refused("unknown", "The security token included in the request is invalid.")
    if key.expired:
        raise Refused("expired", "The security token included in the request is expired")
    stamp = headers.get("X-Amz-Date", "")
    signed = "\n".join([ALGORITHM, stamp, f"{scope.date}/{scope.region}/{scope.service}/aws4_request"])
    signed += "\n" + hashlib.sha256(_canonical(method, path, headers, body, scope).encode()).hexdigest()
    expected = hmac.new(_signing_key(key.secret, scope), signed.encode(), hashlib.sha256).hexdigest()
    if not hmac.compare_digest(expected, scope.signature) or "host" not in scope.headers:
        raise Refused("mismatch", MISMATCH)
    _check_time(stamp, scope, now or datetime.now(UTC))


def _check_time(stamp: str, scope: Scope, now: datetime) -> None:
    try:
        then = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise Refused("mismatch", "Date must be in ISO-8601 'basic format'.") from None
    if abs(now - then) > SKEW or not stamp.startswith(scope.date):
        raise Refused("mismatch", f"Signature expired: {stamp} is now earlier than {now - SKEW:%Y%m%dT%H%M%SZ}")


def _canonical(method: str, path: str, headers: Mapping[str, str], body: bytes, scope: Scope) -> str:
    path, _, query = path.partition("?")
    if scope.service != "s3":
        path = quote(path, safe="/~")  # encoded a second time
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
