"""The reach port: over a host's socket into local machines, and the fake; what only the real one shows."""

from __future__ import annotations

import asyncio
import contextlib
import stat
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from runtools.errors import HostUnavailable, RateLimited
from runtools.platform.core.ids import new_id
from runtools.platform.core.ports.host import BuildOrder
from runtools.platform.core.ports.reach_wire import frame
from runtools.platform.gateway.reach import HostReach
from runtools.platform.host import entering
from runtools.platform.host.entrance import entrance
from runtools.platform.host.service import HostService
from runtools.platform.kit.config import Settings
from runtools.sdk.shapes.processes import OutputPiece, ProcessRequest
from runtools.testing import port_server
from runtools.testing.contracts.host_rig import HostRig
from runtools.testing.contracts.reach import Listening, ReachContract, ReachRig
from runtools.testing.fake_reach import FakeReach
from runtools.testing.local_host import local_host

pytestmark = pytest.mark.asyncio(loop_scope="module")
SERVER = Path(port_server.__file__)


class TestFake(ReachContract):
    @pytest_asyncio.fixture(loop_scope="module")
    async def reached(self) -> AsyncIterator[ReachRig]:
        async with contextlib.AsyncExitStack() as ends:

            async def listen(kind: str, address: str) -> int:
                words = (sys.executable, str(SERVER), kind, address)
                child = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
                ends.push_async_callback(child.communicate)
                ends.callback(child.kill)
                assert child.stdout is not None
                return int(await child.stdout.readline())

            yield ReachRig(FakeReach({"sandbox-fake": None}), "sandbox-fake", listen)


@contextlib.asynccontextmanager
async def local(home: Path) -> AsyncIterator[tuple[HostService, str]]:
    host = local_host(Settings(home=home, disk_headroom_mb=1))
    await host.start()
    order = BuildOrder(
        version_id="tpl_reach", slug="base", version=1, recipe="base-debian", apt=[], run=None
    )
    await host.build(order)
    assert [line async for line in host.build_log("tpl_reach", 0)]
    made = HostRig(host, "tpl_reach")
    box = await made.running()
    await made.put(box, "/server.py", SERVER.read_bytes())
    yield host, box
    await made.clean()
    await host.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def host(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[HostService, str]]:
    async with local(tmp_path_factory.mktemp("reach")) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def reached(
    host: tuple[HostService, str], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ReachRig]:
    service, box = host
    at = tmp_path_factory.mktemp("socket") / "reach.sock"

    async def listen(kind: str, address: str) -> int:
        words = ["python3", "/server.py", kind, address]
        wish = ProcessRequest(command=words, process_id=new_id("prc"))
        process = await service.start_process(box, wish)
        piece = OutputPiece(offset=0, data=b"")
        while not piece.data:
            piece = await service.read_output(box, process.id, "stdout", 0, 100)
            await asyncio.sleep(0.01)
        return int(piece.data)

    async with entrance(service.entering, at):
        assert stat.S_IMODE(at.stat().st_mode) == 0o600
        yield ReachRig(HostReach(at), box, listen)


class TestHost(ReachContract):
    async def test_a_caller_that_goes_away_is_not_counted_for_long(
        self, reached: ReachRig, host: tuple[HostService, str]
    ) -> None:
        reader, writer = await reached.open("flood")
        await reader.readexactly(1 << 20)
        writer.transport.abort()
        reader, writer = await reached.open("sink")
        writer.write_eof()
        writer.transport.abort()
        async with asyncio.timeout(20):
            while host[0].entering.count(host[1]):
                await asyncio.sleep(0.01)

    @pytest.mark.parametrize("cut", ["by the host's end", "with the sandbox"])
    async def test_nor_is_what_is_cut(
        self, reached: ReachRig, host: tuple[HostService, str], cut: str
    ) -> None:
        listening = Listening()
        port = await reached.listen("first", "127.0.0.1")
        streams = host[0].entering
        async with asyncio.timeout(20):
            while streams.count(host[1]):  # those of tests before
                await asyncio.sleep(0.01)
            transport = await reached.reach.attach(reached.sandbox, port, listening)
            while not listening.came:
                await asyncio.sleep(0.01)
            if cut == "by the host's end":
                streams.close()
            else:
                [one] = streams._streams
                one._cut()
            assert await listening.end == "broke off"
            transport.abort()
            while streams.count(host[1]):
                await asyncio.sleep(0.01)

    async def test_so_many_and_no_more(
        self, reached: ReachRig, host: tuple[HostService, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(entering, "MAX_STREAMS", entering._KEPT_FOR_SSH + 1)
        port = await reached.listen("echo", "127.0.0.1")
        _, writer = await reached.reach.open(reached.sandbox, port)
        with pytest.raises(RateLimited):
            await reached.reach.open(reached.sandbox, port)
        writer.close()
        async with asyncio.timeout(20):
            while host[0].entering.count(host[1]):
                await asyncio.sleep(0.01)
        reader, writer = await reached.reach.open(reached.sandbox, port)
        writer.write(b"again")
        assert await reader.readexactly(5) == b"again"
        writer.close()

    @pytest.mark.parametrize(
        "head", [b"GET / HTTP/1.1\r\n", frame(b"{}"), frame(b"null"), frame(b'{"sandbox_id":"a"')]
    )
    async def test_another_head_is_refused(self, reached: ReachRig, head: bytes) -> None:
        assert isinstance(reached.reach, HostReach)
        reader, writer = await asyncio.open_unix_connection(reached.reach.path)
        writer.write(head)
        said = b""
        with contextlib.suppress(ConnectionError):
            said = await reader.read()
        assert said == b"" or b"invalid_request" in said
        writer.close()


async def test_without_a_host_it_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(HostUnavailable):
        await HostReach(tmp_path / "none.sock").open("sandbox-a", 80)
