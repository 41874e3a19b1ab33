"""The desktop of a sandbox, as the API shows and takes it. Places are pixels from the upper left corner."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from runtools.sdk.shapes.base import Request, Shape

PORT = 6901
"""Where the desktop's page is, behind the dev URL of that port."""
MAX_TEXT = 4000
MAX_CLIPBOARD_BYTES = 1 << 20
MAX_KEYS = 64
MAX_WHEEL = 100
MAX_URL = 4096

Button = Literal["left", "middle", "right"]
Pixel = Annotated[int, Field(ge=0, le=65_535)]


class Screen(Shape, defer_build=True):
    """The screen of a sandbox, and where its pointer is."""

    width: int
    height: int
    x: int = Field(description="the pointer's place")
    y: int
    port: int = Field(
        PORT, description="of its page; the dev URL of that port shows it in a browser"
    )


class DesktopWindow(Shape, defer_build=True):
    """A window of a desktop. What it says of itself comes from the program that opened it."""

    id: int
    title: str
    application: str
    x: int
    y: int
    width: int
    height: int
    active: bool = Field(description="whether keys go to it")
    minimized: bool


class Clipboard(Shape, defer_build=True):
    """What the clipboard holds, as text."""

    text: str = Field(repr=False)


class MoveTo(Request, defer_build=True):
    """What `POST /v1/sandboxes/{ref}/desktop/move` takes."""

    x: Pixel
    y: Pixel


class Click(Request, defer_build=True):
    """What `POST /v1/sandboxes/{ref}/desktop/click` takes."""

    x: Pixel | None = Field(None, description="default: where the pointer is")
    y: Pixel | None = None
    button: Button = "left"
    count: int = Field(1, ge=1, le=3, description="2: a double click")


class Drag(Request, defer_build=True):
    """What `POST /v1/sandboxes/{ref}/desktop/drag` takes."""

    x: Pixel
    y: Pixel
    to_x: Pixel
    to_y: Pixel
    button: Button = "left"


class Scroll(Request, defer_build=True):
    """What `POST /v1/sandboxes/{ref}/desktop/scroll` takes: steps of the wheel."""

    x: Pixel | None = Field(None, description="default: where the pointer is")
    y: Pixel | None = None
    down: int = Field(0, ge=-MAX_WHEEL, le=MAX_WHEEL, description="negative: up")
    right: int = Field(0, ge=-MAX_WHEEL, le=MAX_WHEEL, description="negative: left")


class TypeText(Request, defer_build=True):
    """What `POST /v1/sandboxes/{ref}/desktop/type` takes."""

    text: str = Field(
        min_length=1,
        max_length=MAX_TEXT,
        repr=False,
        description="what a US keyboard has; line feeds and tabs are typed as Return and Tab",
    )


class PressKeys(Request, defer_build=True):
    """What `POST /v1/sandboxes/{ref}/desktop/keys` takes."""

    keys: list[str] = Field(
        min_length=1,
        max_length=MAX_KEYS,
        description="pressed one after the other: `enter`, `a`, `ctrl+shift+t`",
    )


class ClipboardText(Request, defer_build=True):
    """What `POST /v1/sandboxes/{ref}/desktop/clipboard` takes: at most 1 MiB of UTF-8."""

    text: str = Field(repr=False)


class OpenUrl(Request, defer_build=True):
    """What `POST /v1/sandboxes/{ref}/desktop/open` takes."""

    url: str = Field(min_length=1, max_length=MAX_URL, description="http or https")
