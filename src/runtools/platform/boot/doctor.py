"""`runtools doctor`: looks at this machine and says what to do about each finding.

Each check is a small function that returns one `Finding`; `examine` runs them all. None changes
anything, but that the driver keeps what its probe found.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import platform
import shutil
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from runtools.errors import InvalidRequest
from runtools.platform.boot import home, packages, people, status, uids, up
from runtools.platform.core.ports.driver import Driver, VmmFailed
from runtools.platform.host.disk.files import can_reflink, free_bytes
from runtools.platform.host.drivers.qemu import groups
from runtools.platform.host.net import nft
from runtools.platform.host.net.cables import pace
from runtools.platform.host.net.crowd import tracked
from runtools.platform.host.templates.kernel import host_tsc_khz
from runtools.platform.host.templates.record import read_records
from runtools.platform.kit import descriptors, process
from runtools.platform.kit.config import Settings, environment

Level = Literal["error", "warning", "info"]

_MARKS = {"error": "✗", "warning": "!", "info": "·"}
_LEAST_MEMORY_MB = 2048
_LEAST_FILES = 65_536
_ENOUGH_FLOWS = 32
_ROOMY_BYTES = 10 << 30
_TIME_ERROR = 5  # what adjtimex(2) returns for a clock that nothing keeps right


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Attributes:
        name: what was looked at.
        ok: whether it is as it should be.
        level: how much it matters where it is not: an error keeps the platform from working.
        found: what is there.
        advice: what to do, empty where nothing is to be done.
    """

    name: str
    ok: bool
    level: Level
    found: str
    advice: str = ""


async def show(settings: Settings, driver: Driver | None = None) -> int:
    """Print every finding; returns 0 when none is an error."""
    findings = await examine(settings, driver)
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        mark = "✓" if finding.ok else _MARKS[finding.level]
        sys.stdout.write(f"{mark} {finding.name:<{width}}  {finding.found}\n")
        if finding.advice:
            sys.stdout.write(f"  {'':<{width}}  → {finding.advice}\n")
    wrong = [finding for finding in findings if not finding.ok and finding.level == "error"]
    named = ", ".join(finding.name for finding in wrong)
    said = f"keeps the platform from running: {named}" if wrong else "the platform can run here"
    sys.stdout.write(f"\n{said}\n")
    return int(bool(wrong))


async def examine(settings: Settings, driver: Driver | None = None) -> list[Finding]:
    """Every finding about this machine. ``driver`` is probed for what it can do here."""
    checks: list[Callable[[], Awaitable[Finding]]] = [
        _system,
        _root,
        _programs,
        _qemu,
        _tun,
        _namespaces,
        _firewall,
        lambda: _flows(settings),
        _groups,
        _counter,
        _clock,
        _memory,
        _files,
        lambda: _disk(settings),
        lambda: _reflink(settings),
        lambda: _ports(settings),
        lambda: _users(settings),
        lambda: _installation(settings),
        lambda: _template(settings),
        lambda: _worker(settings),
    ]
    findings = [await check() for check in checks]
    if driver is not None:
        findings.insert(4, await _virtualisation(driver))
    return findings


async def _system() -> Finding:
    if platform.machine() != "x86_64":
        found = f"a {platform.machine()} machine"
        return Finding("system", False, "error", found, "sandboxes need an x86-64 machine")
    try:
        name = packages.this_system().name
    except InvalidRequest as exc:
        return Finding("system", False, "warning", exc.message, exc.hint or "")
    return Finding("system", True, "info", f"{name}, kernel {platform.release()}")


async def _root() -> Finding:
    if os.geteuid() == 0:
        return Finding("root", True, "error", "this is root")
    if shutil.which("sudo"):
        return Finding("root", True, "error", "not root; `runtools up` will ask sudo")
    advice = "become root, or install sudo: the host process makes networks and virtual machines"
    return Finding("root", False, "error", "neither root nor sudo", advice)


async def _programs() -> Finding:
    try:
        system = packages.this_system()
    except InvalidRequest:
        return Finding("packages", False, "warning", "not checked on this system")
    absent = await packages.missing(system)
    if absent:
        found = f"missing or too old: {', '.join(absent)}"
        return Finding("packages", False, "error", found, "runtools setup")
    return Finding("packages", True, "error", f"all {len(system.packages)} installed")


async def _qemu() -> Finding:
    try:
        done = await process.run(["qemu-system-x86_64", "--version"])
    except (FileNotFoundError, process.CommandFailed) as exc:
        return Finding("qemu", False, "error", str(exc)[:200], "runtools setup")
    words = done.stdout.decode().splitlines()[0].partition("version ")[2]
    numbers = words.split()[0].split(".") if words else ["0", "0"]
    good = (int(numbers[0]), int(numbers[1])) >= (8, 2)
    advice = "" if good else "QEMU 8.2 or newer is needed: runtools setup"
    return Finding("qemu", good, "error", words, advice)


async def _virtualisation(driver: Driver) -> Finding:
    """Asks the driver, which lets a tiny guest prove it: /dev/kvm being there proves nothing."""
    try:
        found = await driver.probe()
    except PermissionError:
        return _unchecked("virtualisation")
    except (VmmFailed, OSError) as exc:
        return Finding("virtualisation", False, "warning", f"not tried out: {exc}", "run as root")
    words = f"{found.accelerator}: {found.reason}"
    if found.isolation == "hardware":
        return Finding("virtualisation", True, "warning", words)
    advice = (
        "sandboxes run emulated: slower, and without promised isolation. Use a machine with "
        "virtualisation (or switch it on in the firmware, or nested virtualisation in the cloud), "
        "and load kvm_intel or kvm_amd"
    )
    return Finding("virtualisation", False, "warning", words, advice)


async def _tun() -> Finding:
    name, device = "network devices", Path("/dev/net/tun")
    if not device.exists():
        advice = "modprobe tun; in a container, hand in /dev/net/tun"
        return Finding(name, False, "error", f"no {device}", advice)
    if os.geteuid() == 0:
        try:
            os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
        except OSError as exc:
            return Finding(name, False, "error", f"{device}: {exc.strerror}", "modprobe tun")
    return Finding(name, True, "error", str(device))


async def _namespaces() -> Finding:
    name = "network namespaces"
    if not Path("/proc/self/ns/net").exists():
        advice = "a kernel with CONFIG_NET_NS is needed"
        return Finding(name, False, "error", "the kernel has none", advice)
    if os.geteuid() != 0:
        return Finding(name, True, "error", "the kernel has them")
    done = await process.run(["unshare", "--net", "true"], check=False)
    if done.code != 0:
        found = done.stderr.decode(errors="replace").strip()
        advice = "run outside of a container that forbids them"
        return Finding(name, False, "error", found, advice)
    return Finding(name, True, "error", "one can be made")


async def _firewall() -> Finding:
    if os.geteuid() != 0:
        return _unchecked("firewall")
    try:
        await nft.ask(["list", "tables"])
    except FileNotFoundError:
        return Finding("firewall", False, "error", "no nft", "runtools setup")
    except process.CommandFailed as exc:
        hint = "a kernel with nf_tables is needed, and an nft that reads what is in it"
        return Finding("firewall", False, "error", str(exc)[:300], hint)
    return Finding("firewall", True, "error", "nftables answers")


async def _flows(settings: Settings) -> Finding:
    name, most = "connection tracking", tracked()
    held = pace(most, settings.max_sandboxes).held
    found = f"{most} flows are remembered at most; {held} at once are each sandbox's own"
    if held >= _ENOUGH_FLOWS:
        return Finding(name, True, "info", found)
    wanted = _ENOUGH_FLOWS * 8 * settings.max_sandboxes
    advice = f"sysctl net.netfilter.nf_conntrack_max={wanted} makes that {_ENOUGH_FLOWS}"
    return Finding(name, False, "info", found, advice)


async def _groups() -> Finding:
    name, found = "control groups", groups.of_this_machine()
    absent = [each for each in groups.CONTROLLERS if each not in found.controllers]
    if absent:
        there = ", ".join(found.controllers) or "none"
        if os.geteuid() != 0 and not found.controllers:
            return _unchecked(name)
        advice = (
            f"nothing bounds what a virtual machine monitor takes of {', '.join(absent)}: mount "
            "cgroup2 at /sys/fs/cgroup with these controllers, or version 1 of each"
        )
        return Finding(name, False, "warning", f"version {found.version}: {there}", advice)
    words = f"version {found.version}: {', '.join(groups.CONTROLLERS)}"
    if found.version == 2:
        advice = "written to the kernel's documents and not proven on a machine with version 2 yet"
        return Finding(name, True, "warning", words, advice)
    return Finding(name, True, "warning", words)


async def _counter() -> Finding:
    name = "time stamp counter"
    flags = _cpu_flags()
    found = f"{await asyncio.to_thread(host_tsc_khz) / 1000:.3f} MHz"
    if {"constant_tsc", "nonstop_tsc"} <= flags:
        return Finding(name, True, "warning", f"{found}, constant")
    advice = "under emulation, clocks in sandboxes may drift; KVM has a clock of its own"
    return Finding(name, "constant_tsc" in flags, "info", f"{found}, may change", advice)


def _cpu_flags() -> set[str]:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("flags"):
            return set(line.partition(":")[2].split())
    return set()


async def _clock() -> Finding:
    # struct timex, whose first field says that nothing is to be changed.
    state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512))
    if state == _TIME_ERROR or state < 0:
        advice = "run an NTP client (chrony, systemd-timesyncd); sandboxes take the time from here"
        return Finding("clock", False, "info", "nothing keeps it right", advice)
    return Finding("clock", True, "info", "kept right")


async def _memory() -> Finding:
    facts = dict(
        line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines() if ":" in line
    )
    total, available = (int(facts[key].split()[0]) // 1024 for key in ("MemTotal", "MemAvailable"))
    found = f"{available} of {total} MB available"
    if available < _LEAST_MEMORY_MB:
        advice = "a sandbox takes 1024 MB unless told otherwise"
        return Finding("memory", False, "warning", found, advice)
    return Finding("memory", True, "warning", found)


async def _files() -> Finding:
    most = descriptors.most()
    found = f"{most} at once for a process started here"
    if most < _LEAST_FILES:
        advice = "raise the hard limit: LimitNOFILE= of the service, or nofile in /etc/security/limits.conf"
        return Finding("open files", False, "warning", found, advice)
    return Finding("open files", True, "warning", found)


async def _disk(settings: Settings) -> Finding:
    folder = _existing(settings.home)
    free = free_bytes(folder)
    found = f"{free >> 30} GB free at {folder}"
    if free < settings.disk_headroom_mb << 20:
        advice = (
            f"sandboxes need more than {settings.disk_headroom_mb} MB free; runtools prune helps"
        )
        return Finding("disk", False, "error", found, advice)
    if free < _ROOMY_BYTES:
        advice = "a template takes 1 GB, its build 4, a sandbox up to its disk's size"
        return Finding("disk", False, "warning", found, advice)
    return Finding("disk", True, "error", found)


async def _reflink(settings: Settings) -> Finding:
    folder = _existing(settings.host_home)
    try:
        able = await can_reflink(folder)
    except PermissionError:
        return _unchecked("copies by reference")
    except OSError as exc:
        return Finding("copies by reference", False, "info", f"not checked: {exc.strerror}")
    if able:
        return Finding("copies by reference", True, "info", f"the file system of {folder} has them")
    advice = "with xfs or btrfs below the home, disks and memory are copied at once"
    return Finding("copies by reference", False, "info", f"not at {folder}", advice)


async def _ports(settings: Settings) -> Finding:
    """All that `up` listens on; where the API answers, it is the platform that has them."""
    name, listens = "ports", up.listens(settings)
    where = ", ".join(f"{each.host}:{each.port}" for each in listens)
    if settings.client_file.exists() and await _answers(settings):
        return Finding(name, True, "error", f"the platform listens at {where}")
    taken = [(each, refusal) for each in listens if (refusal := each.refusal())]
    if not taken:
        return Finding(name, True, "error", f"{where} are free")
    found = "; ".join(f"{each.what}: {each.host}:{each.port}: {why}" for each, why in taken)
    names = ", ".join(f"RUNTOOLS_{each.setting.upper()}_PORT" for each, _ in taken)
    return Finding(name, False, "error", found, f"end what listens there, or set {names}")


async def _answers(settings: Settings) -> bool:
    """Whether it is a platform that listens at the port."""
    try:
        async with asyncio.timeout(2):
            reader, writer = await asyncio.open_connection(settings.api_host, settings.api_port)
            writer.write(b"GET /healthz HTTP/1.0\r\n\r\n")
            reply = await reader.read(4096)
            writer.close()
    except (OSError, TimeoutError):
        return False
    return reply.startswith(b"HTTP/1.") and b"x-request-id" in reply.lower()


async def _users(settings: Settings) -> Finding:
    name = "user ids"
    try:
        first = uids.kept(settings)
    except PermissionError:
        return _unchecked(name)
    if first is None:
        return Finding(name, True, "error", "chosen by the first `runtools up`")
    found = f"{first} to {first + uids.SIZE - 1}"
    other = uids.other_home(settings, first)
    if other is not None:
        advice = "one home is a copy of the other: use only one of them at a time"
        return Finding(name, False, "error", f"{found} belong to the platform at {other}", advice)
    return Finding(name, True, "error", f"{found} are this home's alone")


async def _installation(settings: Settings) -> Finding:
    person = await people.unprivileged(settings, environment())
    if not person.bare:
        found = f"the api runs as {person.name}, without root"
        return Finding("least privilege", True, "warning", found)
    found = f"the api stays user 0 and can write root's files: nobody else can read {sys.prefix}"
    advice = "install where everybody can read, such as /opt, and run `runtools setup`"
    return Finding("least privilege", False, "warning", found, advice)


async def _template(settings: Settings) -> Finding:
    slug = settings.default_template
    advice, folder = f"runtools template build {slug}", settings.host_home / "templates"
    if folder.exists() and not os.access(folder, os.R_OK):  # what cannot be listed is not empty
        return _unchecked("template")
    records = list(read_records(folder))
    ready = [r for r in records if r.order.slug == slug and r.state == "ready"]
    if not ready:
        return Finding("template", False, "info", f"{slug} is not built yet", advice)
    newest = max(ready, key=lambda record: record.order.version)
    return Finding("template", True, "info", f"{slug} version {newest.order.version} is ready")


async def _worker(settings: Settings) -> Finding:
    if home.holder(settings.run_folder / "up.lock") is None:
        return Finding("worker", True, "info", "the platform is down; `runtools up` starts one")
    pid = status.process_of(settings, "worker")
    if pid is None:
        log = settings.log_folder / "runtools.log"
        advice = f"runs of agents wait; the platform's log says why it ends ({log} when detached)"
        return Finding("worker", False, "warning", "it is not running", advice)
    return Finding("worker", True, "info", f"process {pid}, {settings.worker_slots} runs at once")


def _unchecked(name: str) -> Finding:
    # By its path: sudo does not look where a virtual environment keeps its commands.
    advice = f"sudo {Path(sys.prefix, 'bin', 'runtools')} doctor"
    return Finding(name, False, "info", "not checked without root", advice)


def _existing(path: Path) -> Path:
    """The nearest folder above that is there."""
    while not path.is_dir():
        path = path.parent
    return path
