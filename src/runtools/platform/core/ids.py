"""Ids that carry their kind.

A sandbox id must also be a DNS label and an SSH user name: ``sandbox-`` and 12 lower-case letters
and digits (62 bits). All others are a three-letter kind, an underscore and 20 such characters.
"""

from __future__ import annotations

import re
import secrets
import string
from typing import Literal

Kind = Literal[
    "org",
    "prj",
    "key",
    "snp",
    "tpl",
    "bld",
    "hst",
    "req",
    "opn",
    "evt",
    "prc",
    "sec",
    "ssh",
    "aud",
    "whk",
    "dlv",
    "lse",
    "mep",
    "usr",
    "ses",
    "inv",
    "idn",
    "lgn",
    "agt",
    "tol",
    "ssb",
    "ver",
    "dep",
    "run",
    "thr",
]

_ALPHABET = string.ascii_lowercase + string.digits
_SANDBOX_ID = re.compile(r"sandbox-[a-z0-9]{12}")
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


def _letters(count: int) -> str:
    # One number for all of them, 64 bits longer than they need: none is likelier than another.
    number = secrets.randbits(6 * count + 64)
    found = []
    for _ in range(count):
        number, place = divmod(number, len(_ALPHABET))
        found.append(_ALPHABET[place])
    return "".join(found)


def new_id(kind: Kind) -> str:
    """A fresh id such as ``snp_3k9x…``."""
    return f"{kind}_{_letters(20)}"


def new_sandbox_id() -> str:
    """A fresh id such as ``sandbox-4f0c9k2m1x7q``."""
    return f"sandbox-{_letters(12)}"


def is_sandbox_id(text: str) -> bool:
    """Whether the text has the form of a sandbox id."""
    return _SANDBOX_ID.fullmatch(text) is not None


def is_name(text: str) -> bool:
    """Whether the text may name a sandbox, snapshot or template: a DNS label that is no sandbox id."""
    return _NAME.fullmatch(text) is not None and not is_sandbox_id(text)
