"""The desktop of a sandbox: ``sb.desktop``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from runtools.errors import TooLarge
from runtools.sdk import wire
from runtools.sdk.shapes.desktop import Button, Clipboard, DesktopWindow, Screen
from runtools.sdk.transport import AsyncTransport

MAX_PICTURE_BYTES = 64 * 1024 * 1024


class AsyncDesktop:
    """What is on a sandbox's screen, and pointer, keys and clipboard there.

    Places are pixels from the upper left corner. Everything here wakes a paused sandbox, and raises
    `NoDesktop` where the template has none and `DesktopUnavailable` where none answers.
    """

    def __init__(self, transport: AsyncTransport, sandbox: str) -> None:
        self._transport = transport
        self._path = f"{sandbox}/desktop"

    async def screen(self) -> Screen:
        """The screen's size, and where the pointer is."""
        return wire.shape(Screen, (await self._transport.call("GET", self._path)).data)

    async def screenshot(self) -> bytes:
        """A picture of the whole screen, with the pointer in it: PNG."""
        parts: list[bytes] = []
        async with self._transport.stream(f"{self._path}/screenshot") as body:
            async for chunk in body.chunks():
                parts.append(chunk)
                if sum(map(len, parts)) > MAX_PICTURE_BYTES:
                    raise TooLarge("the platform sends a picture without end")
        return b"".join(parts)

    async def move(self, x: int, y: int, *, idempotency_key: str | None = None) -> None:
        """Move the pointer.

        Raises:
            OffScreen: the place is not on the screen.
        """
        await self._act("move", {"x": x, "y": y}, idempotency_key)

    async def click(
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
        await self._act("click", body, idempotency_key)

    async def drag(
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
        await self._act("drag", body, idempotency_key)

    async def scroll(
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
        await self._act("scroll", body, idempotency_key)

    async def type(self, text: str, *, idempotency_key: str | None = None) -> None:
        """Type up to 4000 characters of a US keyboard where the keys go; line feeds are typed as Return.

        Raises:
            InvalidRequest: it has others. The clipboard takes any.
        """
        await self._act("type", {"text": text}, idempotency_key)

    async def keys(self, *keys: str, idempotency_key: str | None = None) -> None:
        """Press keys, one after the other: ``keys("ctrl+l", "enter")``.

        Raises:
            InvalidRequest: there is no key of that name.
        """
        await self._act("keys", {"keys": list(keys)}, idempotency_key)

    async def clipboard(self) -> str:
        """The text in the clipboard; empty where it holds none."""
        answer = await self._transport.call("GET", f"{self._path}/clipboard")
        return wire.shape(Clipboard, answer.data).text

    async def set_clipboard(self, text: str, *, idempotency_key: str | None = None) -> None:
        """Put a text into the clipboard.

        Raises:
            TooLarge: more than 1 MiB.
        """
        await self._act("clipboard", {"text": text}, idempotency_key)

    async def windows(self) -> Sequence[DesktopWindow]:
        """The windows, the topmost first."""
        answer = await self._transport.call("GET", f"{self._path}/windows")
        return wire.shapes(DesktopWindow, answer.data)

    async def open(self, url: str, *, idempotency_key: str | None = None) -> None:
        """Open an address in the browser, which is started for it; returns before it is to be seen."""
        await self._act("open", {"url": url}, idempotency_key)

    async def _act(self, what: str, body: Mapping[str, Any], key: str | None) -> None:
        await self._transport.call(
            "POST", f"{self._path}/{what}", body=body, key=key, seconds=wire.ACT_SECONDS
        )
