"""Where readers of output may begin."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from runtools.errors import HistoryChanged, InvalidRequest
from runtools.platform.api.processes.service import _first as first
from runtools.sdk.shapes.processes import OutputSpan


def test_beyond_the_end_is_refused_but_not_of_a_paused_one() -> None:
    process: Any = SimpleNamespace(output=OutputSpan(kept_from=10, end=20), history="1")
    running: Any = SimpleNamespace(id="sandbox-1", state="running", operation=None)
    paused: Any = SimpleNamespace(state="paused")
    pausing: Any = SimpleNamespace(state="running", operation="pausing")
    for record in (running, paused, pausing):
        assert first(record, process, "output", 5, "1") == 10
        assert first(record, process, "output", 20, "1") == 20
    with pytest.raises(InvalidRequest, match="beyond the end"):
        first(running, process, "output", 21, "1")
    for record in (paused, pausing):
        assert first(record, process, "output", 21, "1") == 21
    for offset in (0, 15, 30):  # whatever it says: it is an offset of something else
        with pytest.raises(HistoryChanged):
            first(running, process, "output", offset, "2")
    assert first(running, process, "output", 15, None) == 15
