"""As whom each process runs: only the host part (and the supervisor that restarts it) is root.

The others run as the person who called (under sudo), else as the service user: the first of them who
can read the installation. Where neither can, such as in a checkout in root's home, they stay root in
name but lose every capability, and `runtools doctor` says so.
"""

from __future__ import annotations

import os
import pwd
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from runtools.errors import InvalidRequest, Unavailable
from runtools.platform.kit.config import Settings
from runtools.platform.kit.process import run

SERVICE_USER = "runtools"
_LOOK_SECONDS = 120  # on a machine that is emulated itself it takes half of that
_LESS = ("--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all")


@dataclass(frozen=True, slots=True)
class Person:
    """A user that a process runs as. ``bare`` is root without capabilities."""

    name: str
    uid: int
    gid: int
    bare: bool = False

    def command(self, argv: Sequence[str]) -> list[str]:
        """The command that runs ``argv`` as this person and dies with its parent."""
        words = ["setpriv", "--pdeathsig", "KILL"]
        if self.uid != os.geteuid():
            words += [f"--reuid={self.uid}", f"--regid={self.gid}", "--init-groups", *_LESS]
        elif self.bare:
            words += list(_LESS)
        return [*words, "--", *argv]


def caller(environ: Mapping[str, str]) -> Person:
    """The person who typed the command: behind sudo, the one who called sudo."""
    if os.geteuid() == 0 and environ.get("SUDO_UID", "0") != "0":
        return _person(pwd.getpwuid(int(environ["SUDO_UID"])))
    return _person(pwd.getpwuid(os.geteuid()))


async def unprivileged(settings: Settings, environ: Mapping[str, str]) -> Person:
    """Who runs the parts that need no root.

    Raises:
        InvalidRequest: the setting ``service_user`` names nobody.
        Unavailable: the machine is too busy to find out.
    """
    person = caller(environ)
    if person.uid == os.geteuid() != 0:
        return person  # nobody else can be become, and what runs here was read
    # Also one behind sudo may be kept out: `sudo -i` leads to root's home, and what is installed there.
    if person.uid != 0 and await _can_read_installation(person):
        return person
    service = _service(settings)
    if service is not None and await _can_read_installation(service):
        return service
    return Person("root", 0, 0, bare=True)


def _service(settings: Settings) -> Person | None:
    name = settings.service_user or SERVICE_USER
    try:
        return _person(pwd.getpwnam(name))
    except KeyError as exc:
        if settings.service_user:
            raise InvalidRequest(
                f"setting service_user: there is no user {name!r}",
                hint=f"useradd --system {name}, or leave the setting out",
            ) from exc
        return None


async def _can_read_installation(person: Person) -> bool:
    probe = [sys.executable, "-P", "-c", "import runtools.platform.boot.api"]
    try:
        done = await run(person.command(probe), check=False, timeout=_LOOK_SECONDS)
    except TimeoutError:
        raise Unavailable(
            f"{person.name} did not load the platform within {_LOOK_SECONDS} s, readable or not",
            hint="this machine, or its disk, is too busy: try again",
        ) from None
    return done.code == 0


def _person(entry: pwd.struct_passwd) -> Person:
    return Person(entry.pw_name, entry.pw_uid, entry.pw_gid)
