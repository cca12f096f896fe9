"""Where a secret ends, and what is written instead of it."""

from __future__ import annotations

import re
from typing import Final

from pipeline.masking.patterns import MASK

ANSI: Final = rb"\x1b\[[0-9;]{0,16}m"
"""A terminal's code for a colour: it may be inside a secret, and is kept."""

LINE_END: Final = re.compile(rb"[\r\n]")
UNQUOTED_END: Final = re.compile(rb"[\s\"&<]")  # in a shell these end an unquoted word, in XML an element
UNQUOTED_CLOSERS: Final = b",;:.!?)]}'`>\\"
_MAX_CLOSERS: Final = 64

_COLOUR = re.compile(ANSI)
_CUT_COLOUR = re.compile(rb"\x1b(?:\[[0-9;]{0,16})?\Z")


class SecretValue:
    """A secret that goes on until `end`, and may come in parts."""

    def __init__(self, end: re.Pattern[bytes]) -> None:
        self._end = end
        self._is_masked = False

    def measure(self, text: bytes, final: bool) -> tuple[int, bool]:
        """How many bytes of `text` are secret, and whether it ends there. If not, what follows is not decided."""
        end = self._end.search(text)
        if end is None and not final:
            return _size_without_cut_colour(text), False
        return end.start() if end else len(text), True

    def mask(self, secret: bytes, released: int) -> bytes:
        """What is written instead of the next part: one mask for all parts, and the colours.

        Its first `released` bytes are out already: a colour that they began is finished.
        """
        if not secret:
            return b""
        mask = b"" if self._is_masked else MASK
        self._is_masked = True
        colours = list(_COLOUR.finditer(secret))
        started = b"".join(
            secret[released : colour.end()] for colour in colours if colour.start() < released < colour.end()
        )
        return started + mask + b"".join(colour.group() for colour in colours if colour.start() >= released)


class FixedSizeValue(SecretValue):
    """A secret whose size is known, and which is whole in the text."""

    def __init__(self, size: int) -> None:
        super().__init__(LINE_END)
        self._size = size

    def measure(self, text: bytes, final: bool) -> tuple[int, bool]:
        return self._size, True


class UnquotedValue(SecretValue):
    """A word. Punctuation that it ends with belongs to the text around it."""

    def measure(self, text: bytes, final: bool) -> tuple[int, bool]:
        end = self._end.search(text)
        size = end.start() if end else len(text)
        size = max(size - _MAX_CLOSERS, len(text[:size].rstrip(UNQUOTED_CLOSERS)))
        if end is None and not final:
            return _size_without_cut_colour(text[:size]), False
        return size, True


class QuotedValue(SecretValue):
    """A secret in quotes, or what the line has of it. `opener` is the quote, with backslashes in JSON in a string."""

    def __init__(self, opener: bytes) -> None:
        super().__init__(LINE_END)
        quote, slashes = opener[-1:], len(opener) - 1
        inside = rb"[^%s\\\r\n]++" % quote
        if slashes:  # the quote with more backslashes than the opener's is part of the value
            inside += rb"|\\{%d,}+%s|\\++(?=[^%s\\\r\n])" % (slashes + 1, quote, quote)
            self._cut = re.compile(rb"\\*")
        else:  # so are an escaped one, a doubled one (YAML, CSV), and the shell's '\''
            inside += rb"|\\[^\r\n]|%s%s|%s\\%s%s" % (quote, quote, quote, quote, quote)
            self._cut = re.compile(rb"\\|%s(?:\\%s?)?|" % (quote, quote))
        self._inside = re.compile(rb"(?:%s)*+" % inside)

    def measure(self, text: bytes, final: bool) -> tuple[int, bool]:
        inside = self._inside.match(text)
        size = inside.end() if inside else 0
        if not self._cut.fullmatch(text, size):
            return size, True
        if final:
            return (size if text[size : size + 1] in (b"'", b'"') else len(text)), True
        size = max(size, len(text) - _MAX_CLOSERS)
        return (_size_without_cut_colour(text) if size == len(text) else size), False


def _size_without_cut_colour(text: bytes) -> int:
    cut = _CUT_COLOUR.search(text, max(0, len(text) - 32))
    return cut.start() if cut else len(text)
