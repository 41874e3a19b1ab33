# Generated from sdk/processes.py by scripts/generate_sync.py: edit that, then run it.
"""Durable processes of a sandbox: ``sb.processes``, and the handle of one."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from time import monotonic
from typing import Any

from runtools.errors import DeadlineExceeded, InputFull, SandboxPaused
from runtools.sdk import shapes, wire
from runtools.sdk.concurrency import sync_sleep
from runtools.sdk.shapes.inside import WORKSPACE
from runtools.sdk.shapes.processes import (
    DEFAULT_KEPT_BYTES,
    MAX_INPUT_BYTES,
    MAX_READ_BYTES,
    ProcessState,
    Stream,
)
from runtools.sdk.sync.transport import Transport

_WAIT_SECONDS = 30.0  # how long one request waits for the end; the platform allows 60
_MAX_READS = 1024  # of one output(): 1 GiB, the most that is ever kept
_FULL_PAUSES = (0.05, 0.5)


class Processes:
    """The processes of one sandbox that outlive whoever started them."""

    def __init__(self, transport: Transport, path: str) -> None:
        self._transport = transport
        self._path = f"{path}/processes"

    def start(
        self,
        command: str | Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str = WORKSPACE,
        user: str = "root",
        terminal: shapes.TerminalSize | None = None,
        keep_input: bool = True,
        keep_output_bytes: int = DEFAULT_KEPT_BYTES,
        process_id: str | None = None,
    ) -> Process:
        """Start a process and return at once. A paused sandbox is woken.

        Args:
            command: one line for a shell, or the arguments themselves, passed unchanged.
            env: set beside the sandbox's own.
            cwd: where it starts.
            user: who it runs as.
            terminal: run it in a terminal of that size; both streams are then one.
            keep_input: False: its stdin is /dev/null.
            keep_output_bytes: how much of each stream is kept, the newest; 4 KiB to 1 GiB.
            process_id: a name for it; a repeat of the name is answered, not started again.

        Raises:
            SandboxStopped: the sandbox has ended.
            GuestUnreachable: the agent inside does not answer.
            FileMissing: the program is not there (``details["program"]``), or ``cwd`` is not.
            FileForbidden: the program may not be executed.
            ProcessEnded: it was ended (`end`) before it had begun.
        """
        body: dict[str, Any] = {
            "command": command if isinstance(command, str) else list(command),
            "processId": process_id or wire.new_process_id(),
            "env": dict(env) if env else None,
            "cwd": cwd,
            "user": user,
            "terminal": None if terminal is None else terminal.model_dump(mode="json"),
            "keepInput": keep_input,
            "keepOutputBytes": keep_output_bytes,
        }
        answer = self._transport.call("POST", self._path, body=body, seconds=wire.WAKE_SECONDS)
        return self._handle(wire.shape(shapes.Process, answer.data))

    def list(self) -> list[Process]:
        """All that are known, the oldest first."""
        answer = self._transport.call("GET", self._path, seconds=wire.WAKE_SECONDS)
        return [self._handle(view) for view in wire.shapes(shapes.Process, answer.data)]

    def get(self, process_id: str) -> Process:
        """One by its id. Wakes nothing.

        Where its sandbox is paused and could not tell of it before, nobody knows how it stands, or whether
        there is one. It can be worked with all the same: what wakes the sandbox does, `wait` and `follow`
        wait until somebody else has, and only its ``view`` is not to be had.

        Raises:
            NotFound: the sandbox has none of that id.
        """
        try:
            answer = self._transport.call("GET", f"{self._path}/{wire.segment(process_id)}")
        except SandboxPaused as unknown:
            return Process(self._transport, self._path, process_id, unknown)
        return self._handle(wire.shape(shapes.Process, answer.data))

    def end(self, process_id: str) -> None:
        """End one by its id, with all that it started. One that has not begun yet does not begin any more.

        Wakes nothing and waits for no room: in a sandbox that sleeps it ends once that goes on. One that is
        not known is none that runs.

        Raises:
            GuestUnreachable: the agent inside does not answer; it is ended once that does.
            Unavailable: it cannot be ended now, and its host's disk does not take that it is to be.
            Conflict: nor now, and as many of its sandbox as are kept wait for their end.
        """
        path = f"{self._path}/{wire.segment(process_id)}"
        self._transport.call("DELETE", path, seconds=wire.SIGNAL_SECONDS)

    def _handle(self, view: shapes.Process) -> Process:
        return Process(self._transport, self._path, view.id, view)


class Process:
    """A durable process; ``view`` is how it was when last heard of, `refresh` asks again."""

    def __init__(
        self,
        transport: Transport,
        path: str,
        process_id: str,
        heard: shapes.Process | SandboxPaused,
    ) -> None:
        self._transport = transport
        self._path = f"{path}/{wire.segment(process_id)}"
        self.id = process_id
        self._heard = heard
        self._history = (
            str(heard.details.get("history", ""))
            if isinstance(heard, SandboxPaused)
            else heard.history
        )

    def __repr__(self) -> str:
        known = "unknown" if isinstance(self._heard, SandboxPaused) else self._heard.state
        return f"<{type(self).__name__} {self.id} {known}>"

    @property
    def view(self) -> shapes.Process:
        """How it was when last heard of.

        Raises:
            SandboxPaused: nothing was, for its sandbox was paused and could not tell of it before.
        """
        if isinstance(self._heard, SandboxPaused):
            raise self._heard
        return self._heard

    @property
    def state(self) -> ProcessState:
        """``running``, ``ended``, or ``lost``: it is gone and nobody saw how it ended."""
        return self.view.state

    @property
    def history(self) -> str:
        """Of which the offsets are that were read of it."""
        return self._history

    def refresh(self) -> Process:
        """Ask how it is now; returns itself. Wakes nothing.

        Raises:
            SandboxPaused: its sandbox is paused, and could not tell of it before.
        """
        answer = self._transport.call("GET", self._path)
        return self._seen(answer)

    def wait(self, timeout: float | None = None) -> shapes.Process:
        """Wait for its end. Wakes nothing: a pause is waited out.

        Args:
            timeout: in seconds; default: for ever.

        Returns:
            How it ended: exactly one of ``exit_code`` and ``signal`` is set, neither of one ``lost``.

        Raises:
            DeadlineExceeded: it still runs when the time is up.
            SandboxPaused: then its sandbox is paused, and could not tell of it before.
        """
        until = None if timeout is None else monotonic() + timeout
        while True:
            left = _WAIT_SECONDS
            if until is not None:
                left = min(left, max(until - monotonic(), 0.0))
            query = [("waitMs", round(left * 1000))]
            try:
                answer = self._transport.call(
                    "GET", self._path, query=query, seconds=left + wire.CALL_SECONDS
                )
            except SandboxPaused:  # said when that time was up, and not before
                if until is not None and monotonic() >= until:
                    raise
                continue
            if self._seen(answer).state != "running":
                return self.view
            if until is not None and monotonic() >= until:
                raise DeadlineExceeded(f"{self.id} still runs after {timeout} seconds")

    def output(
        self,
        offset: int = 0,
        stream: Stream = "output",
        *,
        history: str | None = None,
        on_dropped: Callable[[int], None] | None = None,
    ) -> bytes:
        """The bytes it has written so far, from an offset on; at most 1 GiB. Wakes a paused sandbox.

        Those that are no longer kept are left out: in front, where there was more than is kept, and in
        the middle, where the disk inside was full for a while.

        Args:
            offset: in bytes from the first that it ever wrote.
            stream: ``output``: both as they came; or ``stdout`` or ``stderr``.
            history: of which the offset is (``view.history``); default: the one that this handle has read.
            on_dropped: called with the number of bytes that are missing, for each such place.

        Raises:
            HistoryChanged: the sandbox was rolled back, so that the offset means nothing any more.
            InvalidRequest: the offset lies beyond the end, which ``details["end"]`` says.
        """
        pieces: list[bytes] = []
        end: int | None = None
        history = self._begun(offset, history)
        for _ in range(_MAX_READS):
            begin, size = self._read(offset, stream, history, pieces)
            if begin > offset and on_dropped is not None:
                on_dropped(begin - offset)
            offset = begin + size
            if size < MAX_READ_BYTES:  # the end so far, or a hole before more
                if end is None:
                    self.refresh()
                    end = int(getattr(self.view, stream).end)
                if not size or offset >= end:
                    break
        return b"".join(pieces)

    def _begun(self, offset: int, history: str | None) -> str | None:
        """Of which history an offset is; at the start that is the present one."""
        if not offset and history is None:
            try:
                self._history = (self.refresh()).view.history
            except SandboxPaused as unknown:  # but which history it is in is known
                self._history = str(unknown.details.get("history", ""))
        elif history is not None:
            self._history = history
        return self._history or None

    def _read(
        self, offset: int, stream: Stream, history: str | None, pieces: list[bytes]
    ) -> tuple[int, int]:
        """Add a piece; returns where it begins, and its size."""
        query = [("stream", stream), ("offset", offset), ("history", history)]
        size = 0
        with self._transport.stream(f"{self._path}/output", query=query) as response:
            begin = wire.count(response.header("X-Output-Offset"), "X-Output-Offset")
            for chunk in response.chunks():
                pieces.append(chunk)
                size += len(chunk)
        return begin, size

    def follow(
        self,
        offset: int = 0,
        stream: Stream = "output",
        *,
        history: str | None = None,
        on_dropped: Callable[[int], None] | None = None,
    ) -> Generator[bytes, None, None]:
        """Every byte it writes, as it comes, until it has ended; ``view`` says then how.

        A connection that breaks is taken up again at the right byte. Wakes nothing, and goes on after
        a pause.

        Args:
            offset: in bytes from the first that it ever wrote.
            stream: ``output``: both as they came; or ``stdout`` or ``stderr``.
            history: of which the offset is (``view.history``); default: the one that this handle has read.
            on_dropped: called with a number of bytes that are missing right before the next ones,
                because they are no longer kept.

        Raises:
            HistoryChanged: the sandbox was rolled back, before or meanwhile: what comes now is another
                output. A new handle (``sb.processes.get``) follows that.
            InvalidRequest: the offset lies beyond the end, which ``details["end"]`` says.
        """
        history = self._begun(offset, history)
        query = [("stream", stream), ("offset", offset), ("history", history)]
        path = f"{self._path}/follow"
        with closing(self._transport.follow(path, query=query)) as events:
            for event in events:
                if event.name == "end":
                    self._heard = wire.parsed(shapes.OutputEnd, event.data).process
                    return
                if event.name == "output":
                    piece = wire.parsed(shapes.OutputPiece, event.data)
                    if piece.dropped and on_dropped is not None:
                        on_dropped(piece.dropped)
                    yield piece.data

    def send_input(self, data: bytes | str, *, patience: float = 30.0) -> int:
        """Give it input, all of it, 64 KiB at a time. Wakes a paused sandbox.

        Args:
            data: text goes as UTF-8.
            patience: how many seconds to wait for a process that reads nothing.

        Returns:
            How many bytes it was given so far in all.

        Raises:
            InputFull: it does not read; ``details["sentBytes"]`` of this call were taken before.
            InputClosed: its input has ended, or it never had one.
            ProcessEnded: it runs no more.
        """
        raw = data.encode() if isinstance(data, str) else data
        sent = taken = 0
        pause, longest = _FULL_PAUSES
        until = monotonic() + patience
        while sent < len(raw) or not raw:
            piece = raw[sent : sent + MAX_INPUT_BYTES]
            try:
                answer = self._transport.call(
                    "POST", f"{self._path}/input", data=piece, seconds=wire.WAKE_SECONDS
                )
            except InputFull as full:
                if monotonic() + pause >= until:
                    full.details["sentBytes"] = sent
                    raise
                sync_sleep(pause)
                pause = min(pause * 2, longest)
                continue
            taken = wire.shape(shapes.InputTaken, answer.data).taken
            sent += len(piece)
            pause, until = _FULL_PAUSES[0], monotonic() + patience
            if not raw:
                break
        return taken

    def close_input(self) -> Process:
        """End its input, after what was sent; in a terminal: the end-of-file key. Returns itself.

        Raises:
            ProcessEnded: it runs no more.
        """
        return self._act("/input/close", None)

    def signal(self, signal: int | str = "TERM") -> Process:
        """Send a signal, by number or name, to it and all that it started. Returns itself.

        Raises:
            ProcessEnded: it runs no more.
        """
        return self._act("/signal", {"signal": signal})

    def kill(self) -> Process:
        """End it and all that it started at once (KILL). Returns itself; `wait` says how it ended.

        Raises:
            ProcessEnded: it runs no more.
        """
        return self.signal("KILL")

    def resize(self, rows: int, columns: int) -> Process:
        """Give its terminal another size in characters. Returns itself.

        Raises:
            InvalidRequest: it has no terminal.
            ProcessEnded: it runs no more.
        """
        return self._act("/resize", {"rows": rows, "columns": columns})

    def _act(self, path: str, body: Mapping[str, Any] | None) -> Process:
        return self._seen(
            self._transport.call("POST", self._path + path, body=body, seconds=wire.WAKE_SECONDS)
        )

    def _seen(self, answer: wire.Answer) -> Process:
        self._heard = wire.shape(shapes.Process, answer.data)
        return self
