"""Errors in three protocols: rest-json (the runtimes), json (CodePipeline ...), query (CloudFormation)."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import escape

from aiohttp import web

from tests.aws.scripted_responses import ErrorResponse

REST, JSON, QUERY = "rest-json", "json", "query"

STATUS_BY_CODE = {
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
"""Other codes are a 400."""

SAME_STATUS_IN_ALL_PROTOCOLS = {"InternalFailure", "ServiceUnavailable"}
"""The codes with the same status in json and query, where the client's mistakes are 400 (query: 403 for keys)."""

KEY_CODES = {
    "missing": ("MissingAuthenticationTokenException", "MissingAuthenticationToken"),
    "mismatch": ("InvalidSignatureException", "SignatureDoesNotMatch"),
    "unknown": ("UnrecognizedClientException", "InvalidClientTokenId"),
    "expired": ("ExpiredTokenException", "ExpiredToken"),
}
QUERY_FORBIDDEN_CODES = {"AccessDenied", *(old for _, old in KEY_CODES.values())}


def key_error(kind: str, message: str, protocol: str) -> ErrorResponse:
    """The error for a wrong access key or signature, with this protocol's code."""
    return ErrorResponse(KEY_CODES[kind][protocol == QUERY], message)


def error_response(error: ErrorResponse, protocol: str) -> web.Response:
    status = error.status or _status_for(error.code, protocol)
    id = str(uuid.uuid4())
    headers = {"x-amzn-RequestId": id, **error.headers}
    if protocol == QUERY:
        body = _query_error_xml(error, status, id)
        return web.Response(status=status, body=body, content_type="text/xml", headers=headers)
    fields: Mapping[str, Any] = {"message": error.message, **error.fields}
    if protocol == JSON:
        fields = {"__type": error.code, **fields}
        media = "application/x-amz-json-1.1"
    else:
        headers["x-amzn-ErrorType"] = error.code
        media = "application/json"
    return web.Response(status=status, body=json.dumps(fields).encode(), content_type=media, headers=headers)


def _status_for(code: str, protocol: str) -> int:
    if protocol == REST or code in SAME_STATUS_IN_ALL_PROTOCOLS:
        return STATUS_BY_CODE.get(code, 400)
    return 403 if protocol == QUERY and code in QUERY_FORBIDDEN_CODES else 400


def _query_error_xml(error: ErrorResponse, status: int, id: str) -> bytes:
    fault = "Sender" if status < 500 else "Receiver"
    message = escape(error.message)
    return (
        '<ErrorResponse xmlns="http://cloudformation.amazonaws.com/doc/2010-05-15/">'
        f"<Error><Type>{fault}</Type><Code>{error.code}</Code><Message>{message}</Message></Error>"
        f"<RequestId>{id}</RequestId></ErrorResponse>"
    ).encode()
