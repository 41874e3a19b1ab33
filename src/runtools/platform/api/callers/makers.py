"""What who made something may do by now: a link outlives the rights that it was made with."""

from __future__ import annotations

from datetime import datetime

from runtools.platform.api.keys import store as keys
from runtools.platform.api.members import store as members
from runtools.platform.api.users import store as users
from runtools.platform.core import access
from runtools.platform.kit.db import Transaction


def held(
    conn: Transaction, maker: str, org_id: str | None, now: datetime
) -> tuple[frozenset[str], bool]:
    """What a user or key may do now, and whether in that org: the operator acts from outside."""
    if maker.startswith("usr_"):
        user = users.find(conn, maker)
        place = None if org_id is None else members.find(conn, org_id, maker)
        role, operator = place.role if place else None, user is not None and user.is_operator
        return access.of_person(role, operator=operator), place is not None
    key = keys.living(conn, maker)
    if key is None or (key.expires_at is not None and key.expires_at <= now):
        return frozenset(), False
    return key.scopes, key.org_id == org_id
