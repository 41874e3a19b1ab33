"""Where readers of output may begin."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from runtools.errors import InvalidRequest
from runtools.platform.api.processes.service import first
from runtools.sdk.shapes.processes import OutputSpan


def test_beyond_the_end_is_refused_but_not_of_a_paused_one() -> None:
    process: Any = SimpleNamespace(output=OutputSpan(kept_from=10, end=20))
    running: Any = SimpleNamespace(state="running")
    paused: Any = SimpleNamespace(state="paused")
    for record in (running, paused):
        assert first(record, process, "output", 5) == 10
        assert first(record, process, "output", 20) == 20
    with pytest.raises(InvalidRequest, match="beyond the end"):
        first(running, process, "output", 21)
    assert first(paused, process, "output", 21) == 21
