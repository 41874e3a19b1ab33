"""Tickets and the fair queue."""

from __future__ import annotations

import asyncio
import errno

import pytest

from runtools.errors import CapacityExhausted, HostUnavailable
from runtools.platform.host.engine.admission import Admission
from runtools.platform.host.engine.budget import MB, Budget, Load
from runtools.testing.clock import ManualClock

ONE = Load(100, 1)


class Disk:
    def __init__(self):
        self.free = 10_000 * MB

    def __call__(self):
        return self.free


@pytest.fixture
def disk():
    return Disk()


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def admission(disk, clock):
    return Admission(Budget(memory_mb=250, sandboxes=10, headroom_mb=0), disk, clock)


def entering(admission, who, ask=ONE, tell=lambda place: None):
    return asyncio.ensure_future(admission.enter(who, ask, tell))


async def soon(condition):
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0)


async def test_who_fits_comes_in_at_once(admission):
    await admission.enter("a", ONE, lambda place: None)
    assert admission.taken == ONE


async def test_waiters_are_served_in_the_order_of_their_coming(admission):
    admission.enter_now("a", ONE)
    admission.enter_now("b", ONE)
    large, small = entering(admission, "c", Load(200, 1)), entering(admission, "d", Load(10, 1))
    await soon(lambda: admission.waiting == 2)
    admission.leave("a")
    await asyncio.sleep(0)
    assert not small.done()  # it would fit, but it is not its turn
    admission.leave("b")
    await asyncio.gather(large, small)


async def test_nobody_overtakes_the_queue(admission):
    admission.enter_now("a", ONE)
    admission.enter_now("b", ONE)
    waiting = entering(admission, "c")
    await soon(lambda: admission.waiting == 1)
    with pytest.raises(CapacityExhausted, match="others wait"):
        admission.enter_now("d", Load(1, 1))
    waiting.cancel()


async def test_no_wait_is_told_while_it_is_disk_that_is_short(admission, clock, disk):
    admission.enter_now("a", ONE)
    clock.advance(30)
    admission.leave("a")
    admission.enter_now("b", ONE)
    disk.free = 150 * MB
    told = []
    waiting = [entering(admission, who, ONE, told.append) for who in "cd"]
    await soon(lambda: len(told) == 2)
    assert [one.estimated_wait_seconds for one in told] == [None, None]
    disk.free = 10_000 * MB
    admission.enter_now("b", ONE)
    admission.kick()
    await waiting[0]
    assert [(one.position, one.estimated_wait_seconds) for one in told[2:]] == [(1, 15)]
    waiting[1].cancel()


async def test_places_and_waits_are_told(admission, clock):
    for who in "xab":
        admission.leave("x")
        admission.enter_now(who, ONE)
        clock.advance(30)
    places = {"c": [], "d": []}
    waiters = [entering(admission, who, tell=places[who].append) for who in "cd"]
    await soon(lambda: admission.waiting == 2)
    admission.leave("a")
    await waiters[0]
    assert [place.position for place in places["d"]] == [2, 1]
    assert places["c"][0].estimated_wait_seconds == 15  # one of two that take half a minute each
    waiters[1].cancel()


async def test_a_wait_is_told_when_it_is_known_and_when_it_changes(admission, clock):
    admission.enter_now("a", Load(250, 1))
    told = []
    waiting = entering(admission, "b", tell=told.append)
    await soon(lambda: told)
    clock.advance(40)
    admission.kick()
    admission.adopt("c", Load(250, 1))
    admission.leave("c")  # a hold that makes no room
    clock.advance(40)
    admission.adopt("c", Load(250, 1))
    clock.advance(20)
    admission.leave("c")
    assert [(one.position, one.estimated_wait_seconds) for one in told] == [
        (1, None),
        (1, 0.0),
        (1, 10.0),
    ]
    waiting.cancel()


async def test_a_place_that_cannot_be_told_hurts_nobody_and_is_told_later(admission):
    full, told = [True], []

    def tell(place):
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        told.append(place)

    admission.enter_now("a", Load(100, 1))
    admission.enter_now("b", Load(150, 1))
    waiting = entering(admission, "c", Load(250, 1), tell)
    await soon(lambda: admission.waiting == 1)
    admission.leave("a")
    full.clear()
    admission.kick()
    assert [place.position for place in told] == [1]
    admission.leave("b")
    await waiting
    assert admission.taken == Load(250, 1)


async def test_one_that_fails_while_it_is_told_its_place_leaves_no_ghost(admission):
    def tell(_):
        raise RuntimeError("nobody foresaw it")

    admission.enter_now("a", Load(250, 1))
    with pytest.raises(RuntimeError):
        await admission.enter("b", ONE, tell)
    assert admission.waiting == 0
    admission.leave("a")
    assert admission.taken == Load()


async def test_a_cancelled_waiter_gives_its_place_up(admission):
    admission.enter_now("a", Load(250, 1))
    first, second = entering(admission, "b", Load(250, 1)), entering(admission, "c")
    await soon(lambda: admission.waiting == 2)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    admission.leave("a")
    await second
    assert admission.taken == ONE


async def test_a_ticket_given_to_a_waiter_that_was_just_cancelled_is_not_lost(admission):
    admission.enter_now("a", Load(250, 1))
    waiting = entering(admission, "b", Load(250, 1))
    await soon(lambda: admission.waiting == 1)
    admission.leave("a")  # its turn comes …
    waiting.cancel()  # … and before it runs it is cancelled
    await asyncio.gather(waiting, return_exceptions=True)
    assert admission.taken == Load()


async def test_what_can_never_fit_does_not_wait(admission):
    with pytest.raises(CapacityExhausted) as refused:
        await admission.enter("a", Load(251, 1), lambda place: None)
    assert refused.value.details == {
        "what": "MB of memory (as counted)",
        "asked": 251,
        "free": 250,
    }


async def test_children_come_in_all_or_none(admission):
    with pytest.raises(CapacityExhausted):
        admission.enter_all_now(["a", "b", "c"], ONE)
    assert admission.taken == Load()
    admission.enter_all_now(["a", "b"], ONE)
    assert admission.taken == Load(200, 2)


async def test_children_do_not_overtake_those_who_wait(admission):
    admission.enter_now("a", Load(200, 1))
    waiting = entering(admission, "b")
    await soon(lambda: admission.waiting == 1)
    with pytest.raises(CapacityExhausted, match="others wait for room already") as refused:
        admission.enter_all_now(["c", "d"], Load(20, 1))
    assert refused.value.details == {
        "what": "MB of memory (as counted)",
        "asked": 40,
        "free": 50,
    }
    assert "asked for 40 MB" in str(refused.value)
    assert "pause or destroy" in refused.value.hint
    admission.leave("a")
    await waiting
    admission.enter_all_now(["c", "d"], Load(20, 1))


async def test_what_is_held_on_the_disk_is_nobody_elses(admission, disk):
    disk.free = 150 * MB
    with admission.reserve(100):
        waiting = entering(admission, "a", Load(60, 1))
        await soon(lambda: admission.waiting == 1)
        with pytest.raises(CapacityExhausted, match="disk"), admission.reserve(60):
            pass
    await waiting  # comes in with the end of it
    with admission.reserve(60):
        pass


async def test_a_full_disk_keeps_everybody_out_until_it_has_room(admission, disk):
    disk.free = 99 * MB
    waiting = entering(admission, "a")
    await soon(lambda: admission.waiting == 1)
    with pytest.raises(CapacityExhausted, match="disk"):
        admission.need_disk(100)
    disk.free = 100 * MB
    admission.kick()
    await waiting


async def test_a_closed_door_lets_nobody_in_and_sends_the_waiters_away(admission):
    admission.enter_now("a", Load(250, 1))
    waiting = entering(admission, "b")
    await soon(lambda: admission.waiting == 1)
    admission.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    admission.leave("a")
    assert admission.taken == Load()
    with pytest.raises(HostUnavailable):
        await admission.enter("c", ONE, lambda place: None)
