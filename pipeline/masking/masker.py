"""The masker of a stream: three stages in a row, each of which knows one kind of secret."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable
from typing import Final

from pipeline.masking.line_masker import LineMasker
from pipeline.masking.patterns import MASK, PEM_BEGIN, PEM_BEGIN_WORDS, PEM_END


class Masker:
    """Bytes in, bytes out, each secret replaced by `***`; everything else is unchanged and in order.

    `secrets` are values to mask wherever they show; those shorter than 6 bytes are ignored: `true` would be everywhere.
    What could be the beginning of a secret is held, at most 4 kB of it; a longer secret is masked once and swallowed.
    Without `release`, what comes out in total does not depend on how the input was cut.
    """

    def __init__(self, secrets: Iterable[bytes] = ()) -> None:
        self._known = _KnownValueMasker(secrets)
        self._keys = _PrivateKeyMasker()
        self._line = LineMasker()

    def feed(self, data: bytes) -> bytes:
        """What may be written now."""
        return self._line.feed(self._keys.feed(self._known.feed(data)))

    @property
    def holds(self) -> bool:
        """Whether `release` would return anything: it is held, but on weak suspicion, as every word at the end is."""
        return self._known.holds or self._line.holds

    def release(self) -> bytes:
        """What is held on weak suspicion, for when the script has paused.

        Should it have been a secret's beginning after all, the rest of that secret is still masked.
        """
        return self._line.feed(self._keys.feed(self._known.release())) + self._line.release()

    def finish(self) -> bytes:
        """The rest, masked: the output has ended."""
        return self._line.feed(self._keys.feed(self._known.finish())) + self._line.finish()


class _KnownValueMasker:
    """Masks given values. Where several fit, the first to begin wins, then the longest."""

    MIN_SIZE: Final = 6  # bytes
    HEAD_SIZE: Final = 2048  # bytes of a value that are compared before it counts as found: no more than this is held
    WEAK_SIZE: Final = 2  # bytes at the beginning of a value that prove nothing

    def __init__(self, secrets: Iterable[bytes]) -> None:
        values = {value for value in secrets if len(value) >= self.MIN_SIZE}
        self._values = sorted(values)
        self._heads = sorted({value[: self.HEAD_SIZE] for value in values})
        longest_first = sorted(self._heads, key=len, reverse=True)
        self._pattern = re.compile(b"|".join(map(re.escape, longest_first)))
        self._first_bytes = re.compile(b"|".join(sorted({re.escape(head[:1]) for head in self._heads})))
        self._bytes = frozenset(b"".join(self._heads))
        self._longest = max(map(len, self._heads), default=0)
        self._held = b""
        self._released = 0  # bytes of `_held` that are out already
        self._tails: list[bytes] = []  # what may follow the head that was just found

    @property
    def holds(self) -> bool:
        return self._released < len(self._held) <= self.WEAK_SIZE

    def feed(self, data: bytes) -> bytes:
        return self._mask(data, final=False) if self._heads else data

    def release(self) -> bytes:
        if not self.holds:
            return b""
        released, self._released = self._released, len(self._held)
        return self._held[released:]

    def finish(self) -> bytes:
        return self._mask(b"", final=True)

    def _mask(self, data: bytes, final: bool) -> bytes:
        text, released = self._held + data, self._released
        start = self._swallow_tail(text) if self._tails else 0
        out = []
        undecided = -1
        while not self._tails:
            if undecided < start:
                undecided = len(text) if final else self._find_undecided(text, start)
            head = self._pattern.search(text, start) if self._heads else None
            if head is None or head.start() >= undecided:
                out.append(text[max(start, released) : undecided])
                start = undecided
                break
            out += [text[max(start, released) : head.start()], MASK]
            start = head.end()
            self._tails = [
                value[self.HEAD_SIZE :]
                for value in self._values
                if value[: self.HEAD_SIZE] == head.group() and len(value) > self.HEAD_SIZE
            ]
            if self._tails:
                start += self._swallow_tail(text[start:])
        self._held, self._released = text[start:], max(0, released - start)
        return b"".join(out)

    def _swallow_tail(self, text: bytes) -> int:
        """How much of `text` goes on with the long value that was found; `_tails` is then what is left of it."""
        size = max(_common_prefix_size(tail, text) for tail in self._tails)
        continues = size == len(text)
        self._tails = [tail[size:] for tail in self._tails if continues and tail[:size] == text and len(tail) > size]
        return size

    def _find_undecided(self, text: bytes, start: int) -> int:
        """Where the first end of `text` begins that is the beginning of a value."""
        if not text or text[-1] not in self._bytes:
            return len(text)
        for first in self._first_bytes.finditer(text, max(start, len(text) - self._longest + 1)):
            end = text[first.start() :]
            following = bisect_left(self._heads, end)
            if self._heads[following : following + 1] == [end]:  # whole: undecided only if a longer one begins so
                following += 1
            if following < len(self._heads) and self._heads[following].startswith(end):
                return first.start()
        return len(text)


def _common_prefix_size(left: bytes, right: bytes) -> int:
    pairs = zip(left, right, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(left), len(right)))


class _PrivateKeyMasker:
    """Masks what is between the BEGIN and END lines of a PEM private key. Holds nothing: those are no secret."""

    MAX_BEGIN_SIZE: Final = 80  # bytes
    MAX_KEY_SIZE: Final = 64 * 1024  # bytes: a key whose end never comes must not swallow the log

    def __init__(self) -> None:
        self._before = b""  # the last bytes of what has gone by: of the text, or of a key
        self._remaining_key_bytes = 0  # bytes of a key that may still be swallowed; 0 outside of one

    def feed(self, data: bytes) -> bytes:
        out = []
        while data:
            part, data = self._feed_inside(data) if self._remaining_key_bytes else self._feed_outside(data)
            out.append(part)
        return b"".join(out)

    def _feed_outside(self, data: bytes) -> tuple[bytes, bytes]:
        """What is written, and what is still to be looked at."""
        text = self._before + data
        begin = PEM_BEGIN.search(text) if PEM_BEGIN_WORDS in text else None
        if begin is None:
            self._before = text[-self.MAX_BEGIN_SIZE :]
            return data, b""
        self._before, self._remaining_key_bytes = b"", self.MAX_KEY_SIZE
        size = begin.end() - len(text) + len(data)
        return data[:size], data[size:]

    def _feed_inside(self, data: bytes) -> tuple[bytes, bytes]:
        is_start = self._remaining_key_bytes == self.MAX_KEY_SIZE
        text = self._before + data[: self._remaining_key_bytes]
        end = text.find(PEM_END)
        if end >= 0:
            # The part of the END line that was swallowed with the key's last bytes is written now.
            rest = data[max(0, end + len(PEM_END) - len(self._before)) :]
            self._before, self._remaining_key_bytes = b"", 0
            return (MASK if is_start else b"") + PEM_END, rest
        rest = data[self._remaining_key_bytes :]
        self._remaining_key_bytes -= len(data) - len(rest)
        self._before = text[-len(PEM_END) + 1 :] if self._remaining_key_bytes else b""
        return MASK if is_start else b"", rest
