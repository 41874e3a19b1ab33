"""Who may call what, and what limits say."""

from __future__ import annotations

from decimal import Decimal

from runtools.platform.agents.limits import Limits, limits_of, reached
from runtools.platform.agents.tools.toolbox import permission
from runtools.platform.core.spending import added
from runtools.sdk.shapes.runs import RunUsage


def test_the_longest_rule_that_fits_counts() -> None:
    rules = {"*": "ask", "read_*": "allow", "read_file": "deny", "bash*": "deny", "bash": "ask"}
    found = {
        name: permission(rules, name) for name in ("grep", "read_x", "read_file", "bash", "bash2")
    }  # type: ignore[arg-type]
    assert found == {
        "grep": "ask",
        "read_x": "allow",
        "read_file": "deny",
        "bash": "ask",
        "bash2": "deny",
    }
    assert permission({}, "anything") == "allow"


class TestLimits:
    def test_the_first_that_is_reached_is_named(self) -> None:
        given = {"max_iterations": 3, "max_total_tokens": 10, "max_cost_usd": 0.5, "max_seconds": 9}
        limits = limits_of(given)
        assert limits == Limits(3, 10, Decimal("0.5"), 9)
        assert reached(limits, 2, RunUsage(input_tokens=9), 8) is None
        assert (reached(limits, 3, RunUsage(), 0) or "").startswith("max_iterations: 3")
        assert (reached(limits, 0, RunUsage(output_tokens=10), 0) or "").startswith(
            "max_total_tokens"
        )
        assert (reached(limits, 0, RunUsage(cost_usd="0.5"), 0) or "").startswith("max_cost_usd")
        assert (reached(limits, 0, RunUsage(), 9) or "").startswith("max_seconds")

    def test_a_price_that_is_not_known_makes_the_sum_unknown(self) -> None:
        known = added(RunUsage(cost_usd="0.1"), RunUsage(cost_usd="0.02"))
        assert known.cost_usd == "0.12"
        assert added(known, RunUsage(cost_usd=None)).cost_usd is None
