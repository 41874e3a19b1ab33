# Generated from sdk/desktop.py by scripts/generate_sync.py: edit that, then run it.
"""The desktop of a sandbox: ``sb.desktop``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from runtools.errors import TooLarge
from runtools.sdk import wire
from runtools.sdk.shapes.desktop import Button, Clipboard, DesktopWindow, Screen
from runtools.sdk.sync.transport import Transport

MAX_PICTURE_BYTES = 64 * 1024 * 1024


class Desktop:
    """What is on a sandbox's screen, and pointer, keys and clipboard there.

    Places are pixels from the upper left corner. Everything here wakes a paused sandbox, and raises
    `NoDesktop` where the template has none and `DesktopUnavailable` where none answers.
    """

    def __init__(self, transport: Transport, sandbox: str) -> None:
        self._transport = transport
        self._path = f"{sandbox}/desktop"

    def screen(self) -> Screen:
        """The screen's size, and where the pointer is."""
        return wire.shape(Screen, (self._transport.call("GET", self._path)).data)

    def screenshot(self) -> bytes:
        """A picture of the whole screen, with the pointer in it: PNG."""
        parts: list[bytes] = []
        with self._transport.stream(f"{self._path}/screenshot") as body:
            for chunk in body.chunks():
                parts.append(chunk)
                if sum(map(len, parts)) > MAX_PICTURE_BYTES:
                    raise TooLarge("the platform sends a picture without end")
        return b"".join(parts)

    def move(self, x: int, y: int, *, idempotency_key: str | None = None) -> None:
        """Move the pointer.

        Raises:
            OffScreen: the place is not on the screen.
        """
        self._act("move", {"x": x, "y": y}, idempotency_key)

    def click(
        self,
        x: int | None = None,
        y: int | None = None,
        *,
        button: Button = "left",
        count: int = 1,
        idempotency_key: str | None = None,
    ) -> None:
        """Click, at a place or where the pointer is; ``count=2`` is a double click.

        Raises:
            OffScreen: the place is not on the screen.
        """
        body = {"x": x, "y": y, "button": button, "count": count}
        self._act("click", body, idempotency_key)

    def drag(
        self,
        x: int,
        y: int,
        to_x: int,
        to_y: int,
        *,
        button: Button = "left",
        idempotency_key: str | None = None,
    ) -> None:
        """Press a button at one place and let go of it at another.

        Raises:
            OffScreen: one of them is not on the screen.
        """
        body = {"x": x, "y": y, "toX": to_x, "toY": to_y, "button": button}
        self._act("drag", body, idempotency_key)

    def scroll(
        self,
        down: int = 0,
        right: int = 0,
        *,
        x: int | None = None,
        y: int | None = None,
        idempotency_key: str | None = None,
    ) -> None:
        """Turn the wheel by so many steps, negative for up and left, at a place or where the pointer is.

        Raises:
            OffScreen: the place is not on the screen.
        """
        body = {"x": x, "y": y, "down": down, "right": right}
        self._act("scroll", body, idempotency_key)

    def type(self, text: str, *, idempotency_key: str | None = None) -> None:
        """Type up to 4000 characters of a US keyboard where the keys go; line feeds are typed as Return.

        Raises:
            InvalidRequest: it has others. The clipboard takes any.
        """
        self._act("type", {"text": text}, idempotency_key)

    def keys(self, *keys: str, idempotency_key: str | None = None) -> None:
        """Press keys, one after the other: ``keys("ctrl+l", "enter")``.

        Raises:
            InvalidRequest: there is no key of that name.
        """
        self._act("keys", {"keys": list(keys)}, idempotency_key)

    def clipboard(self) -> str:
        """The text in the clipboard; empty where it holds none."""
        answer = self._transport.call("GET", f"{self._path}/clipboard")
        return wire.shape(Clipboard, answer.data).text

    def set_clipboard(self, text: str, *, idempotency_key: str | None = None) -> None:
        """Put a text into the clipboard.

        Raises:
            TooLarge: more than 1 MiB.
        """
        self._act("clipboard", {"text": text}, idempotency_key)

    def windows(self) -> Sequence[DesktopWindow]:
        """The windows, the topmost first."""
        answer = self._transport.call("GET", f"{self._path}/windows")
        return wire.shapes(DesktopWindow, answer.data)

    def open(self, url: str, *, idempotency_key: str | None = None) -> None:
        """Open an address in the browser, which is started for it; returns before it is to be seen."""
        self._act("open", {"url": url}, idempotency_key)

    def _act(self, what: str, body: Mapping[str, Any], key: str | None) -> None:
        self._transport.call(
            "POST", f"{self._path}/{what}", body=body, key=key, seconds=wire.ACT_SECONDS
        )
