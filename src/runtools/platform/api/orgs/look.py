"""How orgs are shown."""

from __future__ import annotations

from runtools.platform.api.members.store import Place
from runtools.sdk.shapes.people import Org


def shown(place: Place, current: str | None) -> Org:
    """An org; ``current`` is the id of the one that the caller acts in."""
    return Org(
        id=place.org_id,
        name=place.name,
        role=place.role,
        current=place.org_id == current,
        created_at=place.created_at,
    )
