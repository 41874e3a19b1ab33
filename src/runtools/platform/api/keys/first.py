"""The first start: an org, a project and the operator's key, which may do everything."""

from __future__ import annotations

from datetime import datetime

from runtools.platform.api.keys.service import Keys, Rights
from runtools.platform.api.orgs import store as orgs
from runtools.platform.api.projects import store as projects
from runtools.platform.api.projects.store import Project
from runtools.platform.core import access
from runtools.platform.core.ids import new_id
from runtools.platform.kit.clock import Clock
from runtools.platform.kit.db import Database, Transaction, lock_start

_OP = "first-key"
_RIGHTS = Rights((access.ALL, *access.OPERATOR))


async def ensure_first(db: Database, clock: Clock) -> tuple[str, str | None]:
    """The default org's id; and a fresh admin key the first time, None after that.

    The caller writes the key where its owner reads it. Should it die before that, `another` makes a
    new one: only a digest is kept here.
    """
    org_id = await db.write(_org, clock.now())
    _, secret = await Keys(db, clock).make(org_id, "first key", _OP, _RIGHTS)
    return org_id, secret


def _org(conn: Transaction, now: datetime) -> str:
    org_id = orgs.first(conn)
    if org_id is None:
        lock_start(conn)
        org_id = orgs.first(conn)  # another platform may have made it while this one waited
    if org_id is None:
        org_id = new_id("org")
        orgs.add(conn, org_id, "default", now)
        projects.add(
            conn, Project(new_id("prj"), org_id, "default", is_default=True, created_at=now)
        )
    return org_id


async def another(db: Database, clock: Clock, org_id: str, name: str) -> str:
    """A further key of the operator, for an owner who has lost the first."""
    _, secret = await Keys(db, clock).make(org_id, name, new_id("opn"), _RIGHTS)
    if secret is None:
        raise AssertionError("a fresh act has no repeat")
    return secret
