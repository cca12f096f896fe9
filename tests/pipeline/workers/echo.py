"""A helper process for tests: it echoes a value, describes itself, exits, or hangs."""

from __future__ import annotations

import os
import resource
import signal
import sys
from typing import Any

from pipeline.workers.child import serve

MEMORY_LIMIT = 512 * 1024 * 1024


def handle(message: dict[str, Any]) -> dict[str, Any]:
    match message["do"]:
        case "hang":
            signal.pause()
        case "exit":
            sys.exit(3)
        case "allocate":
            return {"allocated": len(bytearray(message["bytes"]))}
        case "print":
            print("to standard output")
        case "describe":
            return _describe()
    return {"said": message.get("say")}


def _describe() -> dict[str, Any]:
    return {
        "environment": sorted(os.environ),
        "path": sys.path,
        "core": resource.getrlimit(resource.RLIMIT_CORE)[0],
        "interrupt_ignored": signal.getsignal(signal.SIGINT) == signal.SIG_IGN,
    }


if __name__ == "__main__":
    serve(handle, MEMORY_LIMIT)
