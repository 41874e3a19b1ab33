"""What is asked about entering, how often, and what junk names do to it."""

from __future__ import annotations

import asyncio

import pytest

from runtools.errors import QuotaExceeded, RateLimited
from runtools.platform.gateway.web import admission
from runtools.platform.gateway.web.admission import Admission, Wish, lasting
from runtools.platform.gateway.web.visitor import Shown
from runtools.testing.clock import ManualClock
from runtools.testing.gateway_world import BOX, KEY, FakeAdmitting

HERE, THERE = "192.0.2.1", "192.0.2.2"


def wish(box: str = BOX, port: int = 3000, **shown: object) -> Wish:
    return Wish(box, port, Shown(**shown))  # type: ignore[arg-type]


@pytest.fixture
def asked() -> FakeAdmitting:
    return FakeAdmitting()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def made(asked: FakeAdmitting, clock: ManualClock) -> Admission:
    return Admission(asked, clock)


async def test_a_public_port_is_asked_about_once_whatever_is_shown(
    made: Admission, asked: FakeAdmitting, clock: ManualClock
) -> None:
    asked.public.add((BOX, 3000))
    for n in range(50):
        verdict = await made.verdict(wish(key=f"rt_live_{n}", cookies=(f"c{n}",)), HERE)
        assert (verdict.answer, verdict.public) == ("enter", True)
    assert len(asked.asked) == 1
    assert lasting(wish(key="rt_live_1"), verdict) == wish()
    clock.advance(admission.BELIEVED_SECONDS)
    asked.public.clear()
    assert (await made.verdict(wish(key="rt_live_0"), HERE)).answer == "unknown"


async def test_a_private_one_for_each_who_comes(made: Admission, asked: FakeAdmitting) -> None:
    for _ in range(5):
        assert (await made.verdict(wish(key=KEY), HERE)).answer == "enter"
    assert len(asked.asked) == 1
    assert (await made.verdict(wish(key="rt_live_other"), HERE)).answer == "unknown"
    assert (await made.verdict(wish(), HERE)).answer == "unknown"


async def test_junk_names_are_held_up_by_their_source_and_push_nothing_out(
    made: Admission, asked: FakeAdmitting
) -> None:
    assert (await made.verdict(wish(key=KEY), THERE)).answer == "enter"
    refused = 0
    for n in range(2 * admission.STRANGE_A_MINUTE):
        try:
            await made.verdict(wish(f"sandbox-{n:012}", key=f"rt_live_{n}"), HERE)
        except RateLimited:
            refused += 1
    assert refused == admission.STRANGE_A_MINUTE
    assert made.known(wish(key=KEY)) is not None
    # What is good is let in from there too, and others are not held up.
    assert (await made.verdict(wish(port=1, key=KEY), HERE)).answer == "enter"
    assert (await made.verdict(wish(key="rt_live_x"), THERE)).answer == "unknown"


async def test_nobodys_question_waits_behind_a_strange_ones_junk(
    made: Admission, asked: FakeAdmitting
) -> None:
    asked.public.add((BOX, 3000))
    for n in range(admission.STRANGE_A_MINUTE):
        await made.verdict(wish(f"sandbox-{n:012}", key=f"rt_live_{n}"), HERE)
    for _ in range(admission._AT_ONCE_OF_STRANGE):  # its junk is asked about, and no answer comes
        await made._back_room.acquire()
    strange = asyncio.create_task(made.verdict(wish(), HERE))
    while not made._asking:
        await asyncio.sleep(0)
    assert (await made.verdict(wish(), THERE)).answer == "enter"
    assert not strange.done()
    made._back_room.release()
    assert (await strange).answer == "enter"


async def test_what_is_kept_has_a_bound(
    made: Admission, asked: FakeAdmitting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "_MOST", 3)
    for port in range(1, 6):
        await made.verdict(wish(port=port, key=KEY), HERE)
    assert [port for port in range(1, 6) if made.known(wish(port=port, key=KEY))] == [3, 4, 5]


async def test_a_sandbox_is_woken_by_one_at_a_time(made: Admission, asked: FakeAdmitting) -> None:
    await asyncio.gather(*(made.waken(BOX) for _ in range(50)))
    assert asked.woken == [BOX]
    asked.asleep_for_good = QuotaExceeded("full")
    said = await asyncio.gather(*(made.waken(BOX) for _ in range(9)), return_exceptions=True)
    assert [type(one) for one in said] == [QuotaExceeded] * 9
    assert asked.woken == [BOX] * 2
