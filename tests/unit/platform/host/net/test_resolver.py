"""Whom the resolver asks, and how much one sandbox may ask of it."""

from __future__ import annotations

import os

import pytest

from runtools.platform.host.net.resolver import Allowance, Desk, Upstreams, parse, resolve
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


class TestDesk:
    async def test_is_closed_before_it_is_opened(self, tmp_path):
        reply = await Desk(Upstreams(tmp_path / "none")).answer(QUERY, stream=False)
        assert reply is not None
        assert reply[3] & 0x0F == REFUSED

    async def test_answers_no_garbage(self, tmp_path):
        assert await Desk(Upstreams(tmp_path / "none")).answer(b"garbage", stream=True) is None
