"""The host contract: the service in this process, the same over its socket, and the fake in memory."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from runtools.errors import OutcomeUnknown
from runtools.platform.api.hosts.remote import RemoteHost
from runtools.platform.core.ports.host import BuildOrder, Host
from runtools.platform.host.server import serving
from runtools.platform.kit.config import Settings
from runtools.testing.contracts.host import (
    HostActsContract,
    HostReportsContract,
    HostTemplatesContract,
)
from runtools.testing.contracts.host_inside import HostExecContract, HostFilesContract
from runtools.testing.contracts.host_processes import (
    HostProcessesContract,
    HostTerminalsContract,
    pieces,
    start,
)
from runtools.testing.contracts.host_rig import HostRig
from runtools.testing.contracts.host_watch import HostWatchContract
from runtools.testing.fake_host import FakeHost
from runtools.testing.local_host import local_host

TEMPLATE = "tpl_contract"


class Everything(
    HostActsContract,
    HostReportsContract,
    HostTemplatesContract,
    HostExecContract,
    HostFilesContract,
    HostWatchContract,
    HostProcessesContract,
    HostTerminalsContract,
):
    """All suites of a host."""


@asynccontextmanager
async def rig(host: Host) -> AsyncIterator[HostRig]:
    order = BuildOrder(
        version_id=TEMPLATE, slug="base", version=1, recipe="base-debian", apt=[], run=None
    )
    await host.build(order)
    assert [line async for line in host.build_log(TEMPLATE, 0)]
    made = HostRig(host, TEMPLATE)
    yield made
    await made.clean()


@asynccontextmanager
async def service(home: Path) -> AsyncIterator[Host]:
    host = local_host(Settings(home=home, disk_headroom_mb=1))
    await host.start()
    yield host
    await host.stop()


class TestHostService(Everything):
    @pytest.fixture
    async def hosts(self, tmp_path: Path) -> AsyncIterator[HostRig]:
        async with service(tmp_path) as host, rig(host) as made:
            yield made

    async def test_a_follower_does_not_notice_that_the_agent_died(self, hosts: HostRig) -> None:
        box = await hosts.running()
        process = await start(
            hosts, box, "for i in $(seq 1000 1999); do echo $i; sleep 0.001; done"
        )
        following = asyncio.create_task(pieces(hosts, box, process))
        for _ in range(2):
            # Only the agent bears the name of its program; holders do not.
            with contextlib.suppress(OutcomeUnknown):
                await hosts.exec(box, "pkill -9 -x python3; sleep 1", timeout_ms=2000)
        got, end = await following
        assert got == b"".join(b"%d\n" % i for i in range(1000, 2000))
        assert (end.process.state, end.process.exit_code) == ("ended", 0)


class TestRemoteHost(Everything):
    @pytest.fixture
    async def hosts(self, tmp_path: Path) -> AsyncIterator[HostRig]:
        at = tmp_path / "host.sock"
        async with (
            service(tmp_path) as host,
            serving(host, at),
            RemoteHost(at) as remote,
            rig(remote) as made,
        ):
            yield made


class TestFakeHost(Everything):
    # It takes any template: tests of the api make records of versions that nobody built.
    test_nothing_is_made_from_a_template_of_nobody = None  # type: ignore[assignment]

    @pytest.fixture
    async def hosts(self, tmp_path: Path) -> AsyncIterator[HostRig]:
        async with rig(FakeHost(tmp_path)) as made:
            yield made
