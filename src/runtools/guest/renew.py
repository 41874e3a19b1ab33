"""Making a restored machine right: clock and entropy always; who it is, when it is a fresh clone.

What was done is told by reading it back from the system. A stand-in (another root than ``/``, a user
namespace, no privileges) shares clock and entropy with the machine around it and may not set them:
what was not done is named in ``skipped``, never faked. In a real machine it is an error.

sshd is told by SIGHUP, if one listens: it executes itself anew and reads the new host keys, while open
sessions go on. A template that starts sshd by socket, one per connection, has nothing to be told; that
is the cheap way, because each connection reads the keys as they are then.
"""

from __future__ import annotations

import base64
import binascii
import errno
import fcntl
import json
import os
import re
import signal
import socket
import stat
import struct
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from runtools.guest.paths import Root
from runtools.guest.problems import Problem, invalid

_RNDADDENTROPY: Final = 0x40085203
_RNDRESEEDCRNG: Final = 0x5207
_SEED_BYTES: Final = 512
_MOST: Final = 1 << 20  # of a file that is read back
_PROC_BYTES: Final = 256  # files of /proc do not say how long they are
_KEY_NAME: Final = re.compile(r"[a-z0-9]{1,20}")
_MAGIC: Final = b"openssh-key-v1\0"
ENV_FILE: Final = "/etc/runtools/env.json"


class Renewal:
    """Renews one machine."""

    def __init__(self, root: Root, set_token: Callable[[str], None]) -> None:
        self._root = root
        self._set_token = set_token
        self._skipped: list[str] = []
        self.machine = root.real and is_machine()

    def run(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Do it; returns the evidence. Doing the same order again leads to the same."""
        self._skipped = []
        self._try("clock", lambda: time.clock_settime(time.CLOCK_REALTIME, float(order["clock"])))
        seed = base64.b64decode(order["entropy"])
        reseeded = self._try("entropy", lambda: _reseed(seed))
        if order.get("fresh"):
            self._become(order)
        evidence = self._evidence(order, reseeded=reseeded)
        if order.get("token"):
            self._set_token(order["token"])  # last: until here a repeat comes with the old one
        return evidence

    def _become(self, order: Mapping[str, Any]) -> None:
        name = str(order["hostname"])
        self._put("/etc/machine-id", f"{order['machine_id']}\n", 0o644)
        old = self._root.own("/var/lib/dbus/machine-id")
        if os.path.isfile(old) and not os.path.islink(old):
            self._put("/var/lib/dbus/machine-id", f"{order['machine_id']}\n", 0o644)
        self._put("/etc/hostname", f"{name}\n", 0o644)
        self._put("/etc/hosts", _hosts(self._read("/etc/hosts"), name), 0o644)
        self._try("hostname", lambda: socket.sethostname(name))
        for kind, pair in order.get("host_keys", {}).items():
            if not _KEY_NAME.fullmatch(kind):
                raise invalid(f"{kind!r} is no kind of host key")
            self._put(f"/etc/ssh/ssh_host_{kind}_key", pair["private"], 0o600)
            self._put(f"/etc/ssh/ssh_host_{kind}_key.pub", pair["public"], 0o644)
        self._try("sshd", self._tell_sshd)
        self._put(ENV_FILE, json.dumps(order.get("env", {})), 0o600)
        if order.get("ssh_keys"):
            os.makedirs(self._root.own("/root/.ssh"), mode=0o700, exist_ok=True)
            self._put("/root/.ssh/authorized_keys", "\n".join([*order["ssh_keys"], ""]), 0o600)
        if order.get("password_hash"):
            self._put(
                "/etc/shadow", _shadow(self._read("/etc/shadow"), order["password_hash"]), 0o640
            )
        self._put("/var/lib/systemd/random-seed", os.urandom(_SEED_BYTES), 0o600)

    def _evidence(self, order: Mapping[str, Any], *, reseeded: bool) -> dict[str, Any]:
        named = self._root.real and "hostname" not in self._skipped
        return {
            "nonce": order.get("nonce"),
            "machine": self.machine,
            "clock": time.time(),
            "reseeded": reseeded,
            "machine_id": self._read("/etc/machine-id").strip(),
            "hostname": socket.gethostname() if named else self._read("/etc/hostname").strip(),
            "host_keys": {
                kind: self._public_half(f"/etc/ssh/ssh_host_{kind}_key")
                for kind in order.get("host_keys", {})
            },
            "skipped": list(self._skipped),
        }

    def _try(self, what: str, act: Callable[[], object]) -> bool:
        """Do what a real machine's root can; a stand-in may fail to, and says so."""
        if self._root.real:
            try:
                act()
            except OSError as exc:
                if self.machine or not isinstance(exc, PermissionError):
                    raise Problem("renewal_failed", f"{what}: {exc.strerror}") from exc
            else:
                return True
        self._skipped.append(what)
        return False

    def _tell_sshd(self) -> None:
        try:
            pid = int(self._read("/run/sshd.pid") or 0)
            if pid and self._read(f"/proc/{pid}/comm").strip() == "sshd":
                os.kill(pid, signal.SIGHUP)
        except (ValueError, ProcessLookupError):
            return  # none listens

    def _put(self, name: str, text: str | bytes, mode: int) -> None:
        """Write a file in place.

        A new file beside it and a rename would be whole at any instant, but costs eight times as much
        under emulation, and this is in the path of every create. Nobody has the machine yet, and a
        renewal that was broken off is done again.
        """
        place = self._root.own(name)
        data = text.encode() if isinstance(text, str) else text
        try:
            fd = _open(place, mode)
            try:
                os.pwrite(fd, data, 0)
                os.ftruncate(fd, len(data))
                if stat.S_IMODE(os.fstat(fd).st_mode) != mode:
                    os.fchmod(fd, mode)
            finally:
                os.close(fd)
        except OSError as exc:
            raise Problem("renewal_failed", f"{name} could not be renewed: {exc.strerror}") from exc

    def _read(self, name: str) -> str:
        try:
            fd = os.open(self._root.own(name), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return ""
        try:
            size = min(os.fstat(fd).st_size or _PROC_BYTES, _MOST)
            return os.read(fd, size).decode("utf-8", "surrogateescape")
        finally:
            os.close(fd)

    def _public_half(self, name: str) -> str | None:
        """Of the key that sshd will use: an OpenSSH private key file begins with it."""
        lines = self._read(name).splitlines()
        try:
            blob = base64.b64decode("".join(line for line in lines if not line.startswith("-")))
            at = len(_MAGIC)
            if not blob.startswith(_MAGIC):
                return None
            for _ in range(3):  # cipher, key derivation, its options
                at += 4 + struct.unpack_from(">I", blob, at)[0]
            (length,) = struct.unpack_from(">I", blob, at + 4)
        except (binascii.Error, struct.error):
            return None
        return base64.b64encode(blob[at + 8 : at + 8 + length]).decode()


def is_machine() -> bool:
    """Whether the agent is root of a whole machine, and not of a user namespace in one."""
    with open("/proc/self/uid_map") as file:
        whole = file.read().split() == ["0", "0", "4294967295"]
    return whole and os.geteuid() == 0


def load_env(root: Root) -> dict[str, str]:
    """The sandbox's own environment, as the last renewal left it."""
    try:
        with open(root.own(ENV_FILE)) as file:
            env = json.load(file)
    except (FileNotFoundError, ValueError):
        return {}
    if not isinstance(env, dict):
        return {}
    return {str(name): str(text) for name, text in env.items()}


def _open(place: str, mode: int) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(place, flags, mode)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(place), exist_ok=True)
    except OSError as exc:
        if exc.errno != errno.ELOOP:  # a symlink gives way to the file
            raise
        os.unlink(place)
    return os.open(place, flags, mode)


def _reseed(seed: bytes) -> None:
    fd = os.open("/dev/urandom", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, seed)
        credited = struct.pack("ii", len(seed) * 8, len(seed)) + seed
        fcntl.ioctl(fd, _RNDADDENTROPY, credited)
        fcntl.ioctl(fd, _RNDRESEEDCRNG)
    finally:
        os.close(fd)


def _hosts(text: str, name: str) -> str:
    lines = [line for line in text.splitlines() if line.split()[:1] != ["127.0.1.1"]]
    return "\n".join([*lines, f"127.0.1.1 {name}", ""])


def _shadow(text: str, password_hash: str) -> str:
    if ":" in password_hash or "\n" in password_hash:
        raise invalid("a password hash holds neither ':' nor a line break")
    lines = []
    for line in text.splitlines():
        fields = line.split(":")
        if fields[0] == "root" and len(fields) > 2:
            fields[1:3] = [password_hash, str(int(time.time() // 86400))]
        lines.append(":".join(fields))
    return "\n".join([*lines, ""])
