"""Running the script that somebody added to a template: a stranger's program, as root, at build time.

Its network is that of a sandbox: the internet and the platform's resolver, and nothing of this machine
or of what only this machine can reach.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from runtools.errors import BuildFailed
from runtools.platform.core.egress import OPEN
from runtools.platform.core.ports.network import Network
from runtools.platform.host.templates.buildlog import BuildLog
from runtools.platform.host.templates.chroot import run_inside
from runtools.platform.kit.unbroken import to_its_end

_SEEN_AS = "/run/runtools-script"
_RESOLVER = "10.0.2.2"


async def run_script(script: str, root: Path, work: Path, network: Network, log: BuildLog) -> None:
    """Run it in ``/workspace``: with ``bash -e``, or what its first line names.

    Raises:
        CommandFailed: it ended with an error.
        BuildFailed: there is no network that it could be given.
    """
    file = work / "script"
    file.write_text(script)
    file.chmod(0o755)
    resolver = work / "resolv.conf"
    resolver.write_text(f"nameserver {_RESOLVER}\n")
    argv = [_SEEN_AS] if script.startswith("#!") else ["/bin/bash", "-e", _SEEN_AS]
    async with _namespace(network) as namespace:
        await run_inside(
            root,
            argv,
            log.line,
            shown={file: _SEEN_AS},
            cwd="/workspace",
            namespace=namespace,
            resolver=resolver,
        )


@asynccontextmanager
async def _namespace(network: Network) -> AsyncIterator[str]:
    """A sandbox's namespace, entered where its machine would be served from.

    The resolver listens there for the machine; for a process beside it, the way leads over loopback.
    """
    slot = await network.open(OPEN)
    try:
        name = slot.namespace
        if not name:
            raise BuildFailed("scripts need a network with namespaces, which this host has not")
        yield name
    finally:
        await to_its_end(network.close(slot))
