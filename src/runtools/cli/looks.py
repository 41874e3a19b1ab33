"""How results look to people: tables that fit 80 columns, and no more lines than are read."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from runtools.cli import sparks, timeline, words
from runtools.cli.tables import facts as _facts
from runtools.cli.tables import table as _table
from runtools.sdk import shapes
from runtools.sdk.shapes.account import ApiKey, Me
from runtools.sdk.shapes.audit import AuditLine
from runtools.sdk.shapes.secrets import Secret

STATES = {"creating": "yellow", "running": "green", "paused": "cyan", "stopped": "bright_black"}
_BAR = 20


def _now() -> datetime:
    return datetime.now(UTC)


def _state(view: shapes.Sandbox) -> Text:
    text = Text(view.state, style=STATES[view.state])
    if view.operation:
        text.append(f" ({view.operation.replace('_', ' ')})", style="yellow")
    return text


def sandboxes(views: Sequence[shapes.Sandbox]) -> RenderableType:
    """A list of sandboxes."""
    if not views:
        return Text("no sandboxes; `runtools sandbox create` makes one", style="bright_black")
    table = _table("NAME", "ID", "STATE", "TEMPLATE", "AGE", right=["AGE"])
    for view in views:
        made_from = f"{view.template}@{view.template_version}"
        age = words.age(view.created_at, _now())
        table.add_row(view.name or "-", view.id, _state(view), made_from, age)
    return table


def sandbox(view: shapes.Sandbox) -> RenderableType:
    """All about one sandbox."""
    title = Text.assemble((view.name or view.id, "bold"), "  ", _state(view))
    size = (
        f"{view.vcpus} vCPU, {words.megabytes(view.memory_mb)} memory, "
        f"{words.megabytes(view.disk_mb)} disk"
    )
    facts = _facts(
        ("id", view.id),
        ("template", f"{view.template}@{view.template_version}"),
        ("size", size),
        ("isolation", view.isolation),
        ("internet", "open" if view.internet else "closed"),
        ("pauses", _pauses(view)),
        ("tags", ", ".join(f"{key}={value}" for key, value in view.tags.items()) or None),
        ("env", ", ".join(view.env_names) or None),
        ("forked from", view.parent_id),
        ("project", view.project_id),
        ("host", view.host_id),
        ("created", words.moment(view.created_at)),
        ("started", _start(view)),
        ("queue", _queue(view)),
        ("paused", _paused(view)),
        ("stopped", words.moment(view.stopped_at) if view.stopped_at else None),
        ("ended", words.harmless(view.ending.reason) if view.ending else None),
    )
    return Group(title, Padding(facts, (0, 0, 0, 2)))


def _pauses(view: shapes.Sandbox) -> str:
    idle, life = view.idle_timeout_seconds, view.max_lifetime_seconds
    parts = [f"after {words.span(idle)} idle"] if idle else ["never when idle"]
    if life:
        parts.append(f"after {words.span(life)} in any case")
    return ", ".join(parts)


def _start(view: shapes.Sandbox) -> str | None:
    if view.started_at is None:
        return None
    how = f", {words.ORIGINS[view.started_from]}" if view.started_from else ""
    took = f", in {words.span(view.timings.total_ms / 1000)}" if view.timings else ""
    return words.moment(view.started_at) + how + took


def _queue(view: shapes.Sandbox) -> str | None:
    if view.queue is None:
        return None
    return words.place(view.queue)


def _paused(view: shapes.Sandbox) -> str | None:
    if view.state != "paused" or view.paused_at is None:
        return None
    safe = "would survive a power loss" if view.durable else "not yet safe from a power loss"
    return f"{words.moment(view.paused_at)}, {safe}"


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
    return _facts(
        ("internet", "open" if policy.internet else "closed"),
        ("allow", ", ".join("everything" if rule == "*" else rule for rule in policy.allow) or "-"),
        ("deny", ", ".join(policy.deny) or "-"),
    )


def _refusals(refused: shapes.EgressLog) -> list[RenderableType]:
    if not refused.refusals:
        return [Text("nothing was refused", style="bright_black")]
    table = _table("LAST", "TIMES", "TO", "WHAT", right=["TIMES"])
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


def snapshots(kept: Sequence[shapes.Snapshot]) -> RenderableType:
    """A sandbox's snapshots."""
    if not kept:
        return Text("no snapshots", style="bright_black")
    table = _table("NAME", "ID", "SIZE", "AGE", right=["SIZE", "AGE"])
    for one in kept:
        age = words.age(one.created_at, _now())
        table.add_row(one.name or "-", one.id, words.size(one.size_bytes), age)
    return table


def stats(measured: shapes.Stats) -> RenderableType:
    """What a machine says of itself."""
    ports = ", ".join(str(port) for port in measured.listening_ports)
    return _facts(
        ("cpu", _bar(measured.cpu_percent, 100, f"{measured.cpu_percent:.1f} %")),
        ("memory", _bytes_bar(measured.memory_used_bytes, measured.memory_total_bytes)),
        ("disk", _bytes_bar(measured.disk_used_bytes, measured.disk_total_bytes)),
        ("up", words.span(measured.uptime_seconds)),
        ("processes", str(measured.processes)),
        ("listening", ports or "nothing"),
        ("measured", words.moment(measured.measured_at)),
    )


def stats_history(hour: shapes.StatsHistory) -> RenderableType:
    """An hour of a machine as lines of bars; where nothing was measured, dots."""
    if not hour.points:
        why = ", ".join(sorted({gap.reason for gap in hour.gaps})) or "too young"
        return Text(f"no figures of the last hour ({why})", style="bright_black")

    def row(get: Callable[[shapes.StatsPoint], float | None], say: Callable[[float], str]) -> Text:
        values = sparks.means(hour, get)
        known = [value for value in values if value is not None]
        top = max(known, default=0.0)
        told = f"  now {say(known[-1])}, at most {say(top)}" if known else "  not known"
        return Text.assemble((sparks.line(values, top), "green"), told)

    def network(point: shapes.StatsPoint) -> float | None:
        if point.received_bytes is None or point.sent_bytes is None or not point.seconds:
            return None
        return (point.received_bytes + point.sent_bytes) / point.seconds

    rows: list[tuple[str, str | Text | None]] = [
        ("cpu", row(lambda point: point.cpu_percent, lambda value: f"{value:.0f} %")),
        ("memory", row(lambda point: point.memory_bytes, words.size)),
        ("used inside", row(lambda point: point.guest_memory_used_bytes, words.size)),
        ("disk", row(lambda point: point.disk_bytes, words.size)),
        ("network", row(network, lambda value: f"{words.size(value)}/s")),
        ("", f"{words.clock(hour.since)} to {words.clock(hour.until)}, a bar is two minutes"),
    ]
    for gap in hour.gaps:
        reason = gap.reason.replace("_", " ")
        rows.append((reason, f"{words.clock(gap.since)} to {words.clock(gap.until)}"))
    return _facts(*rows)


def _bytes_bar(used: int, total: int) -> Text:
    return _bar(used, total, f"{words.size(used)} of {words.size(total)}")


def _bar(part: float, whole: float, label: str) -> Text:
    filled = round(_BAR * min(max(part / whole, 0), 1)) if whole else 0
    style = "red" if filled > 0.9 * _BAR else "green"
    return Text.assemble(
        ("━" * filled, style), ("━" * (_BAR - filled), "bright_black"), f"  {label}"
    )


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
    return _facts(
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


def processes(found: Sequence[shapes.Process]) -> RenderableType:
    """A table of durable processes."""
    table = _table("id", "state", "age", "command")
    now = _now()
    for one in found:
        line = one.command if isinstance(one.command, str) else shlex.join(one.command)
        age = words.age(one.started_at, now)
        table.add_row(one.id, _ended(one), age, words.harmless(line))
    return table


def _ended(process: shapes.Process) -> str:
    if process.signal is not None:
        return f"signal {process.signal}"
    return process.state if process.exit_code is None else f"exit {process.exit_code}"


def disk(use: shapes.DiskUse) -> RenderableType:
    """What takes how much disk."""
    table = _table("WHAT", "SIZE", right=["SIZE"])
    rows = [
        ("templates", use.templates_bytes),
        ("warm snapshots", use.warm_bytes),
        ("sandboxes", use.sandboxes_bytes),
        ("snapshots", use.snapshots_bytes),
        ("ended sandboxes, kept for recovery", use.ended_bytes),
    ]
    for name, count in rows:
        table.add_row(name, words.size(count))
    return Group(table, Text(), _facts(("free", _bytes_bar(use.free_bytes, use.total_bytes))))


def templates(found: Sequence[shapes.Template]) -> RenderableType:
    """A list of templates."""
    if not found:
        return Text(
            "no templates; `runtools template build base-debian` makes one", style="bright_black"
        )
    table = _table(
        "TEMPLATE", "VERSION", "STATE", "SIZE", "AGE", "NOTE", right=["VERSION", "SIZE", "AGE"]
    )
    for one in found:
        notes = [
            *(["default"] if one.is_default else []),
            *(["the platform's"] if not one.is_own else []),
            *(["untested"] if not one.tested else []),
            *([f"{one.progress:.0%} {one.step}"] if one.state == "building" else []),
        ]
        table.add_row(one.slug, str(one.version), *_build(one), ", ".join(notes))
    return table


def _build(one: shapes.Template) -> tuple[Text, str, str]:
    style = {"ready": "green", "building": "yellow", "failed": "red"}[one.state]
    size = words.size(one.size_bytes) if one.size_bytes else "-"
    return Text(one.state, style=style), size, words.age(one.created_at, _now())


def template(versions: Sequence[shapes.Template]) -> RenderableType:
    """A template's versions."""
    if not versions:
        return Text("no versions", style="bright_black")
    first = versions[0]
    table = _table("VERSION", "STATE", "SIZE", "AGE", "ERROR", right=["VERSION", "SIZE", "AGE"])
    for one in versions:
        table.add_row(str(one.version), *_build(one), words.harmless(one.error or ""))
    title = Text.assemble((first.slug, "bold"), f"  recipe {first.recipe}")
    if not first.tested:
        title.append("  untested", style="yellow")
    return Group(title, Text(), table)


def why(view: shapes.Sandbox, entries: Sequence[shapes.LedgerEntry]) -> RenderableType:
    """A sandbox's story."""
    title = Text.assemble(
        (view.name or view.id, "bold"),
        *([f"  {view.id}"] if view.name else []),
        f"  {view.template}@{view.template_version}  ",
        _state(view),
    )
    parts: list[RenderableType] = [title, Text()]
    day = ""
    for step in timeline.steps(entries):
        if step.gap:
            parts.append(Text(f"{'':10}│  {step.gap} later", style="bright_black"))
        if (today := words.day(step.at)) != day:
            day = today
            parts.append(Text(day, style="bold bright_black"))
        parts.append(_step(step))
    parts.extend(_ending(view))
    return Group(*parts)


def _step(step: timeline.Step) -> RenderableType:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="bright_black", no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    text = Text(words.harmless(step.what))
    for note in step.notes:
        text.append(f"\n{words.harmless(note)}", style="bright_black")
    grid.add_row(words.clock(step.at), Text(step.mark, style=STATES[step.state]), text)
    return grid


def _ending(view: shapes.Sandbox) -> list[RenderableType]:
    ending = view.ending
    if ending is None:
        return []
    parts: list[RenderableType] = []
    if ending.memory_pressure:
        parts += [Text(), Text(f"memory: {words.harmless(ending.memory_pressure)}")]
    if ending.console_tail:
        parts += [Text(), Text("The last words on its console:", style="bold")]
        tail = "\n".join(words.harmless(line) for line in ending.console_tail)
        parts.append(Padding(Text(tail, style="bright_black"), (0, 0, 0, 2)))
    if ending.recoverable_until:
        until = words.moment(ending.recoverable_until)
        ref = view.name or view.id
        parts += [Text(), Text(f"Its disk is kept until {until}: runtools sandbox recover {ref}")]
    return parts


def secrets(found: Sequence[Secret]) -> RenderableType:
    """Secrets, a line each, without their values."""
    table = _table(
        "NAME", "CATEGORY", "SCOPE", "VERSION", "CHANGED", "DESCRIPTION", right=("VERSION",)
    )
    for one in found:
        changed = words.moment(one.updated_at)
        about = words.harmless(one.description or "")
        table.add_row(one.name, one.category, one.scope, str(one.version), changed, about)
    return table


def audit(lines: Sequence[AuditLine]) -> RenderableType:
    """The audit log, a line each."""
    table = _table("AT", "ACTION", "RESOURCE", "ANSWER", "BY", "FROM")
    for one in lines:
        answer = "none" if one.status is None else f"{one.status} {one.error or ''}".strip()
        resource = words.harmless(one.resource or "")
        at = words.moment(one.at)
        table.add_row(at, one.action, resource, answer, one.actor, one.source)
    return table


def me(who: Me, url: str, source: str | None = None) -> RenderableType:
    """Which platform, org, and person or key."""
    user = who.user
    return _facts(
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
    table = _table("ID", "NAME", "BEGINS", "MAY DO", "LAST USED", "ENDS")
    for one in found:
        end = f"revoked {words.moment(one.revoked_at)}" if one.revoked_at else "never"
        if one.expires_at and not one.revoked_at:
            end = words.moment(one.expires_at)
        used = words.moment(one.last_used_at) if one.last_used_at else "never"
        may = ", ".join(one.scopes) or "everything"
        table.add_row(one.id, words.harmless(one.name), one.prefix, may, used, end)
    return table
