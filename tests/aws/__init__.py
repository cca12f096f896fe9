"""An AWS-shaped endpoint for tests and demos: the exact protocols, over real HTTP, and every way to fail.

    async with Aws() as aws:
        os.environ | aws.environ                                  # all that a client needs; see `isolated_environ()`
        claude = "us.anthropic.claude-sonnet-4-6"
        aws.response = text_response("Hello", " world")           # for every inference, or ...
        aws.responses[claude] = text_response("Hello", gate, "!") # ... for this model (gate: an asyncio.Event), or ...
        aws.enqueue(claude, error_response("ThrottlingException"), text_response("2"))  # ... for its next calls

        await aws.deploy_emd("gemma-3-4b-it")                     # a stack, its endpoint, its pipeline execution
        aws.responses["gemma-3-4b-it/dev"] = text_response("Hi", part_sizes=[7])  # whichever way it is invoked
        await aws.deploy_emd("Qwen2-VL-7B-Instruct", status="InProgress", stage="Build")
        aws.enqueue("ListStacks", error_response("Throttling"))   # an operation's next call fails

        await aws.wait_for_calls(2, "ConverseStream"); await aws.wait_until_idle()
        aws.calls["Converse"], aws.open_streams, aws.aborted, aws.connection_count, aws.requests[-1].body

**What it is.** One server (`aws.url`) for all services; the scope of the signature says which one is called. moto, in
this process, implements CloudFormation, STS, Secrets Manager, SageMaker's control plane and whatever else it has. Each
`Aws()` resets moto: only one can exist at a time. This package implements Converse, ConverseStream, InvokeEndpoint,
InvokeEndpointWithResponseStream, ListStacks (moto's has no pages) and, of CodePipeline, ListPipelineExecutions,
GetPipelineExecution, GetPipelineState and ListActionExecutions. A second server (`aws.router_url`) is EMD's OpenAI
router, the `BaseURL` of its stacks.

`boto_client.BotoClient(aws, "sts")` is stock botocore for this endpoint, in a thread.

**Responses** (scripted_responses.py) are `text_response(...)`, `error_response(...)`, or a function from the
`RecordedRequest` to one of these. A target is a Bedrock model id as it was requested, `<EMD id>/<tag>`, the name of a
SageMaker endpoint, or an operation.

text_response(*pieces, stop_reason="end_turn", usage={...}, cut_at=None, block_size=None, part_sizes=None, sse=None,
              done=None)
    The pieces are sent in this order; a call that does not stream gets their text at once.
      "text"                    a delta; "" is an empty one
      reasoning("text")         a reasoning delta
      tool_use("id", "name", key=value)    a call of a tool with this input
      {...}                     an event as it is ({"contentBlockDelta": {...}}: an unknown key is an unknown event;
                                for EMD a chunk as it is: {"error": "..."})
      asyncio.Event()           waits for it. In first place it holds the status line back as well; to wait after the
                                status line, put it behind {"messageStart": {"role": "assistant"}}
      CUT                       the connection ends here (for a cut at a byte: `cut_at`)
      stream_exception("throttlingException", "message", **fields)    an exception in mid-stream (without a stream: the
                                error)
      stream_error("InternalFailure", "message")    an unmodelled error event
      BAD_CHECKSUM              a message with a wrong CRC
      b"..."                    Bedrock: these bytes on the wire. EMD: these bytes of the body
    stop_reason=None            no messageStop (EMD: no finish_reason); usage=None: no metadata
    usage                       in Bedrock's words ({"inputTokens": 3, "outputTokens": 2, "cacheReadInputTokens": 1}),
                                which are translated for EMD, as `stop_reason` is
    block_size=n                writes n bytes at a time
    part_sizes=[3, 50]          SageMaker: sizes of PayloadParts, in turn; otherwise one for each line
    sse=True, done=True         EMD: SSE lines where SageMaker has bare ones; `[DONE]` and usage, where the router has
                                none
error_response(code, message="", status=None, headers=None, after=None, **fields)
    An HTTP error as this service writes it; `status` is the one botocore documents. `after`: an event to wait for.
hanging_response()
    Never responds.

**Aws(region="us-west-2")**
    environ                     the variables to set; UNSET are those to remove. `isolated_environ()`: os.environ with
                                these and no other AWS_*, for a process; `apply_environ(monkeypatch)`: the same for
                                this process
    keys                        {access key: Key(secret, token=None, expired=False)}; AssumeRole adds its own. A wrong
                                secret, an unknown key and an expired token are rejected as each service does it
    bearer                      the one AWS_BEARER_TOKEN_BEDROCK that Bedrock accepts
    models                      {model id without its prefix: BedrockModel(...)} (bedrock_models.py): what Bedrock
                                serves, by which prefixes, and which parameters, media and sizes each model rejects
    page_size                   how many stacks or executions one page holds (100)
    emd                         EMD's part of the account (emd.py): `emd.executions`, `emd.deployments`
    await deploy_emd(model_id, tag="dev", service="sagemaker_realtime", status="CREATE_COMPLETE", ...)
                                again for the same model and tag: changes it. `status` is a stack's, or an execution's
                                ("InProgress", "Failed", "Stopping", "Stopped", in `stage` "Source", "Build" or
                                "Deploy"), which has no stack. service "ecs": by the router only. `key`: its API key,
                                put into EMD-APIKey-Secrets. `endpoint`: not the usual name. `instance`
    await undeploy_emd(model_id, tag="dev")
    await add_unrelated(stacks=0, executions=0)    others, newer than those of EMD: so that there are several pages
    await bootstrap_emd()       only EMD-Env and its pipeline; `deploy_emd` does it as well
"""

from tests.aws.bedrock_models import BedrockModel
from tests.aws.scripted_responses import (
    BAD_CHECKSUM,
    CUT,
    RecordedRequest,
    error_response,
    hanging_response,
    reasoning,
    stream_error,
    stream_exception,
    text_response,
)
from tests.aws.server import UNSET, Aws
from tests.aws.sigv4 import Key

__all__ = [
    "BAD_CHECKSUM",
    "CUT",
    "UNSET",
    "Aws",
    "BedrockModel",
    "Key",
    "RecordedRequest",
    "error_response",
    "hanging_response",
    "reasoning",
    "stream_error",
    "stream_exception",
    "text_response",
]
