"""How runs and threads look on a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import RenderableType

from runtools.cli.tables import facts, table
from runtools.cli.words import age, between, harmless, harmless_data, moment, span
from runtools.sdk.shapes.runs import ApprovalRequested, Run, RunUsage, Thread
from runtools.sdk.shapes.threads import ThreadMessage

_ARGUMENT = 100
_LINES, _CHARACTERS = 40, 4000
# What of a call's arguments tells most; the first that is there is shown.
_TELLING = ("command", "path", "pattern", "query", "url", "port", "process_id")
_WAITS_FOR = {
    "approval": "an approval",
    "result": "its front end, which carries a call out",
    "turn": "its turn",
    "room": "a worker that has room",
    "worker": "a worker: none is connected",
}


def runs(found: Sequence[Run]) -> RenderableType:
    """A line for each; at 80 columns none of an id is cut, for that is what other commands take."""
    made = table("RUN", "AGENT", "STATUS", "STARTED", "TOOK", "USED", shrinks=("AGENT",))
    for run in found:
        made.add_row(
            run.id,
            f"{run.agent_slug}@{run.agent_version}",
            run.status,
            _ago(run.created_at),
            _took(run) or "-",
            _paid(run.usage),
        )
    return made


def run(found: Run, waiting: Iterable[ApprovalRequested] = ()) -> RenderableType:
    """All about one; ``waiting``: calls of it that wait for a person."""
    error = None
    if found.error is not None:
        error = harmless(f"{found.error.code}: {found.error.message}")
    output = None if found.output is None else harmless(found.output)
    return facts(
        ("run", found.id),
        ("agent", f"{found.agent_slug}@{found.agent_version}"),
        ("model", found.model),
        ("status", found.status + (" (to be cancelled)" if found.cancel_requested else "")),
        ("waits for", None if found.waits_for is None else _WAITS_FOR[found.waits_for]),
        ("thread", found.thread_id),
        ("sandbox", found.sandbox_id),
        ("created", moment(found.created_at)),
        ("ended", None if found.ended_at is None else moment(found.ended_at)),
        ("took", _took(found)),
        ("turns", str(found.iterations)),
        ("used", taken(found.usage)),
        ("continues", found.continues),
        ("error", error),
        ("output", output),
        *((f"waits: {one.call_id}", whole(one)) for one in waiting),
    )


def threads(found: Sequence[Thread]) -> RenderableType:
    """A line for each."""
    made = table("THREAD", "AGENT", "RUNS", "USED", "TITLE", right=("RUNS",))
    for thread in found:
        title = harmless(thread.title or "")
        made.add_row(thread.id, thread.agent_slug, str(thread.runs), _ago(thread.updated_at), title)
    return made


def messages(found: Sequence[ThreadMessage]) -> str:
    """What was said, in order."""
    return "\n\n".join(f"{one.role}: {harmless(one.text)}" for one in found)


def told(arguments: dict[str, Any]) -> str:
    """The arguments of a call in a few words."""
    found = next((arguments[name] for name in _TELLING if name in arguments), None)
    text = json.dumps(arguments, ensure_ascii=False) if found is None else str(found)
    text = " ".join(text.split())
    return text if len(text) <= _ARGUMENT else f"{text[:_ARGUMENT]}…"


def whole(asked: ApprovalRequested) -> str:
    """A call that waits, to its last letter."""
    return "\n".join([harmless(asked.name), *_lines(asked.arguments)])


def is_long(arguments: dict[str, Any]) -> bool:
    """Whether a terminal is shown the beginning of them alone."""
    lines = _lines(arguments)
    return len(lines) > _LINES or sum(map(len, lines)) > _CHARACTERS


def asked_for(asked: ApprovalRequested, *, all_of_it: bool) -> list[str]:
    """The arguments of a call that waits, in lines; cut where they are long, and said to be."""
    lines = _lines(asked.arguments)
    if all_of_it or not is_long(asked.arguments):
        return lines
    text = "\n".join(lines)
    shown = "\n".join(text[:_CHARACTERS].split("\n")[:_LINES])
    return [*shown.split("\n"), f"  … {len(text) - len(shown):,} more characters are not shown"]


def _lines(arguments: dict[str, Any]) -> list[str]:
    """Each argument by its name; texts of several lines as they are."""
    lines: list[str] = []
    for name, value in harmless_data(arguments).items():
        label = " ".join(name.split())
        if isinstance(value, str) and "\n" in value:
            lines += [f"  {label}:", *(f"    {line}" for line in value.split("\n"))]
        else:
            lines.append(f"  {label}: {json.dumps(value, ensure_ascii=False)}")
    return lines


def taken(usage: RunUsage) -> str:
    """Tokens and money."""
    tokens = f"{usage.input_tokens + usage.output_tokens:,} tokens"
    if usage.cost_usd is None:
        return f"{tokens} · price unknown"
    return f"{tokens} · ${float(usage.cost_usd):.4f}"


def _paid(usage: RunUsage) -> str:
    """Money; tokens, where nobody knows the price."""
    if usage.cost_usd is None:
        return f"{usage.input_tokens + usage.output_tokens:,} tokens"
    return f"${float(usage.cost_usd):.4f}"


def _took(run: Run) -> str | None:
    """How long it was from its beginning to its end; None: it has not ended."""
    return None if run.ended_at is None else span(between(run.created_at, run.ended_at))


def _ago(then: datetime) -> str:
    return age(then, datetime.now(UTC))
