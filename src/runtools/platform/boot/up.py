"""`runtools up` and `down`: the whole platform on one machine, in the foreground or detached."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import pwd
import shlex
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from runtools.errors import Conflict, Forbidden, Unavailable
from runtools.platform.boot import home, parts, running, status, uids
from runtools.platform.boot.logfile import keep_bounded, said_since, size_of
from runtools.platform.boot.people import Person, caller, unprivileged
from runtools.platform.boot.supervisor import Part, Supervisor
from runtools.platform.core.access import PARTS
from runtools.platform.core.models import KEYS
from runtools.platform.kit.clock import SystemClock
from runtools.platform.kit.config import Settings
from runtools.platform.kit.files import write_atomic
from runtools.platform.kit.process import (
    PLAIN_ENV,
    CommandFailed,
    run,
    start_detached,
    stream,
    wait_pid_gone,
)

log = logging.getLogger("runtools.up")

# -P: what lies in the folder in which somebody typed the command is none of our code.
_PLATFORM = (sys.executable, "-P", "-m", "runtools.platform")

READY_WITHIN_SECONDS = 180.0  # on a busy machine; one that cannot come up ends before
_PAUSE_ALL_SECONDS = 300.0
_MIGRATE_SECONDS = 120.0
_DRAIN_SECONDS = 15.0  # answers of models that are under way may come to their end
_ANSWER_SECONDS = 10.0
_TOLD_LINES = 30  # of the log of one that did not come up: what was said last, and how it was ended
# All parts one after the other, and something between. docs/operations.md tells systemd the same.
END_SECONDS = 360.0
# What opens the records, and what models are asked with. The host needs none of it, and a worker is given a
# key with the run that it is for.
_OF_THE_API = KEYS | {
    f"RUNTOOLS_{name}"
    for name in (
        "DATABASE_URL",
        "MASTER_KEY",
        "MASTER_KEY_FILE",
        "MASTER_KEY_COMMAND",
        "METRICS_TOKEN",
        "OIDC_CLIENT_SECRET",
    )
}


def log_file(settings: Settings) -> Path:
    """What a detached platform writes to."""
    return settings.log_folder / "runtools.log"


async def foreground(
    settings: Settings, environ: Mapping[str, str], *, patient: bool = True
) -> int:
    """Run the platform until SIGINT or SIGTERM, then pause what runs and end.

    Ends with `LEFT` where something runs on, which it names. Where it is not ``patient`` it ends by itself
    when a part dies again and again before the platform has answered: that is `Unavailable`.
    """
    _need_root()
    _need_ports(settings)
    person = await unprivileged(settings, environ)
    uids.claim(settings, home.prepare(settings, person))
    with home.lock(home.lock_file(settings), "a platform"):
        env = child_env(settings, environ)
        parts.make(settings, dict.fromkeys(PARTS, person), person)
        await _first_start(settings, person, caller(environ), env)
        supervisor = Supervisor(_parts(person), env, SystemClock(), patient=patient)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, supervisor.stop)
        beside = [
            asyncio.create_task(_announce(settings, person, supervisor)),
            asyncio.create_task(keep_bounded(log_file(settings), SystemClock())),
        ]
        try:
            await supervisor.run()
        finally:
            for task in beside:
                task.cancel()
        left = await asyncio.to_thread(running.machines, settings)
        for name in left:
            log.error("%s could not be paused and runs on", name)
        if left:
            log.error("do not copy the home: disks are being written to. runtools down tries again")
            return running.LEFT
    if supervisor.gave_up is not None:
        raise Unavailable(supervisor.gave_up, hint="what it said before that tells why")
    return 0


async def detached(settings: Settings, environ: Mapping[str, str]) -> int:
    """Start the platform in the background and return when it answers."""
    _need_root()
    if home.holder(home.lock_file(settings)) is not None:
        raise Conflict("the platform is up already", hint="runtools status shows it")
    _need_ports(settings)
    uids.claim(settings, home.prepare(settings, await unprivileged(settings, environ)))
    logfile = log_file(settings)
    before = size_of(logfile)
    env = {**child_env(settings, environ), **_sudo(environ)}
    pid = await start_detached([*_PLATFORM, "up", "--impatient"], env=env, output=logfile)
    gone = asyncio.create_task(wait_pid_gone(pid))
    ready = asyncio.create_task(status.until_ready(settings, READY_WITHIN_SECONDS))
    await asyncio.wait({gone, ready}, return_when=asyncio.FIRST_COMPLETED)
    for task in (gone, ready):
        task.cancel()
    if not ready.done() or ready.cancelled() or not ready.result():
        await _end(pid)
        tail = said_since(logfile, before, _TOLD_LINES)
        raise Unavailable(f"the platform did not come up; the end of {logfile}:\n{tail}")
    print(await _where(settings), file=sys.stderr)
    return 0


async def down(settings: Settings, environ: Mapping[str, str]) -> int:
    """End the platform in order: what runs is paused first. Also when only machines are left."""
    _need_root()
    pid = home.holder(home.lock_file(settings))
    if pid is not None:
        await _end(pid)
        # Its host may have been dead, or not yet up, when it was told to pause what runs; or it failed to.
        if not await asyncio.to_thread(running.machines, settings):
            return 0
    elif not settings.run_folder.exists():
        return 0
    # The platform was killed; its machines may still run. A host that only pauses them cleans up.
    await _pause_all(settings, child_env(settings, environ))
    return 0


async def _pause_all(settings: Settings, env: Mapping[str, str]) -> None:
    """Have a host of its own pause what runs.

    Raises:
        Unavailable: something runs on; it is named with the reason.
    """
    said = await _part(
        [*_PLATFORM, "host", "--pause-all"], env, _PAUSE_ALL_SECONDS, code=running.LEFT
    )
    left: dict[str, str] = json.loads(said)
    if left:
        named = "\n".join(f"  {name}: {why}" for name, why in sorted(left.items()))
        raise Unavailable(
            f"the platform is down, but {len(left)} of its machines could not be paused:\n{named}",
            hint="do not copy the home: their disks are being written to. Mend what is named, then "
            "runtools down again",
        )


async def as_owner(settings: Settings, environ: Mapping[str, str], words: Sequence[str]) -> int:
    """Run a command of ours as the user that owns the database; returns its exit code."""
    person = await unprivileged(settings, environ)
    home.prepare(settings, person)
    argv = person.command([*_PLATFORM, *words, "--here"])
    return await stream(argv, _print_line, env=child_env(settings, environ), check=False)


def _print_line(line: str) -> None:
    print(line, flush=True)


async def _part(
    argv: Sequence[str], env: Mapping[str, str], seconds: float, *, code: int = 0
) -> bytes:
    """Run a part of ours that ends by itself, with 0 or ``code``; what it printed."""
    try:
        done = await run(argv, env=env, timeout=seconds, check=False)
    except TimeoutError:
        raise Unavailable(
            f"`{shlex.join(argv)}` was not done within {seconds:.0f} s and was ended"
        ) from None
    if done.code not in (0, code):
        raise Unavailable(
            f"a part of the platform failed: {CommandFailed(argv, done.code, done.stderr)}"
        )
    return done.stdout


async def _end(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    try:
        async with asyncio.timeout(END_SECONDS):
            await wait_pid_gone(pid)
    except TimeoutError:
        raise Unavailable(
            f"the platform (process {pid}) is still pausing sandboxes after {END_SECONDS:.0f} s",
            hint="its log says which; ask again when it has ended",
        ) from None


def child_env(settings: Settings, environ: Mapping[str, str]) -> dict[str, str]:
    """What our own processes are told: the settings, keys of model providers, and nothing else."""
    env = dict(PLAIN_ENV)
    env.update(
        {key: value for key, value in environ.items() if key.startswith("RUNTOOLS_") or key in KEYS}
    )
    env["RUNTOOLS_HOME"] = str(settings.home)
    env["PYTHONUNBUFFERED"] = "1"
    env.pop("RUNTOOLS_API_KEY", None)
    return env


def _parts(person: Person) -> list[Part]:
    root = Person("root", 0, 0)
    worker = [*_PLATFORM, "worker", "--name"]
    owner = ["--socket-uid", str(person.uid), "--socket-gid", str(person.gid)]
    return [
        Part("host", root.command([*_PLATFORM, "host", *owner]), _PAUSE_ALL_SECONDS, _OF_THE_API),
        Part("api", person.command([*_PLATFORM, "api"]), _ANSWER_SECONDS),
        # One name over all restarts, so that what a dead one drove waits for nobody.
        Part("worker", person.command([*worker, "worker-1"]), _DRAIN_SECONDS, _OF_THE_API),
        Part("gateway", person.command([*_PLATFORM, "gateway"]), _ANSWER_SECONDS, _OF_THE_API),
    ]


async def _first_start(
    settings: Settings, person: Person, owner: Person, env: Mapping[str, str]
) -> None:
    """Bring the database up to date, and hand the first key to the person who called.

    The key travels through a pipe, never through an argument or the environment.
    """
    need = [] if settings.client_file.exists() else ["--need-key"]
    argv = person.command([*_PLATFORM, "migrate", *need])
    said = await _part(argv, env, _MIGRATE_SECONDS)
    client = {
        "apiUrl": f"http://{settings.api_host}:{settings.api_port}",
        "installId": home.install_id(settings),
    }
    key = json.loads(said).get("apiKey")
    if key is not None:
        log.info("made an admin API key: %s", settings.client_file)
        client["apiKey"] = key
    else:
        owner = _owner(settings.client_file)
        client = {**json.loads(settings.client_file.read_bytes()), **client}
    write_atomic(settings.client_file, json.dumps(client, indent=2).encode(), mode=0o600)
    os.chown(settings.client_file, owner.uid, owner.gid)


async def _announce(settings: Settings, person: Person, supervisor: Supervisor) -> None:
    if not await status.until_ready(settings, READY_WITHIN_SECONDS):
        log.error("the API or the gateway does not answer; the log above says why")
        return
    supervisor.is_ready()
    if person.bare:
        log.warning(
            "no other user can read this installation: the api stays user 0, who can write root's files"
        )
    for line in (await _where(settings)).splitlines():
        log.info("%s", line)


async def _where(settings: Settings) -> str:
    health = await status.ask(settings)
    warnings = [f"warning  {text}" for text in health.warnings] if health else []
    owner = _owner(settings.client_file).name
    return "\n".join(
        [
            f"ready    http://{settings.api_host}:{settings.api_port}",
            f"home     {settings.home}",
            f"key      {settings.client_file} (readable by {owner} alone)",
            *warnings,
        ]
    )


def _owner(file: Path) -> Person:
    at = file.stat()
    return Person(pwd.getpwuid(at.st_uid).pw_name, at.st_uid, at.st_gid)


def _sudo(environ: Mapping[str, str]) -> dict[str, str]:
    return {key: environ[key] for key in ("SUDO_UID", "SUDO_GID") if key in environ}


@dataclass(frozen=True, slots=True)
class Listens:
    """An address that a part listens on.

    Attributes:
        what: which part.
        setting: what the settings ``…_host`` and ``…_port`` begin with.
    """

    what: str
    setting: str
    host: str
    port: int

    def refusal(self) -> str | None:
        """Why nobody can listen there now; None where one can."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        try:
            with socket.create_server((self.host, self.port), family=family):
                return None
        except OSError as exc:
            return os.strerror(exc.errno or 0)


def listens(settings: Settings) -> list[Listens]:
    """Where the platform listens."""
    return [
        Listens("the API", "api", settings.api_host, settings.api_port),
        Listens("the SSH gateway", "ssh", settings.ssh_host, settings.ssh_port),
        Listens("the gateway", "gateway", settings.gateway_host, settings.gateway_port),
    ]


def _need_ports(settings: Settings) -> None:
    """Whoever answers there already would be taken for this platform."""
    for each in listens(settings):
        refusal = each.refusal()
        if refusal is not None:
            raise Conflict(
                f"{each.what} cannot listen on {each.host}:{each.port}: {refusal}",
                hint="end what listens there (another platform?), or choose another place: "
                f"RUNTOOLS_{each.setting.upper()}_PORT, RUNTOOLS_{each.setting.upper()}_HOST",
            )


def _need_root() -> None:
    if os.geteuid() != 0:
        raise Forbidden(
            "running virtual machines with networks of their own needs root",
            hint="call it with sudo; every part but the host drops back to you",
        )
