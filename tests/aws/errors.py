"""Errors as three protocols write them: rest-json (the runtimes), json (CodePipeline ...), query (CloudFormation)."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import escape

from aiohttp import web

from tests.aws.script import Fails

REST, JSON, QUERY = "rest-json", "json", "query"

STATUS = {
    "ThrottlingException": 429,
    "ModelNotReadyException": 429,
    "ServiceUnavailableException": 503,
    "InternalServerException": 500,
    "ModelTimeoutException": 408,
    "ModelErrorException": 424,
    "ModelStreamErrorException": 424,
    "AccessDeniedException": 403,
    "UnrecognizedClientException": 403,
    "InvalidSignatureException": 403,
    "ExpiredTokenException": 403,
    "MissingAuthenticationTokenException": 403,
    "ResourceNotFoundException": 404,
    "InternalFailure": 500,
    "ServiceUnavailable": 503,
    "ModelError": 424,
    "InternalDependencyException": 530,
}
"""Everything else is a 400."""

ALIKE = {"InternalFailure", "ServiceUnavailable"}
"""What has the same status in the two older protocols, where the caller's mistakes are 400 (query: 403 for keys)."""

KEY_CODES = {
    "missing": ("MissingAuthenticationTokenException", "MissingAuthenticationToken"),
    "mismatch": ("InvalidSignatureException", "SignatureDoesNotMatch"),
    "unknown": ("UnrecognizedClientException", "InvalidClientTokenId"),
    "expired": ("ExpiredTokenException", "ExpiredToken"),
}
OLD_FORBIDDEN = {"AccessDenied", *(old for _, old in KEY_CODES.values())}


def of_key(kind: str, message: str, protocol: str) -> Fails:
    """What is wrong with the key or its signature, in this protocol's words."""
    return Fails(KEY_CODES[kind][protocol == QUERY], message)


def response(fails: Fails, protocol: str) -> web.Response:
    status = fails.status or _status(fails.code, protocol)
    id = str(uuid.uuid4())
    headers = {"x-amzn-RequestId": id, **fails.headers}
    if protocol == QUERY:
        body = _xml(fails, status, id)
        return web.Response(status=status, body=body, content_type="text/xml", headers=headers)
    fields: Mapping[str, Any] = {"message": fails.message, **fails.fields}
    if protocol == JSON:
        fields = {"__type": fails.code, **fields}
        media = "application/x-amz-json-1.1"
    else:
        headers["x-amzn-ErrorType"] = fails.code
        media = "application/json"
    return web.Response(status=status, body=json.dumps(fields).encode(), content_type=media, headers=headers)


def _status(code: str, protocol: str) -> int:
    if protocol == REST or code in ALIKE:
        return STATUS.get(code, 400)
    return 403 if protocol == QUERY and code in OLD_FORBIDDEN else 400


def _xml(fails: Fails, status: int, id: str) -> bytes:
    fault = "Sender" if status < 500 else "Receiver"
    message = escape(fails.message)
    return (
        '<ErrorResponse xmlns="http://cloudformation.amazonaws.com/doc/2010-05-15/">'
        f"<Error><Type>{fault}</Type><Code>{fails.code}</Code><Message>{message}</Message></Error>"
        f"<RequestId>{id}</RequestId></ErrorResponse>"
    ).encode()
