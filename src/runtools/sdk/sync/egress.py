# Generated from sdk/egress.py by scripts/generate_sync.py: edit that, then run it.
"""What one sandbox may reach, and what it was refused. Nothing here wakes it."""

from __future__ import annotations

from collections.abc import Sequence

from runtools.sdk import shapes, wire
from runtools.sdk.sync.transport import Transport


class Egress:
    """The egress policy of one sandbox: ``sb.egress``.

    It reaches what ``allow`` matches and ``deny`` does not: ``"*"``, addresses (``"203.0.113.0/24"``),
    names (``"example.org"``) and what lies below them (``"*.example.org"``).
    """

    def __init__(self, transport: Transport, sandbox: str) -> None:
        self._transport = transport
        self._path = f"{sandbox}/egress"

    def get(self) -> shapes.Egress:
        """The policy."""
        return wire.shape(shapes.Egress, (self._transport.call("GET", self._path)).data)

    def change(
        self,
        *,
        internet: bool | None = None,
        allow: Sequence[str] | None = None,
        deny: Sequence[str] | None = None,
        idempotency_key: str | None = None,
    ) -> shapes.Egress:
        """Change what is given; None stays as it is. Returns when it is in force: connections that

        are not admitted any more are cut.

        Args:
            internet: False: nothing leaves, DNS included, whatever the lists say.
            allow: all that may be reached, in place of the list that was there.
            deny: what may not, likewise; it wins over ``allow``.
            idempotency_key: a repeat with the same key is answered, not done again.

        Raises:
            InvalidRequest: an entry means nothing; ``details["fields"]`` names it.
            SandboxStopped: it has ended.
            Unavailable: it could not be put in force; nothing leaves the sandbox until it is.
        """
        body = {
            "internet": internet,
            "allow": None if allow is None else list(allow),
            "deny": None if deny is None else list(deny),
        }
        answer = self._transport.call(
            "PATCH", self._path, body=body, key=idempotency_key, seconds=wire.ACT_SECONDS
        )
        return wire.shape(shapes.Egress, answer.data)

    def log(self) -> shapes.EgressLog:
        """What it wanted to reach and was not let, the latest first; after its end too."""
        answer = self._transport.call("GET", f"{self._path}/log")
        return wire.shape(shapes.EgressLog, answer.data)
