"""Who takes nothing stops who sends to it, whatever happens between the two meanwhile.

asyncio says once that a connection takes no more, and once that it does again. Its transports are played
here, so that a test is what says it.
"""

from __future__ import annotations

import socket

import pytest
from tests.unit.platform.gateway.web.played import ANSWER, Wire, World

from runtools.platform.core import dev_urls
from runtools.platform.core.ports.admitting import Asked, Verdict
from runtools.platform.gateway import rousing
from runtools.platform.gateway.web import pace, talk
from runtools.platform.gateway.web.admission import BELIEVED_SECONDS
from runtools.platform.gateway.web.talk import Talk
from runtools.platform.gateway.web.visit import ANSWER_SECONDS, Visit
from runtools.platform.kit.splice import Splice
from runtools.testing.gateway_world import BOX, LINK

SWITCH = b"HTTP/1.1 101 Yes\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"


@pytest.fixture
async def world() -> World:
    return World()


UPGRADE = "Connection: upgrade\r\nUpgrade: x\r\n"


class TestUpgrades:
    async def test_a_server_that_was_slow_before_stays_so(self, world: World) -> None:
        visit, front = world.visit()
        back = await world.ask(visit, "GET /", UPGRADE)
        back.protocol.pause_writing()
        back.protocol.data_received(SWITCH)
        assert front.is_paused
        assert not back.is_paused
        back.protocol.resume_writing()
        assert not front.is_paused

    async def test_a_visitor_that_was_slow_before_stays_so(self, world: World) -> None:
        visit, front = world.visit()
        back = await world.ask(visit, "GET /", UPGRADE)
        hint = b"HTTP/1.1 103 Hints\r\nX: " + b"x" * 60_000 + b"\r\n\r\n"

        def take(_: bytes) -> None:
            if len(front.sent) > talk.HIGH and not visit._is_slow:
                visit.pause_writing()

        front.on_write = take
        back.protocol.data_received(hint * 3 + SWITCH)
        assert visit._talk is not None
        assert back.is_paused
        assert not front.is_paused
        front.protocol.resume_writing()
        assert not back.is_paused

    async def test_a_sandbox_that_woke_is_sent_no_more_than_it_takes(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(rousing, "QUIET_SECONDS", -1.0)
        front, back = Wire(), Wire()

        async def waken() -> None:
            """It is awake."""

        joined = Talk(front, back, lambda: None, waken)
        joined.begin()
        back.on_write = lambda _: back.protocol.pause_writing()
        front.protocol.data_received(b"x" * 1000)
        assert joined._rousing._task is not None
        await joined._rousing._task
        assert back.sent == b"x" * 1000
        assert front.is_paused
        back.protocol.resume_writing()
        assert not front.is_paused

    async def test_a_splice_reads_only_what_is_taken(self) -> None:
        front, back = Wire(), Wire()
        front.pause_reading()
        back.pause_reading()
        joined = Splice(front, back)
        back.protocol.pause_writing()
        joined.begin()
        assert (front.is_paused, back.is_paused) == (True, False)


class TestRequests:
    async def test_a_body_that_came_with_the_head_is_as_much_as_the_server_takes(
        self, world: World
    ) -> None:
        visit, front = world.visit()

        def take(wire: Wire, data: bytes) -> None:
            if data.endswith(b"body"):
                wire.protocol.pause_writing()

        world.servers.on_write = take
        back = await world.ask(visit, "POST /", "Content-Length: 8\r\n", b"body")
        assert front.is_paused
        back.protocol.resume_writing()
        assert not front.is_paused

    async def test_a_connection_that_holds_something_unsent_is_not_used_again(
        self, world: World
    ) -> None:
        visit, _ = world.visit()
        back = await world.ask(visit, "GET /")
        back.left = 1
        back.protocol.data_received(ANSWER)
        assert back.is_gone
        assert await world.ask(visit, "GET /") is not back

    async def test_one_that_was_sent_a_body_is_not_used_again(self, world: World) -> None:
        visit, _ = world.visit()
        first = await world.ask(visit, "GET /")
        first.protocol.data_received(ANSWER)
        other, _ = world.visit()
        assert await world.ask(other, "POST /", "Content-Length: 2\r\n", b"ab") is first
        first.protocol.data_received(ANSWER)
        assert first.is_gone
        assert await world.ask(visit, "GET /") is not first


class TestEnds:
    async def test_an_answer_over_tls_is_taken_as_slowly_as_it_is(self, world: World) -> None:
        visit, front = world.visit()
        front.has_halves = False
        sends, reads = socket.socketpair()
        with sends, reads:
            front.sock = sends
            back = await world.ask(visit, "GET /", "Connection: close\r\n")
            sends.send(b"x" * 1000)  # in the kernel, behind what asyncio tells
            back.protocol.data_received(ANSWER)
            assert (front.is_gone, front.is_aborted) == (True, False)
            visit.look(visit.moved + 50)
            assert not front.is_aborted
            reads.recv(1000)
            visit.look(visit.moved + 100)
            assert front.is_aborted

    async def test_one_of_which_nothing_is_taken_is_broken_off(self, world: World) -> None:
        visit, front = world.visit()
        front.has_halves = False
        sends, reads = socket.socketpair()
        with sends, reads:
            front.sock = sends
            back = await world.ask(visit, "GET /", "Connection: close\r\n")
            sends.send(b"x" * 1000)
            back.protocol.data_received(ANSWER)
            visit.look(visit.moved + 1)
            visit.look(visit.moved + 2 + pace.STALL_SECONDS)
            assert front.is_aborted

    async def test_who_ended_its_direction_is_not_waited_for(self, world: World) -> None:
        visit, front = world.visit()
        back = await world.ask(visit, "GET /")
        back.protocol.data_received(ANSWER[:-1])
        assert front.protocol.eof_received()
        back.protocol.data_received(ANSWER[-1:])
        assert front.sent.endswith(b"ok")
        assert front.is_gone

    async def test_an_old_client_is_told_that_its_connection_stays(self, world: World) -> None:
        visit, front = world.visit()
        back = await world.ask(visit, "GET /", "Connection: keep-alive\r\n", version="1.0")
        back.protocol.data_received(ANSWER)
        assert b"\r\nConnection: keep-alive\r\n" in front.sent
        assert not front.is_gone


class TestRoom:
    async def test_who_asks_for_nothing_makes_room_the_oldest_from_where_most_are(
        self, world: World
    ) -> None:
        world.house._most = 4
        made: list[tuple[Visit, Wire]] = []
        for source in ("192.0.2.1", "192.0.2.2", "192.0.2.2", "192.0.2.2"):
            made.append(world.visit(source))
        await world.ask(made[1][0], "GET /")
        _, newcomer = world.visit("192.0.2.3")
        assert [wire.is_aborted for _, wire in made] == [False, False, True, False]
        assert not newcomer.sent
        assert len(world.house._visits) == 4


class TestRevoking:
    async def test_who_was_let_in_before_a_long_wait_is_judged_again(self, world: World) -> None:
        visit, front = world.visit()

        def wake() -> None:
            world.clock.advance(60)
            world.admitting.secrets.clear()

        world.servers.on_attach = wake
        await world.request(visit, "GET /")
        assert front.sent.startswith(b"HTTP/1.1 404 ")
        [back] = world.servers.wires
        assert back.is_aborted
        assert back.sent == b""
        assert len(world.admitting.asked) == 2

    async def test_who_says_the_same_again_is_judged_again(self, world: World) -> None:
        visit, front = world.visit()
        back = await world.ask(visit, "GET /one")
        back.protocol.data_received(ANSWER)
        world.admitting.secrets.clear()
        await world.request(visit, "GET /two")  # a moment later
        assert back.sent.count(b"GET /two ") == 1
        back.protocol.data_received(ANSWER)
        world.clock.advance(BELIEVED_SECONDS)
        await world.request(visit, "GET /three")
        assert front.sent.count(b"HTTP/1.1 404 ") == 1
        assert b"/three" not in back.sent


class TestServersThatLeave:
    async def test_one_that_left_while_its_visitor_was_judged_again_is_told_of(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        visit, front = world.visit()
        world.servers.on_attach = lambda: world.clock.advance(BELIEVED_SECONDS)
        admit, asked = world.admitting.admit, world.admitting.asked

        def breaks(_: bytes) -> None:
            raise RuntimeError("the handler is closed")  # as uvloop does

        async def slow(one: Asked) -> Verdict:
            found = await admit(one)
            if len(asked) == 2:
                [back] = world.servers.wires
                back.is_gone, back.on_write = True, breaks
                back.protocol.connection_lost(None)
            return found

        monkeypatch.setattr(world.admitting, "admit", slow)
        await world.request(visit, "GET /")
        assert len(asked) == 2
        assert front.sent.startswith(b"HTTP/1.1 502 ")

    @pytest.mark.parametrize(
        "said",
        [
            b"HTTP/2.0 it is\r\n\r\n",
            b"HTTP/1.1 200 O",
            b"HTTP/1.1 103 Hints\r\n\r\n",
        ],
        ids=["garbage", "a part of a head", "hints"],
    )
    async def test_what_had_a_part_of_an_answer_is_not_asked_again(
        self, world: World, said: bytes
    ) -> None:
        """It has reached its server, on however many kept connections it would be sent again."""
        visit, front = world.visit()
        back = await world.ask(visit, "GET /")
        back.protocol.data_received(ANSWER)
        assert await world.ask(visit, "GET /") is back
        back.protocol.data_received(said)
        if not back.is_aborted:
            back.protocol.connection_lost(None)
        assert visit._task is None or visit._task.done()
        assert world.servers.wires == [back]
        assert b"HTTP/1.1 502 " in front.sent

    async def test_nor_is_what_had_none_for_minutes(self, world: World) -> None:
        visit, front = world.visit()
        back = await world.ask(visit, "GET /")
        back.protocol.data_received(ANSWER)
        assert await world.ask(visit, "GET /") is back
        visit.look(visit.moved + ANSWER_SECONDS + 1)
        assert world.servers.wires == [back]
        assert b"HTTP/1.1 504 " in front.sent

    async def test_the_cookie_of_a_link_is_told_though_the_request_was_sent_again(
        self, world: World
    ) -> None:
        visit, front = world.visit()
        back = await world.ask(visit, "GET /")
        back.protocol.data_received(ANSWER)
        await world.request(visit, f"GET /?{dev_urls.LINK}={LINK}", key=False)
        back.protocol.connection_lost(None)  # it had closed what was kept of it
        assert visit._task is not None
        await visit._task
        fresh = world.servers.wires[-1]
        assert fresh is not back
        fresh.protocol.data_received(ANSWER)
        [_, said] = front.sent.split(b"HTTP/1.1 200 ")[1:]
        assert f"={LINK};".encode() in said
        assert b"Referrer-Policy: no-referrer" in said


class TestShares:
    async def test_a_visit_counts_while_it_asks_and_no_longer(self, world: World) -> None:
        house = world.house
        place = BOX, "192.0.2.9"
        visit, front = world.visit()
        back = await world.ask(visit, "GET /")
        assert house._at == {place: 1}
        back.protocol.data_received(ANSWER)
        assert (house._at, house._places) == ({}, {})
        await world.ask(visit, "GET /")
        assert house._at == {place: 1}
        back.protocol.connection_lost(None)  # sent again, on another
        assert visit._task is not None
        await visit._task
        assert (house._at, list(house._places)) == ({place: 1}, [visit])
        world.servers.wires[-1].protocol.data_received(b"HTTP/2.0 it is\r\n\r\n")
        assert b"HTTP/1.1 502 " in front.sent
        visit.connection_lost(None)
        assert (house._at, house._places) == ({}, {})

    async def test_one_of_an_upgrade_counts_to_its_end(self, world: World) -> None:
        house = world.house
        visit, _ = world.visit()
        back = await world.ask(visit, "GET /", UPGRADE)
        back.protocol.data_received(SWITCH)
        assert house._at == {(BOX, "192.0.2.9"): 1}
        assert visit._talk is not None
        visit._talk.abort()
        visit.connection_lost(None)
        assert (house._at, house._places) == ({}, {})
