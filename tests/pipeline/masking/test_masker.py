"""Secrets are masked wherever the reads cut them; everything else passes unchanged and at once."""

from __future__ import annotations

import random
import string
import time
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.masking import Masker

KEY_ID = b"AKIAIOSFODNN7EXAMPLE"
SECRET_KEY = b"wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
SESSION = b"IQoJb3JpZ2luX2VjEOr" + b"Q2f9Lm0TzXw3/aB+" * 20 + b"=="
BODY = b"MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj\nMzEfYyjiWA4R4/M2bS1GB4t7NXp98C3S\n"
PASSWORD = b"hunter2-Tr0ub4dor"
PHRASE = b"correct horse; battery, staple"
KNOWN = b"known-only-by-its-value"

# Each with the secret that must not come out, and what does come out.
SECRETS = [
    (b"AWS_ACCESS_KEY_ID=" + KEY_ID + b"\n", KEY_ID, b"AWS_ACCESS_KEY_ID=***\n"),
    (b"as " + KEY_ID + b", which", KEY_ID, b"as ***, which"),
    (b"?Credential=ASIA" + KEY_ID[4:] + b"/20260101/us-east-1", KEY_ID[4:], b"?Credential=***/20260101/us-east-1"),
    (b"the key " + SECRET_KEY + b": wrong\n", SECRET_KEY, b"the key ***: wrong\n"),
    (SECRET_KEY, SECRET_KEY, b"***"),
    (b"\x1b[1m" + KEY_ID + b"\x1b[0m", KEY_ID, b"\x1b[1m***\x1b[0m"),
    (b"x=\x1b[31m" + SECRET_KEY + b"\x1b[0m", SECRET_KEY, b"x=\x1b[31m***\x1b[0m"),
    (b"aws_secret_access_key = " + SECRET_KEY + b"\n", SECRET_KEY, b"aws_secret_access_key = ***\n"),
    (b"token is " + SESSION + b" (1 h)\n", SESSION, b"token is *** (1 h)\n"),
    (b'{"SecretAccessKey": "' + PASSWORD + b'", "n": 1}', PASSWORD, b'{"SecretAccessKey": "***", "n": 1}'),
    (b'{"sessionToken":"' + PASSWORD + b'","n":1}', PASSWORD, b'{"sessionToken":"***","n":1}'),
    (b'{"log": "{\\"apiKey\\": \\"' + PASSWORD + b'\\"}"}', PASSWORD, b'{"log": "{\\"apiKey\\": \\"***\\"}"}'),
    (b'say my_password="a \\"' + PASSWORD + b'\\" b" end', PASSWORD, b'say my_password="***" end'),
    (b"say my_password='it'\\''s " + PASSWORD + b"' end", PASSWORD, b"say my_password='***' end"),
    (b"say my_password='it''s " + PASSWORD + b"' end", PASSWORD, b"say my_password='***' end"),
    (b"Authorization: bEARER " + PASSWORD + b" sent\n", PASSWORD, b"Authorization: bEARER *** sent\n"),
    (b"say api_key: Bearer " + PASSWORD + b" sent\n", PASSWORD, b"say api_key: Bearer *** sent\n"),
    (b"DB_PASSWORD=" + PHRASE + b"\nnext", PHRASE, b"DB_PASSWORD=***\nnext"),
    (b"export Db_Token=" + PHRASE + b"\r\nnext", PHRASE, b"export Db_Token=***\r\nnext"),
    (b'declare -x DB_SECRET="' + PHRASE + b'"\n', PHRASE, b'declare -x DB_SECRET="***"\n'),
    (b"+ env DB_PASS=" + PASSWORD + b" make\n", PASSWORD, b"+ env DB_PASS=*** make\n"),
    (b"  db-password: " + PASSWORD + b"\n", PASSWORD, b"  db-password: ***\n"),
    (b"\x1b[31mDB_PASSWORD\x1b[0m=\x1b[32m" + PASSWORD + b"\x1b[0m", PASSWORD, None),
    (b"x \x1b[31mdb_key\x1b[0m: " + PASSWORD + b"\x1b[0m y", PASSWORD, b"x \x1b[31mdb_key\x1b[0m: ***\x1b[0m y"),
    (b"run --password " + PASSWORD + b" --user x\n", PASSWORD, b"run --password *** --user x\n"),
    (b"run --api-key=" + PASSWORD + b" --user x\n", PASSWORD, b"run --api-key=*** --user x\n"),
    (b"['--token', '" + PASSWORD + b"', 'x']", PASSWORD, b"['--token', '***', 'x']"),
    (b"(with api_key=" + PASSWORD + b").\n", PASSWORD, b"(with api_key=***).\n"),
    (b"/?X-Amz-Security-Token=" + PASSWORD + b"&a=b", PASSWORD, b"/?X-Amz-Security-Token=***&a=b"),
    (b"<SecretAccessKey>" + PASSWORD + b"</SecretAccessKey>", PASSWORD, b"<SecretAccessKey>***</SecretAccessKey>"),
    (b"git clone https://me:" + PASSWORD + b"@host/x.git", PASSWORD, b"git clone https://me:***@host/x.git"),
    (b"redis://:p@" + PASSWORD + b"@host:6379/0\n", PASSWORD, b"redis://:***@host:6379/0\n"),
    (
        b"-----BEGIN RSA PRIVATE KEY-----\n" + BODY + b"-----END RSA PRIVATE KEY-----\nnext",
        BODY,
        b"-----BEGIN RSA PRIVATE KEY-----***-----END RSA PRIVATE KEY-----\nnext",
    ),
    (
        b'TLS_KEY="-----BEGIN PRIVATE KEY-----\n' + BODY + b'-----END PRIVATE KEY-----" x\n',
        BODY,
        b'TLS_KEY="***" x\n',
    ),
    (b"say " + KNOWN + b"s twice " + KNOWN, KNOWN, b"say ***s twice ***"),
    (b"\xff\xfe x_secret=" + PASSWORD + b" \xff\n", PASSWORD, b"\xff\xfe x_secret=*** \xff\n"),
]

PLAIN_TEXTS = [
    b"\xe2\x9c\xa8  Synthesis time: 8.33s\n\n(node:17222) Warning: NodeVersionSupportWarning: The AWS SDK (v3)\n",
    b"More information can be found at: https://a.co/c895JFp\n(Use `node --trace-warnings ...`)\n",
    b"aws-infra-forge: deploying... [1/1]\naws-infra-forge | 0/6 | 7:08:02 PM | CREATE_IN_PROGRESS      | "
    b"AWS::CloudFormation::Stack | aws-infra-forge User Initiated\n",
    b"Stack ARN:\narn:aws:cloudformation:us-east-1:123456789012:stack/aws-infra-forge/deb3d775-fa20-44c2-99b6-15da\n",
    b"arn:aws:secretsmanager:us-east-1:123456789012:secret:prod/db_password-AbCdEf\n",
    b"forge | 1/6 | AWS::SecretsManager::Secret | AWS::KMS::Key: MyKey12AB34CD\n",
    b"commit 3f786850e387550fdab836ed7e6dc881de23001b\nDigest: sha256:" + b"9f86d081884c7d65" * 4 + b"\n",
    b'"integrity": "sha512-' + b"v2kDEe57lecTulaDIuNTPy3Ry4" * 3 + b'gQFJ0yQ=="\n',
    b"PWD=/srv/app\nOLDPWD=/tmp\nmax_tokens=4096\nkey: value\ntoken=1\nmonkey=2\ntests_pass: 3\n",
    b"http://127.0.0.1:5000/x and https://user@host/ and ssh://git@github.com:22/x\n",
    b"/usr/lib/Python3/site/Packages/AwsCdk/Lib2\nHyperPodNestedStackResource1A2B3C4DE5F67\n",
    b"aws_kms_key.main: Creating...\naws_vpc.main: Still creating... [10s elapsed] [id=vpc-0ab12cd34ef567890]\n",
    b'password: {\n  "token_list": [\nsecret_key = ""\nmy_token:\n',
    b"docker login --username AWS --password-stdin 123456789012.dkr.ecr.us-east-1.amazonaws.com\n",
    b"\r[#####     ] 45% 10MiB/120MiB\r[##########] 100% 3.4 MB/s eta 0:00:01\n",
    b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n\x1b[2K\x1b[1mdone\x1b[0m \xff\xc3(\x00\n",
]


def mask(pieces: Iterable[bytes], secrets: Iterable[bytes] = (KNOWN,)) -> bytes:
    masker = Masker(secrets)
    return b"".join(map(masker.feed, pieces)) + masker.finish()


def mask_with_release(pieces: Iterable[bytes]) -> bytes:
    masker = Masker([KNOWN])
    return b"".join(masker.feed(piece) + masker.release() for piece in pieces) + masker.finish()


def iter_splits(text: bytes) -> Iterable[list[bytes]]:
    yield from ([text[:at], text[at:]] for at in range(len(text) + 1))
    yield [text[at : at + 1] for at in range(len(text))]


def longest_common_part(secret: bytes, text: bytes) -> int:
    """The length of the longest piece of `secret` that is in `text`."""
    size = 0
    for start in range(len(secret)):
        while start + size < len(secret) and secret[start : start + size + 1] in text:
            size += 1
    return size


@pytest.mark.parametrize(("text", "secret", "expected"), SECRETS)
def test_secret_is_masked_at_every_split(text: bytes, secret: bytes, expected: bytes | None) -> None:
    assert secret in text
    expected = expected or text.replace(secret, b"***")
    assert {mask(pieces) for pieces in iter_splits(text)} == {expected}


@pytest.mark.parametrize(("text", "secret", "expected"), SECRETS)
def test_release_at_every_split_shows_only_few_bytes_of_secret(
    text: bytes, secret: bytes, expected: bytes | None
) -> None:
    around = (expected or b"").replace(b"***", b"")
    for pieces in iter_splits(text):
        out = mask_with_release(pieces)
        assert longest_common_part(secret, out) <= max(15, longest_common_part(secret, around)), (pieces, out)
        assert b"***" in out


@pytest.mark.parametrize("text", PLAIN_TEXTS)
def test_plain_text_is_unchanged_at_every_split(text: bytes) -> None:
    for pieces in iter_splits(text):
        assert mask(pieces) == text
        assert mask_with_release(pieces) == text


@pytest.mark.parametrize("text", PLAIN_TEXTS)
def test_whole_plain_lines_are_not_held(text: bytes) -> None:
    masker = Masker([KNOWN])
    for line in text.splitlines(keepends=True):
        if line.endswith((b"\n", b"\r")):
            assert masker.feed(line) == line
            assert not masker.holds


@pytest.mark.parametrize(
    "drawn",
    [b"\r[####    ] 45%", b".", b"=", b"#", b"-----", b"=====>", b"\r\x1b[2K", b"\xe2\x96\x88", b"(450/1000), "],
)
def test_progress_bar_is_not_held(drawn: bytes) -> None:
    masker = Masker([KNOWN])
    for _ in range(100):
        assert masker.feed(drawn) == drawn
        assert not masker.holds


@pytest.mark.parametrize(
    "last",
    [b"line", b"Fetching", b"10", b"CloudFormation", b"\r 10MiB/120MiB", b"HyperPod", b"http://localhost:50", b"kn"],
)
def test_last_word_is_held_until_release(last: bytes) -> None:
    masker = Masker([KNOWN])
    out = masker.feed(last)
    assert masker.holds
    assert out + masker.release() == last
    assert not masker.holds
    assert masker.release() == b""
    assert masker.feed(b" done\n") == b" done\n"


@pytest.mark.parametrize("suspect", [KEY_ID[:9], SECRET_KEY[:12], SESSION[:30], KNOWN[:3], b"https://me:hunter2"])
def test_suspicious_word_is_held_through_release(suspect: bytes) -> None:
    masker = Masker([KNOWN])
    out = masker.feed(suspect)
    assert not masker.holds
    assert masker.release() == b""
    assert out + masker.feed(b" \n") == suspect + b" \n"


def test_name_is_remembered_after_release() -> None:
    assert mask_with_release([b"x DB_pass", b"word", b"=", b"hunter2"]) == b"x DB_password=***"


def test_rest_of_secret_is_masked_after_release_of_beginning() -> None:
    assert mask_with_release([b"id AK", KEY_ID[2:], b"."]) == b"id AK***."
    assert mask_with_release([b"kn", KNOWN[2:], b"."]) == b"kn***."
    assert mask_with_release([b"x a_key=abc\x1b[3", b"1mdef\x1b[0m."]) == b"x a_key=***\x1b[31m\x1b[0m."
    assert mask_with_release([b"https://u:123", b"45abc@host"]) == b"https://u:123***@host"


@pytest.mark.parametrize("before", [b"x api_key=", b"x api_key='", b"Bearer ", b"API_KEY="])
def test_secret_longer_than_held_size_is_masked_once(before: bytes) -> None:
    text = before + PASSWORD * 1000 + b"'\n"
    out = mask(text[at : at + 700] for at in range(0, len(text), 700))
    assert out.count(b"***") == 1
    assert out.startswith(before + b"***")
    assert len(out) < len(before) + 10


def test_long_known_value_is_masked_once() -> None:
    secret = bytes(ord("a") + i * i % 23 for i in range(10_000))
    text = b"[" + secret + b"]" + secret + b"\n"
    for size in (1, 700, 3000, 100_000):
        assert mask([text[at : at + size] for at in range(0, len(text), size)], [secret]) == b"[***]***\n"


def test_longest_known_value_wins() -> None:
    for pieces in iter_splits(b"abcdef abcdefgh abcdefg"):
        assert mask(pieces, [b"abcdef", b"abcdefgh", b"tiny"]) == b"*** *** ***g"


def test_private_key_without_end_does_not_swallow_log() -> None:
    text = b"-----BEGIN PRIVATE KEY-----\n" + b"line of a log\n" * 10_000
    out = mask([text])
    assert len(text) - 70_000 < len(out) < len(text)


FRAGMENTS = st.sampled_from(
    [
        b"a_key",
        b"password",
        b"=",
        b": ",
        b'"',
        b"'",
        b"\\",
        b"\\'",
        b'\\"',
        b" ",
        b"\n",
        b"\r",
        b",",
        b")",
        b"@",
        b":",
        b"Bearer ",
        b"--",
        b"https://",
        b"/",
        b"\x1b[31m",
        b"\x1b[",
        b"m",
        b"hunter2",
        b"AKIA",
        KEY_ID,
        SECRET_KEY[:17],
        SECRET_KEY,
        SESSION[:80],
        KNOWN,
        KNOWN[:4],
        b"export ",
        b"&",
        b"x",
        b"A1b",
        b"<",
        b">",
        b"=>",
        b"{",
        b"'\\''",
        b"-----BEGIN PRIVATE KEY-----",
        b"-----END ",
        b"-",
        b"basic ",
        b"\t",
        b"secret",
        b"Token",
        b"\xff",
        b"***",
    ]
)
TEXTS = st.one_of(st.binary(max_size=200), st.lists(FRAGMENTS, max_size=30).map(b"".join))


def cut_at(text: bytes, places: Iterable[int]) -> list[bytes]:
    ends = sorted({place % (len(text) + 1) for place in places} | {0, len(text)})
    return [text[start:end] for start, end in pairwise(ends)]


def test_nearly_all_random_keys_are_masked() -> None:
    """One in 900 has no digit, and so looks like a name."""
    draw = random.Random(1)  # noqa: S311 - no key that opens anything
    alphabet = string.ascii_letters + string.digits + "+/"
    keys = ["".join(draw.choices(alphabet, k=40)).encode() for _ in range(2000)]
    assert sum(mask([b"key ", key, b"."]) != b"key ***." for key in keys) < 10
    assert sum(longest_common_part(key, mask_with_release([key[:16], key[16:]])) > 15 for key in keys) < 20


@settings(deadline=None)  # other processes may slow one example down
@given(TEXTS, st.lists(st.integers(min_value=0), max_size=10))
def test_cuts_do_not_change_output(text: bytes, places: list[int]) -> None:
    whole = mask([text])
    assert mask(cut_at(text, places)) == whole
    assert mask([text[at : at + 1] for at in range(len(text))]) == whole


@settings(deadline=None)  # other processes may slow one example down
@given(TEXTS, st.lists(st.integers(min_value=0), max_size=10))
def test_release_loses_nothing_but_secrets(text: bytes, places: list[int]) -> None:
    out = mask_with_release(cut_at(text, places))
    rest = iter(text.replace(b"***", b""))
    assert all(byte in rest for byte in out.replace(b"***", b""))


@settings(deadline=None)  # other processes may slow one example down
@given(TEXTS, st.sampled_from([b"", b"a" * 5000, b"x a_key=" + b")" * 5000, b"://u:" + b"p" * 5000, b" " * 5000]))
def test_at_most_4_kb_is_held(text: bytes, more: bytes) -> None:
    masker = Masker([KNOWN])
    masker.feed(text + more)
    assert len(masker.finish()) <= 4096


@pytest.mark.parametrize(
    "text",
    [
        b"a_key",
        b"a",
        b"x a_key=1 ",
        b"password",
        b"AKIA",
        b"://u:",
        b"\\",
        b'"',
        b"\x1b[",
        b" ",
        b"A1b/",
        b"-----BEGIN ",
    ],
)
def test_hostile_text_takes_linear_time(text: bytes) -> None:
    def seconds(size: int) -> float:
        data = b"x my_key " + text * (size // len(text))
        best = float("inf")
        for _ in range(3):
            start = time.process_time()
            mask([data])
            best = min(best, time.process_time() - start)
        return best

    assert seconds(80_000) < 16 * seconds(10_000) + 0.02
