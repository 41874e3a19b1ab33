"""When there is room for more than shares, and how often the kernel is told."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from runtools.platform.host.net import cables, crowd
from runtools.platform.host.net.crowd import Crowd
from runtools.platform.host.net.names import Names
from runtools.platform.kit.process import CommandFailed

FLOWS = cables.Pace(each=1, others=1, held=8, room=100)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine that remembers 99 flows, and whose TCP has pages enough."""
    for name, text in (("_NOW", "99\n"), ("_TCP_PAGES", "50 70 90\n")):
        (tmp_path / name).write_text(text)
        monkeypatch.setattr(crowd, name, tmp_path / name)
    (tmp_path / "_SOCKETS").write_text(
        "sockets: used 9\nTCP: inuse 5 orphan 0 tw 0 alloc 8 mem 49\n"
    )
    monkeypatch.setattr(crowd, "_SOCKETS", tmp_path / "_SOCKETS")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "text"),
    [("_NOW", "100"), ("_SOCKETS", "TCP: inuse 5 orphan 0 tw 0 alloc 8 mem 50\n")],
    ids=["flows", "memory of TCP"],
)
def test_there_is_room_until_either_is_short(machine: Path, name: str, text: str) -> None:
    assert crowd.has_room(100, had=True)
    (machine / name).write_text(text)
    assert not crowd.has_room(100, had=True)


@pytest.mark.parametrize(
    ("name", "full", "emptied"),
    [("_NOW", "88", "86"), ("_SOCKETS", "TCP: mem 43\n", "TCP: mem 42\n")],
    ids=["flows", "memory of TCP"],
)
def test_what_was_full_has_room_again_once_an_eighth_is_free(
    machine: Path, name: str, full: str, emptied: str
) -> None:
    (machine / "_NOW").write_text("86")
    (machine / "_SOCKETS").write_text("TCP: mem 42\n")
    (machine / name).write_text(full)
    assert crowd.has_room(100, had=True)
    assert not crowd.has_room(100, had=False)
    (machine / name).write_text(emptied)
    assert crowd.has_room(100, had=False)


def test_a_machine_that_remembers_nothing_yet_has_room(machine: Path) -> None:
    (machine / "_NOW").unlink()
    assert crowd.has_room(100, had=True)


@pytest.fixture
def looking() -> Iterator[Crowd]:
    made = Crowd(Names("abc123"), lambda cable, times: None)
    made.begin(FLOWS)
    yield made
    made.close()


async def test_the_kernel_is_told_when_it_does_not_know(
    looking: Crowd, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    room, broken = True, False

    async def apply(text: str) -> None:
        if broken:
            raise CommandFailed(["nft"], 1, b"no")
        told.append(text)

    monkeypatch.setattr(crowd.nft, "apply", apply)
    monkeypatch.setattr(crowd, "has_room", lambda most, had: room)
    for _ in range(3):
        await looking.look()
    assert [text.count("timeout") for text in told] == [1], "once in a while is enough"
    room, broken = False, True
    await looking.look()
    broken = False
    for _ in range(3):
        await looking.look()
    assert [text.count("timeout") for text in told] == [1, 0], "and again where it was not heard"
    room = True
    await looking.look()
    looking.begin(FLOWS)  # a table that was loaded anew knows of none
    await looking.look()
    assert [text.count("timeout") for text in told] == [1, 0, 1, 1]


async def test_who_keeps_the_host_full_does_not_have_it_told_every_second(
    looking: Crowd, machine: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each flow that ends makes room for one, which is taken at once."""
    told: list[str] = []

    async def apply(text: str) -> None:
        told.append(text)

    monkeypatch.setattr(crowd.nft, "apply", apply)
    for now in (80, 100, 99, 100, 99, 100, 88, 100, 87):
        (machine / "_NOW").write_text(str(now))
        (machine / "_SOCKETS").write_text("TCP: mem 9\n")
        await looking.look()
    assert [text.count("timeout") for text in told] == [1, 0]
    assert caplog.text.count("fill the host") == 1
    (machine / "_NOW").write_text("86")
    await looking.look()
    assert [text.count("timeout") for text in told] == [1, 0, 1]


def test_what_cannot_be_counted_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[tuple[IPv4Address, int]] = []
    made = Crowd(Names("abc123"), lambda cable, times: heard.append((cable, times)))

    def refuses() -> dict[IPv4Address, int]:
        raise OSError(105, "no room")

    monkeypatch.setattr(made._tally, "take", refuses)
    made.note()
    assert "not counted" in caplog.text
    monkeypatch.setattr(made._tally, "take", lambda: {IPv4Address("198.18.0.1"): 7})
    made.note()
    made.close()
    assert heard == [(IPv4Address("198.18.0.1"), 7)]
