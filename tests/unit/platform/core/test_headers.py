"""What the value of a header may hold."""

from __future__ import annotations

import pytest

from runtools.platform.core.headers import may_hold


@pytest.mark.parametrize("value", ["x", "sk-0123", "two words", "a\tb", "~!"])
def test_what_it_may(value: str) -> None:
    assert may_hold(value)


@pytest.mark.parametrize(
    "value", ["", " x", "x ", "x\n", "x\r", "x\r\n", "x\ny", "x\x00", "x\x07y", "x\x7f", "x\u20ac", "\xe9"]
)  # fmt: skip
def test_what_none_may(value: str) -> None:
    assert not may_hold(value)
