"""Running a program inside a root file system that is being built.

The program is root there, and may be a stranger's script, so it runs in bubblewrap: it sees no file of
this machine but its name server's address and certificate authorities, it has no capability that
reaches beyond its own files, what the kernel shows is read-only, and it ends with us.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from runtools.platform.kit import process

# What installing and configuring packages takes, and no more: no mounts, devices, modules, raw sockets.
_CAPABILITIES = (
    *("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_SETFCAP"),
    *("CAP_SETUID", "CAP_SETGID", "CAP_KILL", "CAP_SYS_CHROOT"),
)
# A machine behind an inspecting proxy has its own authorities; the build trusts what the machine does.
_AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
_SEEN_AS = "/run/authorities.crt"
_TRUST = ("SSL_CERT_FILE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "NODE_EXTRA_CA_CERTS", "PIP_CERT")
# A process that we start, with all that it starts in turn, ends when we do, however we end.
TIED = (
    *("setpriv", "--pdeathsig", "KILL", "--"),
    *("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--"),
)
_ENV: Mapping[str, str] = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
}


async def run_inside(
    root: Path,
    argv: Sequence[str],
    on_line: Callable[[str], None],
    *,
    env: Mapping[str, str] | None = None,
    shown: Mapping[Path, str] | None = None,
    cwd: str = "/",
    namespace: str = "",
    resolver: Path = Path("/etc/resolv.conf"),
) -> None:
    """Run a program in ``root`` to its end.

    Args:
        root: the file system, which it may change.
        argv: the program and its arguments.
        on_line: gets each line that it prints.
        env: added to a plain environment.
        shown: files of this machine that it can read, and under which path.
        cwd: its working folder.
        namespace: the network namespace that it runs in; empty: this machine's own network.
        resolver: names its name server.

    Raises:
        CommandFailed: it ended with an error.
    """
    words: list[str | Path] = ["ip", "netns", "exec", namespace] if namespace else []
    words += ["bwrap", "--bind", root, "/", "--dev", "/dev", "--proc", "/proc", *_covered()]
    words += ["--tmpfs", "/run", "--perms", "1777", "--tmpfs", "/tmp"]  # noqa: S108 - inside the new root
    words += ["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    words += ["--die-with-parent", "--new-session", "--clearenv", "--chdir", cwd]
    words += ["--ro-bind", resolver, "/etc/resolv.conf"]
    values = dict(_ENV)
    if _AUTHORITIES.exists():
        words += ["--ro-bind", _AUTHORITIES, _SEEN_AS]
        values |= dict.fromkeys(_TRUST, _SEEN_AS)
    for path, name in (shown or {}).items():
        words += ["--ro-bind", path, name]
    for name, value in (values | dict(env or {})).items():
        words += ["--setenv", name, value]
    words += ["--cap-drop", "ALL"]
    for capability in _CAPABILITIES:
        words += ["--cap-add", capability]
    await process.stream([*words, "--", *argv], on_line)


def _covered() -> list[str | Path]:
    """What of /proc is not about processes: read-only, or out of sight where it is root's to read.

    Being root is enough to write there, without any capability: `kernel.core_pattern` would lead
    straight out of the jail.
    """
    words: list[str | Path] = []
    for entry in sorted(Path("/proc").iterdir()):
        if entry.name.isdigit() or entry.is_symlink():
            continue
        mode = entry.lstat().st_mode
        if stat.S_ISDIR(mode) or mode & 0o222:
            words += ["--ro-bind", entry, entry]
        elif not mode & 0o004:
            words += ["--ro-bind", "/dev/null", entry]
    return words
