"""Names of keys, as people and models write them, and what X calls them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from runtools.platform.kit.http import wrong_field

MAX_HELD: Final = 6

_MODIFIERS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("ctrl", "control"), "ctrl"),
    **dict.fromkeys(("alt", "option"), "alt"),
    "shift": "shift",
    **dict.fromkeys(("super", "meta", "cmd", "command", "win"), "super"),
    "altgr": "ISO_Level3_Shift",
}
_NAMED: Final[Mapping[str, str]] = {
    **dict.fromkeys(("enter", "return"), "Return"),
    **dict.fromkeys(("escape", "esc"), "Escape"),
    **dict.fromkeys(("backspace", "back_space"), "BackSpace"),
    **dict.fromkeys(("delete", "del"), "Delete"),
    **dict.fromkeys(("insert", "ins"), "Insert"),
    **dict.fromkeys(("pageup", "page_up", "pgup", "prior"), "Page_Up"),
    **dict.fromkeys(("pagedown", "page_down", "pgdn", "next"), "Page_Down"),
    **{f"arrow{name.lower()}": name for name in ("Up", "Down", "Left", "Right")},
    **{
        name.lower(): name for name in ("Up", "Down", "Left", "Right", "Home", "End", "Tab", "Menu")
    },
    **dict.fromkeys(("print", "printscreen"), "Print"),
    **dict.fromkeys(("capslock", "caps_lock"), "Caps_Lock"),
    **dict.fromkeys(("space", "spacebar"), "space"),
    "plus": "plus",
    "minus": "minus",
    **{f"f{number}": f"F{number}" for number in range(1, 25)},
}
_NAME: Final = re.compile(r"[A-Za-z0-9_]{1,32}")


def chords(keys: list[str]) -> list[str]:
    """Each chord in the words of xdotool.

    Raises:
        InvalidRequest: the message names the first key that there is not.
    """
    return ["+".join(_chord(place, chord)) for place, chord in enumerate(keys)]


def _chord(place: int, chord: str) -> Iterator[str]:
    names = _split(chord)
    if len(names) > MAX_HELD:
        raise wrong_field(f"keys.{place}", f"more than {MAX_HELD} keys at once")
    for name in names:
        yield _key(place, name, alone=len(names) == 1)


def _split(chord: str) -> list[str]:
    """By plus signs, of which the last may be a key itself."""
    if chord == "+":
        return ["+"]
    if chord.endswith("++"):
        return [*chord[:-2].split("+"), "+"]
    return chord.split("+")


def _key(place: int, name: str, *, alone: bool) -> str:
    low = name.strip().lower() if len(name) > 1 else name
    found = _MODIFIERS.get(low) or _NAMED.get(low)
    if found is not None:
        return found
    if len(name) == 1 and name.isprintable() and not 0xD800 <= ord(name) <= 0xDFFF:
        # With others held a capital letter would mean one that is shifted: ctrl+C is what ctrl+c is.
        letter = name if alone else name.lower()
        return letter if letter.isascii() and letter.isalnum() else f"U{ord(letter):04X}"
    shown = name if _NAME.fullmatch(name) else repr(name[:40])
    raise wrong_field(
        f"keys.{place}",
        f"there is no key {shown}",
        hint="single characters, ctrl alt shift super, enter tab space escape backspace delete insert home "
        "end pageup pagedown up down left right f1 … f24 menu print; `type` takes text",
    )
