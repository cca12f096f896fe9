"""An AWS-shaped endpoint for tests and demos: the exact protocols, over real HTTP, and every way to answer badly.

    async with Aws() as aws:
        os.environ | aws.environ                                  # all that a client needs; see also `aws.only()`
        claude = "us.anthropic.claude-sonnet-4-6"
        aws.answer = says("Hello", " world")                      # for every inference, or ...
        aws.answers[claude] = says("Hello", gate, " world")       # ... for this model (gate: an asyncio.Event), or ...
        aws.next(claude, fails("ThrottlingException"), says("2")) # ... for its next calls, one each

        await aws.deploy_emd("gemma-3-4b-it")                     # a stack, its endpoint, its pipeline execution
        aws.answers["gemma-3-4b-it/dev"] = says("Hi", parts=[7])  # whichever way it is invoked
        await aws.deploy_emd("Qwen2-VL-7B-Instruct", status="InProgress", stage="Build")
        aws.next("ListStacks", fails("Throttling"))               # an operation's next call fails

        await aws.asked(2, "ConverseStream"); await aws.idle()    # so many calls came; nobody is being answered
        aws.calls["Converse"], aws.streams, aws.aborted, aws.connections, aws.requests[-1].body

**What it is.** One server (`aws.url`) for all services, told apart by the scope of the signature. CloudFormation, STS,
Secrets Manager, SageMaker's control plane and whatever else moto has are moto's, in this process and emptied by each
`Aws()`: so only one at a time. Ours are Converse, ConverseStream, InvokeEndpoint, InvokeEndpointWithResponseStream,
ListStacks (moto's has no pages) and, of CodePipeline, ListPipelineExecutions, GetPipelineExecution, GetPipelineState
and ListActionExecutions. A second server (`aws.router_url`) is EMD's OpenAI router, the `BaseURL` of its stacks.

`client.Boto(aws, "sts")` is stock botocore for it, in a thread.

**Answers** (script.py) are `says(...)`, `fails(...)`, or a function from the `Asked` request to one of these; a target
is a Bedrock model id as it was asked for, `<EMD id>/<tag>`, a SageMaker endpoint's name, or an operation.

says(*pieces, stop="end_turn", usage={...}, cut_at=None, block=None, parts=None, sse=None, done=None)
    The pieces come in this order; a call that does not stream gets their text at once.
      "text"                    a delta; "" is an empty one
      thinks("text")            a reasoning delta
      {...}                     an event as it is ({"contentBlockDelta": {...}}: an unknown key is an unknown event;
                                for EMD a chunk as it is: {"error": "..."})
      asyncio.Event()           waits for it. In first place it holds the status line back as well; for one after that,
                                put it behind {"messageStart": {"role": "assistant"}}
      CUT                       the connection ends here (for a cut at a byte: `cut_at`)
      raises("throttlingException", "message", **fields)    an exception in mid-stream (without a stream: the error)
      errs("InternalFailure", "message")                    an unmodelled error event
      BAD_CHECKSUM              a message with a wrong CRC
      b"..."                    Bedrock: these bytes on the wire. EMD: these bytes of the body
    stop=None                   no messageStop (EMD: no finish_reason); usage=None: no metadata
    usage                       in Bedrock's words ({"inputTokens": 3, "outputTokens": 2, "cacheReadInputTokens": 1}),
                                which are translated for EMD, as `stop` is
    block=n                     writes n bytes at a time
    parts=[3, 50]               SageMaker: sizes of PayloadParts, in turn; otherwise one for each line
    sse=True, done=True         EMD: SSE lines where SageMaker has bare ones; `[DONE]` and usage, where the router has
                                none
fails(code, message="", status=None, headers=None, after=None, **fields)
    An HTTP error as this service writes it; `status` is the one botocore documents. `after`: an event to wait for.
hangs()
    Never answers.

**Aws(region="us-west-2")**
    environ                     what has to be set; UNSET what must not be. `aws.only()`: os.environ without any AWS_*
                                but these, for a process; `aws.apply(monkeypatch)`: the same for this one
    keys                        {access key: Key(secret, token=None, expired=False)}; AssumeRole adds its own. A wrong
                                secret, an unknown key and an expired token are refused as each service does it
    bearer                      the one AWS_BEARER_TOKEN_BEDROCK that Bedrock takes
    models                      {model id without its prefix: Model(...)} (models.py): what Bedrock serves, by what
                                prefixes, and which parameters, media and sizes each refuses
    page                        how many stacks or executions one page holds (100)
    emd                         the EMD world (emd.py): `emd.executions`, `emd.deployed`
    await deploy_emd(model_id, tag="dev", service="sagemaker_realtime", status="CREATE_COMPLETE", ...)
                                again for the same model and tag: changes it. `status` is a stack's, or an execution's
                                ("InProgress", "Failed", "Stopping", "Stopped", in `stage` "Source", "Build" or
                                "Deploy"), which has no stack. service "ecs": by the router only. `key`: its API key,
                                put into EMD-APIKey-Secrets. `endpoint`: not the usual name. `instance`
    await undeploy_emd(model_id, tag="dev")
    await fill(stacks=0, executions=0)    others, newer than what is there: so that there are several pages
    await bootstrap_emd()       only EMD-Env and its pipeline; `deploy_emd` does it as well
"""

from tests.aws.models import Model
from tests.aws.script import BAD_CHECKSUM, CUT, Asked, errs, fails, hangs, raises, says, thinks
from tests.aws.server import UNSET, Aws
from tests.aws.sigv4 import Key

__all__ = [
    "BAD_CHECKSUM",
    "CUT",
    "UNSET",
    "Asked",
    "Aws",
    "Key",
    "Model",
    "errs",
    "fails",
    "hangs",
    "raises",
    "says",
    "thinks",
]
