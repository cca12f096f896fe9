"""Secrets in output and in messages, replaced before anybody can read them.

`Masker` is for a stream of bytes: a script's output, which comes in reads of any size and must not reach the disk with
a secret in it. `mask_identifiers` and `clean_message` are for a whole text: the words of AWS or of another upstream in
an error.

    masker = Masker(known_values)            # values of variables that are named like secrets
    write(masker.feed(data))                 # for each read; what could still become a secret is held
    if masker.holds: write(masker.release()) # the script has paused: a held ordinary word must not wait for ever
    write(masker.finish())

A read passes three stages, each of which knows one kind of secret (`masker.py`):

    known values ─▶ private keys over several lines ─▶ what one line gives away (`line_masker.py`)

A line gives a secret away in two ways. Either the secret has a form of its own (`AKIA…`: a *token*), or a name, a
scheme or a URL stands before it (`db_password = …`, `Bearer …`, `://user:…@`: an *opening*). Each file answers one
question:

    patterns.py      what does a secret look like? Tables; a new kind of secret is a new row, with an example
    detection.py     where in a piece of a line does a secret begin, and from where on is that still open?
    values.py        where does a secret end?
    line_masker.py   what of a line may be written now, and what is held?
    masker.py        the three stages in a row
    messages.py      whole texts

Two kinds of positions occur, and each has a type of its own, so that mypy finds a mix-up. A `TextPos` counts in the
bytes that are not decided yet: those held and those that have just come. A `WindowPos` counts in the *window*: those
bytes with the end of the decided line before them, which a rule may look back at. `LineMasker` converts between them,
in one place.

What comes out in total does not depend on how the input was cut; `tests/pipeline/masking` checks that at every split.
"""

from __future__ import annotations

from pipeline.masking.masker import Masker
from pipeline.masking.messages import clean_message, mask_identifiers
from pipeline.masking.patterns import MASK, is_secret_variable

__all__ = ["MASK", "Masker", "clean_message", "is_secret_variable", "mask_identifiers"]
