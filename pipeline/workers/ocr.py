"""The OCR helper process: the bytes of an image file come in, and its lines of text go out.

{id, do: load}          {id} once the OCR engine is loaded
{id, do: read, data}    {id, lines} from top to bottom, or {id, error}: `undecodable` or `memory`
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

from pipeline.workers.child import serve
from pipeline.workers.pictures import flatten, load_image

MEMORY_LIMIT = 3 * 1024 * 1024 * 1024  # bytes of address space; most of what a page takes is the libraries'
MAX_PIXELS = 4_000_000  # a page of text at 150 dpi is 2 million
MAX_LONGER_SIDE = 1280  # pixels for text detection; without it, a line of 1 x 500 pixels is scaled up to gigabytes
THREADS = 2


@cache
def _engine() -> Any:
    # One thread per core of a large machine would use up the address space before the first image.
    os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS=str(THREADS))
    from rapidocr import RapidOCR  # noqa: PLC0415 - slow to import, so only when needed and under the limits

    return RapidOCR(
        params={
            "Global.log_level": "critical",
            "Det.limit_type": "max",
            "Det.limit_side_len": MAX_LONGER_SIDE,
            "EngineConfig.onnxruntime.intra_op_num_threads": THREADS,
        }
    )


def handle(message: dict[str, Any]) -> dict[str, Any]:
    if message["do"] == "load":
        _engine()
        return {}
    import numpy  # noqa: PLC0415 - installed with the engine

    try:
        image = load_image(message["data"], MAX_PIXELS)
    except MemoryError:
        raise
    except Exception:  # a broken file makes Pillow raise almost anything
        return {"error": "undecodable"}
    bgr_pixels = numpy.asarray(flatten(image).convert("RGB"))[:, :, ::-1]
    return {"lines": list(_engine()(bgr_pixels).txts or ())}


if __name__ == "__main__":
    serve(handle, MEMORY_LIMIT)
