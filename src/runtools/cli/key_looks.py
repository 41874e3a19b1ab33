"""How it looks who one is, what opens what, and what was done with it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import RenderableType

from runtools.cli import tables, words
from runtools.sdk.shapes.account import ApiKey, Me
from runtools.sdk.shapes.audit import AuditLine
from runtools.sdk.shapes.secrets import Secret


def me(who: Me, url: str, source: str | None = None) -> RenderableType:
    """Which platform, org, and person or key."""
    user = who.user
    return tables.facts(
        ("platform", url),
        ("org", f"{words.harmless(who.org_name)} ({who.org_id})" if who.org_name else "none"),
        ("user", f"{words.harmless(user.name)} <{user.email}> ({user.id})" if user else None),
        ("role", who.role),
        ("key", who.key_id),
        ("from", source),
        ("may do", ", ".join(who.scopes) or "nothing"),
    )


def api_keys(found: Sequence[ApiKey]) -> RenderableType:
    """API keys, a line each, without themselves."""
    table = tables.table("ID", "NAME", "BEGINS", "MAY DO", "LAST USED", "ENDS")
    for one in found:
        end = f"revoked {words.moment(one.revoked_at)}" if one.revoked_at else "never"
        if one.expires_at and not one.revoked_at:
            end = words.moment(one.expires_at)
        used = words.moment(one.last_used_at) if one.last_used_at else "never"
        may = ", ".join(one.scopes) or "everything"
        table.add_row(one.id, words.harmless(one.name), one.prefix, may, used, end)
    return table


def secrets(found: Sequence[Secret]) -> RenderableType:
    """Secrets, a line each, without their values."""
    table = tables.table(
        "NAME", "CATEGORY", "SCOPE", "VERSION", "CHANGED", "DESCRIPTION", right=("VERSION",)
    )
    for one in found:
        changed = words.moment(one.updated_at)
        about = words.harmless(one.description or "")
        table.add_row(one.name, one.category, one.scope, str(one.version), changed, about)
    return table


def audit(lines: Sequence[AuditLine]) -> RenderableType:
    """The audit log, a line each."""
    table = tables.table("AT", "ACTION", "RESOURCE", "ANSWER", "BY", "FROM")
    for one in lines:
        answer = "none" if one.status is None else f"{one.status} {one.error or ''}".strip()
        resource = words.harmless(one.resource or "")
        at = words.moment(one.at)
        table.add_row(at, one.action, resource, answer, one.actor, one.source)
    return table
