"""How accounts look to the operator, and the identities of one to its person."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import RenderableType
from rich.text import Text

from runtools.cli import tables, words
from runtools.sdk.shapes.people import Account, Identity


def accounts(found: Sequence[Account]) -> RenderableType:
    """Accounts, a line each."""
    if not found:
        return Text("nobody has an account; `runtools invite create` invites", style="bright_black")
    table = tables.table("NAME", "E-MAIL", "IS", "SINCE", "ID")
    for one in found:
        name = words.harmless(one.name)
        table.add_row(name, one.email or "-", _is(one), words.moment(one.created_at), one.id)
    return table


def identities(found: Sequence[Identity]) -> RenderableType:
    """Identities, a line each."""
    if not found:
        return Text("none; one is linked on the page /account", style="bright_black")
    table = tables.table("WHO", "PROVIDER", "LINKED", "ID")
    for one in found:
        who = words.harmless(one.label or "-")
        table.add_row(who, words.harmless(one.issuer), words.moment(one.created_at), one.id)
    return table


def _is(account: Account) -> str:
    if account.closed_at is not None:
        return "closed"
    return "operator" if account.operator else "-"
