"""Secrets: setting, rotating, revealing, taking away, and handing to sandboxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from runtools.errors import Forbidden, NotFound
from runtools.platform.api.calls import Call
from runtools.platform.api.secrets import sent, store
from runtools.platform.api.secrets.look import look
from runtools.platform.api.secrets.store import Secret
from runtools.platform.api.vault.vault import Sealed, Vault
from runtools.platform.core.ids import new_id
from runtools.platform.kit.db import Transaction
from runtools.sdk.shapes.secrets import SecretRotate, SecretSet

MADE, SHOWED = 201, 200
# What may enter a sandbox, and only by name.
_ENTERS = ("custom", frozenset({"sandboxes", "all"}))


async def put(call: Call, wanted: SecretSet) -> tuple[Secret, bool]:
    """Make a secret, or give one that exists another value; returns whether it was made.

    Raises:
        InvalidRequest: it is of a category that is sent in headers, and no header may hold its value.
    """
    return await call.platform.db.write(_put, call, wanted, call.platform.clock.now())


async def rotate(call: Call, name: str, wanted: SecretRotate) -> Secret:
    """Give a secret that exists another value."""
    return await call.platform.db.write(
        _rotate, call, name, wanted.value, call.platform.clock.now()
    )


async def get(call: Call, name: str) -> Secret:
    """What is known of a secret, but its value."""
    found = await call.platform.db.read(store.value, call.org, name)
    if found is None:
        raise _unknown(name)
    return found[0]


async def reveal(call: Call, name: str) -> tuple[Secret, str]:
    """A secret with its value; the line that tells of it is written with the look at it, or neither is."""
    return await call.platform.db.write(_reveal, call, name)


async def remove(call: Call, name: str) -> Secret:
    """Take a secret away."""
    return await call.platform.db.write(_remove, call, name)


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


def _reveal(conn: Transaction, call: Call, name: str) -> tuple[Secret, str]:
    found = store.value(conn, call.org, name)
    if found is None:
        raise _unknown(name)
    value = _opened(call.platform.vault, *found)
    call.tell(conn, SHOWED)
    return found[0], value


def _put(conn: Transaction, call: Call, wanted: SecretSet, now: datetime) -> tuple[Secret, bool]:
    vault = call.platform.vault
    there = store.find(conn, call.org, wanted.name)
    if there is not None:
        said = wanted.model_dump(include={"category", "scope", "description"}, exclude_unset=True)
        secret = _change(conn, call, replace(there, **said), wanted.value, now)
        call.settle(conn, look(secret), MADE)
        return secret, False
    secret = Secret(
        id=new_id("sec"),
        org_id=call.org,
        name=wanted.name,
        category=wanted.category,
        scope=wanted.scope,
        description=wanted.description,
        version=1,
        created_at=now,
        updated_at=now,
        op=call.op,
    )
    if store.add(conn, secret, _sealed(conn, vault, secret, wanted.value)):
        call.settle(conn, look(secret), MADE)
        return secret, True
    return _put(conn, call, wanted, now)  # somebody else was first: change theirs


def _rotate(conn: Transaction, call: Call, name: str, value: str, now: datetime) -> Secret:
    there = store.find(conn, call.org, name)
    if there is None:
        raise _unknown(name)
    secret = _change(conn, call, there, value, now)
    call.settle(conn, look(secret))
    return secret


def _remove(conn: Transaction, call: Call, name: str) -> Secret:
    found = store.remove(conn, call.org, name)
    if found is None:
        raise _unknown(name)
    call.settle(conn, look(found))
    return found


def _change(conn: Transaction, call: Call, secret: Secret, value: str, now: datetime) -> Secret:
    if secret.op == call.op:
        return secret  # the same act in another process: it has this value
    fresh = replace(secret, version=secret.version + 1, updated_at=now, op=call.op)
    store.change(conn, fresh, _sealed(conn, call.platform.vault, fresh, value))
    return fresh


def _sealed(conn: Transaction, vault: Vault, secret: Secret, value: str) -> Sealed:
    sent.check(secret.category, value)
    return vault.seal(conn, value, store.LABEL, secret.org_id, secret.name)


def _opened(vault: Vault, secret: Secret, sealed: Sealed) -> str:
    return vault.open(sealed, store.LABEL, secret.org_id, secret.name)


def _unknown(name: str) -> NotFound:
    return NotFound(f"no secret {name[:128]!r}", hint="runtools secret list shows them")
