"""Whom the resolver asks, and how much one sandbox may ask of it."""

from __future__ import annotations

import asyncio
import os
import struct
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

from runtools.platform.core.egress import OPEN, SHUT, policy
from runtools.platform.core.ports.network import Refusal
from runtools.platform.host.net import wire
from runtools.platform.host.net.resolver import (
    Allowance,
    Desk,
    TooManyPins,
    Upstreams,
    parse,
    resolve,
)
from runtools.platform.host.net.wire import REFUSED, SERVFAIL

QUERY = bytes.fromhex("000701000001000000000000") + b"\7example\3org\0\0\1\0\1"


def test_nameservers_are_read_as_the_c_library_reads_them():
    text = "# ours\nsearch a b\nnameserver 10.0.0.53 # first\n nameserver ::1\nnameserver x.y\n"
    assert parse(text) == ("10.0.0.53", "::1")


class TestUpstreams:
    def test_are_read_again_when_the_file_changes(self, tmp_path):
        file = tmp_path / "resolv.conf"
        file.write_text("nameserver 10.0.0.1\n")
        upstreams = Upstreams(file)
        assert upstreams.servers() == ("10.0.0.1",)
        file.write_text("nameserver 10.0.0.2\n")
        os.utime(file, ns=(1, 1))
        assert upstreams.servers() == ("10.0.0.2",)

    def test_without_a_file_there_are_none(self, tmp_path):
        assert Upstreams(tmp_path / "none").servers() == ()


class TestAllowance:
    @pytest.fixture
    def time(self) -> list[float]:
        return [0.0]

    def test_a_burst_and_then_a_rate(self, time):
        allowance = Allowance(lambda: time[0])
        assert sum(allowance.take() for _ in range(1000)) == 300
        time[0] = 0.5
        assert sum(allowance.take() for _ in range(1000)) == 50

    def test_it_does_not_grow_without_an_end(self, time):
        allowance = Allowance(lambda: time[0])
        time[0] = 1e6
        assert sum(allowance.take() for _ in range(1000)) == 300


async def test_without_a_nameserver_the_answer_is_a_failure():
    reply = await resolve(QUERY, (), stream=False)
    assert reply[3] & 0x0F == SERVFAIL


class Owner:
    """Takes note of what a desk tells."""

    def __init__(self) -> None:
        self.refused: list[Refusal] = []
        self.led: dict[str, tuple[list[IPv4Address], int]] = {}
        self.full = False
        self.broken = False

    def refuse(self, refusal: Refusal) -> None:
        self.refused.append(refusal)

    async def learn(self, name: str, addresses: list[IPv4Address], ttl: int) -> None:
        if self.full:
            raise TooManyPins
        if self.broken:
            raise OSError("no such set")
        self.led[name] = (addresses, ttl)


class TestDesk:
    @pytest.fixture
    def owner(self) -> Owner:
        return Owner()

    @pytest.fixture
    async def desk(self, tmp_path: Path, owner: Owner) -> Desk:
        return Desk(Upstreams(tmp_path / "none"), owner)

    @pytest.fixture
    def upstream(self, monkeypatch: pytest.MonkeyPatch) -> dict[bytes, bytes]:
        """Records (as bytes) by what they answer."""
        sections: dict[bytes, bytes] = {}

        async def answered(query: bytes, _: object, *, stream: bool) -> bytes:
            records = sections.get(query, b"")
            counts = struct.pack(">HHHH", 1, 1 if records else 0, 0, 0)
            return query[:2] + b"\x81\x80" + counts + query[12:] + records

        monkeypatch.setattr("runtools.platform.host.net.resolver.resolve", answered)
        return sections

    async def test_is_closed_before_it_is_opened(self, desk, owner):
        reply = await desk.answer(QUERY, stream=False)
        assert reply is not None
        assert reply[3] & 0x0F == REFUSED
        assert owner.refused == [Refusal("internet_off", "dns", "example.org")]

    async def test_those_it_refuses_are_bounded_too(self, desk, owner):
        replies = [await desk.answer(QUERY, stream=False) for _ in range(1000)]
        assert 300 <= len(owner.refused) < 1000, "of each that is answered is told"
        answered = len(owner.refused)
        assert replies[answered:] == [None] * (1000 - answered)
        await desk.close()
        assert owner.refused[answered:] == [Refusal("too_many", "dns")]
        assert owner.refused[-1].times == 1000 - answered

    async def test_answers_no_garbage(self, desk):
        assert await desk.answer(b"garbage", stream=True) is None

    async def test_tells_where_a_name_led(self, desk, owner, upstream):
        upstream[QUERY] = record(1, 300, bytes([203, 0, 113, 7]))
        desk.admit(OPEN)
        assert (await desk.answer(QUERY, stream=False))[3] & 0x0F == 0
        assert owner.led == {"example.org": ([IPv4Address("203.0.113.7")], 300)}

    @pytest.mark.parametrize("private", ["10.0.0.1", "127.0.0.1", "169.254.169.254", "0.0.0.0"])
    async def test_no_closed_address_is_passed_on(self, desk, owner, upstream, private):
        upstream[QUERY] = record(1, 300, IPv4Address(private).packed)
        desk.admit(OPEN)
        assert (await desk.answer(QUERY, stream=False))[3] & 0x0F == REFUSED
        assert owner.refused == [Refusal("private_answer", "dns", "example.org")]
        assert owner.led == {}

    async def test_nor_one_of_ipv6(self, desk, owner, upstream):
        upstream[QUERY] = record(28, 300, IPv6Address("::ffff:10.0.0.1").packed)
        desk.admit(OPEN)
        assert (await desk.answer(QUERY, stream=False))[3] & 0x0F == REFUSED

    async def test_records_with_keys_are_held_back(self, desk, upstream):
        upstream[QUERY] = record(65, 300, b"\0\1\0")
        desk.admit(policy(True, ["example.org"], []))
        reply = await desk.answer(QUERY, stream=False)
        assert reply == wire.failure(QUERY, wire.NO_ERROR)

    @pytest.mark.parametrize("code", [0, 3], ids=["nothing of that kind", "no such name"])
    async def test_a_name_that_leads_to_nothing_is_passed_on_and_opens_nothing(
        self, desk, owner, monkeypatch, code
    ):
        alias = record(5, 300, b"\7nowhere\3org\0")

        async def answered(query: bytes, _: object, *, stream: bool) -> bytes:
            return (
                query[:2] + bytes([0x81, 0x80 | code, 0, 1, 0, 1, 0, 0, 0, 0]) + query[12:] + alias
            )

        monkeypatch.setattr("runtools.platform.host.net.resolver.resolve", answered)
        desk.admit(policy(True, ["example.org"], []))
        reply = await desk.answer(QUERY, stream=False)
        assert (reply[3] & 0x0F, reply.endswith(alias)) == (code, True)
        assert (owner.led, owner.refused) == ({}, [])

    async def test_when_no_more_can_be_pinned_it_refuses(self, desk, owner, upstream):
        upstream[QUERY] = record(1, 300, bytes([203, 0, 113, 7]))
        owner.full = True
        desk.admit(policy(True, ["example.org"], []))
        assert (await desk.answer(QUERY, stream=False))[3] & 0x0F == REFUSED
        assert owner.refused == [Refusal("too_many", "dns", "example.org")]

    async def test_what_cannot_be_pinned_is_not_told(self, desk, owner, upstream):
        upstream[QUERY] = record(1, 300, bytes([203, 0, 113, 7]))
        owner.broken = True
        desk.admit(policy(True, ["example.org"], []))
        assert (await desk.answer(QUERY, stream=False))[3] & 0x0F == SERVFAIL

    @pytest.mark.parametrize("rule", [SHUT, policy(True, ["other.org"], [])])
    async def test_a_question_under_way_ends_when_the_policy_objects_to_it(
        self, desk, owner, monkeypatch, rule
    ):
        """Before it is asked of the next nameserver, or once more."""
        asked, ended = asyncio.Event(), asyncio.Event()

        async def silent(*_: object, stream: bool) -> bytes:
            asked.set()
            try:
                return await asyncio.get_running_loop().create_future()
            finally:
                ended.set()

        monkeypatch.setattr("runtools.platform.host.net.resolver.resolve", silent)
        desk.admit(policy(True, ["example.org"], []))
        answering = asyncio.create_task(desk.answer(QUERY, stream=False))
        await asked.wait()
        desk.admit(policy(True, ["example.org", "more.org"], []))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not ended.is_set(), "what is still admitted goes on"
        desk.admit(rule)
        desk.admit(rule)
        reply = await answering
        assert ended.is_set()
        assert reply[3] & 0x0F == REFUSED
        reason = "not_allowed" if rule.internet else "internet_off"
        assert owner.refused == [Refusal(reason, "dns", "example.org")]

    async def test_names_that_are_none_are_refused_where_names_rule(self, desk, owner, upstream):
        dotted = QUERY[:12] + b"\x0bexample.org\0\0\1\0\1"
        desk.admit(policy(True, ["example.org"], []))
        assert (await desk.answer(dotted, stream=False))[3] & 0x0F == REFUSED
        assert owner.refused == [Refusal("not_allowed", "dns", None)]

    async def test_a_malformed_answer_is_a_failure(self, desk, upstream):
        upstream[QUERY] = b"\xc0\x0c\0\1"
        desk.admit(OPEN)
        assert (await desk.answer(QUERY, stream=False))[3] & 0x0F == SERVFAIL


def record(kind: int, ttl: int, data: bytes) -> bytes:
    return b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, ttl, len(data)) + data
