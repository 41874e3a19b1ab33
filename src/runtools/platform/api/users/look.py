"""How accounts are shown."""

from __future__ import annotations

from runtools.platform.api.users.store import User
from runtools.sdk.shapes.people import Account


def shown(user: User) -> Account:
    """An account; of one that is closed the name alone is left."""
    return Account(
        id=user.id,
        name=user.name,
        email=None if user.closed_at is not None else user.email,
        operator=user.is_operator,
        has_password=user.password is not None,
        created_at=user.created_at,
        closed_at=user.closed_at,
    )
