"""What is said to a sandbox after a silence."""

from __future__ import annotations

import asyncio

import pytest

from runtools.errors import (
    DeadlineExceeded,
    QuotaExceeded,
    RunToolsError,
    Unavailable,
    WaitsForRoom,
)
from runtools.platform.gateway import rousing
from runtools.platform.gateway.rousing import Rousing


class Api:
    """Answers in turn with these; None: it is awake."""

    def __init__(self, *answers: RunToolsError | None) -> None:
        self.answers = list(answers)

    async def waken(self) -> None:
        """Wake it, or say why not."""
        if (answer := self.answers.pop(0)) is not None:
            raise answer


async def said(api: Api, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """What became of words after a silence: with whom they went on, or why they did not."""
    monkeypatch.setattr(rousing, "QUIET_SECONDS", -1.0)
    went: asyncio.Future[tuple[str, str]] = asyncio.get_running_loop().create_future()
    one = Rousing(
        api.waken,
        lambda held: went.set_result(("went on", held.decode())),
        lambda why: went.set_result(("ended", why)),
    )
    assert one.holds(b"wor")
    assert one.holds(b"ds")
    return await asyncio.wait_for(went, 30)


async def test_while_the_api_is_away_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    api = Api(Unavailable("away"), Unavailable("away"), None)
    assert await said(api, monkeypatch) == ("went on", "words")
    assert api.answers == []


async def test_for_room_it_waits_as_long_as_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rousing, "_AWAY_SECONDS", -1.0)
    assert await said(Api(WaitsForRoom("3rd"), None), monkeypatch) == ("went on", "words")


async def test_the_end_of_a_long_pause_it_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rousing, "_AWAY_SECONDS", -1.0)
    api = Api(*[DeadlineExceeded("it is still being paused")] * 3, None)
    assert await said(api, monkeypatch) == ("went on", "words")


async def test_of_a_pause_that_does_not_end_the_log_tells_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    api = Api(*[DeadlineExceeded("it is still being paused")] * 3, None)
    assert await said(api, monkeypatch) == ("went on", "words")
    assert caplog.text.count("it is still being paused") == 1


async def test_an_answer_that_comes_late_is_no_api_that_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rousing, "_AWAY_SECONDS", 0.1)
    api, answer = Api(Unavailable("away"), None), Api.waken

    async def late(one: Api) -> None:
        await asyncio.sleep(0.3)
        await answer(one)

    monkeypatch.setattr(Api, "waken", late)
    assert await said(api, monkeypatch) == ("went on", "words")


async def test_what_may_not_be_woken_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    api = Api(Unavailable("away"), QuotaExceeded("no room"))
    assert await said(api, monkeypatch) == ("ended", "no room")


async def test_an_api_that_stays_away_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rousing, "_AWAY_SECONDS", -1.0)
    assert await said(Api(Unavailable("away")), monkeypatch) == ("ended", "away")


@pytest.mark.parametrize("is_answered", [False, True])
async def test_what_has_had_no_answer_may_have_found_it_being_paused(
    monkeypatch: pytest.MonkeyPatch, is_answered: bool
) -> None:
    monkeypatch.setattr(rousing, "QUIET_SECONDS", 1000.0)
    api, went = Api(None, None), asyncio.Event()
    one = Rousing(api.waken, lambda held: went.set() if not held else None, lambda _: None)
    assert not one.holds(b"words")
    assert one._doubt is not None  # in so long it is looked at
    one._doubt.cancel()
    if is_answered:
        one.heard()
    monkeypatch.setattr(rousing, "QUIET_SECONDS", -1.0)
    one._doubts()
    assert one.is_under_way is not is_answered
    if not is_answered:
        await asyncio.wait_for(went.wait(), 30)
        one._doubts()  # once is enough
        assert not one.is_under_way
    assert len(api.answers) == (2 if is_answered else 1)
