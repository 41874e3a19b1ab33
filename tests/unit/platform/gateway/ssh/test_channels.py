"""Channels that are joined: when they are over, whatever either side says."""

from __future__ import annotations

from typing import Any

import pytest
from asyncssh.constants import (
    MSG_CHANNEL_CLOSE,
    MSG_CHANNEL_DATA,
    MSG_CHANNEL_OPEN,
    MSG_CHANNEL_OPEN_CONFIRMATION,
)
from asyncssh.packet import SSHPacket, String

from runtools.platform.gateway.ssh.channels import SESSION, Asker, Giver


class Connection:
    """A connection of asyncssh, as far as a channel sees it."""

    def __init__(self) -> None:
        self.channels: dict[int, Any] = {}
        self.sent: list[int] = []

    def add_channel(self, channel: object) -> int:
        number = len(self.sent) + len(self.channels)
        self.channels[number] = channel
        return number

    def remove_channel(self, number: int) -> None:
        del self.channels[number]

    def send_packet(self, kind: int, *_args: bytes) -> None:
        self.sent.append(kind)

    def send_channel_open_confirmation(self, *_args: int) -> None:
        self.sent.append(MSG_CHANNEL_OPEN_CONFIRMATION)


class Pair:
    """A channel that one side asks for, at the other."""

    def __init__(self) -> None:
        self.asking, self.giving = Connection(), Connection()
        self.counted = 1
        self.asker = Asker(self.asking, SESSION, b"", self._begin, self._over)
        self.asker.process_open(7, 1000, 1000, None)

    def _begin(self, asker: Asker) -> None:
        self.giver = Giver(self.giving)
        self.giver.open(asker)

    def _over(self, _asker: Asker) -> None:
        self.counted -= 1

    def give(self) -> None:
        """The other side says yes."""
        self.giver.process_open_confirmation(9, 1000, 1000, SSHPacket(b""))

    @property
    def there(self) -> tuple[int, int, int]:
        """How many ends either connection has, and how many channels are counted."""
        return len(self.asking.channels), len(self.giving.channels), self.counted


def close(end: Asker | Giver) -> None:
    """The other side of that end closes it."""
    end.process_packet(MSG_CHANNEL_CLOSE, 0, SSHPacket(b""))


@pytest.mark.parametrize("first", ["asker", "giver"])
def test_it_is_over_when_both_have_closed_it(first: str) -> None:
    pair = Pair()
    pair.give()
    ends: list[Asker | Giver] = [pair.asker, pair.giver]
    if first == "giver":
        ends.reverse()
    close(ends[0])
    assert pair.there == (1, 1, 1)
    close(ends[1])
    assert pair.there == (0, 0, 0)
    assert pair.asking.sent == [MSG_CHANNEL_OPEN_CONFIRMATION, MSG_CHANNEL_CLOSE]
    assert pair.giving.sent == [MSG_CHANNEL_OPEN, MSG_CHANNEL_CLOSE]


def test_who_closes_it_twice_does_not_make_it_forgotten() -> None:
    """Else a client and a sandbox that is its own could fill the gateway with ends that nobody counts."""
    pair = Pair()
    pair.give()
    for _ in range(3):
        close(pair.asker)
    assert pair.there == (1, 1, 1)
    assert pair.giving.sent.count(MSG_CHANNEL_CLOSE) == 1
    close(pair.giver)
    assert pair.there == (0, 0, 0)


def test_nor_who_closes_it_before_it_is_open() -> None:
    pair = Pair()
    close(pair.asker)
    close(pair.giver)
    assert pair.there == (1, 1, 1)
    pair.give()
    close(pair.asker)
    close(pair.giver)
    assert pair.there == (0, 0, 0)


def test_one_that_is_refused_is_over() -> None:
    pair = Pair()
    pair.asking.send_channel_open_failure = lambda *_: None  # type: ignore[attr-defined]
    pair.giver.process_open_failure(1, "no", "en")
    assert pair.there == (0, 0, 0)


def test_what_comes_after_the_end_is_dropped() -> None:
    pair = Pair()
    pair.give()
    close(pair.giver)
    pair.asker.process_packet(MSG_CHANNEL_DATA, 0, SSHPacket(String("late")))
    close(pair.asker)
    pair.asker.process_packet(MSG_CHANNEL_DATA, 0, SSHPacket(String("later")))
    assert pair.there == (0, 0, 0)
