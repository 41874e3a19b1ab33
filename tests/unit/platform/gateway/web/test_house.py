"""What is looked at from time to time, whatever one of the connections does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import pytest

from runtools.errors import RateLimited
from runtools.platform.core.dev_urls import DevUrls
from runtools.platform.core.ports.reach import Reach
from runtools.platform.gateway.web.admission import Wish
from runtools.platform.gateway.web.house import MOST_FAREWELLS, MOST_TO_A_SANDBOX, House
from runtools.platform.gateway.web.visitor import Shown
from runtools.platform.kit import rates
from runtools.platform.kit.outbound import networks
from runtools.testing.clock import ManualClock
from runtools.testing.gateway_world import BOX, KEY, OTHER, FakeAdmitting

URLS = DevUrls.of("http://sandboxes.localhost:7780")
REVOKED = Wish(BOX, 3000, Shown(key="rt_live_revoked"))


class Guest:
    """A connection that is looked at."""

    def __init__(self, source: str = "192.0.2.1", *, is_idle: bool = True) -> None:
        self.source = source
        self.wish: Wish | None = None
        self.is_idle = is_idle
        self.looks = self.aborts = 0
        self.is_broken = False

    def look(self, _: float) -> None:
        self.looks += 1
        if self.is_broken:
            raise AttributeError("it has lost itself")

    def abort(self) -> None:
        self.aborts += 1
        if self.is_broken:
            raise AttributeError("it has lost itself")


def house(most: int = 10) -> House:
    return House(URLS, FakeAdmitting(), cast("Reach", None), ManualClock(), most=most)


async def test_one_that_cannot_be_looked_at_keeps_nobody_from_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    made = house()
    guests = [Guest() for _ in range(9)]
    for one in guests:
        assert made.enter(one)
        one.wish = Wish(BOX, 3000, Shown(key=KEY))
    guests[3].is_broken = guests[5].is_broken = True
    for one in (guests[3], guests[7]):
        one.wish = REVOKED
    made.look()
    assert [one.looks for one in guests] == [1] * 9
    assert made._asking is not None
    await made._asking
    assert guests[7].aborts == 1
    assert [bool(one.aborts) for one in guests] == [n in (3, 5, 7) for n in range(9)]
    assert "192.0.2.1" in caplog.text
    for one in guests:
        made.leave(one)
    await asyncio.wait_for(made.close(), 20)


async def test_room_is_made_where_somebody_asks_for_nothing() -> None:
    made = house(most=5)
    busy = [Guest("192.0.2.1", is_idle=False) for _ in range(3)]
    idle = [Guest("192.0.2.2") for _ in range(2)]
    for one in (*busy, *idle):
        assert made.enter(one)
    for _ in range(2):
        assert made.enter(Guest("192.0.2.3", is_idle=False))
    assert [one.aborts for one in idle] == [1, 1]
    assert [one.aborts for one in busy] == [0] * 3


async def test_few_addresses_that_ask_for_something_keep_nobody_out() -> None:
    made = house(most=32)
    hogs = [Guest(f"192.0.2.{n % 2}", is_idle=False) for n in range(32)]
    for one in hogs:
        assert made.enter(one)
    others = [Guest(f"198.51.100.{n}", is_idle=False) for n in range(28)]
    for other in others:
        assert made.enter(other)
    assert [one.aborts for one in hogs] == [1] * 28 + [0] * 4
    # ... nor do others keep out who has no more than a share
    assert not made.enter(Guest("203.0.113.1", is_idle=False))
    assert not any(one.aborts for one in others)


async def test_who_has_the_most_makes_no_room_for_itself() -> None:
    made = house(most=4)
    first = [Guest(is_idle=False) for _ in range(4)]
    for one in first:
        assert made.enter(one)
    assert not made.enter(Guest(is_idle=False))
    assert made.enter(Guest("192.0.2.9", is_idle=False))
    assert [one.aborts for one in first] == [1, 0, 0, 0]


async def test_nor_do_few_that_come_through_a_proxy() -> None:
    """It is by whom the proxy asks for that they are counted."""
    proxies = networks("10.0.0.1/32")
    made = House(
        URLS, FakeAdmitting(), cast("Reach", None), ManualClock(), proxies=proxies, most=32
    )

    def ask(peer: str) -> Guest:
        one = Guest("10.0.0.1", is_idle=False)
        assert made.enter(one)
        made.asks(one, BOX, peer)
        return one

    hogs = [ask(f"192.0.2.{n % 2}") for n in range(32)]
    others = [ask(f"198.51.100.{n}") for n in range(28)]
    assert [one.aborts for one in hogs] == [1] * 28 + [0] * 4
    assert not made.enter(Guest("10.0.0.1", is_idle=False))
    assert not any(one.aborts for one in others)
    for one in (*hogs, *others):
        made.leave(one)
    assert not made._of


async def test_one_that_asks_for_somebody_else_is_counted_to_him() -> None:
    proxies = networks("10.0.0.1/32")
    made = House(URLS, FakeAdmitting(), cast("Reach", None), ManualClock(), proxies=proxies)
    one = Guest("10.0.0.1")
    assert made.enter(one)
    for peer in ("192.0.2.1", "192.0.2.1", "192.0.2.2", "10.0.0.1"):
        made.asks(one, BOX, peer)
        made.has_asked(one)
        assert made._of == {peer: {one: None}}
    made.leave(one)
    made.asks(one, BOX, "192.0.2.1")  # the end of one that is gone
    made.leave(one)
    assert not made._of
    assert not made._visits


async def test_one_address_does_not_take_up_all_of_a_sandbox() -> None:
    made = house(most=1000)
    for _ in range(MOST_TO_A_SANDBOX + 1):
        made.check_share(BOX, "192.0.2.1")
        made.asks(Guest(), BOX, "192.0.2.1")
    with pytest.raises(RateLimited, match=f"{MOST_TO_A_SANDBOX} connections from one address"):
        made.check_share(BOX, "192.0.2.1")
    made.check_share(OTHER, "192.0.2.1")
    made.check_share(BOX, "192.0.2.2")


@pytest.mark.parametrize("leaves", [House.leave, House.has_asked])
async def test_who_asks_for_nothing_there_any_more_takes_up_nothing(
    leaves: Callable[[House, Guest], None],
) -> None:
    made = house(most=1000)
    guests = [Guest() for _ in range(MOST_TO_A_SANDBOX + 1)]
    for one in guests:
        assert made.enter(one)
        made.asks(one, BOX, "192.0.2.1")
    with pytest.raises(RateLimited):
        made.check_share(BOX, "192.0.2.1")
    leaves(made, guests[0])
    leaves(made, guests[0])  # who is broken off leaves twice
    made.check_share(BOX, "192.0.2.1")
    for one in guests:
        leaves(made, one)
    assert not made._at
    assert not made._places


async def test_nor_does_one_that_comes_through_proxies() -> None:
    proxies = networks("10.0.0.0/8")
    made = House(URLS, FakeAdmitting(), cast("Reach", None), ManualClock(), proxies=proxies)
    for n in range(MOST_TO_A_SANDBOX + 1):
        made.check_share(BOX, "2001:db8::1")
        made.asks(Guest(f"10.0.0.{n % 2}"), BOX, f"2001:db8::{n:x}")
        made.asks(Guest("10.0.0.1"), BOX, "10.0.0.1")
    with pytest.raises(RateLimited, match=f"{MOST_TO_A_SANDBOX} connections from one address"):
        made.check_share(BOX, "2001:db8::1")
    made.check_share(OTHER, "2001:db8::1")
    made.check_share(BOX, "2001:db8:0:1::1")
    made.check_share(BOX, "10.0.0.1")  # which does not say for whom


async def test_one_more_is_counted_and_nobody_is_looked_through(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    proxies = networks("10.0.0.0/8")
    made = House(URLS, FakeAdmitting(), cast("Reach", None), ManualClock(), proxies=proxies)
    for n in range(4 * MOST_TO_A_SANDBOX):
        one = Guest("10.0.0.1")
        assert made.enter(one)
        made.asks(one, BOX, f"192.0.2.{n % 100}")
    looks: list[str] = []

    def source(address: str) -> str:
        looks.append(address)
        return address

    monkeypatch.setattr(rates, "source", source)
    made.check_share(BOX, "192.0.2.200")
    assert looks == ["192.0.2.200"]


async def test_who_is_sent_away_without_end_gets_no_page() -> None:
    made = house()
    told = [made.say_farewell() for _ in range(MOST_FAREWELLS + 1)]
    assert told == [True] * MOST_FAREWELLS + [False]
    for _ in range(2):
        made.left()
    assert made.say_farewell()
