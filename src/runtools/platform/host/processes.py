"""Durable processes of sandboxes, as the host port gives them."""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterator

from runtools.errors import Unavailable
from runtools.sdk.shapes.processes import (
    OutputEnd,
    OutputPiece,
    Process,
    ProcessRequest,
    Stream,
    TerminalSize,
)


class Processes:
    """The part of the host port that is about processes."""

    async def start_process(self, sandbox_id: str, request: ProcessRequest) -> Process:
        """Start one."""
        raise _not_yet()

    async def list_processes(self, sandbox_id: str) -> builtins.list[Process]:
        """All that are known."""
        raise _not_yet()

    async def get_process(self, sandbox_id: str, process_id: str) -> Process:
        """How one stands."""
        raise _not_yet()

    async def wait_process(self, sandbox_id: str, process_id: str, timeout_ms: int) -> Process:
        """Wait for the end of one."""
        raise _not_yet()

    async def read_output(
        self, sandbox_id: str, process_id: str, stream: Stream, start: int, limit: int
    ) -> OutputPiece:
        """What is there of its output."""
        raise _not_yet()

    def follow_output(
        self, sandbox_id: str, process_id: str, stream: Stream, start: int
    ) -> AsyncIterator[OutputPiece | OutputEnd]:
        """Its output as it comes."""
        raise _not_yet()

    async def send_input(self, sandbox_id: str, process_id: str, op: str, data: bytes) -> int:
        """Give it input."""
        raise _not_yet()

    async def close_input(self, sandbox_id: str, process_id: str, op: str) -> Process:
        """End its input."""
        raise _not_yet()

    async def signal_process(
        self, sandbox_id: str, process_id: str, op: str, signal: int
    ) -> Process:
        """Send it a signal."""
        raise _not_yet()

    async def resize_terminal(
        self, sandbox_id: str, process_id: str, op: str, size: TerminalSize
    ) -> Process:
        """Make its terminal another size."""
        raise _not_yet()


def _not_yet() -> Unavailable:
    return Unavailable("this host cannot hold durable processes yet", hint="use exec")
