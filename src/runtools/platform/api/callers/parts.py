"""The platform's own parts as callers: each has a token, of which the api knows the digest alone.

`runtools up` makes a token for each part at every start and writes down who has which. Parts on other
machines have tokens that their operator made; the setting ``part_digests`` names the file of their digests.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from runtools.errors import InvalidRequest
from runtools.platform.core.access import PARTS, Caller, Part
from runtools.platform.kit import crypto
from runtools.platform.kit.config import Settings

PREFIX = "rt_part_"

_LINE = re.compile(r"([a-z]+) ([0-9a-f]{64})")


class Parts:
    """Who holds the token of a part.

    Args:
        known: a part and the digest of a token of its, any number of times.
    """

    def __init__(self, known: Sequence[tuple[Part, str]]) -> None:
        self._known = tuple(known)

    def caller(self, digest: str) -> Caller | None:
        """The part whose token has that digest. How long it takes tells nothing of those there are."""
        found: Part | None = None
        for part, kept in self._known:
            if crypto.same(kept, digest):
                found = part
        if found is None:
            return None
        return Caller("part", found, digest, None, frozenset({PARTS[found]}))


def of(settings: Settings) -> Parts:
    """The parts of this machine, and those that the settings name.

    Raises:
        InvalidRequest: the file of the setting is not there, or has not its form.
    """
    known = []
    if settings.parts_file.exists():
        known += _read(settings.parts_file)
    if settings.part_digests:
        file = Path(settings.part_digests)
        if not file.is_file():
            raise InvalidRequest(f"setting part_digests: there is no file {file}")
        known += _read(file)
    return Parts(known)


def _read(file: Path) -> list[tuple[Part, str]]:
    known = []
    for number, line in enumerate(file.read_text().splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        said = _LINE.fullmatch(line.strip())
        if said is None or said[1] not in PARTS:
            raise InvalidRequest(
                f"line {number} of {file} is no part and digest",
                hint=f"a line is one of {', '.join(PARTS)}, a space, and the SHA-256 of its token",
            )
        known.append((cast("Part", said[1]), said[2]))
    return known
