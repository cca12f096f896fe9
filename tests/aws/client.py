"""Stock botocore against the endpoint: it is synchronous, so each call runs in a thread."""

from __future__ import annotations

import asyncio
from typing import Any

import botocore.session
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.aws.server import Aws
from tests.aws.sigv4 import Key

SESSION = botocore.session.Session()  # one: it keeps the services' models, which take long to read


class Boto:
    """`await Boto(aws, "bedrock-runtime").converse(modelId=...)`; streams are read to their end."""

    def __init__(self, aws: Aws, service: str, key: Key | None = None, access: str = "", **config: Any) -> None:
        environ = aws.environ
        given = key or Key(environ["AWS_SECRET_ACCESS_KEY"])
        options = Config(**{"retries": {"total_max_attempts": 1}, "signature_version": "v4", **config})
        self.stock = SESSION.create_client(
            service,
            region_name=aws.region,
            endpoint_url=aws.url,
            aws_access_key_id=access or environ["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=given.secret,
            aws_session_token=given.token,
            config=options,
        )

    def __getattr__(self, operation: str) -> Any:
        async def call(**arguments: Any) -> Any:
            return await asyncio.to_thread(self._call, operation, arguments)

        return call

    async def paged(self, operation: str, key: str, **arguments: Any) -> list[Any]:
        """All rows of all pages."""

        def read() -> list[Any]:
            return [row for page in self.stock.get_paginator(operation).paginate(**arguments) for row in page[key]]

        return await asyncio.to_thread(read)

    def _call(self, operation: str, arguments: dict[str, Any]) -> Any:
        answer = getattr(self.stock, operation)(**arguments)
        if operation == "converse_stream":
            return list(answer["stream"])
        if operation == "invoke_endpoint_with_response_stream":
            return b"".join(event["PayloadPart"]["Bytes"] for event in answer["Body"])
        return answer["Body"].read() if operation == "invoke_endpoint" else answer


async def refusal(call: Any) -> tuple[int, str, str]:
    """The status, code and message of what this call is refused with."""
    with pytest.raises(ClientError) as caught:
        await call
    answer = caught.value.response
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return status, answer["Error"]["Code"], answer["Error"]["Message"]
