"""What a secret looks like in a line of text: behind which words it stands, and which words are one by themselves."""

from __future__ import annotations

import re
from collections.abc import Iterator
from heapq import merge

ANSI = rb"\x1b\[[0-9;]{0,16}m"
_GAP = rb"(?:[ \t]{1,32}+|" + ANSI + rb"){0,4}+"
_CLOSE = rb"(?:\\{0,3}[\"'\])]|" + ANSI + rb"){0,4}+"

OPENING = re.compile(
    rb"""(?ix)
    (?: (?P<word> pass(?:word|wd|phrase)[a-z0-9_-]{0,64}+ | keys? | secret | token | pwd | pass )
        (?: (?P<close> """
    + _CLOSE
    + rb")"
    + _GAP
    + rb"""(?P<separator> => | := | ={1,3} | : | > )"""
    + _GAP
    + rb"""
          | (?P<blank> ["']?+,?+[ \t]{1,16} | ["'], )  # as in `--password VALUE` and ['--password', 'VALUE']
        )
      | (?<![a-z0-9])(?P<bearer> bearer[ \t]{1,16} )
    ) (?P<quote> \\{0,3}["'] )?
    | (?P<url> ://[^\s/:@"'<>]{0,128}: )
    """
)
"""All that stands before a secret's first byte, or might: `Name` has the last word."""

LONGEST_OPENING = 640  # bytes, with the name

_OPENING_START = re.compile(rb"key|secret|token|pwd|pass|bearer|://")  # in lower case: this is fast, OPENING is not

_NAME_BYTES = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"
_JOINED = (b"api", b"access", b"account", b"auth", b"client", b"private", b"refresh", b"secret", b"session", b"signing")
_LINE_HEAD = re.compile(
    rb"(?:" + ANSI + rb"|[ \t+])*+(?:-[ \t]+)?"
    rb"(?:(?:export|readonly|local|set|setenv|ENV|ARG|(?:declare|typeset)(?:[ \t]+-\w+)*)[ \t]+)?(?:" + ANSI + rb")*\Z"
)
_LONGEST_HEAD = 96  # bytes


class Name:
    """The name before a separator, in `window`, a part of one line. `opening` is a match of `OPENING` with a word."""

    def __init__(self, window: bytes, opening: re.Match[bytes]) -> None:
        start = opening.start("word")
        left = window[max(0, start - 64) : start]
        self._left = left[len(left.rstrip(_NAME_BYTES)) :]
        self._begin = start - len(self._left)
        self._word = opening["word"]
        self._opening = opening
        self._window = window

    @property
    def is_flag(self) -> bool:
        return self._left.startswith(b"--")

    @property
    def is_secret(self) -> bool:
        """Whether a secret follows: the name is like `*_key`, `*_secret`, `*_token`, `*password*`, in any writing."""
        before = self._window[self._begin - 1 : self._begin] if self._begin else b""
        if self._opening["blank"] is not None:
            return self.is_flag and len(self._word) <= len(b"passphrase") and self._names_a_secret(before)
        return (self._opening["separator"] != b">" or before == b"<") and self._names_a_secret(before)

    def _names_a_secret(self, before: bytes) -> bool:
        word, left = self._word.lower(), self._left.strip(b"_-")
        if word == b"pass":  # tests_pass: 3
            return self._left[-1:] == b"_" and (self._left + self._word).isupper()
        if word == b"keys":
            return left.lower().endswith(b"api")
        if word.startswith(b"pass"):
            return True
        if not left:  # a bare key or token is anything; arn:...:secret:NAME is a name
            return (word == b"secret" and before not in (b":", b"/")) or (word == b"token" and self.is_flag)
        is_camel = self._word[:1].isupper() and not (left[-1:] + self._word[1:2]).isupper()
        return self._left[-1:] in (b"_", b"-") or is_camel or left.lower().endswith(_JOINED)

    @property
    def _is_quoted(self) -> bool:
        return b'"' in self._opening["close"] or b"'" in self._opening["close"]

    @property
    def begins_line(self) -> bool:
        """Whether it stands as in what `env`, `export -p` and YAML write: then its value may hold spaces."""
        if self.is_flag or self._begin > _LONGEST_HEAD or self._is_quoted:
            return False
        return _LINE_HEAD.match(self._window[: self._begin]) is not None


LONGEST_LOGIN = 512  # bytes of `user:password@host`
LOGIN = re.compile(rb"[^\s/\"'<>]{0,%d}" % LONGEST_LOGIN)


def openings(text: bytes) -> Iterator[tuple[re.Match[bytes], Name | None]]:
    """All places behind which a secret stands, or will if more text comes; without a name where it is a URL's login."""
    for start in _OPENING_START.finditer(text.lower()):
        opening = OPENING.match(text, start.start())
        if opening is None:
            continue
        name = Name(text, opening) if opening["word"] else None
        if name.is_secret if name else opening["bearer"] or _may_log_in(text, opening.end()):
            yield opening, name


def _may_log_in(text: bytes, at: int) -> bool:
    login = LOGIN.match(text, at)
    return login is not None and (b"@" in login.group() or login.end() == len(text))


RUN = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
"""The bytes of base64, and so of AWS's secrets. A run of them is a word here."""

SECRET_KEY = 40  # bytes of an AWS secret access key
SESSION = 64  # bytes of a word that begins as session tokens do, after which it counts as one
_SESSION_START = rb"(?:IQoJ|FwoG|FQoG|FQoD|AQoD)"
_KEY_ID_START = rb"(?:A[KSB]IA|ACCA)"

SHAPE = re.compile(
    rb"(?<![A-Za-z0-9])(?P<key_id>" + _KEY_ID_START + rb"[A-Z0-9]{16})"
    rb"|(?<![A-Za-z0-9+/])(?:(?P<session>" + _SESSION_START + rb"[A-Za-z0-9+/]{60})"
    rb"|(?P<secret_key>[A-Za-z0-9+/]{40})(?![A-Za-z0-9+/]))"
)
_TO_RUN = bytes.maketrans(RUN, b"w" * len(RUN))
_LONG_RUN = b"w" * SECRET_KEY
_RUN_END = re.compile(b"[^w]")
_KEY_ID = re.compile(rb"A[KSB]IA|ACCA")
KEY_ID_BEGINNING = re.compile(rb"(?<![A-Za-z0-9])A(?:[KSB](?:I(?:A[A-Z0-9]{0,15})?)?|C(?:C(?:A[A-Z0-9]{0,15})?)?)?\Z")
_STRONG_START = re.compile(_KEY_ID_START + rb"|" + _SESSION_START)
_DIGIT = re.compile(rb"[0-9]")
_WORDS = re.compile(rb"[A-Z]?[a-z]{4,}+")
_CODE = re.compile(rb"\x1b(?:\[[0-?]{0,16}(?:[@-~]|\Z)?)?")  # of a terminal; also one that is cut
_AMOUNTS = re.compile(rb"[0-9]+[kKMGT]?i?[Bb]?(?:/[0-9]*[kKMGT]?i?[Bb]?s?)*\Z")


def shapes(text: bytes) -> Iterator[re.Match[bytes]]:
    """All words that look like secrets, as matches of `SHAPE`."""
    text = without_codes(text)
    for start in merge(_long_words(text), (found.start() for found in _KEY_ID.finditer(text))):
        found = SHAPE.match(text, start)
        if found and (not found["secret_key"] or is_random_key(found["secret_key"])):
            yield found


def _long_words(text: bytes) -> Iterator[int]:
    runs = text.translate(_TO_RUN)
    at = 0
    while (at := runs.find(_LONG_RUN, at)) >= 0:
        yield at
        end = _RUN_END.search(runs, at)
        at = end.start() if end else len(runs)


def is_session_start(word: bytes) -> bool:
    return re.match(_SESSION_START, word) is not None


def is_random_key(word: bytes) -> bool:
    """Whether 40 bytes look drawn by lot, as a secret key does: unlike a digest, a path or a name in camel case."""
    return _has_both_cases(word) and _DIGIT.search(word) is not None and _outside_words(word) > 20


def is_suspicious(word: bytes) -> bool:
    """Whether the beginning of a word looks so much like a secret's that it is held however long it takes."""
    if _STRONG_START.match(word):
        return True
    if len(word) < 8 or _AMOUNTS.match(word) or not _has_both_cases(word):
        return False
    return _DIGIT.search(word) is not None or _outside_words(word) * 5 >= len(word) * 2


def without_codes(text: bytes) -> bytes:
    """`text` with the terminal's codes blanked, so that their last letters are not taken for a word's first."""
    return _CODE.sub(lambda code: b" " * len(code.group()), text) if b"\x1b" in text else text


def _has_both_cases(word: bytes) -> bool:
    return word != word.lower() and word != word.upper()


def _outside_words(word: bytes) -> int:
    """How many bytes are in nothing like a word: 20 or fewer in one of 500 drawn keys, more in one of 100 paths."""
    return len(_WORDS.sub(b"", word))
