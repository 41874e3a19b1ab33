"""What is said to a sandbox after a silence."""

from __future__ import annotations

import asyncio

import pytest

from runtools.errors import QuotaExceeded, RunToolsError, Unavailable
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


async def test_what_may_not_be_woken_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    api = Api(Unavailable("away"), QuotaExceeded("no room"))
    assert await said(api, monkeypatch) == ("ended", "no room")


async def test_an_api_that_stays_away_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rousing, "_AWAY_SECONDS", -1.0)
    assert await said(Api(Unavailable("away")), monkeypatch) == ("ended", "away")
