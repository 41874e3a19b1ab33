# Generated from sdk/keys.py by scripts/generate_sync.py: edit that, then run it.
"""API keys of the org."""

from __future__ import annotations

from collections.abc import Sequence

from runtools.sdk import wire
from runtools.sdk.shapes.account import ApiKey
from runtools.sdk.sync.transport import Transport

_PAGE = 100


class ApiKeys:
    """API keys: ``rt.api_keys``."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self,
        name: str,
        *,
        scopes: Sequence[str] = (),
        expires_in: str | None = None,
        project_id: str | None = None,
        is_test: bool = False,
    ) -> ApiKey:
        """Make a key. Its ``key`` is in this answer alone: nobody can show it again.

        Args:
            name: what it is for.
            scopes: what it may do, e.g. ``["sandbox:*", "files:read"]``; none: everything.
            expires_in: e.g. ``30d``, ``12w``, ``1y``; None: never.
            project_id: id or name of the project it lies in; default: the org's default one.
            is_test: mark it ``rt_test_`` instead of ``rt_live_``.

        Raises:
            Forbidden: it could do more than the key that makes it.
        """
        body = {
            "name": name,
            "scopes": list(scopes),
            "expiresIn": expires_in,
            "projectId": project_id,
            "isTest": is_test,
        }
        answer = self._transport.call("POST", "/api-keys", body=body)
        return wire.shape(ApiKey, answer.data)

    def rotate(self, key_id: str, *, expires_in: str | None = None) -> ApiKey:
        """Replace a key by another of the same name and rights; the old one ends within a second.

        Args:
            expires_in: as for `create`; None: it ends when the old one would have.

        Raises:
            Conflict: the old one has ended, and nothing is said of how long the new one lasts.
        """
        path = f"/api-keys/{wire.segment(key_id)}/rotate"
        answer = self._transport.call("POST", path, body={"expiresIn": expires_in})
        return wire.shape(ApiKey, answer.data)

    def revoke(self, key_id: str, *, revoke_made: bool = False) -> None:
        """End a key by its id (``key_…``), and with ``revoke_made`` those that it made, within a second."""
        path = f"/api-keys/{wire.segment(key_id)}"
        self._transport.call("DELETE", path, query=[("revokeMade", revoke_made)])

    def list(self, *, project_id: str | None = None) -> list[ApiKey]:
        """The org's keys (of a project), revoked ones too, without the keys themselves."""
        pages = self._transport.pages("/api-keys", [("projectId", project_id)], _PAGE)
        return [wire.shape(ApiKey, item) for item in pages]
