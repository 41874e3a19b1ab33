"""How webhooks look, and what was sent to them."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from runtools.cli import tables, words
from runtools.sdk import shapes


def webhooks(found: Sequence[shapes.Webhook]) -> RenderableType:
    """A list of webhooks."""
    if not found:
        return Text("no webhooks; `runtools webhook create URL` makes one", style="bright_black")
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    table.add_column("ID", no_wrap=True)
    table.add_column("STATE", no_wrap=True)
    table.add_column("URL", overflow="fold")
    for hook in found:
        table.add_row(hook.id, _enabled(hook), Text(words.harmless(hook.url)))
    return table


def webhook(hook: shapes.Webhook) -> RenderableType:
    """All about a webhook."""
    return tables.facts(
        ("id", hook.id),
        ("url", Text(words.harmless(hook.url))),
        ("events", ", ".join(hook.events) or "all"),
        ("description", Text(words.harmless(hook.description)) if hook.description else None),
        ("state", _enabled(hook)),
        ("because", Text(words.harmless(hook.disabled_reason)) if hook.disabled_reason else None),
        ("secret", hook.secret),
        ("", "it is shown this once" if hook.secret else None),
    )


def _enabled(hook: shapes.Webhook) -> Text:
    return Text("enabled", "green") if hook.enabled else Text("disabled", "red")


def deliveries(found: Sequence[shapes.WebhookDelivery]) -> RenderableType:
    """What was sent to a webhook."""
    if not found:
        return Text("nothing was sent yet", style="bright_black")
    colours = {"delivered": "green", "failed": "red", "pending": "yellow"}
    blocks: list[RenderableType] = []
    for one in found:
        answer = one.error or (f"answered {one.status}" if one.status else "waits to be sent")
        if one.next_attempt_at and one.attempts:
            answer += f"; again at {words.clock(one.next_attempt_at)}"
        head = Text.assemble(
            f"{one.id}  ", (f"{one.state:<9}", colours[one.state]), f"  {one.type}"
        )
        tried = f"{words.moment(one.created_at)}, {words.plural(one.attempts, 'attempt')}: "
        blocks += [head, Padding(Text(tried + words.harmless(answer)), (0, 0, 0, 2))]
    return Group(*blocks)
