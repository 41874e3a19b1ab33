"""``runtools sandbox ssh`` and ``runtools ssh-config``: the system's own ssh, without any set-up."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runtools.cli import output
from runtools.cli.session import Ref, connected, flag
from runtools.errors import InvalidRequest, Unavailable
from runtools.sdk import settings

if TYPE_CHECKING:
    from runtools.sdk.shapes.ssh_access import SshAccess

_ALIAS = "runtools-gateway"  # what the gateway's host keys are kept under, wherever it is
_LOGIN_SECONDS = 300  # for how long the key of one call can log in
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # others are patterns, or more than one
_BEGIN, _END = "# >>> runtools {} >>>", "# <<< runtools {} <<<"


def ssh(
    ref: Ref,
    argv: Annotated[
        list[str] | None,
        typer.Argument(metavar="COMMAND...", help="A command, after --.", show_default=False),
    ] = None,
) -> None:
    """Log in to a sandbox by SSH, or run a command, as ssh does.

    Needs no set-up: a key is made for this call. A paused sandbox is woken.

    Exit code: the command's; 255: ssh itself failed.
    """
    program = _program("ssh")
    with tempfile.TemporaryDirectory(prefix="runtools-ssh-") as name:
        folder = Path(name)
        key = _key(folder / "id")
        with connected() as rt:
            access = rt.sandboxes.get(ref).ssh.allow(key, ttl_seconds=_LOGIN_SECONDS)
        _know(access, folder / "known_hosts")
        options = _options(access, folder / "id", folder / "known_hosts")
        words = [word for name, text in options for word in ("-o", f"{name}={_quoted(text)}")]
        code = _run([program, *words, "-o", "LogLevel=ERROR", "--", access.host, *(argv or [])])
    raise typer.Exit(code)


def ssh_config(
    ref: Ref,
    host: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="What to call it.", show_default="as it was named"),
    ] = None,
    write: Annotated[
        bool, flag("--write", help="Put it into ~/.ssh/config, in place of an earlier one.")
    ] = False,
) -> None:
    """Print a Host entry for ssh, scp, rsync, git and editors.

    It has a key of its own, which opens this sandbox for as long as your login or API key is good.
    """
    name = host or ref
    if not _NAME.fullmatch(name):
        raise InvalidRequest(
            f"{name!r} is no name of a host", hint="letters, digits, dots, dashes: --host box"
        )
    folder = settings.ssh_folder()
    if folder is None:
        raise InvalidRequest("there is no place for a key: neither XDG_CONFIG_HOME nor HOME is set")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = folder / "id_ed25519"
    key = file.with_suffix(".pub").read_text() if file.exists() else _key(file)
    with connected() as rt:
        access = rt.sandboxes.get(ref).ssh.allow(key)
    known = folder / f"known_hosts_{access.host}_{access.port}"
    _know(access, known)
    lines = [
        f"Host {name}",
        *(f"    {one} {_quoted(text)}" for one, text in _options(access, file, known)),
    ]
    lines.insert(1, f"    HostName {access.host}")
    entry = "\n".join(lines)
    if write:
        output.line(str(_put(name, entry)))
    else:
        output.line(entry)


def _options(access: SshAccess, key: Path, known: Path) -> list[tuple[str, str]]:
    return [
        ("User", access.user),
        ("Port", str(access.port)),
        ("IdentityFile", str(key)),
        ("IdentitiesOnly", "yes"),
        ("HostKeyAlias", _ALIAS),
        ("UserKnownHostsFile", str(known)),
        ("StrictHostKeyChecking", "yes"),
    ]


def _quoted(text: str) -> str:
    return f'"{text}"' if " " in text else text


def _key(file: Path) -> str:
    """Make a key; returns its public half."""
    argv = [
        _program("ssh-keygen"),
        "-q",
        "-t",
        "ed25519",
        "-N",
        "",
        "-C",
        "runtools",
        "-f",
        str(file),
    ]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode:
        raise Unavailable(f"ssh-keygen made no key: {done.stderr.decode(errors='replace').strip()}")
    return file.with_suffix(".pub").read_text()


def _know(access: SshAccess, file: Path) -> None:
    if not access.host_keys:
        raise Unavailable(
            "the SSH gateway of the platform has not been started yet",
            hint="`runtools status` shows what runs",
        )
    file.write_text("".join(f"{_ALIAS} {line}\n" for line in access.host_keys))


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise InvalidRequest(
            f"there is no {name} on this machine",
            hint="install openssh-client; `runtools sandbox shell` needs none",
        )
    return found


def _run(argv: Sequence[str]) -> int:
    """Run it in this terminal, which is its own until it ends: Ctrl-C is for it."""
    process = subprocess.Popen(argv)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        code = process.wait()
    finally:
        signal.signal(signal.SIGINT, before)
    return code if code >= 0 else 128 - code


def _put(name: str, entry: str) -> Path:
    """Put an entry at the head of the user's configuration: the first that fits counts for ssh."""
    file = (Path.home() / ".ssh" / "config").resolve()  # what a link leads to stays where it is
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    text = file.read_text() if file.exists() else ""
    begin, end = _BEGIN.format(name), _END.format(name)
    before, found, rest = text.partition(f"{begin}\n")
    if found:
        _, is_whole, rest = f"{rest}\n".partition(f"{end}\n")
        if not is_whole:
            raise InvalidRequest(
                f"{file} has an entry for {name} without its last line, {end!r}",
                hint="take that entry out, or put the line where it ends",
            )
        text = before + rest.strip("\n") + "\n"
    fresh = file.with_name(".config.runtools")
    fresh.write_text(f"{begin}\n{entry}\n{end}\n\n{text}" if text else f"{begin}\n{entry}\n{end}\n")
    fresh.chmod(file.stat().st_mode & 0o777 if file.exists() else 0o600)
    fresh.replace(file)
    return file
