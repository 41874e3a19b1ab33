"""The tokens by which parts of the platform prove to the api who they are.

``HOME/run/<part>.token`` is readable by the user that the part runs as; their digests, in
``HOME/run/parts``, by the api.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from runtools.errors import InvalidRequest, Unavailable
from runtools.platform.api.callers.parts import PREFIX
from runtools.platform.boot.people import Person
from runtools.platform.core.access import Part
from runtools.platform.kit import crypto
from runtools.platform.kit.config import Settings
from runtools.platform.kit.files import write_atomic

_LEAST = 40


def make(settings: Settings, parts: Mapping[Part, Person], api: Person) -> None:
    """Give each part a fresh token. Those of an earlier start open nothing once the api has started."""
    lines = []
    for part, person in parts.items():
        token = crypto.new_secret(PREFIX)
        _give(settings.token_file(part), token, person)
        lines.append(f"{part} {crypto.digest(token)}\n")
    _give(settings.parts_file, "".join(lines), api)


def token(settings: Settings, part: Part) -> str:
    """The token of a part, for the process that is that part.

    Raises:
        Unavailable: there is none here.
        InvalidRequest: what lies there is none.
    """
    file = settings.token_file(part)
    try:
        found = file.read_text().strip()
    except FileNotFoundError:
        raise Unavailable(
            f"the part {part} has no token: there is no {file}",
            hint="`runtools up` makes one; on another machine the setting part_token_file names it",
        ) from None
    if not found.startswith(PREFIX) or len(found) < _LEAST:
        raise InvalidRequest(
            f"{file} holds no token of a part", hint=f"one begins with {PREFIX}: docs/security.md"
        )
    return found


def _give(file: Path, text: str, person: Person) -> None:
    write_atomic(file, text.encode(), mode=0o600, durable=False)
    os.chown(file, person.uid, person.gid)
