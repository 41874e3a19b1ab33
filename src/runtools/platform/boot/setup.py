"""`runtools setup`: the system packages and the one user that the platform needs.

It asks the package manager what is there, installs what is missing, and touches nothing else. Run
again, it finds nothing to do within a second.
"""

from __future__ import annotations

import os
import platform
import pwd
from collections.abc import Callable
from pathlib import Path

from runtools.errors import Forbidden, InvalidRequest, RunToolsError
from runtools.platform.boot.packages import (
    QEMU,
    QEMU_VERSION,
    System,
    is_at_least,
    missing,
    this_system,
)
from runtools.platform.boot.people import SERVICE_USER
from runtools.platform.host.templates.mirrors import Source, machine_sources
from runtools.platform.kit import process

Report = Callable[[str], None]

_BACKPORTS = Path("/etc/apt/sources.list.d/runtools-backports.sources")
_DEBIAN_KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
_APT_ENV = {**process.PLAIN_ENV, "DEBIAN_FRONTEND": "noninteractive", "HOME": "/root"}
_INSTALL = ("apt-get", "install", "--yes", "--no-install-recommends")
# Another package manager may be at work, as on a machine that was just started.
_PATIENCE = ("-o", "DPkg::Lock::Timeout=300")


class SetupFailed(RunToolsError):
    """A system package could not be installed."""


async def setup(report: Report) -> None:
    """Make this machine able to run the platform.

    Raises:
        InvalidRequest: the system or the machine's kind is not known.
        Forbidden: something is missing, and this is not root.
        SetupFailed: the package manager failed; the message quotes it.
    """
    if platform.machine() != "x86_64":
        raise InvalidRequest(f"sandboxes need an x86-64 machine, this is {platform.machine()}")
    system = this_system()
    absent = await missing(system)
    lonely = not _has_service_user()
    if not absent and not lonely:
        report(f"{system.name}: everything is installed")
        return
    if os.geteuid() != 0:
        what = ", ".join([*absent, *([f"the user {SERVICE_USER}"] if lonely else [])])
        raise Forbidden(f"missing: {what}; adding it needs root", hint="runtools setup")
    if absent:
        report(f"{system.name}: installing {' '.join(absent)}")
        await _install(system, absent, report)
        left = await missing(system)
        if left:
            raise SetupFailed(f"still missing after the installation: {', '.join(left)}")
    if lonely:
        report(f"adding the system user {SERVICE_USER}")
        await _add_service_user()
    report(f"{system.name}: everything is installed")


async def _install(system: System, absent: list[str], report: Report) -> None:
    await _apt(["apt-get", "update", *_PATIENCE], report)
    release: list[str] = []
    if QEMU in absent and not await _is_new_enough(_candidate(await _policy(QEMU))):
        release = ["--target-release", await _backports(system, report)]
        # Alone, so that only QEMU and what it needs come from there.
        await _apt([*_INSTALL, *_PATIENCE, *release, QEMU], report)
        absent = [name for name in absent if name != QEMU]
    if absent:
        await _apt([*_INSTALL, *_PATIENCE, *absent], report)


async def _backports(system: System, report: Report) -> str:
    """The suite that has a new enough QEMU; made known to apt where no source has it."""
    suite = system.backports
    if suite is None:
        raise SetupFailed(
            f"no package source has {QEMU} {QEMU_VERSION} or newer",
            hint="see /etc/apt/sources.list and sources.list.d: is the release's main archive there?",
        )
    if not any(source.suite == suite for source in machine_sources()):
        archive = archive_of(system, machine_sources())
        report(f"adding {_BACKPORTS} for {suite}")
        _BACKPORTS.write_text(backports_source(archive, suite))
        await _apt(["apt-get", "update", *_PATIENCE], report)
    return suite


def archive_of(system: System, sources: list[Source]) -> str:
    """Where this machine gets its release from.

    Raises:
        SetupFailed: apt knows no such archive.
    """
    codename = (system.backports or "").partition("-")[0]
    for source in sources:
        if source.suite == codename and "main" in source.components:
            return source.uri
    raise SetupFailed(f"apt knows no archive of {system.name} to take backports from")


def backports_source(archive: str, suite: str) -> str:
    """A package source in apt's paragraph form."""
    return (
        f"# Added by `runtools setup`: QEMU {QEMU_VERSION.partition(':')[2]} or newer.\n"
        f"Types: deb\nURIs: {archive}\nSuites: {suite}\nComponents: main\nSigned-By: {_DEBIAN_KEYS}\n"
    )


async def _policy(package: str) -> str:
    return (await process.run(["apt-cache", "policy", package])).stdout.decode()


def _candidate(policy: str) -> str:
    """The version that apt would install, from what ``apt-cache policy`` prints."""
    for line in policy.splitlines():
        name, _, value = line.strip().partition(":")
        if name == "Candidate" and value.strip() != "(none)":
            return value.strip()
    return ""


async def _is_new_enough(version: str) -> bool:
    return bool(version) and await is_at_least(version, QEMU_VERSION)


async def _apt(argv: list[str], report: Report) -> None:
    said: list[str] = []

    def hear(text: str) -> None:
        said.append(text)
        if text.strip():
            report(f"  {text}")

    code = await process.stream(argv, hear, env=_APT_ENV, check=False)
    if code != 0:
        errors = [text for text in said if text.startswith(("E: ", "Err:"))] or said[-3:]
        raise SetupFailed(
            f"{' '.join(argv[:2])} ended with {code}: {' '.join(errors)[:1000]}",
            hint="the lines above say more; mend it and run runtools setup again",
        )


def _has_service_user() -> bool:
    try:
        pwd.getpwnam(SERVICE_USER)
    except KeyError:
        return False
    return True


async def _add_service_user() -> None:
    argv = ["useradd", "--system", "--user-group", "--no-create-home"]
    await process.run(
        [*argv, "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin", SERVICE_USER]
    )
