"""Masks what a line gives away as a secret, however it was cut into reads."""

from __future__ import annotations

from heapq import merge
from typing import Final, NewType

from pipeline.masking.detection import CONTEXT_SIZE, WindowPos, detect, find_openings, find_tokens
from pipeline.masking.values import LINE_END, SecretValue

TextPos = NewType("TextPos", int)
"""An offset into the bytes that are not decided yet: those that are held, and those that have just come."""

_PIECE_SIZE: Final = 1024  # bytes of a line that are looked at in one go
_MAX_URL_USER: Final = 160  # bytes of a URL up to its password


class LineMasker:
    """The last stage of the masker: `feed`, `holds`, `release` and `finish` as there.

    A name, a separator, a prefix are no secret: they are written at once and only remembered, as context. Held is what
    may itself be part of a secret.
    """

    def __init__(self) -> None:
        self._context = b""  # the end of what is decided of the current line, as it was written
        self._held = b""  # what follows it and is not decided
        self._released = 0  # bytes of `_held` that are out already
        self._is_weak = False  # what is held is no more than an ordinary word
        self._value: SecretValue | None = None  # the secret that is being swallowed

    @property
    def holds(self) -> bool:
        return self._is_weak and self._released < len(self._held)

    def feed(self, data: bytes) -> bytes:
        out = []
        start = 0
        plain_lines = _PlainLines(data)
        while start < len(data):
            if not (self._context or self._held or self._value):
                plain_end = plain_lines.end(start)
                out.append(data[start:plain_end])
                start = plain_end
            line_end = LINE_END.search(data, start, start + _PIECE_SIZE)
            end = line_end.end() if line_end else min(len(data), start + _PIECE_SIZE)
            out.append(self._mask(data[start:end], final=False))
            if line_end:
                self._context = b""
            start = end
        return b"".join(out)

    def release(self) -> bytes:
        if not self.holds:
            return b""
        released, self._released = self._released, len(self._held)
        return self._held[released:]

    def finish(self) -> bytes:
        return self._mask(b"", final=True)

    def _mask(self, data: bytes, final: bool) -> bytes:
        """What may be written once `data`, a part of one line, has come too."""
        text, released = self._held + data, self._released
        out = bytearray()
        start = TextPos(0)
        while start < len(text):
            if self._value is None:
                decided = WindowPos(len(self._context))
                detection = detect(self._context + text[start:], decided, final)
                end = TextPos(start + detection.start - decided)
                out += text[max(start, released) : end]
                self._context = (self._context + text[start:end])[-CONTEXT_SIZE:]
                self._value, self._is_weak = detection.value, detection.is_weak
                start = end
                if self._value is None:
                    break
            else:
                size, is_whole = self._value.measure(text[start:], final)
                mask = self._value.mask(text[start : start + size], max(0, released - start))
                out += mask
                if mask:
                    self._context = _url_before(self._context) + mask
                start = TextPos(start + size)
                if not is_whole:
                    self._is_weak = True
                    break
                self._value = None
        self._held, self._released = text[start:], max(0, released - start)
        return bytes(out)


class _PlainLines:
    """The lines of a read in which nothing could be a secret: nearly all of them, so this is where the time goes."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._suspects = merge(
            (opening.start() for opening, _ in find_openings(data)), (token.start() for token in find_tokens(data))
        )
        self._suspect = -1

    def end(self, start: int) -> int:
        """How far the data is whole plain lines, from the start of one at `start`; which never goes back."""
        while self._suspect < start:
            self._suspect = next(self._suspects, len(self._data))
        return max(start, *(self._data.rfind(end, start, self._suspect) + 1 for end in (b"\n", b"\r")))


def _url_before(context: bytes) -> bytes:
    """Of what is before a secret, what may still matter after it: in a URL it may have been the user."""
    start = context.rfind(b"://")
    return context[start:] if start >= max(0, len(context) - _MAX_URL_USER) else b""
