"""Which recipes there are, and what may be added to a template: the same for api and host. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

RECIPES: Final[Mapping[str, bool]] = {"base-debian": True, "base-ubuntu": False}
"""Every recipe by its name, and whether its makers have seen it built and booted."""

_MAX_LENGTH: Final = 200
# A name, and perhaps a version. A trailing minus would ask apt to *remove* the package; another
# architecture's packages are in no index of the builds.
_PACKAGE: Final = re.compile(
    r"[a-z0-9][a-z0-9+.-]*[a-z0-9+](?:=[0-9][A-Za-z0-9.+:~-]*[A-Za-z0-9])?"
)


def no_package(names: Iterable[str]) -> tuple[int, str] | None:
    """The first that is no plain package name, with its place: apt takes some for orders or patterns."""
    for place, name in enumerate(names):
        if len(name) > _MAX_LENGTH or _PACKAGE.fullmatch(name) is None:
            return place, name
    return None
