"""What can be done with SSH keys: registering them, removing them, and naming them in a create."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from runtools.errors import NotFound
from runtools.platform.api import guard
from runtools.platform.api.calls import Call
from runtools.platform.api.projects import store as projects
from runtools.platform.api.ssh_keys import store
from runtools.platform.api.ssh_keys.store import SshKey
from runtools.platform.core.ids import new_id
from runtools.platform.kit import http, sshkeys
from runtools.platform.kit.db import Transaction
from runtools.platform.kit.sshkeys import BadKey, PublicKey
from runtools.sdk.shapes.ssh_keys import SshKeyCreate

_REF = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,62}")
_ID = re.compile(r"ssh_[a-z0-9]{20}")


async def add(call: Call, wanted: SshKeyCreate) -> SshKey:
    """Register a key; the same act again gets the one that it registered.

    Raises:
        Forbidden: the caller may not work in sandboxes, which the key then opens.
    """
    guard.check_scope(call.who, "sandbox:write")
    if _ID.fullmatch(wanted.label):
        raise http.wrong_field("label", "has the form of an id")
    key = public_key(wanted.public_key, "publicKey")
    fresh = SshKey(
        id=new_id("ssh"),
        org_id=call.org,
        project_id="",
        label=wanted.label,
        kind=key.kind,
        bits=key.bits,
        fingerprint=key.fingerprint,
        public_key=key.line,
        created_by=call.actor,
        op=call.op,
        created_at=call.platform.clock.now(),
    )
    return await call.once(store.made_by, lambda: call.made(_add, fresh, wanted.project_id))


async def get(call: Call, ref: str) -> SshKey:
    """One of the org's, by id or label."""
    found = await call.platform.db.read(store.find, call.org, ref)
    if found is None:
        raise unknown(ref)
    return found


async def remove(call: Call, ref: str, look: Callable[[SshKey], bytes]) -> SshKey:
    """Take one away. Sandboxes that were given it keep it.

    Args:
        look: how it is shown in the answer, which is kept with what it tells of.
    """

    def act(conn: Transaction) -> SshKey:
        found = store.remove(conn, call.org, ref)
        if found is None:
            raise unknown(ref)
        return found

    return await call.settled(look, act)


async def lines(call: Call, wanted: Sequence[str], field: str) -> list[str]:
    """What a sandbox is given: public keys as they are, and those that are registered by name.

    Raises:
        NotFound: a name is no id or label of the org's.
        InvalidRequest: what is no name is no key either.
    """
    found = []
    for n, text in enumerate(wanted):
        if _REF.fullmatch(text) is None:
            found.append(public_key(text, f"{field}.{n}").line)
            continue
        key = await call.platform.db.read(store.find, call.org, text)
        if key is None:
            raise unknown(text, f"{field}.{n}")
        found.append(key.public_key)
    return list(dict.fromkeys(found))


def public_key(text: str, field: str) -> PublicKey:
    """The key in a field.

    Raises:
        InvalidRequest: it is none; the error holds nothing of what was sent.
    """
    try:
        return sshkeys.parse(text)
    except BadKey as bad:
        raise http.wrong_field(field, bad.problem, hint=bad.hint) from None


def unknown(ref: str, field: str = "ref") -> NotFound:
    """The error for a key that the org has not."""
    return NotFound(
        f"no SSH key {ref[:80]!r}",
        hint="runtools ssh-key list shows those there are",
        details={"field": field},
    )


def _add(conn: Transaction, key: SshKey, project: str | None) -> SshKey:
    made = replace(key, project_id=projects.place(conn, key.org_id, project))
    store.add(conn, made)
    return made
