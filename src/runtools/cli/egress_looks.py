"""How it looks what a sandbox may reach, and what it was refused."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from runtools.cli import tables, words
from runtools.sdk import shapes

_REFUSED = {
    "internet_off": "its internet is off",
    "closed_range": "no sandbox may go there",
    "not_allowed": "not allowed",
    "quic": "QUIC cannot be checked for names",
    "private_answer": "the name leads to a private address",
    "encrypted_hello": "hides its name (ECH)",
    "unreadable": "says no name that can be read",
    "host_full": "the host has no room for more than a share",
    "too_many": "too many at once",
}


def egress(policy: shapes.Egress | None, refused: shapes.EgressLog | None = None) -> RenderableType:
    """What a sandbox may reach, and what it was refused; one of them where the other is None."""
    parts = [] if policy is None else [_policy(policy)]
    if refused is not None:
        parts += [*([Text()] if parts else []), *_refusals(refused)]
    return Group(*parts)


def _policy(policy: shapes.Egress) -> RenderableType:
    return tables.facts(
        ("internet", "open" if policy.internet else "closed"),
        ("allow", ", ".join("everything" if rule == "*" else rule for rule in policy.allow) or "-"),
        ("deny", ", ".join(policy.deny) or "-"),
    )


def _refusals(refused: shapes.EgressLog) -> list[RenderableType]:
    if not refused.refusals:
        return [Text("nothing was refused", style="bright_black")]
    table = tables.table("LAST", "TIMES", "TO", "WHAT", right=["TIMES"])
    # A name may be longer than a line: it is folded, and leaves room for how often and why.
    to_what = table.columns[2]
    to_what.no_wrap, to_what.overflow = False, "fold"
    for one in refused.refusals:
        port = f":{one.port}" if one.port is not None else ""
        to = " ".join(
            part for part in (one.name, f"{one.address}{port}" if one.address else "") if part
        )
        why = _REFUSED[one.reason]
        if one.address is None and one.protocol == "other":
            to = f"({one.count} more, not told one by one)"
        else:
            why = f"{one.protocol}, {why}"
        table.add_row(words.moment(one.last_at), str(one.count), words.harmless(to) or "-", why)
    parts: list[RenderableType] = [table]
    for reason, hint in {one.reason: one.hint for one in refused.refusals if one.hint}.items():
        parts.append(Text(f"{_REFUSED[reason]}: {hint}", style="bright_black"))
    if refused.forgotten:
        note = words.plural(refused.forgotten, "older refusal is", "older refusals are")
        parts.append(Text(f"{note} not kept any more", style="bright_black"))
    return parts
