"""How an org's own things look to people: projects, keys, limits, usage, its people and sessions."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import RenderableType
from rich.text import Text

from runtools.cli import tables, words
from runtools.sdk.shapes.limits import OrgLimits
from runtools.sdk.shapes.people import Invitation, Member, Org, Session
from runtools.sdk.shapes.projects import Project
from runtools.sdk.shapes.ssh_keys import SshKey
from runtools.sdk.shapes.usage import UsageRow


def projects(found: Sequence[Project]) -> RenderableType:
    """Projects, a line each, in their colours."""
    counted = ("SANDBOXES", "API KEYS", "SSH KEYS")
    table = tables.table("NAME", "ID", *counted, right=counted)
    for one in found:
        name = Text(one.name, style=one.color or "")
        if one.is_default:
            name.append(" (default)", style="bright_black")
        lies = one.contents
        table.add_row(name, one.id, str(lies.sandboxes), str(lies.api_keys), str(lies.ssh_keys))
    return table


def ssh_keys(found: Sequence[SshKey]) -> RenderableType:
    """SSH keys, a line each, with what tells one from another."""
    if not found:
        return Text("no SSH keys; `runtools ssh-key add` registers one", style="bright_black")
    table = tables.table("LABEL", "FINGERPRINT", "TYPE", "ADDED")
    for one in found:
        table.add_row(one.label, one.fingerprint, _kind(one), words.moment(one.created_at))
    return table


def ssh_key(one: SshKey) -> RenderableType:
    """All about an SSH key."""
    return tables.facts(
        ("key", f"{one.label} ({one.id})"),
        ("fingerprint", one.fingerprint),
        ("type", _kind(one)),
        ("project", one.project_id),
        ("added", f"{words.moment(one.created_at)} by {one.created_by}"),
        ("public key", words.harmless(one.public_key)),
    )


def _kind(one: SshKey) -> str:
    return one.kind if one.bits is None else f"{one.kind} {one.bits}"


def orgs(found: Sequence[Org]) -> RenderableType:
    """Orgs, a line each; the current one is marked."""
    if not found:
        return Text("you are in no organisation; an invitation lets you in", style="bright_black")
    table = tables.table("NAME", "ID", "ROLE", "MADE")
    for one in found:
        name = Text(words.harmless(one.name))
        if one.current:
            name.append(" (current)", style="bright_black")
        table.add_row(name, one.id, one.role or "-", words.moment(one.created_at))
    return table


def members(found: Sequence[Member]) -> RenderableType:
    """People of an org, a line each."""
    table = tables.table("NAME", "E-MAIL", "ROLE", "ID")
    for one in found:
        table.add_row(words.harmless(one.name), one.email, one.role, one.user_id)
    return table


def invitations(found: Sequence[Invitation]) -> RenderableType:
    """Invitations, a line each, without their links."""
    if not found:
        return Text("no invitations", style="bright_black")
    table = tables.table("E-MAIL", "ROLE", "STATE", "ENDS", "ID")
    for one in found:
        role = f"{one.role}, operator" if one.operator else one.role
        table.add_row(one.email, role, one.state, words.moment(one.expires_at), one.id)
    return table


def sessions(found: Sequence[Session]) -> RenderableType:
    """Where a person is signed in, a line each."""
    table = tables.table("WHERE", "FROM", "LAST USED", "ID")
    for one in found:
        where = Text(words.harmless(one.label))
        if one.current:
            where.append(" (here)", style="bright_black")
        table.add_row(where, one.source, words.moment(one.seen_at), one.id)
    return table


def limits(found: OrgLimits) -> RenderableType:
    """What an org has of what it may have."""
    table = tables.table("LIMIT", "USED", "MOST", right=["USED", "MOST"])
    for name, what in _LIMITS.items():
        show = words.megabytes if name.endswith("_mb") else str
        most = getattr(found.limits, name)
        table.add_row(what, show(getattr(found.used, name)), show(most) if most else "no limit")
    return table


_LIMITS = {
    "sandboxes": "running sandboxes",
    "vcpus": "their vCPUs",
    "memory_mb": "their memory",
    "disk_mb": "disk of all",
    "snapshots": "snapshots",
    "agent_tokens": "tokens of models in this month",
    "agent_cents": "cents that those cost",
}


def usage(found: Sequence[UsageRow]) -> RenderableType:
    """What was used, a line each, and in all."""
    if not found:
        return Text("nothing was used in that time", style="bright_black")
    counted = ("RAN", "VCPU H", "MEMORY GB H", "DISK GB H")
    table = tables.table("WHAT", *counted, right=counted)
    for one in found:
        what = one.day or one.name or one.sandbox_id or one.project_id or "the org"
        table.add_row(what, *_used([one]))
    if len(found) > 1:
        table.add_row("in all", *_used(found), style="bold")
    return table


def _used(rows: Sequence[UsageRow]) -> list[str]:
    ran = sum(row.running_ms for row in rows) / 1000
    return [
        words.span(ran),
        f"{sum(row.vcpu_ms for row in rows) / 3_600_000:.2f}",
        f"{sum(row.memory_gb_hours for row in rows):.2f}",
        f"{sum(row.stored_gb_hours for row in rows):.2f}",
    ]
