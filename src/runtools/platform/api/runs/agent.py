"""What a run's agent is."""

from __future__ import annotations

from runtools.platform.api.definitions import store as definitions
from runtools.platform.api.runs.tables import Record
from runtools.platform.kit.db import Transaction
from runtools.sdk.shapes.definitions import AgentDefinition


def agent_of(conn: Transaction, record: Record) -> AgentDefinition:
    """It, in the version that the run began with."""
    made = definitions.version(conn, record.org_id, record.agent_id, record.version_id)
    assert made is not None  # noqa: S101 - versions outlive what they are versions of
    return AgentDefinition.model_validate(made.says)
