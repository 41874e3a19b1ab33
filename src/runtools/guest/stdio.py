"""The first three files of a durable process: pipes, or a terminal of its own."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import termios
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from runtools.guest.spawn import User


@dataclass
class Stdio:
    """Both ends of them.

    Attributes:
        theirs: what the process gets.
        place: where its terminal lies.
        sources: what comes out, and of which stream it is.
        input: what goes in; -1: nothing does.
        terminal: our end of it; -1: there is none.
    """

    theirs: tuple[int, int, int]
    place: str | None
    sources: dict[int, str]
    input: int
    terminal: int = -1

    def handed_over(self) -> None:
        """The process has its ends, or never will.

        That of a terminal is held open, so that it is there as long as the process lives.
        """
        if self.terminal < 0:
            for fd in self.theirs:
                os.close(fd)

    def hang_up(self) -> None:
        """Close the terminal, if there is one."""
        if self.terminal >= 0:
            os.close(self.terminal)
            os.close(self.theirs[0])


def make(order: dict[str, Any], user: User) -> Stdio:
    """Those that an order asks for.

    Raises:
        OSError: there is no room for more.
    """
    if order.get("terminal"):
        return _terminal(order["terminal"], user)
    out, out_theirs = os.pipe()
    err, err_theirs = os.pipe()
    sources: dict[int, str] = {out: "stdout", err: "stderr"}
    if not order["keep_input"]:
        null = os.open("/dev/null", os.O_RDONLY)
        return Stdio((null, out_theirs, err_theirs), None, sources, -1)
    stdin, ours = os.pipe()
    os.set_blocking(ours, False)
    return Stdio((stdin, out_theirs, err_theirs), None, sources, ours)


def set_size(terminal: int, size: Sequence[int]) -> None:
    """How many rows and columns a terminal has."""
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))


def _terminal(size: Sequence[int], user: User) -> Stdio:
    ours, theirs = pty.openpty()
    set_size(ours, size)
    if user.switch:
        os.fchown(theirs, user.uid, -1)
    os.set_blocking(ours, False)
    return Stdio((theirs,) * 3, os.ttyname(theirs), {ours: "both"}, ours, ours)
