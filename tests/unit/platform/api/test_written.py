"""A piece of a log that is written as it stands says what its shape would say."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from runtools.platform.api.runs import look
from runtools.platform.api.runs.tables import Event
from runtools.platform.core.ports.worker import News

AT = datetime(2026, 11, 28, 1, 2, 3, 4, tzinfo=UTC)
LOG = [
    Event(
        "run_a", 4, 't1:"ä"', "message", AT, '{"role":"assistant","text":"\\u2028"}', '{"seen":3}'
    ),
    Event(
        "run_a", 5, "t1:call:0", "tool-call", AT.replace(microsecond=0), '{"arguments":{}}', None
    ),
]


@pytest.mark.parametrize("found", [[], LOG[:1], LOG])
@pytest.mark.parametrize(
    ("cancel", "more", "exceeded"), [(False, False, None), (True, True, 'the "month" is over')]
)
def test_news_are_written_as_they_were(
    found: list[Event], cancel: bool, more: bool, exceeded: str | None
) -> None:
    written = look.news(found, cancel=cancel, more=more, exceeded=exceeded)
    shape = News(events=look.logged(found), cancel=cancel, more=more, exceeded=exceeded)
    assert News.model_validate_json(written.text) == shape
    assert written.upto == (shape.events[-1].seq if shape.events else None)
    assert written.more == more
