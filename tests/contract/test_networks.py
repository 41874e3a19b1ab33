"""The network contract: without namespaces always, with them where there is root."""

from __future__ import annotations

import asyncio
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest

from runtools.platform.core.egress import OPEN
from runtools.platform.core.ports.network import Network
from runtools.platform.host.net.names import UPLINK
from runtools.platform.host.net.network import NamespaceNetwork
from runtools.testing.contracts.network import NetworkContract, NetworkRig
from runtools.testing.null_network import NullNetwork

# Frames of a kind that is kept for trials: they go through the cable, and nobody does anything with them.
SENDS = f"""
import socket
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
    sock.bind(({UPLINK!r}, 0))
    for _ in range(64):
        sock.send(bytes.fromhex("ffffffffffff" "020000000001" "88b5") + bytes(1000))
"""


class TestNullNetwork(NetworkContract):
    @pytest.fixture
    def nets(self) -> NetworkRig:
        first = NullNetwork()

        async def restarted() -> Network:
            again = NullNetwork()
            again.taken = set(first.taken)  # what namespaces would be there to tell
            return again

        return NetworkRig(first, restarted)


@pytest.mark.vm
class TestNamespaceNetwork(NetworkContract):
    @pytest.fixture
    async def nets(self) -> AsyncIterator[NetworkRig]:
        install_id = f"t{secrets.token_hex(3)[:5]}"
        made = [NamespaceNetwork(install_id, reserve=0)]

        async def restarted() -> Network:
            await made[-1].stop()
            made.append(NamespaceNetwork(install_id, reserve=0))
            return made[-1]

        yield NetworkRig(made[0], restarted)
        await (await restarted()).reclaim(())
        await made[-1].stop()

    async def test_what_the_sandbox_sends_is_told_from_what_it_receives(
        self, nets: NetworkRig
    ) -> None:
        slot = await nets.network.open(OPEN)
        before = nets.network.traffic(slot)
        argv = ["ip", "netns", "exec", slot.namespace, sys.executable, "-c", SENDS]
        await asyncio.to_thread(subprocess.run, argv, check=True, timeout=30)
        after = nets.network.traffic(slot)
        assert before is not None
        assert after is not None
        assert after.sent - before.sent >= 64_000
        assert after.received - before.received < 32_000
        await nets.network.close(slot)
