"""The host contract: the service in this process, the same over its socket, and the fake in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

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


class TestFakeHost(Everything, HostProcessesContract, HostTerminalsContract):
    # It takes any template: tests of the api make records of versions that nobody built.
    test_nothing_is_made_from_a_template_of_nobody = None  # type: ignore[assignment]

    @pytest.fixture
    async def hosts(self, tmp_path: Path) -> AsyncIterator[HostRig]:
        async with rig(FakeHost(tmp_path)) as made:
            yield made
