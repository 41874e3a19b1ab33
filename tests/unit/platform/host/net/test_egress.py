"""A policy is put in force in the order in which nothing slips by, and nobody waits for more."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Any

import pytest

from runtools.platform.core.egress import Policy, policy
from runtools.platform.core.ports.driver import Slot
from runtools.platform.host.net import egress
from runtools.platform.host.net.egress import Egress
from runtools.platform.host.net.names import Names
from runtools.platform.host.net.netlink import Logged

ONE, OTHER = (policy(True, [f"{name}.example.org"], []) for name in ("one", "other"))


class Seen:
    """Stands in for the resolver, the kernel and the relay: writes down what is done, in order."""

    def __init__(self) -> None:
        self.done: list[object] = []

    def admit(self, _: Policy) -> None:
        self.done.append("names")

    async def tell(self, new: Policy) -> None:
        self.done.append(("told", new))

    async def open_relay(self, space: str, uid: int, new: Policy, *_: object) -> Seen:
        self.done.append(("relay", new))
        return self

    def doing(self, what: str) -> Callable[..., Any]:
        async def act(*_: object) -> Seen:
            self.done.append(what)
            return self

        return act


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    made = Seen()
    monkeypatch.setattr(egress.Relay, "open", made.open_relay)
    monkeypatch.setattr(egress.Elements, "open", made.doing("pins"))
    monkeypatch.setattr(egress.nft, "apply", made.doing("rules"))
    monkeypatch.setattr(egress.slots, "plug", lambda *_, up: made.done.append(("plug", up)))
    return made


@pytest.fixture
def made(seen: Seen) -> Egress:
    slot = Egress(Names("x"), Slot(namespace="rt-x-1", tap="tap", index=1), relay_uid=1)
    slot._desk = seen  # type: ignore[assignment]
    return slot


async def test_a_fresh_relay_begins_under_the_policy_and_is_told_only_of_the_next(
    made: Egress, seen: Seen
) -> None:
    await made.change(ONE)
    assert seen.done == ["names", "pins", ("relay", ONE), "rules", ("plug", True)]
    seen.done.clear()
    await made.change(OTHER)
    assert seen.done == ["names", "rules", ("told", OTHER), ("plug", True)]


async def test_where_nobody_knows_what_was_in_force_it_is_told_as_well(
    made: Egress, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Absent:
        code = 1

    async def ask(*_: object, **__: object) -> Absent:
        return Absent()

    monkeypatch.setattr(egress.nft, "ask", ask)
    await made.adopt(ONE, lambda _: None)
    assert seen.done == ["names", "pins", ("relay", ONE), "rules", ("told", ONE), ("plug", True)]


async def test_a_refused_address_is_told_by_the_name_that_was_asked_for_last(made: Egress) -> None:
    told: list[str | None] = []
    made._refused = lambda refusal: told.append(refusal.name)
    address = IPv4Address("203.0.113.7")
    packet = b"\x45" + bytes(8) + b"\x06" + bytes(6) + address.packed + bytes(20)
    for name in ("one", "other", "one"):
        await made.learn(name, [address], 60)
        made._heard(Logged("not_allowed", packet))
    assert told == ["one", "other", "one"]
