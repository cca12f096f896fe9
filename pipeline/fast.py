"""Every bypass of aiohttp's public interface, and the switch that turns bypasses off.

With FORGELINE_FAST=0 in the environment, Forgeline uses public interfaces only: slower, with the same results.
`server/fast.py` has the bypasses of Tornado's and obeys the same switch. Each function here names the row of
docs/PERFORMANCE.md, "What was found to cost time", that it buys.
"""

from __future__ import annotations

import os
from typing import Final

import aiohttp


def is_enabled() -> bool:
    """Whether bypasses may be used. The environment decides, once for a process: read it at import or start."""
    return os.environ.get("FORGELINE_FAST", "1") != "0"


_ENABLED: Final = is_enabled()


def wake_parser_once(content: aiohttp.StreamReader) -> None:
    """Make aiohttp resume its parser after the last buffered piece of a response, not after each piece.

    Row "aiohttp's parser is woken once for all the pieces that are taken at once". `readany()` takes all pieces at
    once, so that only the last one has to resume the parser. aiohttp's public setting of this mark also lowers the
    upper mark.
    """
    if _ENABLED:
        content._low_water = 1
