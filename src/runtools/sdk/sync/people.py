# Generated from sdk/people.py by scripts/generate_sync.py: edit that, then run it.
"""Everybody who has an account on the platform, for its operator."""

from __future__ import annotations

from runtools.sdk import wire
from runtools.sdk.shapes.people import Account, ResetLink
from runtools.sdk.sync.transport import Transport

_PAGE = 100


class People:
    """Accounts, whatever orgs they are in: ``rt.people``. It is the operator's (``platform:*``)."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> list[Account]:
        """Everybody who has an account, or had one, who came first first."""
        pages = self._transport.pages("/people", [], _PAGE)
        return [wire.shape(Account, item) for item in pages]

    def set_operator(self, user_id: str, *, operator: bool, revoke_keys: bool = False) -> Account:
        """Make somebody an operator of the platform, or take that right back.

        Args:
            user_id: whom.
            operator: which of the two.
            revoke_keys: with the right, end the API keys that have it and that the person made.

        Raises:
            Conflict: nobody else would be one.
        """
        body = {"operator": operator, "revokeKeys": revoke_keys}
        answer = self._transport.call("PATCH", _path(user_id), body=body)
        return wire.shape(Account, answer.data)

    def reset(self, user_id: str) -> ResetLink:
        """A link by which the person sets another password, once, within a day."""
        answer = self._transport.call("POST", f"{_path(user_id)}/reset")
        return wire.shape(ResetLink, answer.data)

    def close(self, user_id: str, *, revoke_keys: bool = False) -> Account:
        """Close an account. What the person made stays with the org, API keys too unless they are to end.

        Raises:
            Conflict: it is the last Admin of an org, or the last operator.
        """
        query = [("revokeKeys", revoke_keys)]
        answer = self._transport.call("DELETE", _path(user_id), query=query)
        return wire.shape(Account, answer.data)


def _path(user_id: str) -> str:
    return f"/people/{wire.segment(user_id)}"
