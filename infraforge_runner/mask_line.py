"""Masks what a line gives away as a secret: by a name before it, by its prefix, or by its shape."""

from __future__ import annotations

import re
from dataclasses import dataclass
from heapq import merge

from infraforge_runner.mask_shapes import (
    ANSI,
    KEY_ID_BEGINNING,
    LOGIN,
    LONGEST_LOGIN,
    LONGEST_OPENING,
    RUN,
    SECRET_KEY,
    SESSION,
    Name,
    is_session_start,
    is_suspicious,
    openings,
    shapes,
    without_codes,
)

MASK = b"***"

_PIECE = 1024  # bytes of a line that are looked at in one go
_LONGEST_USER = 160  # bytes of a URL up to its password
_LINE_END = re.compile(rb"[\r\n]")
_COLOUR = re.compile(ANSI)
_COLOUR_BEGINNING = re.compile(rb"\x1b(?:\[[0-9;]{0,16})?\Z")
_SCHEME = re.compile(rb"(?:bearer|basic)[ \t]{1,16}", re.IGNORECASE)
# What may stand before a value, cut so that it can't be told whether it does.
_VALUE_BEGINNING = re.compile(
    rb"\\{1,3}|\x1b(?:\[[0-9;]{0,16})?|b(?:e(?:a(?:r(?:er?)?)?)?)?|ba(?:s(?:ic?)?)?|(?:bearer|basic)[ \t]{0,16}",
    re.IGNORECASE,
)
_PORT = re.compile(rb"[0-9]{0,5}")

_CLOSERS = b",;:.!?)]}'`>\\"
_MAX_CLOSERS = 64
_WORD_END = re.compile(rb"[\s\"&<]")  # in a shell these end an unquoted word, in XML an element
_NO_LINE_VALUE = b"\x1b {[\t\r\n"
_NO_WORD = _NO_LINE_VALUE + _CLOSERS + b'\x0b\x0c"&<'
_AFTER_KEY_ID = re.compile(rb"[^A-Za-z0-9]")
_AFTER_SESSION = re.compile(rb"[^A-Za-z0-9+/=_%-]")


class _Value:
    """A secret that goes on until `end`. `closers` that are its last bytes belong to the text around it."""

    def __init__(self, end: re.Pattern[bytes], closers: bytes = b"") -> None:
        self._end = end
        self._closers = closers
        self._is_masked = False

    def measure(self, text: bytes, final: bool) -> tuple[int, bool]:
        """How much of `text` is secret, and whether it ends there. If not, what follows is not decided."""
        found = self._end.search(text)
        size = found.start() if found else len(text)
        is_whole = found is not None or final
        if self._closers:
            size = max(size - _MAX_CLOSERS, len(text[:size].rstrip(self._closers)))
        return (size, True) if is_whole else (_without_cut_colour(text[:size]), False)

    def mask(self, secret: bytes, given: int) -> bytes:
        """What is written instead of the next part: one mask for all parts, and the colours.

        Its first `given` bytes are out already: a colour that they began is finished.
        """
        if not secret:
            return b""
        mask = b"" if self._is_masked else MASK
        self._is_masked = True
        colours = list(_COLOUR.finditer(secret))
        begun = b"".join(secret[given : colour.end()] for colour in colours if colour.start() < given < colour.end())
        return begun + mask + b"".join(colour.group() for colour in colours if colour.start() >= given)


class _Exactly(_Value):
    """A secret of a size that is known, and at hand."""

    def __init__(self, size: int) -> None:
        super().__init__(_LINE_END)
        self._size = size

    def measure(self, text: bytes, final: bool) -> tuple[int, bool]:
        return self._size, True


class _Quoted(_Value):
    """A secret in quotes, or what the line has of it. `opener` is the quote, with backslashes in JSON in a string."""

    def __init__(self, opener: bytes) -> None:
        super().__init__(_LINE_END)
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
        return (_without_cut_colour(text) if size == len(text) else size), False


def _without_cut_colour(text: bytes) -> int:
    cut = _COLOUR_BEGINNING.search(text, max(0, len(text) - 32))
    return cut.start() if cut else len(text)


class LineMasker:
    """A stage of the masker: `feed`, `holds`, `release` and `finish` as there.

    A name, a separator, a prefix are no secret: they are written at once and only remembered. Held is what may itself
    be part of a secret.
    """

    def __init__(self) -> None:
        self._context = b""  # the end of what is decided of the current line, as it is written
        self._held = b""  # what follows it and is not decided
        self._given = 0  # bytes of `_held` that were released
        self._is_weak = False  # what is held is no more than an ordinary word
        self._value: _Value | None = None  # the secret that is being swallowed

    @property
    def holds(self) -> bool:
        return self._is_weak and self._given < len(self._held)

    def feed(self, data: bytes) -> bytes:
        out = []
        at = 0
        plain_lines = _PlainLines(data)
        while at < len(data):
            if not (self._context or self._held or self._value):
                start = plain_lines.end(at)
                out.append(data[at:start])
                at = start
            line_end = _LINE_END.search(data, at, at + _PIECE)
            end = line_end.end() if line_end else min(len(data), at + _PIECE)
            out.append(self._mask(data[at:end], final=False))
            if line_end:
                self._context = b""
            at = end
        return b"".join(out)

    def release(self) -> bytes:
        if not self.holds:
            return b""
        given, self._given = self._given, len(self._held)
        return self._held[given:]

    def finish(self) -> bytes:
        return self._mask(b"", final=True)

    def _mask(self, data: bytes, final: bool) -> bytes:
        """What may be written once `data`, a part of one line, has come too."""
        text, given = self._held + data, self._given
        out = bytearray()
        at = 0
        while at < len(text):
            if self._value is None:
                step = _look(self._context, text[at:], final)
                stop = at + step.plain
                out += text[max(at, given) : stop]
                self._context = (self._context + text[at:stop])[-LONGEST_OPENING:]
                self._value, self._is_weak = step.value, step.is_weak
                at = stop
                if self._value is None:
                    break
            else:
                size, is_whole = self._value.measure(text[at:], final)
                mask = self._value.mask(text[at : at + size], max(0, given - at))
                out += mask
                if mask:
                    self._context = _url(self._context) + mask
                at += size
                if not is_whole:
                    self._is_weak = True
                    break
                self._value = None
        self._held, self._given = text[at:], max(0, given - at)
        return bytes(out)


class _PlainLines:
    """The lines of a read in which nothing could be a secret: nearly all of them, so this is where the time goes."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._suspects = merge(
            (opening.start() for opening, _ in openings(data)), (shape.start() for shape in shapes(data))
        )
        self._suspect = -1

    def end(self, at: int) -> int:
        """How far the data is whole plain lines, from the start of one at `at`; which never goes back."""
        while self._suspect < at:
            self._suspect = next(self._suspects, len(self._data))
        return max(at, *(self._data.rfind(end, at, self._suspect) + 1 for end in (b"\n", b"\r")))


def _url(context: bytes) -> bytes:
    """Of what stands before a secret, what may still matter after it: in a URL it may have been the user."""
    start = context.rfind(b"://")
    return context[start:] if start >= max(0, len(context) - _LONGEST_USER) else b""


@dataclass(frozen=True)
class _Step:
    """`plain` bytes are no secret. Then `value` begins, or what has to be held."""

    plain: int
    value: _Value | None = None
    is_weak: bool = False


def _look(context: bytes, text: bytes, final: bool) -> _Step:
    """Finds the first secret in `text`, or the first thing that may be one; `context` was before it in the line."""
    window = context + text
    decided = len(context)
    undecided = len(window) if final else _undecided_word(without_codes(window), decided)
    word = window[undecided:]
    step = _Step(undecided - decided, is_weak=bool(word) and not is_suspicious(word))
    shape = _find_shape(window, decided, undecided)
    if shape is not None and shape.plain < step.plain:
        step = shape
    opened = _find_opening(window, decided, final)
    # A secret that has a name before it is longer, perhaps, than its shape says.
    if opened is not None and opened.plain <= step.plain:
        return opened
    return step


def _undecided_word(window: bytes, decided: int) -> int:
    """Where the word at the end of `window` begins, if more of it could make a secret of it; else the end."""
    start = len(window.rstrip(RUN))
    size = len(window) - start
    limit = SESSION if is_session_start(window[start : start + 4]) else SECRET_KEY + 1
    if decided <= start and size < limit:
        return start
    beginning = KEY_ID_BEGINNING.search(window, max(decided, len(window) - 20))
    return beginning.start() if beginning else len(window)


def _find_shape(window: bytes, start: int, end: int) -> _Step | None:
    for found in shapes(window):
        if not start <= found.start() < end:
            continue
        if found["secret_key"]:
            value: _Value = _Exactly(SECRET_KEY)
        else:
            value = _Value(_AFTER_SESSION if found["session"] else _AFTER_KEY_ID)
        return _Step(found.start() - start, value)
    return None


def _find_opening(window: bytes, decided: int, final: bool) -> _Step | None:
    for opening, name in openings(window):
        # What was decided before: the secret is masked, or its quotes were empty.
        if opening.end() < decided + bool(opening["quote"]):
            continue
        step = _login(window, opening, final) if opening["url"] else _value(window, opening, name, final)
        if step is not None:
            return _Step(step.plain - decided, step.value, step.is_weak)
    return None


def _login(window: bytes, opening: re.Match[bytes], final: bool) -> _Step | None:
    """The password of `https://user:password@host`; here `plain` counts in the window."""
    start = opening.end()
    found = LOGIN.match(window, start)
    login = found.group() if found else b""
    if start + len(login) == len(window) and len(login) < LONGEST_LOGIN and not final:
        return _Step(start, is_weak=_PORT.fullmatch(login) is not None) if login else None
    size = login.rfind(b"@")
    return _Step(start, _Exactly(size)) if size > 0 else None


def _value(window: bytes, opening: re.Match[bytes], name: Name | None, final: bool) -> _Step | None:
    """The value after a name or `Bearer`; here `plain` counts in the window."""
    start = opening.end()
    if opening["quote"]:
        return _Step(start, _Quoted(opening["quote"]))
    rest = window[start : start + 48]
    if not rest:
        return None
    if _VALUE_BEGINNING.fullmatch(rest) and not final:
        return _Step(start)
    to_line_end = name is not None and name.begins_line
    if (scheme := _SCHEME.match(rest)) and not to_line_end:
        start += scheme.end()
        rest = rest[scheme.end() :]
    if not rest or rest[0] in (_NO_LINE_VALUE if to_line_end else _NO_WORD):
        return None
    return _Step(start, _Value(_LINE_END) if to_line_end else _Value(_WORD_END, _CLOSERS))
