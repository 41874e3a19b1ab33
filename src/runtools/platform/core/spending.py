"""Adding up what requests to models took. Pure."""

from __future__ import annotations

from decimal import Decimal

from runtools.sdk.shapes.runs import RunUsage

_COUNTS = (
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "requests",
)


def added(total: RunUsage, more: RunUsage) -> RunUsage:
    """Both together. What one of them does not know to have cost, both do not."""
    sums = {name: getattr(total, name) + getattr(more, name) for name in _COUNTS}
    cost = None
    if total.cost_usd is not None and more.cost_usd is not None:
        cost = _plain(Decimal(total.cost_usd) + Decimal(more.cost_usd))
    return RunUsage(**sums, cost_usd=cost)


def tokens(usage: RunUsage) -> int:
    """How many tokens budgets count."""
    return usage.input_tokens + usage.output_tokens


def _plain(amount: Decimal) -> str:
    text = format(amount, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
