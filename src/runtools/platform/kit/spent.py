"""A thread for one act that leaves it unfit for any other: elsewhere, with fewer rights."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def in_spent_thread(act: Callable[[], T], name: str) -> T:
    """Have something quick done in a thread that is made for it and ends with it (0.1 ms).

    No thread of a pool can be left behind in a foreign namespace. Whoever is cancelled while he waits
    gets no result: what was opened is closed with its last reference.
    """
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()

    def settle(value: T | None, error: BaseException | None) -> None:
        if result.cancelled():
            return
        if error is not None:
            result.set_exception(error)
        else:
            result.set_result(value)  # type: ignore[arg-type]

    def go() -> None:
        value, error = None, None
        try:
            value = act()
        except BaseException as exc:  # noqa: BLE001 - it goes to the one who waits
            error = exc
        loop.call_soon_threadsafe(settle, value, error)

    threading.Thread(target=go, name=name, daemon=True).start()
    return await result
