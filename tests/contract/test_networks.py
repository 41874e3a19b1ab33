"""The network contract: without namespaces always, with them where there is root."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator

import pytest

from runtools.platform.core.ports.network import Network
from runtools.platform.host.net.network import NamespaceNetwork
from runtools.testing.contracts.network import NetworkContract, NetworkRig
from runtools.testing.null_network import NullNetwork


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
