"""What is done on a desktop: programs of its own, run as its user by the way that all commands go.

Each act looks at the screen first, so that nothing is begun where there is none, and is then one command
under the id of the act: a repeat is answered by the sandbox, and nothing is clicked or typed twice.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from runtools.errors import (
    DeadlineExceeded,
    DesktopUnavailable,
    FileMissing,
    GuestMisbehaved,
    InvalidRequest,
    NoDesktop,
    ProcessEnded,
    TooLarge,
)
from runtools.platform.api.calls import Call
from runtools.platform.api.desktop import keys, rules
from runtools.platform.api.sandboxes import inside
from runtools.platform.api.sandboxes.load import load
from runtools.platform.api.templates import store as templates
from runtools.platform.core.ids import new_id
from runtools.platform.core.ports.host import Host
from runtools.platform.core.recipes import DESKTOPS
from runtools.sdk.shapes.desktop import (
    MAX_CLIPBOARD_BYTES,
    Button,
    Click,
    DesktopWindow,
    Drag,
    MoveTo,
    Screen,
    Scroll,
)
from runtools.sdk.shapes.inside import MAX_OUTPUT_BYTES, ExecRequest, ExecResult

USER: Final = "desktop"
ENVIRONMENT: Final[Mapping[str, str]] = {
    "DISPLAY": ":1",
    "XDG_RUNTIME_DIR": "/run/desktop",
    "DBUS_SESSION_BUS_ADDRESS": "unix:path=/run/desktop/bus",
}
_WINDOWS: Final = "/usr/lib/runtools-desktop/windows"
_BUTTONS: Final[Mapping[Button, str]] = {"left": "1", "middle": "2", "right": "3"}
_UP, _DOWN, _LEFT, _RIGHT = "4", "5", "6", "7"  # what X calls the wheel's directions
_SECONDS: Final = 30.0
_SECONDS_A_LETTER: Final = 0.04
_LITTLE: Final = 65_536
_NOTHING_HELD: Final = re.compile(r"target \S+ not available", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Place:
    """A desktop that is there: its host, its sandbox, and what this request is known by."""

    host: Host
    sandbox_id: str
    op: str


async def enter(call: Call, ref: str) -> Place:
    """The desktop of a sandbox, which is woken for it.

    Raises:
        NoDesktop: the sandbox's template has none.
    """
    record = await load(call.platform, call.org, ref)
    version = await call.platform.db.read(templates.get, record.template_id)
    if version is None or version.recipe not in DESKTOPS:
        raise NoDesktop(
            f"{record.id} is made from {record.template}, which has no desktop",
            hint="runtools sandbox create --template desktop-debian makes one that has",
        )
    host, sandbox_id = await inside.enter(call, ref)
    return Place(host, sandbox_id, call.op)


async def look(call: Call, ref: str) -> Screen:
    """The screen's size, and where the pointer is."""
    return await _screen(await enter(call, ref))


async def screenshot(call: Call, ref: str) -> bytes:
    """A picture of the whole screen, with the pointer in it: PNG."""
    place = await enter(call, ref)
    await _screen(place)
    command = ["scrot", "--pointer", "--silent", "-"]
    # It opens its output by name, which a pipe that root has made lets nobody else do.
    done = await _exec(place, command, keep=MAX_OUTPUT_BYTES, user="root")
    _check(command, done)
    if done.truncated:
        raise TooLarge(
            f"the picture has more than {MAX_OUTPUT_BYTES} bytes",
            hint="a smaller screen makes smaller pictures: `xrandr` in the sandbox",
        )
    if not done.stdout_bytes.startswith(rules.PNG):
        raise GuestMisbehaved("the desktop gave something that is no picture")
    return done.stdout_bytes


async def move(call: Call, ref: str, wanted: MoveTo) -> None:
    """Move the pointer."""
    await _act(call, ref, ["xdotool", *_to(wanted.x, wanted.y)], [(wanted.x, wanted.y)])


async def click(call: Call, ref: str, wanted: Click) -> None:
    """Click, there or where the pointer is."""
    at = rules.both_or_none(wanted.x, wanted.y)
    how = ["click", "--repeat", str(wanted.count), "--delay", "60", _BUTTONS[wanted.button]]
    await _act(call, ref, ["xdotool", *(_to(*at) if at else ()), *how], [at] if at else [])


async def drag(call: Call, ref: str, wanted: Drag) -> None:
    """Press a button at one place and let go of it at another, with steps between as a hand makes them."""
    button = _BUTTONS[wanted.button]
    middle = ((wanted.x + wanted.to_x) // 2, (wanted.y + wanted.to_y) // 2)
    words = [*_to(wanted.x, wanted.y), "mousedown", button, "sleep", "0.1"]
    words += [*_to(*middle), "sleep", "0.1", *_to(wanted.to_x, wanted.to_y), "sleep", "0.1"]
    words += ["mouseup", button]
    places = [(wanted.x, wanted.y), (wanted.to_x, wanted.to_y)]
    await _act(call, ref, ["xdotool", *words], places)


async def scroll(call: Call, ref: str, wanted: Scroll) -> None:
    """Turn the wheel."""
    at = rules.both_or_none(wanted.x, wanted.y)
    words = list(_to(*at)) if at else []
    turns = (
        (wanted.down, _DOWN),
        (-wanted.down, _UP),
        (wanted.right, _RIGHT),
        (-wanted.right, _LEFT),
    )
    for steps, button in turns:
        if steps > 0:
            words += ["click", "--repeat", str(steps), "--delay", "20", button]
    if words:
        await _act(call, ref, ["xdotool", *words], [at] if at else [])


async def type_(call: Call, ref: str, text: str) -> None:
    """Type a text where the keys go. It is in no list of processes."""
    rules.check_text(text)
    seconds = _SECONDS + _SECONDS_A_LETTER * len(text)
    command = ["xdotool", "type", "--delay", "8", "--file", "-"]
    await _act(call, ref, command, stdin=text.encode(), seconds=seconds)


async def press(call: Call, ref: str, wanted: Sequence[str]) -> None:
    """Press keys, one chord after the other."""
    chords = keys.chords(list(wanted))
    await _act(call, ref, ["xdotool", "key", "--delay", "20", *chords])


async def clipboard(call: Call, ref: str) -> str:
    """The text in the clipboard; empty where it holds none."""
    place = await enter(call, ref)
    await _screen(place)
    command = ["xclip", "-selection", "clipboard", "-out", "-target", "UTF8_STRING"]
    done = await _exec(place, command, keep=MAX_CLIPBOARD_BYTES)
    if done.exit_code != 0 and _NOTHING_HELD.search(_text(done.stderr_bytes)):
        return ""
    _check(command, done)
    if done.truncated:
        raise TooLarge(f"the clipboard holds more than {MAX_CLIPBOARD_BYTES} bytes")
    return _text(done.stdout_bytes)


async def fill_clipboard(call: Call, ref: str, text: str) -> None:
    """Put a text into the clipboard."""
    data = rules.clipboard_bytes(text)
    await _act(call, ref, ["xclip", "-selection", "clipboard", "-in"], stdin=data)


async def windows(call: Call, ref: str) -> list[DesktopWindow]:
    """The windows, the topmost first."""
    place = await enter(call, ref)
    await _screen(place)
    done = await _run(place, [_WINDOWS], keep=MAX_CLIPBOARD_BYTES)
    return rules.windows_of(done.stdout_bytes)


async def open_url(call: Call, ref: str, url: str) -> None:
    """Open an address in the browser, which is started for it; returns at once."""
    rules.check_url(url)
    await _act(call, ref, ["setsid", "--fork", "firefox-esr", url])


def _to(x: int, y: int) -> tuple[str, str, str]:
    return "mousemove", str(x), str(y)


async def _act(
    call: Call,
    ref: str,
    command: list[str],
    places: Sequence[tuple[int, int]] = (),
    *,
    stdin: bytes = b"",
    seconds: float = _SECONDS,
) -> None:
    place = await enter(call, ref)
    rules.check_on(await _screen(place), places)
    done = await _exec(place, command, op=place.op, stdin=stdin, seconds=seconds)
    _check(command, done)


async def _screen(place: Place) -> Screen:
    command = ["xdotool", "getdisplaygeometry", "getmouselocation", "--shell"]
    return rules.screen_of(_text((await _run(place, command)).stdout_bytes))


async def _run(place: Place, command: list[str], *, keep: int = _LITTLE) -> ExecResult:
    done = await _exec(place, command, keep=keep)
    _check(command, done)
    return done


async def _exec(
    place: Place,
    command: list[str],
    *,
    op: str | None = None,
    stdin: bytes = b"",
    seconds: float = _SECONDS,
    keep: int = _LITTLE,
    user: str = USER,
) -> ExecResult:
    """Run a program of the desktop."""
    order = ExecRequest(
        command=command,
        process_id=op or new_id("prc"),
        stdin=base64.b64encode(stdin).decode() if stdin else None,
        stdin_encoding="base64",
        env=dict(ENVIRONMENT),
        cwd="/",
        user=user,
        timeout_ms=round(seconds * 1000),
        max_output_bytes=keep,
    )
    try:
        done = await place.host.exec(place.sandbox_id, order)
    except (InvalidRequest, FileMissing, ProcessEnded) as error:
        # Its user or its programs are gone: whoever is root in there can take them away.
        raise _unavailable(f"{command[0]} cannot be run there: {error.message}") from error
    if done.timed_out:
        raise DeadlineExceeded(f"{command[0]} was not done on the desktop in {seconds:.0f} s")
    return done


def _check(command: list[str], done: ExecResult) -> None:
    if done.exit_code != 0:
        first = next(iter(_text(done.stderr_bytes).strip().splitlines()), "it said nothing")
        said = "".join(char if char.isprintable() else "?" for char in first)[:300]
        raise _unavailable(f"{command[0].rpartition('/')[2]}: {said}")


def _text(data: bytes) -> str:
    return data.decode(errors="replace")


def _unavailable(why: str) -> DesktopUnavailable:
    return DesktopUnavailable(
        f"the desktop does not answer: {why}",
        hint="after a boot it takes some seconds; `systemctl status 'runtools-d*'` inside says more",
    )
