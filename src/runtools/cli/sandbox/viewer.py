"""A connection to a terminal that is made again when it breaks, without a lost or doubled byte.

A thread receives: output goes to the screen, answers to the main thread. The main thread alone sends. Of
its messages at most as many wait for an answer as the platform queues, so that sending never blocks; a
new connection sends those again (docs/api.md says why nothing is then done twice).
"""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from runtools.errors import ProcessEnded, RunToolsError, Unavailable, VersionMismatch, from_wire
from runtools.sdk import wire
from runtools.sdk.patience import Patience
from runtools.sdk.settings import Settings
from runtools.sdk.shapes import Process
from runtools.sdk.shapes.processes import TERMINAL_PROTOCOL

_WINDOW = 16  # messages without an answer; the platform queues as many
_MESSAGE_BYTES = 4096
_HELD_BYTES = 64 * 1024  # typed and not sent yet; more is not read from the terminal
_MAX_MESSAGE = 8 * 1024 * 1024  # of output in one piece
_AGAIN_SECONDS = 60.0
_TELL_SECONDS = 2.0

Message = bytes | dict[str, Any]


class Viewer:
    """See the module. ``wake_fd`` gets a byte whenever `step` has something to do."""

    def __init__(
        self,
        settings: Settings,
        path: str,
        offset: int,
        history: str,
        *,
        draw: Callable[[bytes], None],
        say: Callable[[str], None],
    ) -> None:
        self._url = "ws" + settings.url.removeprefix("http") + path
        self._headers = {"Authorization": f"Bearer {settings.api_key}"}
        self._name = secrets.token_urlsafe(16)
        self._offset = offset
        self._history = history or None
        self._draw = draw
        self._say = say
        self._typed = bytearray()
        self._controls: deque[dict[str, Any]] = deque()
        self._unanswered: deque[Message] = deque()
        self._answered = 0  # the number of the first message without an answer
        self._connection: ClientConnection | None = None
        self._news: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._patience = Patience(_AGAIN_SECONDS)
        self._failure: BaseException | None = None
        self._fresh = False  # whether the last connection was a good one
        self._leaving = False
        self.ended: Process | None = None
        self.wake_fd, self._waker = os.pipe()
        os.set_blocking(self._waker, False)
        self._thread = threading.Thread(target=self._receive, daemon=True)

    def begin(self) -> None:
        """Connect, and show what comes."""
        self._thread.start()

    def close(self) -> None:
        """Leave; the process goes on."""
        self._leaving = True
        if self._connection is not None:
            self._connection.close()
        self._thread.join(2.0)

    # --- the main thread ---

    @property
    def hungry(self) -> bool:
        """Whether more may be typed now."""
        return len(self._typed) < _HELD_BYTES

    def type(self, data: bytes) -> None:
        """Send keys."""
        self._typed += data
        self._send()

    def resize(self, rows: int, columns: int) -> None:
        """Tell the size of the terminal; one that was not sent yet is replaced."""
        self._controls.clear()
        self._controls.append({"type": "resize", "rows": rows, "columns": columns})
        self._send()

    def step(self) -> None:
        """Take in what was received.

        Raises:
            RunToolsError: the terminal is not to be had any more.
        """
        os.read(self.wake_fd, 4096)
        while not self._news.empty():
            self._news.get()()
        if self._failure is not None:
            raise self._failure
        self._send()

    def _send(self) -> None:
        connection = self._connection
        while connection is not None and len(self._unanswered) < _WINDOW:
            message: Message
            if self._controls:
                message = self._controls.popleft()
            elif self._typed:
                message = bytes(self._typed[:_MESSAGE_BYTES])
                del self._typed[:_MESSAGE_BYTES]
            else:
                return
            self._unanswered.append(message)
            if not _deliver(connection, message):
                return  # it is sent again by the next connection

    def _opened(self, connection: ClientConnection) -> None:
        self._connection = connection
        for message in self._unanswered:
            if not _deliver(connection, message):
                return

    def _closed(self) -> None:
        self._connection = None

    def _done(self, number: int, error: dict[str, Any] | None) -> None:
        if number != self._answered or not self._unanswered:
            self._failure = VersionMismatch(f"the platform answered message {number}, out of order")
            return
        lost = self._unanswered.popleft()
        self._answered += 1
        refusal = None if error is None else from_wire(error)
        if (
            refusal is not None
            and isinstance(lost, bytes)
            and not isinstance(refusal, ProcessEnded)
        ):
            self._say(f"{len(lost)} bytes typed were not taken: {refusal.message}")

    def _end(self, process: Process) -> None:
        self.ended = process

    def _fail(self, error: BaseException) -> None:
        self._failure = error

    # --- the thread that receives ---

    def _receive(self) -> None:
        try:
            broken: float | None = None
            told = False
            while not self._leaving:
                trouble = self._once()
                if trouble is None or self._leaving:
                    return
                pause = self._patience.after(trouble)
                if pause is None:
                    raise trouble
                if self._fresh:
                    broken, told, self._fresh = time.monotonic(), False, False
                if broken and not told and time.monotonic() - broken > _TELL_SECONDS:
                    self._say("the connection is broken; trying again (Enter ~ . detaches)")
                    told = True
                time.sleep(pause)
        except BaseException as exc:  # noqa: BLE001 - the main thread raises it
            error = exc
            self._tell(lambda: self._fail(error))

    def _once(self) -> RunToolsError | None:
        """Hold one connection; returns what broke it, None after the end of the process."""
        # The main thread is told of everything in order, so it has counted all answers by now but
        # those it has not stepped over yet: let it, before the number is asked for.
        if not self._settled():
            return Unavailable("the terminal is left")
        query = wire.target(
            "",
            [
                ("offset", self._offset),
                ("history", self._history),
                ("viewer", self._name),
                ("message", self._answered),
            ],
        )
        try:
            with connect(
                self._url + query,
                subprotocols=[Subprotocol(TERMINAL_PROTOCOL)],
                additional_headers=self._headers,
                user_agent_header=wire.USER_AGENT,
                compression=None,
                proxy=None,
                open_timeout=15,
                close_timeout=1,
                max_size=_MAX_MESSAGE,
            ) as connection:
                try:
                    while True:
                        if self._take(connection, connection.recv()):
                            return None
                finally:
                    self._tell(self._closed)
        except InvalidStatus as refusal:
            return wire.error(refusal.response.status_code, bytes(refusal.response.body or b""))
        except (ConnectionClosed, InvalidHandshake, OSError, EOFError) as exc:
            return wire.unreachable(self._url, str(exc) or type(exc).__name__)
        except RunToolsError as error:
            return error

    def _settled(self) -> bool:
        event = threading.Event()
        self._tell(event.set)
        while not event.wait(0.1):
            if self._leaving:
                return False
        return True

    def _take(self, connection: ClientConnection, message: str | bytes) -> bool:
        """Do what a message says; True: it was the last."""
        if isinstance(message, bytes):
            try:
                self._draw(message)
            except OSError:
                raise SystemExit(1) from None  # the person's terminal is gone
            self._offset += len(message)
            return False
        told: dict[str, Any] = json.loads(message)
        kind = told.get("type")
        if kind == "start":
            self._patience.restart()
            self._fresh = True
            self._missing(told["offset"], told["dropped"])
            self._tell(lambda: self._opened(connection))
        elif kind == "dropped":
            self._missing(told["offset"], told["bytes"])
        elif kind in ("taken", "refused"):
            number, error = told["message"], told.get("error")
            self._tell(lambda: self._done(number, error))
        elif kind == "end":
            process = wire.shape(Process, told["process"])
            self._tell(lambda: self._end(process))
            return True
        elif kind == "error":
            raise from_wire(told["error"])
        return False

    def _missing(self, offset: int, count: int) -> None:
        self._offset = offset
        if count:
            self._say(f"{count} bytes of output before this are no longer kept")

    def _tell(self, what: Callable[[], None]) -> None:
        self._news.put(what)
        try:
            os.write(self._waker, b"x")
        except BlockingIOError:
            return  # it is awake already


def _deliver(connection: ClientConnection, message: Message) -> bool:
    try:
        connection.send(message if isinstance(message, bytes) else json.dumps(message))
    except ConnectionClosed:
        return False
    return True
