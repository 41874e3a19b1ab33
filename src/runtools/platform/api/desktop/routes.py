"""``/v1/sandboxes/{ref}/desktop``: what is on the screen, pointer, keys, clipboard, windows."""

from __future__ import annotations

from collections.abc import AsyncIterator

from fastapi import APIRouter, Request
from starlette.responses import Response

from runtools.errors import (
    DeadlineExceeded,
    DesktopUnavailable,
    GuestMisbehaved,
    GuestUnreachable,
    HistoryChanged,
    HostUnavailable,
    IdempotencyMismatch,
    NoDesktop,
    NotFound,
    OffScreen,
    QuotaExceeded,
    SandboxPaused,
    SandboxStopped,
    TooLarge,
)
from runtools.platform.api import document
from runtools.platform.api.calls import NULL, call_of
from runtools.platform.api.desktop import service
from runtools.platform.kit.http import Stream, many, one
from runtools.sdk.shapes.desktop import (
    Click,
    Clipboard,
    ClipboardText,
    DesktopWindow,
    Drag,
    MoveTo,
    OpenUrl,
    PressKeys,
    Screen,
    Scroll,
    TypeText,
)
from runtools.sdk.shapes.events import Envelope

router = APIRouter(prefix="/v1/sandboxes/{ref}/desktop", tags=["desktop"])

_PNG = "image/png"
_LOOK = (
    *(NotFound, NoDesktop, SandboxStopped, SandboxPaused, HistoryChanged, DesktopUnavailable),
    *(HostUnavailable, GuestUnreachable, GuestMisbehaved, DeadlineExceeded, QuotaExceeded),
)
_ACT = (*_LOOK, IdempotencyMismatch)
_AT = (*_ACT, OffScreen)


@router.get("", **document.route(Envelope[Screen], *_LOOK))
async def get(request: Request, ref: str) -> Response:
    """The screen's size and where the pointer is. Wakes a paused sandbox, as all of these do."""
    call = call_of(request)
    return call.answer(one(await service.look(call, ref)))


@router.get("/screenshot", **document.route(None, *_LOOK, TooLarge, streams=_PNG))
async def screenshot(request: Request, ref: str) -> Response:
    """A picture of the whole screen, with the pointer in it."""
    call = call_of(request)
    picture = await service.screenshot(call, ref)
    headers = {
        "Content-Length": str(len(picture)),
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-store",
    }
    return Stream(_once(picture), media_type=_PNG, headers=headers)


@router.post("/move", **document.route(Envelope[None], *_AT, takes=MoveTo))
async def move(request: Request, ref: str) -> Response:
    """Move the pointer."""
    call = call_of(request)
    await service.move(call, ref, call.take(MoveTo))
    return call.answer(NULL)


@router.post("/click", **document.route(Envelope[None], *_AT, takes=Click))
async def click(request: Request, ref: str) -> Response:
    """Click, at a place or where the pointer is; `count` 2 is a double click."""
    call = call_of(request)
    await service.click(call, ref, call.take(Click))
    return call.answer(NULL)


@router.post("/drag", **document.route(Envelope[None], *_AT, takes=Drag))
async def drag(request: Request, ref: str) -> Response:
    """Press a button at one place and let go of it at another."""
    call = call_of(request)
    await service.drag(call, ref, call.take(Drag))
    return call.answer(NULL)


@router.post("/scroll", **document.route(Envelope[None], *_AT, takes=Scroll))
async def scroll(request: Request, ref: str) -> Response:
    """Turn the wheel, at a place or where the pointer is."""
    call = call_of(request)
    await service.scroll(call, ref, call.take(Scroll))
    return call.answer(NULL)


@router.post("/type", **document.route(Envelope[None], *_ACT, takes=TypeText))
async def type_(request: Request, ref: str) -> Response:
    """Type a text where the keys go."""
    call = call_of(request)
    await service.type_(call, ref, call.take(TypeText).text)
    return call.answer(NULL)


@router.post("/keys", **document.route(Envelope[None], *_ACT, takes=PressKeys))
async def press(request: Request, ref: str) -> Response:
    """Press keys, one after the other; `ctrl+shift+t` is pressed at once."""
    call = call_of(request)
    await service.press(call, ref, call.take(PressKeys).keys)
    return call.answer(NULL)


@router.get("/clipboard", **document.route(Envelope[Clipboard], *_LOOK, TooLarge))
async def clipboard(request: Request, ref: str) -> Response:
    """The text in the clipboard; empty where it holds none."""
    call = call_of(request)
    return call.answer(one(Clipboard(text=await service.clipboard(call, ref))))


@router.post("/clipboard", **document.route(Envelope[None], *_ACT, TooLarge, takes=ClipboardText))
async def fill_clipboard(request: Request, ref: str) -> Response:
    """Put a text into the clipboard."""
    call = call_of(request)
    await service.fill_clipboard(call, ref, call.take(ClipboardText).text)
    return call.answer(NULL)


@router.get("/windows", **document.route(Envelope[list[DesktopWindow]], *_LOOK))
async def windows(request: Request, ref: str) -> Response:
    """The windows, the topmost first."""
    call = call_of(request)
    return call.answer(many(await service.windows(call, ref)))


@router.post("/open", **document.route(Envelope[None], *_ACT, takes=OpenUrl))
async def open_url(request: Request, ref: str) -> Response:
    """Open an address in the browser, which is started for it; answers before it is to be seen."""
    call = call_of(request)
    await service.open_url(call, ref, call.take(OpenUrl).url)
    return call.answer(NULL)


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
