"""The tables of what a secret looks like: each row's example is masked, at every split and in a message."""

from __future__ import annotations

import pytest

from pipeline.masking import MASK, Masker, clean_message, is_secret_variable, mask_identifiers
from pipeline.masking.patterns import (
    MESSAGE_PATTERNS,
    OPENINGS,
    SECRET_WORDS,
    TOKENS,
    MessagePattern,
    Opening,
    SecretWord,
    Token,
)

SECRET = b"hunter2"  # in every example of a row that is no token


def mask(*pieces: bytes) -> bytes:
    masker = Masker()
    return b"".join(map(masker.feed, pieces)) + masker.finish()


def mask_at_every_split(text: bytes) -> set[bytes]:
    return {mask(text[:size], text[size:]) for size in range(len(text) + 1)}


@pytest.mark.parametrize("token", TOKENS, ids=lambda token: token.name)
def test_token_example_is_masked_at_every_split(token: Token) -> None:
    assert mask_at_every_split(b"x " + token.example + b".\n") == {b"x " + MASK + b".\n"}


@pytest.mark.parametrize("token", TOKENS, ids=lambda token: token.name)
@pytest.mark.parametrize("before", [b"", b"(", b"=", b"\x1b[1m"])
def test_token_is_masked_after_each_prefix_and_before_its_end(token: Token, before: bytes) -> None:
    rest = token.example[len(token.prefixes[0]) :]
    for prefix in token.prefixes:
        assert mask(before + prefix + rest + b" x") == before + MASK + b" x"


@pytest.mark.parametrize("token", TOKENS, ids=lambda token: token.name)
def test_shorter_word_than_token_is_not_masked(token: Token) -> None:
    word = token.example[: len(token.prefixes[0]) + token.size - 1]
    assert mask_at_every_split(b"x " + word + b".\n") == {b"x " + word + b".\n"}


@pytest.mark.parametrize("row", [*SECRET_WORDS, *OPENINGS], ids=lambda row: row.example.decode())
def test_opening_example_is_masked_at_every_split(row: SecretWord | Opening) -> None:
    assert mask_at_every_split(row.example + b"\n") == {row.example.replace(SECRET, MASK) + b"\n"}


def test_longer_secret_words_come_before_their_beginnings() -> None:
    words = [row.word for row in SECRET_WORDS]
    assert [(word, later) for i, word in enumerate(words) for later in words[i + 1 :] if later.startswith(word)] == []


@pytest.mark.parametrize("row", MESSAGE_PATTERNS, ids=lambda row: row.name)
def test_message_example_is_masked(row: MessagePattern) -> None:
    masked = mask_identifiers(f"it said {row.example}, twice")
    assert row.pattern.search(row.example)
    assert row.replacement.removeprefix(r"\1") in masked
    assert mask_identifiers(masked) == masked


def test_clean_message_is_one_short_line_without_the_secret() -> None:
    assert clean_message("no such key:\n  hunter2 \t!", "hunter2") == "no such key: [key] !"
    assert len(clean_message("x " * 1000)) == 500


@pytest.mark.parametrize(
    ("name", "is_secret"), [("AWS_SECRET_ACCESS_KEY", True), ("api_token", True), ("PATH", False), ("HOME", False)]
)
def test_secret_variable_is_recognised_by_name(name: str, is_secret: bool) -> None:
    assert is_secret_variable(name) is is_secret
