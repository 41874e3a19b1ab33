"""Which system packages the platform needs on which system, and which are missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from runtools.errors import InvalidRequest
from runtools.platform.kit import process

OS_RELEASE = Path("/etc/os-release")
QEMU = "qemu-system-x86"
# The first that saves a machine's state to a file.
QEMU_VERSION = "1:8.2"

_EVERYWHERE = (
    QEMU,
    *("mmdebstrap", "erofs-utils", "zstd", "debian-archive-keyring"),
    *("nftables", "iproute2", "e2fsprogs", "util-linux", "bubblewrap", "openssh-client"),
)


@dataclass(frozen=True, slots=True)
class System:
    """A system that the set-up knows.

    Attributes:
        id, version: as in os-release.
        name: as people call it.
        packages: what is needed.
        backports: the suite that has a new enough QEMU, where the release itself has not.
    """

    id: str
    version: str
    name: str
    packages: tuple[str, ...]
    backports: str | None = None


SYSTEMS: Mapping[tuple[str, str], System] = {
    (system.id, system.version): system
    for system in (
        System("debian", "12", "Debian 12", _EVERYWHERE, backports="bookworm-backports"),
        System("debian", "13", "Debian 13", _EVERYWHERE),
        System("ubuntu", "24.04", "Ubuntu 24.04", (*_EVERYWHERE, "ubuntu-keyring")),
    )
}


def this_system(os_release: Path = OS_RELEASE) -> System:
    """The system that this machine runs.

    Raises:
        InvalidRequest: the set-up does not know it.
    """
    facts = dict(
        line.partition("=")[::2] for line in os_release.read_text().splitlines() if "=" in line
    )
    found = facts.get("ID", "").strip('"'), facts.get("VERSION_ID", "").strip('"')
    if found not in SYSTEMS:
        raise InvalidRequest(
            f"the set-up does not know this system: {' '.join(found).strip() or 'unnamed'}",
            hint=f"it knows {', '.join(s.name for s in SYSTEMS.values())}; "
            f"elsewhere install by hand: {' '.join(_EVERYWHERE)}",
        )
    return SYSTEMS[found]


async def missing(system: System) -> list[str]:
    """The packages that are not installed, QEMU also when it is too old."""
    versions = await installed(system.packages)
    absent = [name for name in system.packages if name not in versions]
    if QEMU in versions and not await is_at_least(versions[QEMU], QEMU_VERSION):
        absent.insert(0, QEMU)
    return absent


async def installed(names: tuple[str, ...]) -> dict[str, str]:
    """The versions of those that are installed."""
    form = "${Package} ${db:Status-Status} ${Version}\\n"
    done = await process.run(["dpkg-query", "-W", "-f", form, *names], check=False)
    rows = [line.split() for line in done.stdout.decode().splitlines()]
    return {row[0]: row[2] for row in rows if len(row) == 3 and row[1] == "installed"}


async def is_at_least(version: str, wanted: str) -> bool:
    """Whether a Debian version is no older than another."""
    argv = ["dpkg", "--compare-versions", version, "ge", wanted]
    return (await process.run(argv, check=False)).code == 0
