"""Names of keys, and the addresses, texts and places that a desktop takes."""

from __future__ import annotations

import pytest

from runtools.errors import InvalidRequest
from runtools.platform.api.desktop import rules
from runtools.platform.api.desktop.keys import chords


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("enter", "Return"),
        ("Return", "Return"),
        ("ESC", "Escape"),
        ("a", "a"),
        ("A", "A"),
        ("7", "7"),
        ("/", "U002F"),
        ("+", "U002B"),
        ("ctrl++", "ctrl+U002B"),
        ("ctrl+C", "ctrl+c"),
        ("Ctrl+Shift+T", "ctrl+shift+t"),
        ("cmd+space", "super+space"),
        ("F11", "F11"),
        ("PageDown", "Page_Down"),
        ("arrowleft", "Left"),
        ("é", "U00E9"),
        ("€", "U20AC"),
        ("alt", "alt"),
    ],
)
def test_keys(given: str, said: str) -> None:
    assert chords([given]) == [said]


@pytest.mark.parametrize(
    "given",
    [
        "",
        "ctrl+",
        "ctrl+nope",
        "f25",
        "\x1b",
        "\n",
        "enter enter",
        "a;reboot",
        "--window",
        "🖖🖖",
        "+a",
    ],
)
def test_what_is_no_key(given: str) -> None:
    with pytest.raises(InvalidRequest, match=r"keys\.1") as caught:
        chords(["a", given])
    assert caught.value.hint


def test_too_many_at_once() -> None:
    with pytest.raises(InvalidRequest, match="more than 6"):
        chords(["+".join("abcdefg")])


@pytest.mark.parametrize(
    "url", ["http://localhost:3000", "https://[::1]:8443/x", "HTTPS://example.org"]
)
def test_addresses(url: str) -> None:
    rules.check_url(url)


def test_half_a_character_is_no_text() -> None:
    for check in (rules.check_text, rules.clipboard_bytes):
        with pytest.raises(InvalidRequest):
            check("a\ud800b")
