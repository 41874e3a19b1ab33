"""Doing something inside a network namespace, without ever being there with a thread that others use."""

from __future__ import annotations

import asyncio
import ctypes
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

NAMESPACES = Path("/run/netns")

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def setns(fd: int) -> None:
    """Move the calling thread, for good, into a network namespace.

    Raises:
        OSError: it cannot.
    """
    if _libc.setns(fd, _CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


async def inside(namespace: str, act: Callable[[], T]) -> T:
    """Have a quick act done inside a namespace. What it opens there stays there: sockets, taps.

    The thread that goes in is made for it and ends with it (0.1 ms), so no thread of a pool can be
    left behind in a foreign namespace.

    Raises:
        FileNotFoundError: there is no such namespace.
    """
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()

    def settle(value: T | None, error: BaseException | None) -> None:
        if result.cancelled():
            return  # a socket that nobody waits for any more is closed with its last reference
        if error is not None:
            result.set_exception(error)
        else:
            result.set_result(value)  # type: ignore[arg-type]

    def go() -> None:
        value, error = None, None
        try:
            fd = os.open(NAMESPACES / namespace, os.O_RDONLY | os.O_CLOEXEC)
            try:
                setns(fd)
            finally:
                os.close(fd)
            value = act()
        except BaseException as exc:  # noqa: BLE001 - it goes to the one who waits
            error = exc
        loop.call_soon_threadsafe(settle, value, error)

    threading.Thread(target=go, name=f"in {namespace}", daemon=True).start()
    return await result
