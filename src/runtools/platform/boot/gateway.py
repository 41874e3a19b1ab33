"""The gateway process: how people and programs get into sandboxes. No root, no database.

Each listener is an asynchronous context manager; all of them are open while the process serves.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from runtools.platform.boot.ssh_door import ssh
from runtools.platform.boot.web_door import dev_urls
from runtools.platform.kit.config import Settings

Listener = Callable[[Settings], AbstractAsyncContextManager[object]]

LISTENERS: tuple[Listener, ...] = (dev_urls, ssh)


async def serve(settings: Settings) -> int:
    """Serve until SIGTERM."""
    ending = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ending.set)
    async with contextlib.AsyncExitStack() as stack:
        for listener in LISTENERS:
            await stack.enter_async_context(listener(settings))
        await ending.wait()
    return 0
