"""How runs and threads look on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from rich.console import RenderableType

from runtools.cli.run_view import taken
from runtools.cli.tables import facts, table
from runtools.cli.words import age
from runtools.sdk.shapes.runs import Run, Thread
from runtools.sdk.shapes.threads import ThreadMessage


def runs(found: Sequence[Run]) -> RenderableType:
    """A line for each."""
    made = table("RUN", "AGENT", "STATUS", "STARTED", "TURNS", "TOOK", right=("TURNS",))
    for run in found:
        made.add_row(
            run.id,
            f"{run.agent_slug}@{run.agent_version}",
            run.status,
            _ago(run.created_at),
            str(run.iterations),
            taken(run.usage),
        )
    return made


def run(found: Run) -> RenderableType:
    """All about one."""
    error = None if found.error is None else f"{found.error.code}: {found.error.message}"
    return facts(
        ("run", found.id),
        ("agent", f"{found.agent_slug}@{found.agent_version}"),
        ("model", found.model),
        ("status", found.status + (" (to be cancelled)" if found.cancel_requested else "")),
        ("thread", found.thread_id),
        ("sandbox", found.sandbox_id),
        ("created", _ago(found.created_at)),
        ("ended", None if found.ended_at is None else _ago(found.ended_at)),
        ("turns", str(found.iterations)),
        ("took", taken(found.usage)),
        ("continues", found.continues),
        ("error", error),
        ("output", found.output),
    )


def threads(found: Sequence[Thread]) -> RenderableType:
    """A line for each."""
    made = table("THREAD", "AGENT", "RUNS", "USED", "TITLE", right=("RUNS",))
    for thread in found:
        title = thread.title or ""
        made.add_row(thread.id, thread.agent_slug, str(thread.runs), _ago(thread.updated_at), title)
    return made


def messages(found: Sequence[ThreadMessage]) -> str:
    """What was said, in order."""
    return "\n\n".join(f"{one.role}: {one.text}" for one in found)


def _ago(then: datetime) -> str:
    return age(then, datetime.now(UTC))
