"""How invitations are shown."""

from __future__ import annotations

from datetime import datetime

from runtools.platform.api.invitations import store
from runtools.sdk.shapes.people import Invitation


def shown(found: store.Invitation, now: datetime, link: str | None = None) -> Invitation:
    """An invitation as it is at that time."""
    state = "open" if found.expires_at > now else "expired"
    if found.accepted_at is not None:
        state = "accepted"
    elif found.revoked_at is not None:
        state = "revoked"
    return Invitation.model_validate(
        {
            "id": found.id,
            "email": found.email,
            "role": found.role,
            "operator": found.is_operator,
            "state": state,
            "link": link,
            "created_by": found.created_by,
            "created_at": found.created_at,
            "expires_at": found.expires_at,
        }
    )
