"""Where in a piece of a line a secret begins, by the tables of `patterns.py`, and from where on that is still open."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NewType

from pipeline.masking.patterns import (
    BASE64,
    OPENINGS,
    SECRET_KEY_SIZE,
    SECRET_WORDS,
    TOKENS,
    Name,
    SecretWord,
    Token,
    is_random_key,
    is_suspicious,
)
from pipeline.masking.values import (
    ANSI,
    LINE_END,
    UNQUOTED_CLOSERS,
    UNQUOTED_END,
    FixedSizeValue,
    QuotedValue,
    SecretValue,
    UnquotedValue,
)

WindowPos = NewType("WindowPos", int)
"""An offset into the window: the end of the decided line, and then what is not decided yet."""

CONTEXT_SIZE: Final = 640  # bytes of the decided line that a window begins with: the longest opening, with its name

# --- tokens ----------------------------------------------------------------------------------------

_CONTROL_SEQUENCE = re.compile(rb"\x1b(?:\[[0-?]{0,16}(?:[@-~]|\Z)?)?")  # of a terminal; also one that is cut


def blank_control_sequences(text: bytes) -> bytes:
    """`text`, equally long, without the terminal's: their last letters must not be taken for a word's first."""
    return _CONTROL_SEQUENCE.sub(lambda match: b" " * len(match.group()), text) if b"\x1b" in text else text


def _token_pattern(token: Token) -> bytes:
    prefixes = b"|".join(map(re.escape, token.prefixes))
    return rb"(?<![%b])(?P<%b>(?:%b)[%b]{%d})" % (
        token.not_after,
        token.name.encode(),
        prefixes,
        token.alphabet,
        token.size,
    )


def _token_beginnings(token: Token) -> Iterator[bytes]:
    """For each prefix, what matches any beginning of the token, and not the whole of it."""
    for prefix in token.prefixes:
        pattern = rb"[%b]{0,%d}" % (token.alphabet, token.size - 1)
        for byte in reversed(prefix[1:]):
            pattern = rb"(?:%b%b)?" % (re.escape(bytes((byte,))), pattern)
        first = re.escape(prefix[:1])  # before the guard: the search skips to it, which is fast
        yield rb"%b(?<![%b]%b)%b" % (first, token.not_after, first, pattern)


def _is_run(token: Token) -> bool:
    """Whether every such token is a long run of BASE64 from its first byte on, and so needs no search of its own."""
    alphabet, not_after = (re.compile(rb"[%b]" % of) for of in (token.alphabet, token.not_after))
    others = bytes(set(range(256)) - set(BASE64))
    return (
        not alphabet.search(others)
        and len(not_after.findall(BASE64)) == len(BASE64)
        and min(map(len, token.prefixes)) + token.size >= SECRET_KEY_SIZE
    )


def _prefix_searches() -> Iterator[re.Pattern[bytes]]:
    """One for each first byte: skipping to one byte is much faster than skipping to any of several."""
    prefixes = [prefix for token in TOKENS if not _is_run(token) for prefix in token.prefixes]
    for first in sorted({prefix[:1] for prefix in prefixes}):
        yield re.compile(b"|".join(re.escape(prefix) for prefix in prefixes if prefix.startswith(first)))


_PREFIX_SEARCHES = tuple(_prefix_searches())
_TOKEN = re.compile(
    b"|".join(
        (
            *map(_token_pattern, TOKENS),
            rb"(?<![A-Za-z0-9+/])(?P<secret_key>[A-Za-z0-9+/]{%d})(?![A-Za-z0-9+/])" % SECRET_KEY_SIZE,
        )
    )
)
_TOKEN_BEGINNING = re.compile(
    rb"(?:%b)\Z" % b"|".join(beginning for token in TOKENS for beginning in _token_beginnings(token))
)
_LONGEST_BEGINNING = max(len(prefix) + token.size - 1 for token in TOKENS for prefix in token.prefixes)
_TOKEN_ENDS = {token.name: re.compile(rb"[^%b]" % token.rest) for token in TOKENS}

_TO_RUN = bytes.maketrans(BASE64, b"w" * len(BASE64))
_LONG_RUN = b"w" * SECRET_KEY_SIZE
_RUN_END = re.compile(b"[^w]")


def find_tokens(text: bytes) -> Iterator[re.Match[bytes]]:
    """All tokens and secret keys, in their order; the name of the group is the token's, or `secret_key`."""
    text = blank_control_sequences(text)
    starts = [*_find_long_runs(text)]
    for search in _PREFIX_SEARCHES:
        starts += [prefix.start() for prefix in search.finditer(text)]
    for start in sorted(starts):
        token = _TOKEN.match(text, start)
        if token and (token.lastgroup != "secret_key" or is_random_key(token.group())):
            yield token


def _find_long_runs(text: bytes) -> Iterator[int]:
    runs = text.translate(_TO_RUN)
    start = 0
    while (start := runs.find(_LONG_RUN, start)) >= 0:
        yield start
        end = _RUN_END.search(runs, start)
        start = end.start() if end else len(runs)


# --- openings --------------------------------------------------------------------------------------

_GAP = rb"(?:[ \t]{1,32}+|" + ANSI + rb"){0,4}+"
_NAME_CLOSE = rb"(?:\\{0,3}[\"'\])]|" + ANSI + rb"){0,4}+"
_WORD = b"|".join(word.word + rb"[a-z0-9_-]{0,64}+" * word.has_suffix for word in SECRET_WORDS)
_SCHEMES = b"|".join(opening.pattern for opening in OPENINGS if not opening.is_login)
_LOGINS = b"|".join(opening.pattern for opening in OPENINGS if opening.is_login)
OPENING: Final = re.compile(
    rb"""(?ix)
    (?: (?P<word> """
    + _WORD
    + rb""" )
        (?: (?P<close> """
    + _NAME_CLOSE
    + rb")"
    + _GAP
    + rb"""(?P<separator> => | := | ={1,3} | : | > )"""
    + _GAP
    + rb"""
          | (?P<blank> ["']?+,?+[ \t]{1,16} | ["'], )  # as in `--password VALUE` and ['--password', 'VALUE']
        )
      | """
    + _SCHEMES
    + rb"""
    ) (?P<quote> \\{0,3}["'] )?
    | (?P<login> """
    + _LOGINS
    + rb""" )
    """
)
"""All that is before a secret's first byte, or might be: the name's `SecretWord` has the last word."""

_STARTS = {opening.start for opening in OPENINGS} | {word.word for word in SECRET_WORDS}
_OPENING_START = re.compile(  # in lower case: this is fast, OPENING is not
    b"|".join(sorted(re.escape(start) for start in _STARTS if not start.startswith(tuple(_STARTS - {start}))))
)

_NAME_BYTES: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"
_MAX_PREFIX: Final = 64  # bytes of a name before its word
_MAX_FLAG_WORD: Final = len(b"passphrase")  # `--password-stdin` has no value
_LINE_HEAD = re.compile(
    rb"(?:" + ANSI + rb"|[ \t+])*+(?:-[ \t]+)?"
    rb"(?:(?:export|readonly|local|set|setenv|ENV|ARG|(?:declare|typeset)(?:[ \t]+-\w+)*)[ \t]+)?(?:" + ANSI + rb")*\Z"
)
_MAX_LINE_HEAD: Final = 96  # bytes


@dataclass(slots=True)
class NamedOpening:
    """A match of OPENING that has a word, with the name that ends with it, which begins at `start` of `window`."""

    window: bytes
    match: re.Match[bytes]
    start: int
    name: Name

    @classmethod
    def read(cls, window: bytes, match: re.Match[bytes]) -> NamedOpening:
        end = match.start("word")
        before = window[max(0, end - _MAX_PREFIX) : end]
        prefix = before[len(before.rstrip(_NAME_BYTES)) :]
        start = end - len(prefix)
        return cls(window, match, start, Name(prefix, match["word"], window[start - 1 : start] if start else b""))

    def announces_secret(self) -> bool:
        name, match = self.name, self.match
        if match["blank"] is not None:
            is_possible = name.is_flag and len(name.word) <= _MAX_FLAG_WORD
        else:
            is_possible = match["separator"] != b">" or name.byte_before == b"<"
        return is_possible and _secret_word(name.word).announces(name)

    def begins_line(self) -> bool:
        """Whether it is as in what `env`, `export -p` and YAML write: then its value may hold spaces."""
        if self.name.is_flag or self.start > _MAX_LINE_HEAD:
            return False
        if b'"' in self.match["close"] or b"'" in self.match["close"]:
            return False
        return _LINE_HEAD.match(self.window[: self.start]) is not None


_ROWS = {row.word: row for row in SECRET_WORDS}


def _secret_word(word: bytes) -> SecretWord:
    word = word.lower()
    return _ROWS.get(word) or next(row for row in SECRET_WORDS if word.startswith(row.word))


_MAX_LOGIN: Final = 512  # bytes of `password@host`
_LOGIN = re.compile(rb"[^\s/\"'<>]{0,%d}" % _MAX_LOGIN)
_PORT = re.compile(rb"[0-9]{0,5}")


def find_openings(text: bytes) -> Iterator[tuple[re.Match[bytes], NamedOpening | None]]:
    """All places behind which a secret follows, or will if more text comes; without a name for `OPENINGS`."""
    for start in _OPENING_START.finditer(text.lower()):
        match = OPENING.match(text, start.start())
        if match is None:
            continue
        if match["word"]:
            opening = NamedOpening.read(text, match)
            if opening.announces_secret():
                yield match, opening
        elif match["login"] is None or _may_be_login(text, match.end()):
            yield match, None


def _may_be_login(text: bytes, start: int) -> bool:
    login = _LOGIN.match(text, start)
    return login is not None and (b"@" in login.group() or login.end() == len(text))


# --- the first of both -----------------------------------------------------------------------------


@dataclass(slots=True)
class Detection:
    """Bytes before `start` are no secret. There `value` begins, or, without one, what has to be held.

    `is_weak`: what is held is no more than an ordinary word.
    """

    start: WindowPos
    value: SecretValue | None = None
    is_weak: bool = False


def detect(window: bytes, decided: WindowPos, final: bool) -> Detection:
    """The first secret after `decided`, or the first thing that may be one; `final`: the output ends with the window.

    What is before `decided` is out already, and only tells what follows.
    """
    undecided = WindowPos(len(window)) if final else _find_undecided_word(blank_control_sequences(window), decided)
    word = window[undecided:]
    first = Detection(undecided, is_weak=bool(word) and not is_suspicious(word))
    token = _detect_token(window, decided, undecided)
    if token is not None and token.start < first.start:
        first = token
    opened = _detect_opened(window, decided, final)
    # A secret that has a name before it is longer, perhaps, than its form says.
    if opened is not None and opened.start <= first.start:
        return opened
    return first


_LINE_ENDS: Final = (b"\n", b"\r")


def _find_undecided_word(window: bytes, decided: WindowPos) -> WindowPos:
    """Where the word at the window's end begins, if more of it could make a secret of it; else the end."""
    end = len(window)
    run = len(window.rstrip(BASE64))
    could_be_secret_key = decided <= run and end - run <= SECRET_KEY_SIZE
    word = run if could_be_secret_key else end
    if window[-1:] in _LINE_ENDS:
        return WindowPos(word)
    beginning = _TOKEN_BEGINNING.search(window, max(decided, end - _LONGEST_BEGINNING), end)
    return WindowPos(min(word, beginning.start()) if beginning else word)


def _detect_token(window: bytes, start: WindowPos, end: WindowPos) -> Detection | None:
    for token in find_tokens(window):
        if start <= token.start() < end:
            token_end = _TOKEN_ENDS.get(token.lastgroup or "")
            value = FixedSizeValue(len(token.group())) if token_end is None else SecretValue(token_end)
            return Detection(WindowPos(token.start()), value)
    return None


def _detect_opened(window: bytes, decided: WindowPos, final: bool) -> Detection | None:
    for match, opening in find_openings(window):
        # What was decided before: the secret is masked, or its quotes were empty.
        if match.end() < decided + bool(match["quote"]):
            continue
        if match["login"]:
            detection = _detect_login(window, match, final)
        else:
            detection = _detect_value(window, match, opening, final)
        if detection is not None:
            return detection
    return None


def _detect_login(window: bytes, match: re.Match[bytes], final: bool) -> Detection | None:
    """The password of `https://user:password@host`, which goes to the last `@`."""
    start = WindowPos(match.end())
    login_match = _LOGIN.match(window, start)
    login = login_match.group() if login_match else b""
    if start + len(login) == len(window) and len(login) < _MAX_LOGIN and not final:
        return Detection(start, is_weak=_PORT.fullmatch(login) is not None) if login else None
    size = login.rfind(b"@")
    return Detection(start, FixedSizeValue(size)) if size > 0 else None


_SCHEME = re.compile(rb"(?:bearer|basic)[ \t]{1,16}", re.IGNORECASE)
# What may be before a value, cut so that nobody can say whether it is.
_CUT_SCHEME = re.compile(
    rb"\\{1,3}|\x1b(?:\[[0-9;]{0,16})?|b(?:e(?:a(?:r(?:er?)?)?)?)?|ba(?:s(?:ic?)?)?|(?:bearer|basic)[ \t]{0,16}",
    re.IGNORECASE,
)
_NO_LINE_VALUE: Final = b"\x1b {[\t\r\n"
_NO_UNQUOTED_VALUE: Final = _NO_LINE_VALUE + UNQUOTED_CLOSERS + b'\x0b\x0c"&<'


def _detect_value(window: bytes, match: re.Match[bytes], opening: NamedOpening | None, final: bool) -> Detection | None:
    """The value after a name or `Bearer`."""
    start = match.end()
    if match["quote"]:
        return Detection(WindowPos(start), QuotedValue(match["quote"]))
    rest = window[start : start + 48]
    if not rest:
        return None
    if _CUT_SCHEME.fullmatch(rest) and not final:
        return Detection(WindowPos(start))
    goes_to_line_end = opening is not None and opening.begins_line()
    if (scheme := _SCHEME.match(rest)) and not goes_to_line_end:
        start += scheme.end()
        rest = rest[scheme.end() :]
    if not rest or rest[0] in (_NO_LINE_VALUE if goes_to_line_end else _NO_UNQUOTED_VALUE):
        return None
    return Detection(WindowPos(start), SecretValue(LINE_END) if goes_to_line_end else UnquotedValue(UNQUOTED_END))
