"""QMP with a VMM that behaves, and with ones that do not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from runtools.platform.host.drivers.qemu.qmp import QmpLost, QmpRefused, listen, talk

GREETING = {"QMP": {"version": {}, "capabilities": []}}
Say = Callable[..., Awaitable[None]]


def line(message: object) -> bytes:
    return json.dumps(message).encode() + b"\n"


@pytest.fixture
async def vmm(tmp_path: Path):
    """A VMM whose answers a test gives: ``serve(answers)`` maps commands to what is sent back."""
    servers = []
    path = tmp_path / ("deep" * 40) / "qmp"  # deeper than the path of a socket may be
    path.parent.mkdir()

    async def serve(answers: dict[str, list[object]], greeting: object = GREETING) -> Path:
        async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(greeting if isinstance(greeting, bytes) else line(greeting))
            while order := await reader.readline():
                asked = json.loads(order)
                for answer in answers.get(asked["execute"], [{"return": {}}]):
                    if isinstance(answer, bytes):
                        writer.write(answer)
                    elif isinstance(answer, dict):
                        writer.write(line({"id": asked["id"], **answer}))
                    elif answer is None:
                        writer.close()
                        return
            writer.close()

        servers.append(await asyncio.start_unix_server(converse, sock=listen(path)))
        return path

    yield serve
    for server in servers:
        server.close()


async def test_an_answer_is_given_back(vmm):
    path = await vmm({"query-status": [{"return": {"status": "running"}}]})
    async with talk(path) as qmp:
        assert await qmp.do("query-status") == {"status": "running"}


async def test_events_are_passed_over(vmm):
    events = [line({"event": "STOP"})] * 3
    path = await vmm({"stop": [*events, {"return": {}}]})
    async with talk(path) as qmp:
        assert await qmp.do("stop") == {}


async def test_a_refusal_is_told_in_its_own_words(vmm):
    path = await vmm({"cont": [{"error": {"class": "GenericError", "desc": "no medium"}}]})
    async with talk(path) as qmp:
        with pytest.raises(QmpRefused, match="no medium"):
            await qmp.do("cont")


async def test_the_answer_to_an_earlier_command_is_not_taken_for_this_one(vmm):
    path = await vmm({"slow": [], "stop": [line({"id": 2, "return": "late"}), {"return": "mine"}]})
    async with talk(path) as qmp:
        with pytest.raises(QmpLost, match="no answer to slow"):
            await qmp.do("slow", within=0.05)
        assert await qmp.do("stop") == "mine"


@pytest.mark.parametrize(
    "said",
    [[None], [b"not json\n"], [b"[]\n"], [b"x" * (2 << 20)], [line({"event": "X"})] * 10_001],
    ids=["gone", "garbage", "a list", "an endless line", "events without an end"],
)
async def test_one_that_misbehaves_is_lost(vmm, said):
    path = await vmm({"stop": said})
    async with talk(path) as qmp:
        with pytest.raises(QmpLost):
            await qmp.do("stop", within=5)


async def test_one_that_greets_wrongly_is_lost(vmm):
    path = await vmm({}, greeting={"hello": 1})
    with pytest.raises(QmpLost, match="does not speak"):
        async with talk(path):
            pass


async def test_one_that_says_nothing_is_lost_in_time(vmm):
    path = await vmm({}, greeting=b"")
    with pytest.raises(QmpLost, match="no greeting"):
        async with talk(path, within=0.05):
            pass


async def test_nobody_is_lost(tmp_path):
    with pytest.raises(QmpLost):
        async with talk(tmp_path / "qmp"):
            pass
    with pytest.raises(QmpLost):
        async with talk(tmp_path / "gone" / "qmp"):
            pass
