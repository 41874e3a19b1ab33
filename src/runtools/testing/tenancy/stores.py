"""Every public function of every store, and whose records it may touch.

One that is given an ``org_id`` works within that org; `probe` shows it. One that is given a whole record (a
row with its org in it) writes what its caller has fetched within the org, or makes. Every other is named in
`ACROSS`, with the reason for which it needs no org.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from runtools.platform import api

# Who asks has been let in by it: there is no org before the answer.
_DOOR = (
    "the doorkeeper: who holds what is looked up by its digest, and this says of which org they are"
)
_SSH = "the doorkeeper of SSH: the sandbox says of which org its keys must be"
_CODE = "whoever has the code may: it is found by its digest, and is of no org until then"
_HOST = "a host's report, about a sandbox that the platform itself gave to it"
_REPAIR = "the loop that repairs: it looks after every org's"
_SWEEP = "drops what is too old, of every org"
_MACHINE = "about the machine or the platform, which belong to no org"
_PERSON = "about a person, who may be in several orgs; fetched by the person's id"
_INSIDE = "by an id that the same act has fetched within its org, in the same or an earlier step"
_MAKES = (
    "makes a row of the org's, of ids that the platform itself has found or made; fetches nothing"
)
_LEASE = (
    "by the id of a deploy that the platform carries out, and the lease that this process has on it"
)
_WORKER = (
    "for the worker that drives it, which serves every org: by the id of a run that it was offered"
)
_USERS = (
    "counts by org what stands on a template version, which serves every org where it is the platform's;"
    " who asks is told of its own, and of others that there are some"
)
_PURE = "touches no record"

ACROSS: Mapping[str, str] = {
    "audit.add": "lines that bear the org of whoever was let in",
    "audit.drop": _SWEEP,
    "definitions.put": _MAKES,
    "deploys.add": _MAKES,
    "deploys.advance": _LEASE,
    "deploys.cancelled": _LEASE,
    "deploys.end": _LEASE,
    "deploys.hold": _LEASE,
    "deploys.is_held": _LEASE,
    "deploys.let_go": _LEASE,
    "deploys.refuse_beside": _INSIDE,
    "deploys.running": _INSIDE,
    "deploys.stumble": _LEASE,
    "deploys.take": _LEASE,
    "deploys.under_way": _PURE,
    "deploys.waiting": _REPAIR,
    "dev_urls.drop": _SWEEP,
    "dev_urls.opening": _DOOR,
    "dev_urls.place": "the doorkeeper: who may enter a port is asked before it is known who asks",
    "guests.forget": _HOST,
    "guests.forget_ended": _SWEEP,
    "guests.is_kept": _PURE,
    "guests.keep": _INSIDE,
    "guests.of": _INSIDE,
    "hosts.advance": _MACHINE,
    "hosts.enrol": _MACHINE,
    "hosts.position": _MACHINE,
    "hosts.seen": _MACHINE,
    "hosts.views": _MACHINE,
    "idempotency.expire": _SWEEP,
    "keys.caller": _DOOR,
    "keys.drop": _SWEEP,
    "keys.has_operator": _MACHINE,
    "keys.made_by": _PERSON,
    "keys.revoke_all_made_by": _PERSON,
    "keys.living": _DOOR,
    "keys.revoked": "how many acts have revoked keys, of all orgs: no record of anybody's",
    "keys.used": "notes when keys that were let in were last used",
    "leftovers.due": _REPAIR,
    "ledger.before": _HOST,
    "ledger.holds": _HOST,
    "identities.all_of": _PERSON,
    "identities.begin": _PERSON,
    "identities.link": _PERSON,
    "identities.take": _CODE,
    "identities.unlink": _PERSON,
    "identities.unlink_all": _PERSON,
    "identities.user_of": _DOOR,
    "invitations.accepted": _CODE,
    "invitations.drop": _SWEEP,
    "invitations.open_one": _CODE,
    "invitations.take": _CODE,
    "logins.approve": _CODE,
    "logins.end_approved": _PERSON,
    "logins.fetch": _INSIDE,
    "logins.find": _CODE,
    "logins.refuse": _CODE,
    "logins.waiting": _CODE,
    "members.add": _MAKES,
    "members.places": _PERSON,
    "metrics.totals": "counts over every org, for the operator's own token",
    "orgs.add": _MAKES,
    "orgs.add_once": _MAKES,
    "orgs.first": _MACHINE,
    "processes.add": _DOOR,
    "processes.take": _DOOR,
    "projects.unknown": _PURE,
    "resets.end": _PERSON,
    "resets.find": _CODE,
    "resets.of_person": _PERSON,
    "runs.behind": _INSIDE,
    "runs.caller": _DOOR,
    "runs.counts": "counts over every org, for the operator's own token",
    "runs.driven_but_by": _REPAIR,
    "runs.driven_by": _WORKER,
    "runs.held": _WORKER,
    "runs.known": _WORKER,
    "runs.offerable": _WORKER,
    "runs.uncancelled": _REPAIR,
    "sandboxes.change": _HOST,
    "sandboxes.close_egress": _INSIDE,
    "sandboxes.close_wish": _INSIDE,
    "sandboxes.get": _INSIDE,
    "sandboxes.locked": _HOST,
    "sandboxes.miss": _HOST,
    "sandboxes.name_taken": _PURE,
    "sandboxes.open_egress": _REPAIR,
    "sandboxes.open_wishes": _REPAIR,
    "sandboxes.rename": _INSIDE,
    "sandboxes.retag": _INSIDE,
    "sandboxes.unseen_in": _REPAIR,
    "sandboxes.users_of": _USERS,
    "sandboxes.which": _REPAIR,
    "sessions.caller": _DOOR,
    "sessions.end": _PERSON,
    "sessions.end_others": _PERSON,
    "sessions.living": _DOOR,
    "sessions.page": _PERSON,
    "sessions.switch": "the session's own; that its person is in the org has been checked",
    "sessions.used": "notes when sessions that were let in were last used",
    "signin.begin": _PERSON,
    "signin.succeeded": _PERSON,
    "snapshots.forget": _INSIDE,
    "snapshots.gone_with": _HOST,
    "snapshots.mark": _INSIDE,
    "snapshots.ready": _INSIDE,
    "snapshots.unfinished": _REPAIR,
    "snapshots.users_of": _USERS,
    "ssh_keys.remove_all_made_by": _PERSON,
    "ssh_access.host_keys": _MACHINE,
    "ssh_access.opens": _SSH,
    "ssh_access.password_of": _SSH,
    "ssh_access.place": _SSH,
    "ssh_access.set_host_keys": _MACHINE,
    "templates.begin_drop": _INSIDE,
    "templates.built": _INSIDE,
    "templates.change": _INSIDE,
    "templates.get": _REPAIR,
    "templates.in_state": _REPAIR,
    "templates.keep": _INSIDE,
    "templates.lent": "the org's own, and the platform's, which every org may use",
    "templates.still_ready": _INSIDE,
    "usage.given_up": _HOST,
    "usage.moved": _HOST,
    "usage.moves_of": _INSIDE,
    "usage.seen": _HOST,
    "usage.stored_of": _INSIDE,
    "usage_days.add_up": _REPAIR,
    "usage_days.days_of": _INSIDE,
    "usage_days.old": _REPAIR,
    "users.add": _PERSON,
    "users.add_once": _PERSON,
    "users.by_email": _DOOR,
    "users.find": _PERSON,
    "users.close": _PERSON,
    "users.has_operator": _MACHINE,
    "users.held": _PERSON,
    "users.locked": _PERSON,
    "users.page": _MACHINE,
    "users.reset_password": _PERSON,
    "users.set_operator": _PERSON,
    "users.set_password": _PERSON,
    "vault.announce": _MACHINE,
    "vault.coming": _MACHINE,
    "vault.current_id": _MACHINE,
    "vault.forget_holders": _SWEEP,
    "vault.give_up": _MACHINE,
    "vault.hold": _MACHINE,
    "vault.holding": _MACHINE,
    "vault.is_silent": _MACHINE,
    "vault.known": _MACHINE,
    "vault.let_go": _MACHINE,
    "vault.make_current": _MACHINE,
    "vault.reseal": _MACHINE,
    "vault.retire": _MACHINE,
    "webhooks.claim": "the sender, which serves every org",
    "webhooks.disable": "the sender, which serves every org",
    "webhooks.due": "the sender, which serves every org",
    "webhooks.forget_old": _SWEEP,
    "webhooks.hold": "the sender, which serves every org",
    "webhooks.overfull": "the sender, which serves every org",
    "webhooks.put_once": "a delivery of a webhook that the same act has fetched within its org",
    "webhooks.report": "the sender, which serves every org",
    "workers.came": _MACHINE,
    "workers.forget": _SWEEP,
    "workers.left": _MACHINE,
    "workers.heard": _MACHINE,
    "workers.known": _MACHINE,
    "workers.seen": _MACHINE,
}


@dataclass(frozen=True, slots=True)
class Method:
    """A public function of a store."""

    module: str
    name: str
    call: Callable[..., Any]

    @property
    def full(self) -> str:
        """How `ACROSS` names it."""
        return f"{self.module}.{self.name}"

    @property
    def parameters(self) -> list[str]:
        """What it is given beside the connection."""
        return [name for name in inspect.signature(self.call).parameters if name != "conn"]

    @property
    def is_scoped(self) -> bool:
        """Whether it is told the org."""
        return "org_id" in self.parameters and self.full not in ACROSS

    @property
    def is_given_the_row(self) -> bool:
        """Whether it is given a record with its org in it."""
        hints = typing.get_type_hints(self.call)
        return any(
            is_dataclass(hint) and "org_id" in {field.name for field in fields(hint)}
            for name, hint in hints.items()
            if name != "return"
        )


def methods() -> Iterator[Method]:
    """All of them, by module and place."""
    assert api.__file__ is not None
    for file in sorted(Path(api.__file__).parent.glob("*/store.py")):
        name = file.parent.name
        module = import_module(f"{api.__name__}.{name}.store")
        for found, what in vars(module).items():
            own = inspect.isfunction(what) and what.__module__ == module.__name__
            if own and not found.startswith("_"):
                yield Method(name, found, what)


def unclassified(known: Iterator[Method]) -> list[str]:
    """Functions of which nobody has said whose records they touch."""
    return [
        one.full
        for one in known
        if not (one.is_scoped or one.is_given_the_row or one.full in ACROSS)
    ]
