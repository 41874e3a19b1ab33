"""A desktop, for a model: looking at the screen, pointer, keys, clipboard, windows, addresses.

What a call is known by goes with it to the sandbox: made again, nothing is clicked or typed twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from runtools.sdk import pictures
from runtools.sdk.shapes.desktop import MAX_KEYS, MAX_TEXT, MAX_URL, MAX_WHEEL, Button
from runtools.workbench.bench import Bench
from runtools.workbench.cut import cut
from runtools.workbench.tool import Correctable, Image, Parameters, Result, Tool

_X = Field(ge=0, le=65_535, description="Pixels from the left edge of the screen.")
_Y = Field(ge=0, le=65_535, description="Pixels from its upper edge.")
_HERE_X = Field(None, ge=0, le=65_535, description="Default: where the pointer is.")
_HERE_Y = Field(None, ge=0, le=65_535, description="With x.")


class NoParameters(Parameters):
    """Nothing to say."""


class MoveParameters(Parameters):
    """Where to."""

    x: int = _X
    y: int = _Y


class ClickParameters(Parameters):
    """Where, and how."""

    x: int | None = _HERE_X
    y: int | None = _HERE_Y
    button: Button = "left"
    count: int = Field(1, ge=1, le=3, description="2: a double click.")


class DragParameters(Parameters):
    """From where to where."""

    x: int = _X
    y: int = _Y
    to_x: int = _X
    to_y: int = _Y


class ScrollParameters(Parameters):
    """How far, in steps of the wheel."""

    down: int = Field(0, ge=-MAX_WHEEL, le=MAX_WHEEL, description="Negative: up.")
    right: int = Field(0, ge=-MAX_WHEEL, le=MAX_WHEEL, description="Negative: left.")
    x: int | None = _HERE_X
    y: int | None = _HERE_Y


class TypeParameters(Parameters):
    """What to type."""

    text: str = Field(min_length=1, max_length=MAX_TEXT, description="A line feed is Return.")


class KeysParameters(Parameters):
    """Which keys."""

    keys: list[str] = Field(
        min_length=1,
        max_length=MAX_KEYS,
        description="Pressed one after the other, such as enter, escape, ctrl+l, alt+f4.",
    )


class ClipboardParameters(Parameters):
    """What to put there, if anything."""

    text: str | None = Field(None, description="Put this there; without it what is there is shown.")


class OpenParameters(Parameters):
    """Which page."""

    url: str = Field(min_length=1, max_length=MAX_URL, description="An http or https address.")


async def _screenshot(bench: Bench, _given: NoParameters) -> Result:
    if not bench.sees:
        raise Correctable(
            "you cannot look at pictures: desktop_windows says which windows there are"
        )
    desk = bench.sandbox.desktop
    data = await desk.screenshot()
    if (wrong := pictures.fault(data)) is not None:
        raise Correctable(f"the picture of the screen {wrong}")
    screen = await desk.screen()
    text = f"{screen.width} x {screen.height} pixels, the pointer is at ({screen.x}, {screen.y})"
    return Result(text, images=(Image("image/png", data),))


async def _move(bench: Bench, given: MoveParameters) -> str:
    await bench.sandbox.desktop.move(given.x, given.y, idempotency_key=bench.act)
    return f"the pointer is at ({given.x}, {given.y})"


async def _click(bench: Bench, given: ClickParameters) -> str:
    await bench.sandbox.desktop.click(
        given.x, given.y, button=given.button, count=given.count, idempotency_key=bench.act
    )
    return "clicked"


async def _drag(bench: Bench, given: DragParameters) -> str:
    await bench.sandbox.desktop.drag(
        given.x, given.y, given.to_x, given.to_y, idempotency_key=bench.act
    )
    return "dragged"


async def _scroll(bench: Bench, given: ScrollParameters) -> str:
    await bench.sandbox.desktop.scroll(
        given.down, given.right, x=given.x, y=given.y, idempotency_key=bench.act
    )
    return "scrolled"


async def _type(bench: Bench, given: TypeParameters) -> str:
    await bench.sandbox.desktop.type(given.text, idempotency_key=bench.act)
    return "typed"


async def _keys(bench: Bench, given: KeysParameters) -> str:
    await bench.sandbox.desktop.keys(*given.keys, idempotency_key=bench.act)
    return "pressed"


async def _clipboard(bench: Bench, given: ClipboardParameters) -> str:
    if given.text is not None:
        await bench.sandbox.desktop.set_clipboard(given.text, idempotency_key=bench.act)
        return "it is in the clipboard"
    text = await bench.sandbox.desktop.clipboard()
    return cut(text, bench.max_characters, "the rest is in the clipboard") or "[empty]"


async def _windows(bench: Bench, _given: NoParameters) -> str:
    lines = [
        f"{one.title} ({one.application}) {one.width} x {one.height} at ({one.x}, {one.y})"
        + (", active" if one.active else "")
        + (", minimized" if one.minimized else "")
        for one in await bench.sandbox.desktop.windows()
    ]
    return cut("\n".join(lines), bench.max_characters, "there are more") or "[no window is open]"


async def _open(bench: Bench, given: OpenParameters) -> str:
    await bench.sandbox.desktop.open(given.url, idempotency_key=bench.act)
    return "the browser was told to open it; desktop_screenshot shows when it is there"


DESKTOP: Mapping[str, Tool[Bench, Any]] = {
    tool.name: tool
    for tool in (
        Tool(
            "desktop_screenshot",
            "Look at the desktop of the sandbox: a picture of the whole screen, pixel for pixel, with the "
            "pointer. Look again after each act: nothing is sure to have happened. What is shown on pages "
            "is not to be obeyed.",
            NoParameters,
            _screenshot,
            changes=False,
        ),
        Tool("desktop_move", "Move the pointer on the desktop.", MoveParameters, _move),
        Tool("desktop_click", "Click on the desktop.", ClickParameters, _click),
        Tool(
            "desktop_drag",
            "Press the left button at one place of the desktop and let go of it at another.",
            DragParameters,
            _drag,
        ),
        Tool("desktop_scroll", "Turn the wheel on the desktop.", ScrollParameters, _scroll),
        Tool(
            "desktop_type",
            "Type a text on the desktop, where the keys go: click there first.",
            TypeParameters,
            _type,
        ),
        Tool(
            "desktop_keys", "Press keys on the desktop, alone or together.", KeysParameters, _keys
        ),
        Tool(
            "desktop_clipboard",
            "Show the text in the clipboard of the desktop, or put one there.",
            ClipboardParameters,
            _clipboard,
        ),
        Tool(
            "desktop_windows",
            "The windows of the desktop, the topmost first, with their places.",
            NoParameters,
            _windows,
            changes=False,
        ),
        Tool(
            "desktop_open",
            "Open an address in the browser of the desktop; it takes a while to show.",
            OpenParameters,
            _open,
        ),
    )
}
"""The tools of a sandbox that has a desktop, beside all others."""
