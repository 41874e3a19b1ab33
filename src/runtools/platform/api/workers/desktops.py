"""Whether a run's sandbox has a desktop: the one it works in, or the one that it will be given."""

from __future__ import annotations

from runtools.platform.api.definitions import store as definitions
from runtools.platform.api.runs.tables import Record
from runtools.platform.api.sandboxes import store as sandboxes
from runtools.platform.api.sandboxes.rules import template_ref
from runtools.platform.api.templates import store as templates
from runtools.platform.api.threads import store as threads
from runtools.platform.core.recipes import DESKTOPS
from runtools.platform.kit.db import Transaction
from runtools.sdk.shapes.definitions import AgentDefinition


def has_desktop(
    conn: Transaction, record: Record, agent: AgentDefinition, default_template: str
) -> bool:
    """Looked up in the order in which `places` finds the run its sandbox."""
    sandbox_id = record.wanted_sandbox or record.sandbox_id
    if sandbox_id is None and agent.sandbox is not None:
        found = definitions.find(
            conn, record.org_id, "sandbox", agent.sandbox, record.project_id, 1
        )
        sandbox_id = found[0].sandbox_id if found else None
    elif sandbox_id is None:
        thread = threads.find(conn, record.org_id, record.thread_id)
        sandbox_id = None if thread is None else thread.sandbox_id
    sandbox = None if sandbox_id is None else sandboxes.by_id(conn, record.org_id, sandbox_id)
    if sandbox is not None:
        version = templates.get(conn, sandbox.template_id)
        return version is not None and version.recipe in DESKTOPS
    if agent.sandbox is not None:
        return False
    choices = templates.choices(conn, record.org_id, *template_ref(default_template))
    ready = next((one for one in choices if one.state == "ready"), None)
    return ready is not None and ready.recipe in DESKTOPS
