"""What docs/OPERATION.md tells to type, so that tests type just that."""

from __future__ import annotations

import re

from tests.processes import ROOT

OPERATION = (ROOT / "docs" / "OPERATION.md").read_text()


def block(name: str, **instead: str) -> str:
    """The commands marked with this name, other words in place of some that they hold."""
    (code,) = re.findall(rf"<!-- run: {name} -->\n *```sh\n(.*?)```", OPERATION, re.DOTALL)
    for word, other in instead.items():
        assert word in code, word
        code = code.replace(word, other)
    return str(code)
