"""Spans of what a run does, by OpenTelemetry's conventions for generative AI: how much, and never what.

All of a run's are in one trace, which follows from the run's id: those of the api's whole run, and those of
each worker that drove it.
"""

from __future__ import annotations

from collections.abc import Coroutine
from datetime import datetime
from typing import Any

from pydantic_ai.messages import ModelResponse

from runtools.platform.agents.answer import Stream
from runtools.platform.agents.book import Call
from runtools.platform.agents.held import Held
from runtools.platform.agents.trouble import Trouble
from runtools.platform.core.models import in_traces
from runtools.platform.core.runs import trace_of
from runtools.workbench.tool import Result

BROKEN_OFF = "broken_off"
"""What went wrong with a request whose answer is wanted no more."""


async def asked(
    run: Held, stream: Stream, coming: Coroutine[Any, Any, ModelResponse | Trouble]
) -> ModelResponse | Trouble:
    """Ask the model once: a span of what that took, however it ends."""
    begun, came = run.means.clock.now(), None
    try:
        came = await coming
    finally:
        _asked(run, stream, begun, came)
    return came


def _asked(
    run: Held, stream: Stream, begun: datetime, came: ModelResponse | Trouble | None
) -> None:
    if not run.means.tracing.is_on:
        return
    access = run.given.model
    about: dict[str, str | int | float | bool] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": in_traces(access.provider),
        "gen_ai.request.model": access.api_id,
    }
    if not isinstance(came, ModelResponse):
        about["error.type"] = BROKEN_OFF if came is None else came.error.code
    response = stream.response
    if response is not None:
        about["gen_ai.usage.input_tokens"] = response.usage.input_tokens
        about["gen_ai.usage.output_tokens"] = response.usage.output_tokens
        if response.model_name:
            about["gen_ai.response.model"] = response.model_name[:200]
    _record(run, f"chat {access.api_id}", begun, about, calls=True)


def called(run: Held, begun: datetime, call: Call, result: Result) -> None:
    """A tool was called. What the model has named and nobody knows goes by no name."""
    if not run.means.tracing.is_on:
        return
    name = call.name if call.name in run.toolbox.names else "unknown"
    about: dict[str, str | int | float | bool] = {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": name,
        "gen_ai.tool.type": "function",
        "gen_ai.tool.call.id": call.call_id,
    }
    if result.failed:
        about["error.type"] = "tool_failed"
    _record(run, f"execute_tool {name}", begun, about)


def _record(
    run: Held,
    name: str,
    begun: datetime,
    about: dict[str, str | int | float | bool],
    *,
    calls: bool = False,
) -> None:
    about |= {
        "gen_ai.agent.name": run.given.run.agent_slug,
        "gen_ai.conversation.id": run.given.run.thread_id,
        "runtools.run.id": run.id,
    }
    run.means.tracing.record(
        name,
        trace_of(run.id),
        begun,
        run.means.clock.now(),
        about,
        calls=calls,
        failed="error.type" in about,
    )
