"""A worker that reads what is written in a picture: a file's bytes come in, and lines of text go out.

Asked `{data}`, it answers `{lines}`, from top to bottom, or `{error}`: `undecodable` or `memory`.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

from pipeline.workers.child import serve
from pipeline.workers.pictures import load, opaque

MEMORY = 3 * 1024 * 1024 * 1024  # a page takes 1.3 GB of address space, most of it the libraries'
MAX_PIXELS = 4_000_000  # a page of text at 150 dpi is 2 million
LONGER_SIDE = 1280  # what text is looked for in; without it, a line of 1 x 500 pixels is blown up to many gigabytes
THREADS = 2


@cache
def _engine() -> Any:
    # One thread for each core of a large machine would use up the address space before the first picture.
    os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS=str(THREADS))
    from rapidocr import RapidOCR  # noqa: PLC0415 - loads for a second, so after the limits and only when asked

    return RapidOCR(
        params={
            "Global.log_level": "critical",
            "Det.limit_type": "max",
            "Det.limit_side_len": LONGER_SIDE,
            "EngineConfig.onnxruntime.intra_op_num_threads": THREADS,
        }
    )


def answer(message: dict[str, Any]) -> dict[str, Any]:
    if message["do"] == "load":
        _engine()
        return {}
    import numpy  # noqa: PLC0415 - comes with the engine

    try:
        picture = load(message["data"], MAX_PIXELS)
    except MemoryError:
        raise
    except Exception:  # a broken file makes Pillow raise almost anything
        return {"error": "undecodable"}
    blue_green_red = numpy.asarray(opaque(picture).convert("RGB"))[:, :, ::-1]
    return {"lines": list(_engine()(blue_green_red).txts or ())}


if __name__ == "__main__":
    serve(answer, MEMORY)
