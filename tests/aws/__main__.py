"""`python -m tests.aws`: the endpoint for manual use, with EMD models and responses that repeat the request."""

from __future__ import annotations

import asyncio
import shlex
import signal
import sys

from tests.aws import Aws, RecordedRequest, text_response
from tests.aws.scripted_responses import TextResponse

REGION = "us-east-1"  # where the shipped presets look for EMD's models; Bedrock's are served in every region
EMD_MODELS = ("gemma-3-4b-it", "Qwen2-VL-7B-Instruct", "Qwen2.5-VL-32B-Instruct", "UI-TARS-1.5-7B")


def echo(request: RecordedRequest) -> TextResponse:
    """Stream the text of the request back, word by word."""
    content = request.body["messages"][-1]["content"]
    blocks = [{"text": content}] if isinstance(content, str) else content
    texts = [block["text"] for block in blocks if "text" in block]
    pictures = len(blocks) - len(texts)
    text = f"{request.target} was asked: {' '.join(texts)}" + (
        f" (with {pictures} pictures or videos)" if pictures else ""
    )
    words = text.split(" ")
    usage = {"inputTokens": len(text) // 4, "outputTokens": len(words)}
    return text_response(words[0], *(f" {word}" for word in words[1:]), usage=usage)


async def main() -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with Aws(REGION) as aws:
        aws.response = echo
        await aws.deploy_emd(EMD_MODELS[0])
        await aws.deploy_emd(EMD_MODELS[1], service="ecs", key="emd-demo-key")
        await aws.deploy_emd(EMD_MODELS[2], status="InProgress", stage="Build", instance="g5.12xlarge")
        for name, value in aws.environ.items():
            print(f"export {name}={shlex.quote(value)}")
        print("unset AWS_PROFILE AWS_SESSION_TOKEN AWS_BEARER_TOKEN_BEDROCK", flush=True)
        print("# Ctrl-C ends it.", file=sys.stderr)
        await stop.wait()


asyncio.run(main())
