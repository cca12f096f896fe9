"""What a secret looks like. A new kind of secret is a new row in one of these tables.

| table | a secret that | example |
|---|---|---|
| `TOKENS` | has a form of its own, with a prefix by which it is found | `AKIAIOSFODNN7EXAMPLE` |
| `SECRET_WORDS` | follows a name that ends with such a word | `db_password=…`, `--api-key …`, `"apiToken": …` |
| `OPENINGS` | follows something else: a scheme, a URL's user | `Bearer …`, `https://user:…@host` |
| `MESSAGE_PATTERNS` | shows in a message of AWS's; matched in whole texts only | `arn:aws:iam::…` |

An AWS secret key has a form, but no prefix: `is_random_key` decides. PEM private keys have lines of their own.
Every row has an example, which `tests/pipeline/masking/test_patterns.py` masks at every split.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

MASK: Final = b"***"

# --- tokens: secrets with a form of their own ------------------------------------------------------

BASE64: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


@dataclass(frozen=True, slots=True)
class Token:
    """One of `prefixes`, then `size` bytes of `alphabet`; from there on it is known for a secret, to its end.

    Classes of bytes are written as in a regular expression, without the brackets. The byte before the token is none of
    `not_after`; the token goes on for as long as there are bytes of `rest`.
    """

    name: str
    prefixes: tuple[bytes, ...]
    alphabet: bytes
    size: int
    not_after: bytes
    rest: bytes
    example: bytes


TOKENS: Final = (
    Token(
        name="aws_access_key_id",
        prefixes=(b"AKIA", b"ASIA", b"ABIA", b"ACCA"),
        alphabet=b"A-Z0-9",
        size=16,
        not_after=b"A-Za-z0-9",
        rest=b"A-Za-z0-9",
        example=b"AKIAIOSFODNN7EXAMPLE",
    ),
    Token(
        name="aws_session_token",
        prefixes=(b"IQoJ", b"FwoG", b"FQoG", b"FQoD", b"AQoD"),
        alphabet=b"A-Za-z0-9+/",
        size=60,
        not_after=b"A-Za-z0-9+/",
        rest=b"A-Za-z0-9+/=_%-",
        example=b"IQoJb3JpZ2luX2VjEOr" + b"Q2f9Lm0TzXw3/aB+" * 20 + b"==",
    ),
)

SECRET_KEY_SIZE: Final = 40  # bytes of an AWS secret access key, all of BASE64, with none of BASE64 around them

_DIGIT = re.compile(rb"[0-9]")
_WORDS = re.compile(rb"[A-Z]?[a-z]{4,}+")
_AMOUNTS = re.compile(rb"[0-9]+[kKMGT]?i?[Bb]?(?:/[0-9]*[kKMGT]?i?[Bb]?s?)*\Z")  # of a progress bar
_TOKEN_PREFIX = re.compile(b"|".join(prefix for token in TOKENS for prefix in token.prefixes))


def is_random_key(word: bytes) -> bool:
    """Whether 40 bytes look drawn by lot, as a secret key does: unlike a digest, a path or a name in camel case."""
    return _has_both_cases(word) and _DIGIT.search(word) is not None and _count_outside_words(word) > 20


def is_suspicious(word: bytes) -> bool:
    """Whether the beginning of a word looks so much like a secret's that it is held however long it takes."""
    if _TOKEN_PREFIX.match(word):
        return True
    if len(word) < 8 or _AMOUNTS.match(word) or not _has_both_cases(word):
        return False
    return _DIGIT.search(word) is not None or _count_outside_words(word) * 5 >= len(word) * 2


def _has_both_cases(word: bytes) -> bool:
    return word != word.lower() and word != word.upper()


def _count_outside_words(word: bytes) -> int:
    """How many bytes are in nothing like a word: 20 or fewer in one of 500 drawn keys, more in one of 100 paths."""
    return len(_WORDS.sub(b"", word))


# --- names before a separator ----------------------------------------------------------------------


@dataclass(slots=True)
class Name:
    """A name before a separator, up to and with the word that may announce a secret: `prefix` is before the word."""

    prefix: bytes
    word: bytes
    byte_before: bytes  # in the line, before the name; empty at the line's start

    @property
    def is_flag(self) -> bool:
        return self.prefix.startswith(b"--")

    @property
    def qualifier(self) -> bytes:
        return self.prefix.strip(b"_-")


_JOINED_QUALIFIERS: Final = (
    *(b"api", b"access", b"account", b"auth", b"client", b"private", b"refresh", b"secret", b"session", b"signing"),
)


def is_any(name: Name) -> bool:
    return True


def is_qualified(name: Name) -> bool:
    """`my_key`, `my-key`, `myKey`, `apikey`. A bare `key` is anything."""
    qualifier = name.qualifier
    if not qualifier:
        return False
    is_camel = name.word[:1].isupper() and not (qualifier[-1:] + name.word[1:2]).isupper()
    return name.prefix[-1:] in (b"_", b"-") or is_camel or qualifier.lower().endswith(_JOINED_QUALIFIERS)


def is_qualified_or_no_path(name: Name) -> bool:
    """`secret=…`, but not `arn:…:secret:NAME`, which is a name."""
    return is_qualified(name) if name.qualifier else name.byte_before not in (b":", b"/")


def is_qualified_or_flag(name: Name) -> bool:
    """`--token …`, but not `token=1`."""
    return is_qualified(name) if name.qualifier else name.is_flag


def is_of_api(name: Name) -> bool:
    """`api_keys`, but not `sort_keys`."""
    return name.qualifier.lower().endswith(b"api")


def is_upper_suffix(name: Name) -> bool:
    """`DB_PASS`, but not `tests_pass`."""
    return name.prefix[-1:] == b"_" and (name.prefix + name.word).isupper()


@dataclass(frozen=True, slots=True)
class SecretWord:
    """The last word of a secret's name, in lower case; in a text it may have any case.

    `announces` decides by the whole name. With `has_suffix` the name may go on: `password_file`, `passwords`.
    """

    word: bytes
    announces: Callable[[Name], bool]
    example: bytes
    has_suffix: bool = False


SECRET_WORDS: Final = (  # of two that begin alike the longer one comes first
    SecretWord(b"password", is_any, b"db_password_file: hunter2", has_suffix=True),
    SecretWord(b"passwd", is_any, b"PASSWD=hunter2", has_suffix=True),
    SecretWord(b"passphrase", is_any, b"x --key-passphrase hunter2", has_suffix=True),
    SecretWord(b"pass", is_upper_suffix, b"x DB_PASS=hunter2"),
    SecretWord(b"keys", is_of_api, b"x api_keys: hunter2"),
    SecretWord(b"key", is_qualified, b'"SigningKey": "hunter2"'),
    SecretWord(b"secret", is_qualified_or_no_path, b"x secret=hunter2"),
    SecretWord(b"token", is_qualified_or_flag, b"x --token hunter2"),
    SecretWord(b"pwd", is_qualified, b"x my-pwd=hunter2"),
)

_SECRET_VARIABLE_PARTS: Final = ("KEY", "SECRET", "TOKEN", "PASSWORD")


def is_secret_variable(name: str) -> bool:
    """Whether the value of an environment variable counts as a secret. Wider than `SECRET_WORDS`: any part will do."""
    return any(part in name.upper() for part in _SECRET_VARIABLE_PARTS)


# --- other openings --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Opening:
    """What is directly before a secret, as a regular expression that ignores case; `start` is how it begins.

    A word follows, or a value in quotes; with `is_login` a login, `password@host`.
    """

    start: bytes
    pattern: bytes
    example: bytes
    is_login: bool = False


OPENINGS: Final = (
    Opening(b"bearer", rb"(?<![a-z0-9])bearer[ \t]{1,16}", b"Authorization: Bearer hunter2"),
    Opening(b"://", rb"://[^\s/:@\"'<>]{0,128}:", b"git clone https://me:hunter2@host/x.git", is_login=True),
)

# --- private keys ----------------------------------------------------------------------------------

PEM_BEGIN: Final = re.compile(rb"-----BEGIN [A-Z0-9 ]{0,32}PRIVATE KEY(?: BLOCK)?-----")
PEM_BEGIN_WORDS: Final = b"PRIVATE KEY"  # in every PEM_BEGIN: quick to look for
PEM_END: Final = b"-----END "

# --- messages --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MessagePattern:
    """What a message must not show, and what is shown instead; `replacement` may refer to the pattern's groups."""

    name: str
    pattern: re.Pattern[str]
    replacement: str
    example: str


MESSAGE_PATTERNS: Final = (
    MessagePattern(
        "signed_url",  # it has its keys in the query
        re.compile(r"https?://[^\s\"'<>]*[?&][^\s\"'<>]*"),
        "[address]",
        "https://bucket.s3.amazonaws.com/k?X-Amz-Signature=0123abcd",
    ),
    MessagePattern(
        "identity",
        re.compile(r"\b(arn:[\w-]+:(?:iam|sts):[\w-]*:)[^\s\"',;)]*"),
        r"\1[identity]",
        "arn:aws:iam::123456789012:user/alice",
    ),
    MessagePattern("account", re.compile(r"(?<!\d)\d{12}(?!\d)"), "[account]", "account 123456789012"),
    MessagePattern(
        "key_id",
        re.compile(r"\b(?:AKIA|ASIA|ABIA|ACCA|AROA|AIDA|AGPA|ANPA)[A-Z0-9]{12,}\b"),
        "[key]",
        "AKIAIOSFODNN7EXAMPLE",
    ),
    MessagePattern("bearer", re.compile(r"(?i)\b(bearer\s+)[^\s\"',;]+"), r"\1[token]", "Bearer hunter2"),
    MessagePattern(
        "signature",
        re.compile(r"(?i)\b((?:x-amz-)?(?:security-token|signature|credential)\s*[=:]\s*)[^\s&\"',;]+"),
        r"\1[secret]",
        "X-Amz-Security-Token: hunter2",
    ),
    MessagePattern(
        "bedrock_api_key",
        re.compile(r"\b(?:ABSK|bedrock-api-key-)[A-Za-z0-9+/=_-]+"),
        "[token]",
        "bedrock-api-key-YmVkcm9jaw==",
    ),
    MessagePattern(  # how secret keys and session tokens look
        "base64",
        re.compile(r"(?<![A-Za-z0-9+/=])[A-Za-z0-9+/]{40,}={0,2}(?![A-Za-z0-9+/=])"),
        "[secret]",
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    ),
)
