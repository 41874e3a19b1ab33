"""What a run may spend, and whether it has. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from runtools.platform.core.spending import tokens
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
    most, cost = given.get("max_total_tokens"), given.get("max_cost_usd")
    return Limits(
        int(given.get("max_iterations", _DEFAULT_ITERATIONS)),
        None if most is None else int(most),
        None if cost is None else Decimal(str(cost)),
        given.get("max_seconds"),
    )


def reached(limits: Limits, iterations: int, usage: RunUsage, seconds: float) -> str | None:
    """Which limit forbids another answer of the model, and what would lift it; None: none does."""
    if iterations >= limits.max_iterations:
        return f"max_iterations: {limits.max_iterations} answers; continue it, or allow up to 100"
    used = tokens(usage)
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
