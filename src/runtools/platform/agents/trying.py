"""Asking a model again: what a request took, and the wait after one that failed."""

from __future__ import annotations

from pydantic_ai.messages import ModelResponse
from pydantic_ai.usage import RequestUsage

from runtools.errors import InvalidRequest
from runtools.platform.agents.held import Held, new_event
from runtools.platform.agents.models.prices import usage_of
from runtools.platform.agents.trouble import Trouble, pause
from runtools.platform.core.ports.worker import Assignment, NewEvent
from runtools.platform.core.spending import added
from runtools.sdk.shapes.runs import RunUsage, TurnUsage
from runtools.sdk.shapes.runs import Trouble as TroubleShape


def spent(
    run: Held, response: ModelResponse | None, turn: int, request: str | None = None
) -> list[NewEvent]:
    """What a request took, as far as the provider said; also one that failed, or was broken off.

    Args:
        request: names it in its turn; None: the latest under this lease.
    """
    if response is None:
        return []
    one = usage_of(run.given.model, response.usage)
    usage = TurnUsage(**one.model_dump(), turn=turn, total=added(run.book.usage, one))
    named = request or f"{run.lease}.{run.tries}"
    return [new_event(f"t{turn}:usage:{named}", "usage", usage)]


def with_spent(run: Held, events: list[NewEvent]) -> RunUsage:
    """What the run has taken when these events are appended."""
    totals = [event.data["total"] for event in events if event.type == "usage"]
    return RunUsage.model_validate(totals[-1]) if totals else run.book.usage


def check_price(given: Assignment) -> None:
    """Refuse to begin under a limit of money that cannot be held.

    Raises:
        InvalidRequest: agent or run has one, and nobody knows what the model costs.
    """
    own = given.agent.max_cost_usd is not None or given.config.get("max_cost_usd") is not None
    if own and usage_of(given.model, RequestUsage(input_tokens=1)).cost_usd is None:
        raise InvalidRequest(
            f"max_cost_usd cannot be held: nobody has said what {given.run.model} costs",
            hint="limit it by max_total_tokens or max_seconds, and leave max_cost_usd out",
        )


async def again(run: Held, turn: int, tried: int, trouble: Trouble, took: list[NewEvent]) -> bool:
    """Say what went wrong, and wait for the next try; False: there is to be none, and nothing is said.

    Nobody waits where the request has used up a limit of the run, or a budget of its org: who asks looks.

    Args:
        tried: how often it was asked.
        took: events of what the request took.
    """
    seconds = pause(trouble, tried)
    if seconds is None:
        return False
    if took:
        await run.append(took)
    is_over = run.limit is not None
    retrying = None if is_over else round(seconds, 2)
    told = TroubleShape(**trouble.error.model_dump(), turn=turn, retrying=retrying)
    await run.append([new_event(f"t{turn}:error:{run.lease}.{run.tries}", "error", told)])
    if not is_over:
        await run.reins.hold(run.means.clock.sleep(seconds))
    return True
