"""Telling whoever waits that a run has changed: readers, workers, webhooks, a collector of traces."""

from __future__ import annotations

from collections.abc import Sequence

from runtools.platform.api.platform import Platform
from runtools.platform.api.runs.tables import Event, Record
from runtools.platform.api.webhooks import store as webhooks
from runtools.platform.core.models import in_traces, parts_of
from runtools.platform.core.runs import Status, trace_of

QUEUE = "runs"
"""What the bus is told when a run may be offered."""


def told(platform: Platform, record: Record, fresh: Sequence[Event]) -> None:
    """A run is as it is now, and these events are new in its log."""
    platform.readers.grown(record.id, fresh)
    if record.status == Status.RUNNING:
        return  # nobody waits for a line of the log but its readers
    platform.workers.let_go(record.id)
    platform.bus.signal(record.id, QUEUE, webhooks.TOPIC)
    if any(one.type == "done" for one in fresh):
        _trace(platform, record)


def _trace(platform: Platform, record: Record) -> None:
    """A span of the whole run, in the words of OpenTelemetry's conventions for generative AI."""
    if not platform.tracing.is_on or record.ended_at is None:
        return
    usage = record.usage
    provider, api_id = parts_of(record.model)
    error = {} if record.error is None else {"error.type": str(record.error["code"])}
    platform.tracing.record(
        f"invoke_agent {record.agent_slug}",
        None,
        record.started_at or record.created_at,
        record.ended_at,
        {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.id": record.agent_id,
            "gen_ai.agent.name": record.agent_slug,
            "gen_ai.conversation.id": record.thread_id,
            "gen_ai.provider.name": in_traces(provider),
            "gen_ai.request.model": api_id,
            "gen_ai.usage.input_tokens": usage.get("input_tokens", 0),
            "gen_ai.usage.output_tokens": usage.get("output_tokens", 0),
            "runtools.run.id": record.id,
            "runtools.run.status": record.status,
            "runtools.run.iterations": record.iterations,
            **error,
        },
        place=trace_of(record.id),
        failed=record.status == Status.FAILED,
    )
