"""Stock botocore as a client of the endpoint. It is synchronous, so each call runs in a thread."""

from __future__ import annotations

import asyncio
from typing import Any

import botocore.session
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.aws.server import Aws
from tests.aws.sigv4 import Key

SESSION = botocore.session.Session()  # shared: it caches the service models, which take long to load


class BotoClient:
    """`await Boto(aws, "bedrock-runtime").converse(modelId=...)`; streams are read to their end."""

    def __init__(self, aws: Aws, service: str, key: Key | None = None, access: str = "", **config: Any) -> None:
        environ = aws.environ
        credentials = key or Key(environ["AWS_SECRET_ACCESS_KEY"])
        options = Config(**{"retries": {"total_max_attempts": 1}, "signature_version": "v4", **config})
        self.client = SESSION.create_client(
            service,
            region_name=aws.region,
            endpoint_url=aws.url,
            aws_access_key_id=access or environ["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=credentials.secret,
            aws_session_token=credentials.token,
            config=options,
        )

    def __getattr__(self, operation: str) -> Any:
        async def call(**arguments: Any) -> Any:
            return await asyncio.to_thread(self._call, operation, arguments)

        return call

    async def paginate(self, operation: str, key: str, **arguments: Any) -> list[Any]:
        """All items of all pages."""

        def read() -> list[Any]:
            return [row for page in self.client.get_paginator(operation).paginate(**arguments) for row in page[key]]

        return await asyncio.to_thread(read)

    def _call(self, operation: str, arguments: dict[str, Any]) -> Any:
        output = getattr(self.client, operation)(**arguments)
        if operation == "converse_stream":
            return list(output["stream"])
        if operation == "invoke_endpoint_with_response_stream":
            return b"".join(event["PayloadPart"]["Bytes"] for event in output["Body"])
        return output["Body"].read() if operation == "invoke_endpoint" else output


async def catch_error(call: Any) -> tuple[int, str, str]:
    """The status, code and message of the ClientError that this call raises."""
    with pytest.raises(ClientError) as caught:
        await call
    response = caught.value.response
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return status, response["Error"]["Code"], response["Error"]["Message"]
