"""Secrets: setting, rotating, revealing, taking away, and handing to sandboxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from runtools.errors import Forbidden, NotFound
from runtools.platform.api.audit import store as audit
from runtools.platform.api.audit.store import Line
from runtools.platform.api.calls import Call
from runtools.platform.api.secrets import store
from runtools.platform.api.secrets.store import Secret
from runtools.platform.api.vault.vault import Sealed, Vault
from runtools.platform.core.ids import new_id
from runtools.platform.kit.db import Transaction
from runtools.sdk.shapes.secrets import SecretRotate, SecretSet

# What may enter a sandbox, and only by name.
_ENTERS = ("custom", frozenset({"sandboxes", "all"}))


async def put(call: Call, wanted: SecretSet) -> tuple[Secret, bool]:
    """Make a secret, or give one that exists another value; returns whether it was made."""
    now = call.platform.clock.now()
    return await call.platform.db.write(_put, call.platform.vault, call.org, call.op, wanted, now)


async def rotate(call: Call, name: str, wanted: SecretRotate) -> Secret:
    """Give a secret that exists another value."""
    now = call.platform.clock.now()
    return await call.platform.db.write(
        _rotate, call.platform.vault, call.org, call.op, name, wanted.value, now
    )


async def get(call: Call, name: str) -> Secret:
    """What is known of a secret, but its value."""
    found = await call.platform.db.read(store.value, call.org, name)
    if found is None:
        raise _unknown(name)
    return found[0]


async def reveal(call: Call, name: str, line: Line) -> tuple[Secret, str]:
    """A secret with its value; the line that tells of it is written with the look at it, or neither is."""
    found = await call.platform.db.write(_reveal, call.platform.vault, call.org, name, line)
    call.is_audited = True
    return found


async def remove(call: Call, name: str) -> Secret:
    """Take a secret away."""
    found = await call.platform.db.write(store.remove, call.org, name)
    if found is None:
        raise _unknown(name)
    return found


async def for_sandbox(call: Call, names: Sequence[str]) -> dict[str, str]:
    """The values of secrets that are to enter a sandbox, by name.

    Raises:
        NotFound: there is none of a name.
        Forbidden: category or scope keep one out of sandboxes.
    """
    category, scopes = _ENTERS
    values: dict[str, str] = {}
    for name in names:
        found = await call.platform.db.read(store.value, call.org, name)
        if found is None:
            raise _unknown(name)
        secret, _ = found
        if secret.category != category or secret.scope not in scopes:
            raise Forbidden(
                f"secret {name} is {secret.category}/{secret.scope} and enters no sandbox",
                hint="only category custom with scope sandboxes or all does",
                details={"field": "secrets", "name": name},
            )
        values[name] = _opened(call.platform.vault, *found)
    return values


def _reveal(
    conn: Transaction, vault: Vault, org_id: str, name: str, line: Line
) -> tuple[Secret, str]:
    found = store.value(conn, org_id, name)
    if found is None:
        raise _unknown(name)
    value = _opened(vault, *found)
    audit.add(conn, [line])
    return found[0], value


def _put(
    conn: Transaction, vault: Vault, org_id: str, op: str, wanted: SecretSet, now: datetime
) -> tuple[Secret, bool]:
    there = store.find(conn, org_id, wanted.name)
    if there is not None:
        said = wanted.model_dump(include={"category", "scope", "description"}, exclude_unset=True)
        return _change(conn, vault, replace(there, **said), op, wanted.value, now), False
    secret = Secret(
        id=new_id("sec"),
        org_id=org_id,
        name=wanted.name,
        category=wanted.category,
        scope=wanted.scope,
        description=wanted.description,
        version=1,
        created_at=now,
        updated_at=now,
        op=op,
    )
    if store.add(conn, secret, _sealed(conn, vault, secret, wanted.value)):
        return secret, True
    return _put(conn, vault, org_id, op, wanted, now)  # somebody else was first: change theirs


def _rotate(
    conn: Transaction,
    vault: Vault,
    org_id: str,
    op: str,
    name: str,
    value: str,
    now: datetime,
) -> Secret:
    there = store.find(conn, org_id, name)
    if there is None:
        raise _unknown(name)
    return _change(conn, vault, there, op, value, now)


def _change(
    conn: Transaction, vault: Vault, secret: Secret, op: str, value: str, now: datetime
) -> Secret:
    if secret.op == op:
        return secret  # a repeat: it has this value
    fresh = replace(secret, version=secret.version + 1, updated_at=now, op=op)
    store.change(conn, fresh, _sealed(conn, vault, fresh, value))
    return fresh


def _sealed(conn: Transaction, vault: Vault, secret: Secret, value: str) -> Sealed:
    return vault.seal(conn, value, store.LABEL, secret.org_id, secret.name)


def _opened(vault: Vault, secret: Secret, sealed: Sealed) -> str:
    return vault.open(sealed, store.LABEL, secret.org_id, secret.name)


def _unknown(name: str) -> NotFound:
    return NotFound(f"no secret {name[:128]!r}", hint="runtools secret list shows them")
