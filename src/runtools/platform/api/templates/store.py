"""Template versions in the database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Float,
    ForeignKey,
    Index,
    Integer,
    Select,
    String,
    Table,
    Text,
    UniqueConstraint,
    cast,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from runtools.errors import Conflict
from runtools.platform.api.orgs.store import orgs
from runtools.platform.core.recipes import RECIPES
from runtools.platform.kit.db import Document, Moment, metadata

versions = Table(
    "template_versions",
    metadata,
    Column("id", String(24), primary_key=True),
    Column("org_id", String(24), ForeignKey("orgs.id"), nullable=False),
    Column("host_id", String(64), nullable=False),
    Column("slug", String(63), nullable=False),
    Column("version", Integer, nullable=False),
    Column("recipe", String(63), nullable=False),
    Column("apt", Document, nullable=False),
    Column("run", Text),
    # building, ready, failed; dropping and dropped: its number is not given again.
    Column("state", String(8), nullable=False),
    Column("progress", Float, nullable=False),
    Column("step", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("error", Text),
    Column("op", String(64), nullable=False),
    Column("drop_op", String(64)),
    Column("created_at", Moment, nullable=False),
    Column("finished_at", Moment),
    UniqueConstraint("org_id", "slug", "version"),
    Index(None, "org_id", "op", unique=True),
)

_SHOWN = ("building", "ready", "failed")


@dataclass(frozen=True, slots=True)
class Version:
    """A version of a template."""

    id: str
    org_id: str
    host_id: str
    slug: str
    version: int
    recipe: str
    apt: list[str]
    run: str | None
    op: str
    created_at: datetime
    state: str = "building"
    progress: float = 0.0
    step: str = ""
    size_bytes: int = 0
    error: str | None = None
    finished_at: datetime | None = None
    drop_op: str | None = None

    @property
    def goes(self) -> bool:
        """Whether it is being deleted, or is."""
        return self.state in ("dropping", "dropped")

    @property
    def state_before(self) -> str:
        """How it stood when its deletion began."""
        if self.finished_at is None:
            return "building"
        return "ready" if self.error is None else "failed"


_COLUMNS = [versions.c[field.name] for field in fields(Version)]
_ALL = select(*_COLUMNS)


def add(conn: Connection, version: Version) -> None:
    """A version that is to be built.

    Raises:
        Conflict: another build took the number, or the same act is under way.
    """
    try:
        conn.execute(insert(versions).values(**asdict(version)))
    except IntegrityError as exc:
        raise Conflict(
            f"another build of {version.slug} began at this moment", hint="ask again"
        ) from exc


def next_number(conn: Connection, org_id: str, slug: str) -> int:
    """The number of the slug's next version."""
    query = select(func.max(versions.c.version)).where(
        versions.c.org_id == org_id, versions.c.slug == slug
    )
    return int(conn.scalar(query) or 0) + 1


def under_way(conn: Connection, new: Version) -> int:
    """How many builds its org has under way or waiting; no other begins until the transaction ends."""
    org = select(orgs.c.id).where(orgs.c.id == new.org_id)
    conn.execute(org.with_for_update(key_share=True))
    mine = (versions.c.org_id == new.org_id) & (versions.c.state == "building")
    return int(conn.scalar(select(func.count()).where(mine)) or 0)


def by_op(conn: Connection, org_id: str, op: str) -> Version | None:
    """The version that an act builds, if it has been begun before."""
    query = _ALL.where(versions.c.org_id == org_id, versions.c.op == op)
    row = conn.execute(query).first()
    return None if row is None else Version(*row)


def dropped_by(conn: Connection, org_id: str, op: str) -> list[Version]:
    """The versions that an act has dropped, or is dropping, newest first."""
    query = _ALL.where(versions.c.org_id == org_id, versions.c.drop_op == op)
    return [Version(*row) for row in conn.execute(query.order_by(versions.c.version.desc()))]


def get(conn: Connection, version_id: str) -> Version | None:
    """A version by its id."""
    row = (conn.execute(_ALL.where(versions.c.id == version_id))).first()
    return None if row is None else Version(*row)


def lent(conn: Connection, org_id: str, version_id: str) -> Version | None:
    """A version on which the org's sandboxes may stand: its own, or the platform's."""
    own = _ALL.where(versions.c.org_id == org_id)
    for query in (own, _of_platform()):
        row = conn.execute(query.where(versions.c.id == version_id)).first()
        if row is not None:
            return Version(*row)
    return None


def of_slug(conn: Connection, org_id: str, slug: str) -> list[Version]:
    """The slug's versions, newest first."""
    query = _ALL.where(
        versions.c.org_id == org_id, versions.c.slug == slug, versions.c.state.in_(_SHOWN)
    ).order_by(versions.c.version.desc())
    return [Version(*row) for row in conn.execute(query)]


def usable(conn: Connection, org_id: str, slug: str) -> list[Version]:
    """What an org sees under a slug, newest first: its own, else the platform's."""
    return of_slug(conn, org_id, slug) or _platforms(conn, slug)


def choices(conn: Connection, org_id: str, slug: str, number: int | None) -> list[Version]:
    """Of which an org makes a sandbox, the first ready one is taken: its own, the newest first.

    Without a number the platform's come after those: a build of the org's own that failed, or is not done,
    takes nothing away from it.
    """
    own = of_slug(conn, org_id, slug)
    if number is not None:
        return [one for one in own or _platforms(conn, slug) if one.version == number]
    if any(one.state == "ready" for one in own):
        return own
    return [*own, *_platforms(conn, slug)]


def newest(conn: Connection, org_id: str) -> list[Version]:
    """The newest version of every slug, of the org's own before the platform's."""
    own = _ALL.where(versions.c.org_id == org_id, versions.c.state.in_(_SHOWN))
    found: dict[str, Version] = {}
    for query in (own, _of_platform()):
        for row in conn.execute(query.order_by(versions.c.slug, versions.c.version.desc())):
            version = Version(*row)
            found.setdefault(version.slug, version)
    return [found[slug] for slug in sorted(found)]


def _platforms(conn: Connection, slug: str) -> list[Version]:
    query = _of_platform().where(versions.c.slug == slug)
    return [Version(*row) for row in conn.execute(query.order_by(versions.c.version.desc()))]


def _of_platform() -> Select[Any]:
    """What the first org has built by a recipe as it stands: there is nothing of the org's own in it."""
    first = select(orgs.c.id).order_by(orgs.c.created_at, orgs.c.id).limit(1).scalar_subquery()
    return _ALL.where(
        versions.c.org_id == first,
        versions.c.state == "ready",
        versions.c.slug.in_(RECIPES),
        versions.c.run.is_(None),
        cast(versions.c.apt, String) == "[]",
    )


def in_state(conn: Connection, state: str) -> list[Version]:
    """Every org's versions in a state."""
    query = _ALL.where(versions.c.state == state).order_by(versions.c.created_at)
    return [Version(*row) for row in conn.execute(query)]


def still_ready(conn: Connection, version_id: str) -> bool:
    """Whether sandboxes may stand on the version; it stays so until the transaction ends."""
    query = select(versions.c.state).where(versions.c.id == version_id)
    return bool(conn.scalar(query.with_for_update(read=True)) == "ready")


def begin_drop(conn: Connection, version_id: str, op: str) -> Version | None:
    """The version, which that act drops from now on; None where another does, or has."""
    shown = (versions.c.id == version_id) & versions.c.state.in_(_SHOWN)
    marked = conn.execute(update(versions).where(shown).values(state="dropping", drop_op=op))
    return get(conn, version_id) if marked.rowcount else None


def keep(conn: Connection, dropping: Sequence[Version]) -> None:
    """What an act was dropping stays as it was, but for what is gone; a repeat of the act begins anew."""
    for version in dropping:
        mine = (versions.c.id == version.id) & (versions.c.drop_op == version.drop_op)
        there = mine & (versions.c.state == "dropping")
        conn.execute(update(versions).where(there).values(state=version.state_before))
        conn.execute(update(versions).where(mine).values(drop_op=None))


def built(conn: Connection, version_id: str, values: Mapping[str, Any]) -> None:
    """What is told of a build that is under way; of one that has ended nothing changes any more."""
    mine = (versions.c.id == version_id) & (versions.c.state == "building")
    conn.execute(update(versions).where(mine).values(**values))


def change(conn: Connection, version_id: str, values: Mapping[str, Any]) -> None:
    """Set columns of one version."""
    conn.execute(update(versions).where(versions.c.id == version_id).values(**values))
