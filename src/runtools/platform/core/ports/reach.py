"""The reach port: a byte stream to a port inside a sandbox, for the gateway.

Only an id, a number and bytes cross it: caller and sandbox may be on two machines. Opening wakes a paused
sandbox and waits; bytes in either direction are activity, an idle stream is none.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Reach(Protocol):
    """Opens streams into sandboxes."""

    async def open(self, sandbox_id: str, port: int, *, wakes: bool = True) -> Stream:
        """Connect to what listens on a TCP port of the sandbox, be it on its loopback alone.

        Closing one direction closes it there too, and the other stays open. A stream lives over a
        pause: what is sent on it then wakes the sandbox. It ends with the sandbox, a rollback, or a
        resume after a pause so long that the network was given back.

        Only what the server inside has ended is ended here. A stream that has broken off, be it with the
        sandbox or with the host, fails or is gone in both directions at once (`kit.splice.is_gone`).

        ``wakes`` false: what is sent on it to a sandbox that sleeps breaks it off instead, after some
        seconds in which nobody has it go on: whoever opened it is to see that the sandbox may run.

        Raises:
            NotFound: no such sandbox.
            SandboxStopped: it has ended.
            PortClosed: nothing listens there; the details have the ports on which something does.
            InvalidRequest: the port may not be reached (the guest agent's own, or none).
            RateLimited: too many are open to the sandbox.
            Unavailable, GuestUnreachable: host or sandbox do not answer.
            VersionMismatch: the guest agent is of a version before there were streams.
        """
        ...

    async def attach(
        self, sandbox_id: str, port: int, protocol: asyncio.Protocol, *, wakes: bool = True
    ) -> asyncio.Transport:
        """As `open`, for who moves bytes by a protocol of their own: it is connected when this returns.

        Raises:
            RunToolsError: as `open`.
        """
        ...
