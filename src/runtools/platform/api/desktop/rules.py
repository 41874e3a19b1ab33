"""What may be asked of a desktop, and what its programs say. Pure: they are a guest's and not believed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from pydantic import TypeAdapter, ValidationError

from runtools.errors import GuestMisbehaved, OffScreen, TooLarge
from runtools.platform.kit.http import wrong_field
from runtools.sdk.shapes.desktop import MAX_CLIPBOARD_BYTES, DesktopWindow, Screen

PNG: Final = b"\x89PNG\r\n\x1a\n"
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_ON_NO_KEY: Final = re.compile(r"[^\t\n\x20-\x7e]")
_GAP: Final = re.compile(r"[\x00-\x20\x7f-\x9f\ud800-\udfff]")
_SCREEN: Final = re.compile(r"(\d{1,5}) (\d{1,5})\s+X=(-?\d{1,5})\s+Y=(-?\d{1,5})\s")
_MAX_SIDE: Final = 32_767
_WINDOWS: Final = TypeAdapter(list[DesktopWindow])
_MOST_WINDOWS: Final = 200


def check_text(text: str) -> None:
    """What can be typed."""
    found = _CONTROL.search(text)
    if found is not None:
        raise wrong_field(
            "text",
            f"has the control character U+{ord(found[0]):04X} at {found.start()}",
            hint="line feeds and tabs may be typed; `keys` presses others, like escape or ctrl+c",
        )
    # Typed all the same, some of these are lost on the way: seen on a busy machine.
    other = _ON_NO_KEY.search(text)
    if other is not None:
        raise wrong_field(
            "text",
            f"has {other[0]!r} at {other.start()}, which is on no key of the desktop's keyboard",
            hint="put the text into the clipboard and press ctrl+v (ctrl+shift+v in a terminal)",
        )


def clipboard_bytes(text: str) -> bytes:
    """What goes into the clipboard.

    Raises:
        TooLarge: it is more than a clipboard takes.
    """
    if "\0" in text or re.search(r"[\ud800-\udfff]", text):
        raise wrong_field("text", "has what is no text: NUL, or half a character")
    data = text.encode()
    if len(data) > MAX_CLIPBOARD_BYTES:
        raise TooLarge(
            f"text: {len(data)} bytes, and the clipboard takes {MAX_CLIPBOARD_BYTES}",
            hint="a file takes any size",
            details={"bytes": len(data), "mostBytes": MAX_CLIPBOARD_BYTES},
        )
    return data


def check_url(url: str) -> None:
    """An address for a browser, which cannot be taken for anything else."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname)
        _ = parts.port
    except ValueError:
        good = False
    if not good or _GAP.search(url):
        raise wrong_field("url", "must be an http or https address without spaces")


def both_or_none(x: int | None, y: int | None) -> tuple[int, int] | None:
    """A place, or none."""
    if x is None and y is None:
        return None
    if x is None or y is None:
        raise wrong_field("x" if x is None else "y", "x and y go together")
    return x, y


def check_on(screen: Screen, places: Sequence[tuple[int, int]]) -> None:
    """Each place is on the screen.

    Raises:
        OffScreen: one is not.
    """
    for x, y in places:
        if not (0 <= x < screen.width and 0 <= y < screen.height):
            raise OffScreen(
                f"({x}, {y}) is not on the screen of {screen.width} x {screen.height}",
                hint=f"x from 0 to {screen.width - 1}, y from 0 to {screen.height - 1}",
                details={"x": x, "y": y, "width": screen.width, "height": screen.height},
            )


def screen_of(said: str) -> Screen:
    """What xdotool says of screen and pointer."""
    found = _SCREEN.match(said)
    if found is None or not all(0 < int(side) <= _MAX_SIDE for side in found.group(1, 2)):
        raise GuestMisbehaved("the desktop said nothing that is the size of a screen")
    width, height, x, y = (int(part) for part in found.groups())
    return Screen(width=width, height=height, x=x, y=y)


def windows_of(said: bytes) -> list[DesktopWindow]:
    """What the desktop says of its windows."""
    try:
        return _WINDOWS.validate_json(said)[:_MOST_WINDOWS]
    except ValidationError:
        raise GuestMisbehaved("the desktop said nothing that is a list of windows") from None
