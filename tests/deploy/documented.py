"""The commands in docs/OPERATION.md, for tests that run exactly those."""

from __future__ import annotations

import re

from tests.processes import ROOT

OPERATION = (ROOT / "docs" / "OPERATION.md").read_text()


def documented_commands(name: str, **replacements: str) -> str:
    """Return the commands of a named block, with words replaced."""
    (code,) = re.findall(rf"<!-- run: {name} -->\n *```sh\n(.*?)```", OPERATION, re.DOTALL)
    for word, replacement in replacements.items():
        assert word in code, word
        code = code.replace(word, replacement)
    return str(code)
