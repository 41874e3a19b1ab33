"""What a relay says is checked, and whatever it does it is started again."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from ipaddress import IPv4Address

import pytest

from runtools.platform.core.egress import policy
from runtools.platform.core.ports.network import Refusal, untold
from runtools.platform.host.net import relays
from runtools.platform.host.net.relays import Relay

KNOWN = [IPv4Address("203.0.113.7")]


@pytest.fixture
def refused() -> list[Refusal]:
    return []


@pytest.fixture
def relay(refused: list[Refusal]) -> Iterator[Relay]:
    rule = policy(True, ["example.org"], [])
    with socket.socket() as listener:
        yield Relay("rt-x-1", 1, listener, rule, lambda: KNOWN, refused.append)


async def hears(relay: Relay, *lines: bytes) -> dict[str, object]:
    """Converse with a process that says these lines and ends; what it was told first."""
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.sendall(b"".join(line + b"\n" for line in lines))
        theirs.shutdown(socket.SHUT_WR)
        try:
            await relay._converse(ours)
        finally:
            relay._writer = None
            theirs.setblocking(False)
            told = theirs.recv(65536)
    said: dict[str, object] = json.loads(told)
    return said


async def test_refusals_are_heard(relay, refused):
    one = b'{"refused": ["not_allowed", "evil.net", "203.0.113.7", 443]}'
    nameless = b'{"refused": ["unreadable", null, "203.0.113.7", 80]}'
    await hears(relay, one, nameless, b'{"more": ["too_many", 7000]}', b'{"n": 1}')
    assert refused == [
        Refusal("not_allowed", "tcp", "evil.net", "203.0.113.7", 443),
        Refusal("unreadable", "tcp", None, "203.0.113.7", 80),
        untold("too_many", 7000),
    ]
    assert refused[-1].times == 7000


@pytest.mark.parametrize(
    "said",
    [
        *("", "{}", "[]", "1", "null", "nonsense", '{"n": "1"}', '{"n": 2}', '{"more": []}'),
        *('{"more": ["too_many", 0]}', '{"more": ["boredom", 1]}', '{"more": ["too_many"]}'),
        *('{"refused": []}', '{"refused": {}}', '{"refused": ["not_allowed"]}'),
        '{"refused": ["not_allowed", "evil.net", "203.0.113.7", 65536]}',
        '{"refused": ["not_allowed", "evil.net", "nowhere", 443]}',
        '{"refused": ["not_allowed", "\\u001b[2J", "203.0.113.7", 443]}',
        '{"refused": ["not_allowed", "\\ud800", "203.0.113.7", 443]}',
        '{"refused": [[], "evil.net", "203.0.113.7", 443]}',
    ],
)
async def test_what_makes_no_sense_ends_the_conversation(relay, refused, said):
    with pytest.raises(ValueError, match=r"it says|reason|refusal of|octet|Expecting"):
        await hears(relay, said.encode())
    assert refused == []


async def test_it_learns_where_names_led_once_something_may_have_begun_before(relay):
    assert await hears(relay) == {
        "n": 1,
        "internet": True,
        "allow": ["example.org"],
        "deny": [],
        "known": None,
    }
    await relay.tell(policy(True, ["*"], ["evil.net"]))
    said = await hears(relay)
    assert (said["n"], said["deny"], said["known"]) == (2, ["evil.net"], ["203.0.113.7"])


async def test_the_next_process_learns_none_where_all_that_waits_has_begun_under_this_policy(relay):
    await relay.tell(policy(True, ["*"], ["evil.net"]))
    assert (await hears(relay, b'{"n": 1}'))["known"] == ["203.0.113.7"]
    assert (await hears(relay, b'{"n": 2}'))["known"] == ["203.0.113.7"]
    said = await hears(relay)
    assert (said["n"], said["deny"], said["known"]) == (2, ["evil.net"], None)


async def test_nothing_that_it_does_ends_its_keeper(relay, monkeypatch, caplog):
    errors = [OSError("o"), ValueError("v"), RecursionError("r"), KeyError("k")]
    again = asyncio.Event()

    async def live() -> None:
        if errors:
            raise errors.pop()
        again.set()
        await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(relays, "_AGAIN_SECONDS", 0)
    monkeypatch.setattr(relay, "_live", live)
    relay._keeper = asyncio.create_task(relay._keep())
    await again.wait()
    await relay.close()
    assert caplog.text.count("ended and is started again") == 4
    assert "RecursionError" in caplog.text
