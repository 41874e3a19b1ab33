"""Making and removing one slot: a namespace, the guest's tap in it, a cable from it to the host.

The programs `ip` and `nft` do it in 10 to 15 ms; pyroute2 took 40 to 80 ms, and 380 to be imported.
The cable's end on the host is down until the sandbox may go out: pulled, nothing can pass.
"""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct
from ipaddress import IPv4Network
from pathlib import Path

from runtools.platform.core.egress import OPEN
from runtools.platform.core.ports.driver import Slot
from runtools.platform.host.net import nft, ranges, rules
from runtools.platform.host.net.enter import NAMESPACES, inside
from runtools.platform.host.net.names import TAP, UPLINK, Names
from runtools.platform.host.net.rules import Limits
from runtools.platform.kit import process

_SYS_NET = Path("/proc/sys/net")
_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914
_IFF_UP = 1
# A burst must hold the largest packet that the kernel has not cut up yet.
_BURST_BYTES = 131_072
_BURSTS_A_SECOND = 100
_LATENCY_MS = 50
_IFREQ = struct.Struct("16sH22x")


async def make(names: Names, cables: IPv4Network, index: int, limits: Limits) -> Slot:
    """Make a slot under the policy `OPEN` whose cable is pulled.

    What fails half-way is taken away again.

    Raises:
        CommandFailed, OSError: it cannot be made.
    """
    slot = names.slot(index)
    try:
        await _ip("netns", "add", slot.namespace)
        await inside(slot.namespace, _settings)
        await _batch(_cable(names, cables, index))
        await _batch(_interior(cables, index), "-n", slot.namespace)
        _host_settings(names.veth(index))
        text = rules.guard(limits) + rules.namespace(OPEN)
        await nft.apply(text, slot.namespace)
        if limits.mbit:
            tc = ("tc", "-n", slot.namespace, "-batch", "-")
            await process.run(tc, stdin=shaped(limits.mbit).encode())
    except BaseException:
        await unmake(names, index)
        raise
    return slot


async def unmake(names: Names, index: int) -> None:
    """Remove a slot, or what is left of one."""
    veth, namespace = names.veth(index), names.namespace(index)
    if Path("/sys/class/net", veth).exists():
        # The namespace's end goes with it; by itself it would go some time after the namespace.
        with contextlib.suppress(process.CommandFailed):  # it went in the meantime
            await _ip("link", "del", "dev", veth)
    if (NAMESPACES / namespace).exists():
        with contextlib.suppress(process.CommandFailed):
            await _ip("netns", "del", namespace)


def found(names: Names) -> set[int]:
    """The numbers of all slots of the installation of which anything is there."""
    here = [*Path("/sys/class/net").iterdir()]
    if NAMESPACES.exists():
        here += NAMESPACES.iterdir()
    return {index for path in here if (index := names.index_of(path.name)) is not None}


def plug(names: Names, index: int, *, up: bool) -> None:
    """Plug the cable of a slot in, or pull it.

    Raises:
        OSError: there is no such cable.
    """
    name = names.veth(index).encode()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        _, flags = _IFREQ.unpack(fcntl.ioctl(sock, _SIOCGIFFLAGS, _IFREQ.pack(name, 0)))
        wanted = flags | _IFF_UP if up else flags & ~_IFF_UP
        fcntl.ioctl(sock, _SIOCSIFFLAGS, _IFREQ.pack(name, wanted))


def _cable(names: Names, cables: IPv4Network, index: int) -> list[str]:
    host, _ = ranges.ends(cables, index)
    veth = names.veth(index)
    return [
        f"link add {veth} type veth peer name {UPLINK} netns {names.namespace(index)}",
        f"addr add {host}/31 dev {veth}",
    ]


def _interior(cables: IPv4Network, index: int) -> list[str]:
    host, mine = ranges.ends(cables, index)
    return [
        "link set lo up",
        f"tuntap add {TAP} mode tap vnet_hdr",
        f"link set {TAP} address {rules.GATEWAY_MAC}",
        f"addr add {rules.GATEWAY}/24 dev {TAP}",
        f"link set {TAP} up",
        # No question need be asked about an address that is always the same.
        f"neigh replace {rules.GUEST} lladdr {rules.GUEST_MAC} dev {TAP} nud permanent",
        f"addr add {mine}/31 dev {UPLINK}",
        f"link set {UPLINK} up",
        f"route add default via {host} dev {UPLINK} onlink",
    ]


def shaped(mbit: int) -> str:
    """For ``tc -batch``: both ways are held to a rate, out by the cable and in to the guest."""
    burst = max(_BURST_BYTES, mbit * 1_000_000 // 8 // _BURSTS_A_SECOND)
    return "".join(
        f"qdisc add dev {device} root tbf rate {mbit}mbit burst {burst} latency {_LATENCY_MS}ms\n"
        for device in (UPLINK, TAP)
    )


def _settings() -> None:
    """What holds in a namespace; to be called inside it, before anything is there."""
    for name in ("all", "default"):
        if (_SYS_NET / "ipv6").exists():
            (_SYS_NET / f"ipv6/conf/{name}/disable_ipv6").write_text("1")
        (_SYS_NET / f"ipv4/conf/{name}/rp_filter").write_text("1")
        (_SYS_NET / f"ipv4/conf/{name}/accept_redirects").write_text("0")
        (_SYS_NET / f"ipv4/conf/{name}/send_redirects").write_text("0")
    (_SYS_NET / "ipv4/ip_forward").write_text("1")


def _host_settings(veth: str) -> None:
    """What holds for the host's end of a cable, before it is plugged in."""
    (_SYS_NET / f"ipv4/conf/{veth}/rp_filter").write_text("1")
    (_SYS_NET / f"ipv4/conf/{veth}/accept_redirects").write_text("0")
    if (_SYS_NET / "ipv6").exists():
        (_SYS_NET / f"ipv6/conf/{veth}/disable_ipv6").write_text("1")


async def _ip(*words: str) -> None:
    await process.run(["ip", *words])


async def _batch(lines: list[str], *options: str) -> None:
    text = "\n".join(lines) + "\n"
    await process.run(["ip", *options, "-batch", "-"], stdin=text.encode())
