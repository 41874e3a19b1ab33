"""Which recipes there are, and what may be added to a template: the same for api and host. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from runtools.sdk.shapes.sandboxes import DEFAULT_MEMORY_MB, DESKTOP_MEMORY_MB

RECIPES: Final[Mapping[str, bool]] = {
    "base-debian": True,
    "base-ubuntu": False,
    "desktop-debian": True,
    "desktop-ubuntu": False,
    "desktop-debian-kasmvnc": False,
    "desktop-ubuntu-kasmvnc": False,
}
"""Every recipe by its name, and whether its makers have seen it built and booted."""

DESKTOPS: Final = frozenset(slug for slug in RECIPES if slug.startswith("desktop-"))
"""Those whose machines have a screen."""

_MAX_LENGTH: Final = 200
# A name, and perhaps a version. A trailing minus would ask apt to *remove* the package; another
# architecture's packages are in no index of the builds.
_PACKAGE: Final = re.compile(
    r"[a-z0-9][a-z0-9+.-]*[a-z0-9+](?:=[0-9][A-Za-z0-9.+:~-]*[A-Za-z0-9])?"
)


def usual_memory_mb(recipe: str) -> int:
    """The memory of a machine of that recipe, where nobody has said another one."""
    return DESKTOP_MEMORY_MB if recipe in DESKTOPS else DEFAULT_MEMORY_MB


def no_package(names: Iterable[str]) -> tuple[int, str] | None:
    """The first that is no plain package name, with its place: apt takes some for orders or patterns."""
    for place, name in enumerate(names):
        if len(name) > _MAX_LENGTH or _PACKAGE.fullmatch(name) is None:
            return place, name
    return None
