# Generated from sdk/limits.py by scripts/generate_sync.py: edit that, then run it.
"""How much an org may have at once."""

from __future__ import annotations

from runtools.sdk import wire
from runtools.sdk.shapes.limits import Limit, OrgLimits
from runtools.sdk.sync.transport import Transport


class Limits:
    """Limits of an org: ``rt.limits``."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def get(self, org_id: str | None = None) -> OrgLimits:
        """What the org may have, and what it has; that of another org only for the operator."""
        path = "/limits" if org_id is None else f"/orgs/{wire.segment(org_id)}/limits"
        return wire.shape(OrgLimits, (self._transport.call("GET", path)).data)

    def set(
        self,
        org_id: str,
        *,
        sandboxes: Limit | None = None,
        vcpus: Limit | None = None,
        memory_mb: Limit | None = None,
        disk_mb: Limit | None = None,
        snapshots: Limit | None = None,
        agent_tokens: Limit | None = None,
        agent_cents: Limit | None = None,
    ) -> OrgLimits:
        """Set limits of an org, as the operator: 0 is no limit, ``"default"`` the platform's own.

        What is left out stays as it is.

        Raises:
            Forbidden: the key is not the operator's.
        """
        body = {
            "sandboxes": sandboxes,
            "vcpus": vcpus,
            "memoryMb": memory_mb,
            "diskMb": disk_mb,
            "snapshots": snapshots,
            "agentTokens": agent_tokens,
            "agentCents": agent_cents,
        }
        path = f"/orgs/{wire.segment(org_id)}/limits"
        return wire.shape(OrgLimits, (self._transport.call("PATCH", path, body=body)).data)
