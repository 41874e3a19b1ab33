"""The durable processes of a fake sandbox: real local processes, their output kept in memory.

They end with the test's own process. A copy of a sandbox has their history; what ran is lost in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import signal
import struct
import termios
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from runtools.errors import (
    FileForbidden,
    FileMissing,
    IdempotencyMismatch,
    InputClosed,
    InputFull,
    InvalidRequest,
    NotFound,
    ProcessEnded,
    TooLarge,
)
from runtools.sdk.shapes.processes import (
    MAX_INPUT_BYTES,
    MAX_READ_BYTES,
    OutputEnd,
    OutputPiece,
    OutputSpan,
    Process,
    ProcessRequest,
    ProcessState,
    Stream,
    TerminalSize,
)

_PENDING_BYTES: Final = 256 * 1024
_PIECE: Final = 65_536


class Kept:
    """The newest bytes of one stream."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.data = bytearray()
        self.kept_from = 0

    @property
    def end(self) -> int:
        """Where the next byte will be."""
        return self.kept_from + len(self.data)

    def add(self, data: bytes) -> None:
        """Take more, drop the oldest."""
        self.data += data
        over = max(0, len(self.data) - self.most)
        del self.data[:over]
        self.kept_from += over

    def span(self) -> OutputSpan:
        """What is there."""
        return OutputSpan(kept_from=self.kept_from, end=self.end)

    def piece(self, start: int, limit: int) -> OutputPiece:
        """Bytes from an offset on."""
        if start > self.end:
            raise InvalidRequest(
                f"offset {start} lies beyond the end of the output, {self.end}",
                details={"end": self.end},
            )
        first = max(start, self.kept_from)
        at = first - self.kept_from
        return OutputPiece(
            offset=first, data=bytes(self.data[at : at + limit]), dropped=first - start
        )


class FakeProcess:
    """One process."""

    def __init__(self, request: ProcessRequest) -> None:
        assert request.process_id is not None
        self.id = request.process_id
        self.request = request
        self.streams: dict[Stream, Kept] = {
            "output": Kept(request.keep_output_bytes),
            "stdout": Kept(request.keep_output_bytes),
            "stderr": Kept(request.keep_output_bytes),
        }
        self.terminal = request.terminal
        self.state: ProcessState = "running"
        self.exit_code: int | None = None
        self.signal: int | None = None
        self.started_at = datetime.now(UTC)
        self.ended_at: datetime | None = None
        self.news = asyncio.Condition()
        self.taken = 0
        self.input_open = request.keep_input
        self._done: dict[str, int] = {}
        self._pending = b""
        self._closing = False
        self._input = -1
        self._running: asyncio.subprocess.Process | None = None
        self._watching: asyncio.Task[None] | None = None

    async def start(self, cwd: Path, env: Mapping[str, str]) -> None:
        """Run it."""
        command = self.request.command
        argv = ["bash", "-c", command] if isinstance(command, str) else command
        sources: dict[int, Stream] = {}
        if self.terminal is not None:
            self._input, inner = pty.openpty()
            self._set_size(self.terminal)
            stdin = stdout = stderr = inner
            sources[self._input] = "stdout"
            theirs = {inner}
        else:
            out_r, stdout = os.pipe()
            err_r, stderr = os.pipe()
            stdin, self._input = os.pipe() if self.input_open else (os.open(os.devnull, 0), -1)
            sources = {out_r: "stdout", err_r: "stderr"}
            theirs = {stdin, stdout, stderr}
        if self._input >= 0:
            os.set_blocking(self._input, False)
        try:
            self._running = await asyncio.create_subprocess_exec(
                *(["setsid", "-c", *argv] if self.terminal else argv),
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                cwd=cwd,
                env=env,
                start_new_session=self.terminal is None,
            )
        except OSError as exc:
            for fd in {*sources, self._input} - {-1}:
                os.close(fd)
            raise unfit(argv[0], exc) from exc
        finally:
            for fd in theirs:
                os.close(fd)
        self._watching = asyncio.create_task(self._watch(sources))

    def shape(self) -> Process:
        """As users see it."""
        running = self.state == "running"
        return Process(
            id=self.id,
            command=self.request.command,
            cwd=self.request.cwd,
            user=self.request.user,
            pid=self._running.pid if running and self._running else None,
            terminal=self.terminal,
            state=self.state,
            exit_code=self.exit_code,
            signal=self.signal,
            input_open=running and self.input_open,
            started_at=self.started_at,
            ended_at=self.ended_at,
            output=self.streams["output"].span(),
            stdout=self.streams["stdout"].span(),
            stderr=self.streams["stderr"].span(),
        )

    async def wait(self, seconds: float) -> Process:
        """Until it has ended, or time is up."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds), self.news:
                await self.news.wait_for(lambda: self.state != "running")
        return self.shape()

    async def follow(self, stream: Stream, start: int) -> AsyncIterator[OutputPiece | OutputEnd]:
        """Its output as it comes."""
        kept = self.streams[stream]
        while True:
            piece = kept.piece(start, _PIECE)
            start = piece.offset + len(piece.data)
            if piece.data or piece.dropped:
                yield piece
            elif self.state != "running":
                yield OutputEnd(offset=start, process=self.shape())
                return
            else:
                async with self.news:
                    if kept.end == start and self.state == "running":
                        await self.news.wait()

    def send(self, op: str, data: bytes) -> int:
        """Give it input."""
        if op in self._done:
            return self._done[op]
        self._check_runs()
        if len(data) > MAX_INPUT_BYTES:
            raise TooLarge(f"{len(data)} bytes of input; at most {MAX_INPUT_BYTES} at a time")
        if not self.input_open:
            raise InputClosed(f"the input of {self.id} is closed")
        if len(self._pending) + len(data) > _PENDING_BYTES:
            raise InputFull(f"{self.id} does not read its input")
        self._pending += data
        self.taken += len(data)
        self._done[op] = self.taken
        self._feed()
        return self.taken

    def close(self, op: str) -> Process:
        """End its input."""
        if op not in self._done:
            self._check_runs()
            if self.input_open:
                self.input_open = False
                if self.terminal is not None:
                    self._pending += b"\x04"
                self._closing = True
                self._feed()
            self._done[op] = self.taken
        return self.shape()

    def send_signal(self, op: str, number: int) -> Process:
        """Send a signal to all of it."""
        if op not in self._done:
            self._check_runs()
            assert self._running is not None
            leader = self._running.pid
            if self.terminal is not None and number in {
                signal.SIGINT,
                signal.SIGQUIT,
                signal.SIGTSTP,
            }:
                leader = os.tcgetpgrp(self._input)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(leader, number)
            self._done[op] = 0
        return self.shape()

    def resize(self, op: str, size: TerminalSize) -> Process:
        """Make its terminal another size."""
        if op not in self._done:
            self._check_runs()
            if self.terminal is None:
                raise InvalidRequest(f"{self.id} has no terminal")
            self.terminal = size
            self._set_size(size)
            self._done[op] = 0
        return self.shape()

    def copy(self) -> FakeProcess:
        """Its history."""
        other = FakeProcess(self.request)
        for name, kept in self.streams.items():
            other.streams[name].kept_from = kept.kept_from
            other.streams[name].data = bytearray(kept.data)
        other.state = "lost" if self.state == "running" else self.state
        other.exit_code, other.signal = self.exit_code, self.signal
        other.started_at, other.ended_at = self.started_at, self.ended_at
        return other

    async def kill(self) -> None:
        """End it with its sandbox."""
        if self._running is not None and self.state == "running":
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._running.pid, signal.SIGKILL)
        if self._watching is not None:
            await self._watching

    def _set_size(self, size: TerminalSize) -> None:
        packed = struct.pack("HHHH", size.rows, size.columns, 0, 0)
        fcntl.ioctl(self._input, termios.TIOCSWINSZ, packed)

    def _check_runs(self) -> None:
        if self.state != "running":
            raise ProcessEnded(f"{self.id} has ended")

    def _feed(self) -> None:
        loop = asyncio.get_running_loop()
        if self._input < 0:
            self._pending = b""
            return
        try:
            while self._pending:
                self._pending = self._pending[os.write(self._input, self._pending) :]
        except BlockingIOError:
            loop.add_writer(self._input, self._feed)
            return
        except OSError:
            self._pending, self.input_open, self._closing = b"", False, True
        loop.remove_writer(self._input)
        if self._closing and self.terminal is None:
            os.close(self._input)
            self._input = -1

    async def _watch(self, sources: Mapping[int, Stream]) -> None:
        assert self._running is not None
        loop = asyncio.get_running_loop()
        changed = asyncio.Event()
        for fd in sources:
            os.set_blocking(fd, False)
            loop.add_reader(fd, changed.set)
        ended = asyncio.ensure_future(self._running.wait())
        ended.add_done_callback(lambda _: changed.set())
        left = dict(sources)
        while not ended.done():
            await changed.wait()
            changed.clear()
            await self._take(left)
        await self._take(left)
        for fd in sources:
            loop.remove_reader(fd)
        if self._input >= 0:
            loop.remove_writer(self._input)
        for fd in {*sources, self._input} - {-1}:
            os.close(fd)
        status = ended.result()
        async with self.news:
            self.exit_code = status if status >= 0 else None
            self.signal = -status if status < 0 else None
            self.state, self.ended_at, self.input_open = "ended", datetime.now(UTC), False
            self.news.notify_all()

    async def _take(self, left: dict[int, Stream]) -> None:
        """Read all that is there."""
        for fd, stream in list(left.items()):
            while True:
                try:
                    data = os.read(fd, _PIECE)
                except BlockingIOError:
                    break
                except OSError:  # a terminal that nobody has open any more
                    data = b""
                if not data:
                    asyncio.get_running_loop().remove_reader(fd)
                    del left[fd]
                    break
                async with self.news:
                    self.streams["output"].add(data)
                    self.streams[stream].add(data)
                    self.news.notify_all()


class FakeProcesses:
    """All processes of one fake sandbox."""

    def __init__(self) -> None:
        self._known: dict[str, FakeProcess] = {}

    async def start(
        self, request: ProcessRequest, cwd: Path, env: Mapping[str, str]
    ) -> FakeProcess:
        """Start one, or find the one that bears its id."""
        assert request.process_id is not None
        known = self._known.get(request.process_id)
        if known is not None:
            if known.request != request:
                raise IdempotencyMismatch(f"{request.process_id} was used for another request")
            return known
        made = FakeProcess(request)
        self._known[made.id] = made
        try:
            await made.start(cwd, env)
        except BaseException:
            del self._known[made.id]
            raise
        return made

    def find(self, process_id: str) -> FakeProcess:
        """One of them."""
        if process_id not in self._known:
            raise NotFound(f"no process {process_id}")
        return self._known[process_id]

    def all(self) -> list[FakeProcess]:
        """All of them, oldest first."""
        return list(self._known.values())

    def copy(self) -> FakeProcesses:
        """Their history."""
        other = FakeProcesses()
        other._known = {name: process.copy() for name, process in self._known.items()}
        return other

    async def kill(self) -> None:
        """End them with their sandbox."""
        for process in self.all():
            await process.kill()


def unfit(program: str, error: OSError) -> FileMissing | FileForbidden:
    """A program that cannot be run, as the guest says it."""
    kind = FileMissing if isinstance(error, FileNotFoundError) else FileForbidden
    details = {"path": program, "program": program}
    return kind(f"{program}: {error.strerror}", details=details)


def check_limit(limit: int) -> None:
    """As the guest does."""
    if not 1 <= limit <= MAX_READ_BYTES:
        raise InvalidRequest(f"limit must be 1 to {MAX_READ_BYTES}, not {limit}")
