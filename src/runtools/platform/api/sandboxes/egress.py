"""The egress policy of a sandbox: written down with the next generation, then put in force by its host.

A policy that the host could not be told stays open, and the reconcile loop tells it again. The host refuses
what is older than what it has. Where nobody here wrote that (an older backup was restored, a stray was
adopted), the policy in the row gets the generation after the host's, and is told once more.
"""

from __future__ import annotations

from runtools.errors import Conflict, NotFound, SandboxStopped
from runtools.platform.api.calls import Call
from runtools.platform.api.platform import Platform
from runtools.platform.api.sandboxes import rules, store
from runtools.platform.api.sandboxes.inside import living
from runtools.platform.api.sandboxes.load import load
from runtools.platform.api.sandboxes.tables import Record
from runtools.platform.kit.db import Transaction
from runtools.platform.kit.http import one
from runtools.sdk.shapes.egress import Egress, EgressChange, EgressRules

_ATTEMPTS = 5


def of(record: Record) -> Egress:
    """The policy in a row."""
    return Egress(internet=record.internet, **record.egress)


def topic(sandbox_id: str) -> str:
    """What stands in `Platform.asking` while a host is asked for the policy of a sandbox."""
    return f"egress {sandbox_id}"


async def change(call: Call, ref: str, wanted: EgressChange) -> Egress:
    """Change what is given; returns when the whole is in force."""
    platform = call.platform
    record = await living(call, ref)
    if call.begun is not None:
        # It was written, and its answer lost. What others have changed since stays.
        await ask(platform, record)
        return Egress.model_validate_json(call.begun)
    sandbox_id = record.id
    for _ in range(_ATTEMPTS):
        record = await load(platform, call.org, sandbox_id)
        now = _changed(of(record), wanted)
        if await platform.db.write(_set, call, record, now):
            break
    else:
        raise Conflict(f"too many changes of {sandbox_id} at once", hint="ask again in a moment")
    record = await load(platform, call.org, sandbox_id)
    return of(await ask(platform, record))


def _set(conn: Transaction, call: Call, record: Record, now: Egress) -> bool:
    plain = EgressRules(allow=now.allow, deny=now.deny).model_dump(by_alias=False)
    done = store.set_egress(conn, record, now.internet, plain)
    if done:
        call.note(conn, one(now))
    return done


async def ask(platform: Platform, record: Record) -> Record:
    """Have the host put the policy of a row in force, or that of a newer one; returns the row it was.

    Raises:
        Unavailable: it could not, or does not answer; it will be asked again.
        NotFound, SandboxStopped: there is nothing left to put it in force for.
    """
    with platform.about(topic(record.id)):
        return await _ask(platform, record)


async def _ask(platform: Platform, record: Record) -> Record:
    host = platform.hosts.port(record.host_id)
    for _ in range(_ATTEMPTS):
        try:
            await host.set_egress(record.id, record.egress_generation, of(record))
        except (NotFound, SandboxStopped):
            await platform.db.write(store.close_egress, record.id, record.egress_generation)
            raise
        except Conflict as exc:
            held = exc.details.get("egress_generation")
            if not isinstance(held, int):
                raise
            await platform.db.write(store.outrank_egress, record, held)
            record = await load(platform, record.org_id, record.id)
        else:
            await platform.db.write(store.close_egress, record.id, record.egress_generation)
            return record
    raise Conflict(f"too many changes of {record.id} at once", hint="ask again in a moment")


def _changed(now: Egress, wanted: EgressChange) -> Egress:
    kept = EgressRules(
        allow=now.allow if wanted.allow is None else wanted.allow,
        deny=now.deny if wanted.deny is None else wanted.deny,
    )
    internet = now.internet if wanted.internet is None else wanted.internet
    plain = rules.egress(kept)
    return Egress(internet=internet, allow=plain.allow, deny=plain.deny)
