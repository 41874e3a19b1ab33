"""The schema of the platform's database: every table, and the migrations that make it."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from runtools.errors import Conflict
from runtools.platform.api.audit import store as _audit
from runtools.platform.api.definitions import tables as _definitions
from runtools.platform.api.deploys import tables as _deploys
from runtools.platform.api.dev_urls import store as _dev_urls
from runtools.platform.api.guests import store as _guests
from runtools.platform.api.hosts import store as _hosts
from runtools.platform.api.idempotency import store as _idempotency
from runtools.platform.api.identities import store as _identities
from runtools.platform.api.invitations import store as _invitations
from runtools.platform.api.keys import store as _keys
from runtools.platform.api.ledger import store as _ledger
from runtools.platform.api.leftovers import store as _leftovers
from runtools.platform.api.limits import store as _limits
from runtools.platform.api.logins import store as _logins
from runtools.platform.api.members import store as _members
from runtools.platform.api.models import store as _models
from runtools.platform.api.orgs import store as _orgs
from runtools.platform.api.processes import store as _processes
from runtools.platform.api.projects import store as _projects
from runtools.platform.api.resets import store as _resets
from runtools.platform.api.runs import tables as _runs
from runtools.platform.api.sandboxes import tables as _sandboxes
from runtools.platform.api.secrets import store as _secrets
from runtools.platform.api.sessions import store as _sessions
from runtools.platform.api.signin import store as _signin
from runtools.platform.api.snapshots import store as _snapshots
from runtools.platform.api.ssh_access import store as _ssh_access
from runtools.platform.api.ssh_keys import store as _ssh_keys
from runtools.platform.api.templates import store as _templates
from runtools.platform.api.threads import tables as _threads
from runtools.platform.api.usage import tables as _usage
from runtools.platform.api.users import store as _users
from runtools.platform.api.vault import store as _vault
from runtools.platform.api.webhooks import tables as _webhooks
from runtools.platform.api.workers import store as _workers
from runtools.platform.kit.db import Database, Transaction, lock_start, metadata

# Importing a store registers its tables; this is the one place that names them all.
STORES = (
    _audit,
    _definitions,
    _deploys,
    _dev_urls,
    _guests,
    _hosts,
    _idempotency,
    _identities,
    _invitations,
    _keys,
    _ledger,
    _leftovers,
    _limits,
    _models,
    _logins,
    _members,
    _orgs,
    _processes,
    _projects,
    _resets,
    _runs,
    _sandboxes,
    _secrets,
    _sessions,
    _signin,
    _snapshots,
    _ssh_access,
    _ssh_keys,
    _templates,
    _threads,
    _users,
    _usage,
    _vault,
    _webhooks,
    _workers,
)

# Every column whose values are sealed: what a new master key must reach.
SEALED = (_definitions.SEALED, _deploys.SEALED, _guests.SEALED, _secrets.SEALED, _webhooks.SEALED)

__all__ = ["SEALED", "STORES", "check", "config", "metadata", "upgrade"]


def config() -> Config:
    """Alembic's view of the migrations, which are shipped in the package."""
    settings = Config()
    folder = Path(__file__).parent / "migrations"
    settings.set_main_option("script_location", str(folder).replace("%", "%%"))
    return settings


async def check(db: Database) -> None:
    """Refuse to work with a database that this version did not make or bring up to date.

    Raises:
        Conflict: it is of another version.
    """

    def run(conn: Transaction) -> None:
        found, latest = _revision(conn), _versions()[0]
        if found == latest:
            return
        _check_known(found)
        raise Conflict(
            f"the database is of another version of the platform: its schema is {found or 'missing'},"
            f" and not {latest}",
            hint="start the platform first, which brings it up to date: runtools up",
        )

    await db.read(run)


def _revision(conn: Transaction) -> str | None:
    return MigrationContext.configure(conn).get_current_revision()


@cache
def _versions() -> tuple[str, ...]:
    """Every version of the schema that this platform knows, the latest first."""
    return tuple(one.revision for one in ScriptDirectory.from_config(config()).walk_revisions())


def _check_known(found: str | None) -> None:
    known = _versions()
    if found is not None and found not in known:
        raise Conflict(
            f"the database is of a newer version of the platform: its schema is {found}, and this one"
            f" knows {known[0]}",
            hint="install that version again, or restore the backup that was made before it",
        )


async def upgrade(db: Database) -> None:
    """Bring the schema to the present. One process does it, at start; a second one waits.

    Raises:
        Conflict: the database is of a newer version.
    """

    def run(conn: Transaction) -> None:
        lock_start(conn)
        found = _revision(conn)
        if found == _versions()[0]:
            return
        _check_known(found)
        settings = config()
        settings.attributes["connection"] = conn
        command.upgrade(settings, "head")

    await db.write(run)
