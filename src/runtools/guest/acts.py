"""Acts on a durable process, each done once: input, its end, signals, the size of its terminal.

``op`` names an act, ``key`` tells whether a repeat of it is one. Input that finds no room waits for a
while, and whoever repeats it waits along.
"""

from __future__ import annotations

import socket
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

from runtools.guest.intake import Intake
from runtools.guest.problems import Problem

_INPUT_SECONDS: Final = 5.0
_MAX_OPS: Final = 512
_OPS_KEPT: Final = 24  # of an ended process; with its op each takes at most 200 bytes of `end`

Request = dict[str, Any]


class _Late:
    """Input that waits for room, and who wants to be told."""

    def __init__(self, request: Request, data: bytes, sock: socket.socket) -> None:
        self.request = request
        self.data = data
        self.deadline = time.monotonic() + _INPUT_SECONDS
        self.socks = [sock]

    def is_wanted(self) -> bool:
        """Whether anybody of them is still there."""
        return any(sock.fileno() >= 0 for sock in self.socks)


class Acts:
    """All on one process.

    Args:
        perform: does what is neither input nor its end.
        done: an act was done, and is about to be answered.
        answer: says something to who asked.
    """

    def __init__(
        self,
        intake: Intake,
        perform: Callable[[Request], None],
        done: Callable[[], None],
        answer: Callable[[socket.socket, bytes], None],
    ) -> None:
        self._intake = intake
        self._perform = perform
        self._when_done = done
        self._say = answer
        self._done: OrderedDict[str, tuple[str, bytes]] = OrderedDict()
        self._late: list[_Late] = []  # in the order in which it came

    def act(self, sock: socket.socket, request: Request, data: bytes) -> None:
        """Do one, or answer what was done already."""
        op, key = request["op"], request["key"]
        known = self._done.get(op)
        late = next((late for late in self._late if late.request["op"] == op), None)
        if known is not None:
            self._say(sock, known[1] if known[0] == key else _mismatch(op).to_json())
        elif late is not None and late.request["key"] == key:
            late.socks.append(sock)
        elif late is not None:
            self._say(sock, _mismatch(op).to_json())
        else:
            self._act(sock, request, data)

    def patience(self) -> float | None:
        """For how many milliseconds what waits may wait."""
        if not self._late:
            return None
        return max(0.0, self._late[0].deadline - time.monotonic()) * 1000 + 1

    def retry(self) -> None:
        """Take the input that waited for room, in its order; refuse what waited too long."""
        while self._late:
            late = self._late[0]
            try:
                if late.is_wanted():
                    if self._intake.has_room(late.data):
                        self._take(late.socks, late.request, late.data)
                    elif late.deadline > time.monotonic():
                        return
                    else:
                        raise Problem(
                            "input_full",
                            "it does not read its input: none of these bytes was taken",
                            hint="try again when it reads",
                        )
            except Problem as problem:
                for sock in late.socks:
                    self._say(sock, problem.to_json())
            self._late.pop(0)

    def kept(self) -> dict[str, list[str]]:
        """The latest that were done and their answers, for who repeats one after the end."""
        latest = list(self._done.items())[-_OPS_KEPT:]
        return {op: [key, answer.decode()] for op, (key, answer) in latest}

    def _act(self, sock: socket.socket, request: Request, data: bytes) -> None:
        try:
            if request["do"] == "input":
                if not self._intake.has_room(data) or self._late:
                    self._late.append(_Late(request, data, sock))
                else:
                    self._take([sock], request, data)
                return
            if request["do"] == "close":
                self._intake.close()
            else:
                self._perform(request)
        except Problem as problem:
            self._say(sock, problem.to_json())
        else:
            self._answer([sock], request)

    def _take(self, socks: list[socket.socket], request: Request, data: bytes) -> None:
        self._intake.take(data)
        self._answer(socks, request)

    def _answer(self, socks: list[socket.socket], request: Request) -> None:
        answer = b'{"ok":{"taken":%d}}' % self._intake.taken
        self._done[request["op"]] = (request["key"], answer)
        if len(self._done) > _MAX_OPS:
            self._done.popitem(last=False)
        self._when_done()
        for sock in socks:
            self._say(sock, answer)


def _mismatch(op: str) -> Problem:
    return Problem(
        "idempotency_mismatch",
        f"{op} was used for another request",
        hint="give every request an id of its own",
    )
