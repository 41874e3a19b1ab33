"""What a run may spend, and whether it has. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from runtools.sdk.shapes.runs import RunUsage

_DEFAULT_ITERATIONS = 25


@dataclass(frozen=True, slots=True)
class Limits:
    """The least of what agent, run and org allow; None: no limit."""

    max_iterations: int = _DEFAULT_ITERATIONS
    max_total_tokens: int | None = None
    max_cost_usd: Decimal | None = None
    max_seconds: float | None = None


def limits_of(given: Mapping[str, float]) -> Limits:
    """The limits that an assignment names."""
    tokens, cost = given.get("max_total_tokens"), given.get("max_cost_usd")
    return Limits(
        int(given.get("max_iterations", _DEFAULT_ITERATIONS)),
        None if tokens is None else int(tokens),
        None if cost is None else Decimal(str(cost)),
        given.get("max_seconds"),
    )


def reached(limits: Limits, iterations: int, usage: RunUsage, seconds: float) -> str | None:
    """Which limit forbids another answer of the model, and what would lift it; None: none does."""
    if iterations >= limits.max_iterations:
        return f"max_iterations: {limits.max_iterations} answers; continue it, or allow up to 100"
    used = usage.input_tokens + usage.output_tokens
    if limits.max_total_tokens is not None and used >= limits.max_total_tokens:
        return f"max_total_tokens: {used} of {limits.max_total_tokens}; continue it with more"
    if (
        limits.max_cost_usd is not None
        and usage.cost_usd is not None
        and Decimal(usage.cost_usd) >= limits.max_cost_usd
    ):
        return f"max_cost_usd: {usage.cost_usd} of {limits.max_cost_usd}; continue it with more"
    if limits.max_seconds is not None and seconds >= limits.max_seconds:
        return out_of_time(limits)
    return None


def out_of_time(limits: Limits) -> str:
    """The words for the limit of time."""
    return f"max_seconds: {limits.max_seconds:g} s of work; continue it with more"


def add(total: RunUsage, one: RunUsage) -> RunUsage:
    """Both together. What one answer cost that has no known price, the sum has none."""
    known = total.cost_usd is not None and one.cost_usd is not None
    cost = str(Decimal(total.cost_usd or 0) + Decimal(one.cost_usd or 0)) if known else None
    return RunUsage(
        input_tokens=total.input_tokens + one.input_tokens,
        output_tokens=total.output_tokens + one.output_tokens,
        cache_read_tokens=total.cache_read_tokens + one.cache_read_tokens,
        cache_write_tokens=total.cache_write_tokens + one.cache_write_tokens,
        reasoning_tokens=total.reasoning_tokens + one.reasoning_tokens,
        requests=total.requests + one.requests,
        cost_usd=cost,
    )
