"""The floor: what any correct platform must do, done barely, importing nothing of ours.

A namespace with a tap, a copy of the disk, a restore of the warm state with the RAM file mapped
private, clock, entropy and identity through the agent, one command over a raw socket. It takes the
files of a built template (base, kernel, initrd) and makes a warm state of its own from them.
"""

from __future__ import annotations

import base64
import ctypes
import json
import os
import secrets
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

MEMORY_MB, VCPUS, PORT, TOKEN = 1024, 2, 7709, "floor"
_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000
_HEADER = struct.Struct(">IB")
_JSON, _BYTES, _END = 1, 2, 3


def sh(*argv: str, feed: str | None = None) -> str:
    """Run a program to its end."""
    done = subprocess.run(argv, input=feed, capture_output=True, text=True, check=True)
    return done.stdout


class Agent:
    """A raw socket to the agent, one operation at a time."""

    def __init__(self, namespace: str) -> None:
        self._socket = connect(namespace)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """Send one message, read the answer; bodies of bytes are read and dropped."""
        body = json.dumps(message).encode()
        self._socket.sendall(_HEADER.pack(len(body), _JSON) + body)
        _, answer = self._frame()
        said = json.loads(answer)
        if "ok" not in said:
            raise RuntimeError(said)
        return said["ok"]

    def hello(self, token: str = TOKEN) -> None:
        """Introduce ourselves."""
        self.ask({"versions": [1], "token": token})

    def exec(self, command: str = "true") -> dict[str, Any]:
        """Run a shell line."""
        answer = self.ask(
            {
                "do": "exec",
                "id": secrets.token_hex(8),
                "command": command,
                "timeout_ms": 30000,
                "cwd": "/workspace",
                "user": "root",
                "env": {},
                "max_output": 1 << 20,
            }
        )
        while self._frame()[0] != _END:
            pass
        return answer

    def renew(self) -> None:
        """Clock, entropy and an identity of its own."""
        self.ask(
            {
                "do": "renew",
                "id": secrets.token_hex(8),
                "fresh": True,
                "clock": time.time(),
                "entropy": base64.b64encode(os.urandom(64)).decode(),
                "nonce": secrets.token_hex(8),
                "machine_id": secrets.token_hex(16),
                "hostname": f"floor-{secrets.token_hex(3)}",
                "host_keys": {},
                "env": {},
                "ssh_keys": [],
                "password_hash": None,
            }
        )

    def quiesce(self) -> None:
        """Sync before a capture."""
        self.ask({"do": "quiesce", "id": secrets.token_hex(8)})

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def _frame(self) -> tuple[int, bytes]:
        length, kind = _HEADER.unpack(self._exactly(_HEADER.size))
        return kind, self._exactly(length)

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self._socket.recv(count - len(data))
            if not piece:
                raise ConnectionError("the agent hung up")
            data += piece
        return data


def connect(namespace: str, port: int = PORT) -> socket.socket:
    """A socket made inside the namespace; it works outside too."""
    found: list[socket.socket | OSError] = []

    def enter() -> None:
        fd = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
        _LIBC.setns(fd, _CLONE_NEWNET)
        os.close(fd)
        deadline = time.monotonic() + 60
        while True:
            try:
                found.append(socket.create_connection(("10.0.2.15", port), timeout=60))
                return
            except OSError as exc:
                if time.monotonic() > deadline:
                    found.append(exc)
                    return
                time.sleep(0.002)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    if isinstance(found[0], OSError):
        raise found[0]
    return found[0]


class Vm:
    """One bare virtual machine in a folder and a namespace of its own."""

    def __init__(self, floor: Floor, name: str) -> None:
        self.floor, self.folder = floor, floor.work / name
        self.folder.mkdir()
        self.namespace = f"floor-{os.getpid()}-{name}"
        self.process: subprocess.Popen[bytes] | None = None

    def network(self) -> None:
        """A namespace with a tap."""
        ns = self.namespace
        sh("ip", "netns", "add", ns)
        sh(
            "ip",
            "-n",
            ns,
            "-batch",
            "-",
            feed="tuntap add tap0 mode tap\naddr add 10.0.2.2/24 dev tap0\n"
            "link set tap0 up\nlink set lo up\n",
        )

    def start(self, ram: Path, share: str, *more: str) -> None:
        """Start the VMM."""
        args = [
            "ip",
            "netns",
            "exec",
            self.namespace,
            "qemu-system-x86_64",
            "-M",
            "microvm,pit=off,pic=off,memory-backend=ram0",
            "-object",
            f"memory-backend-file,id=ram0,size={MEMORY_MB}M,mem-path={ram},share={share}",
            *self.floor.accelerator,
            "-m",
            str(MEMORY_MB),
            "-smp",
            str(VCPUS),
            "-kernel",
            str(self.floor.image / "kernel"),
            "-initrd",
            str(self.floor.work / "initrd"),
            "-append",
            self.floor.arguments,
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
            "-serial",
            f"file:{self.folder}/console",
            "-drive",
            f"id=d0,file={self.floor.image}/base.erofs,if=none,format=raw,readonly=on",
            "-device",
            "virtio-blk-device,drive=d0",
            "-drive",
            f"id=d1,file={self.folder}/overlay.img,if=none,format=raw,discard=unmap",
            "-device",
            "virtio-blk-device,drive=d1",
            "-netdev",
            "tap,id=n0,ifname=tap0,script=no,downscript=no",
            "-device",
            "virtio-net-device,netdev=n0,mac=52:54:00:12:34:56",
            "-qmp",
            f"unix:{self.folder}/qmp,server=on,wait=off",
            *more,
        ]
        self.process = subprocess.Popen(args, stderr=subprocess.DEVNULL)

    def restore(self, ram: Path, share: str, state: Path) -> None:
        """Start from a saved state."""
        self.start(ram, share, "-incoming", "defer")
        with Qmp(self.folder / "qmp") as qmp:
            qmp.ignore_shared()
            qmp.do("migrate-incoming", uri=f"file:{state}")
            while qmp.do("query-status")["status"] == "inmigrate":
                time.sleep(0.001)
            if qmp.do("query-status")["status"] != "running":
                qmp.do("cont")

    def save(self, state: Path) -> None:
        """Stop and write the state, without the shared RAM."""
        with Qmp(self.folder / "qmp") as qmp:
            qmp.ignore_shared()
            qmp.do("stop")
            qmp.do("migrate", uri=f"file:{state}")
            while qmp.do("query-migrate").get("status") not in {"completed", "failed"}:
                time.sleep(0.001)

    def quit(self) -> None:
        """End the VMM and wait for it."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def destroy(self) -> None:
        """Leave nothing."""
        self.quit()
        subprocess.run(
            ["ip", "netns", "del", self.namespace], check=False, stderr=subprocess.DEVNULL
        )
        shutil.rmtree(self.folder, ignore_errors=True)


class Qmp:
    """A QMP connection."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        while True:
            try:
                self._socket.connect(str(path))
                break
            except OSError:
                time.sleep(0.001)
        self._file = self._socket.makefile("rw")
        self._file.readline()
        self.do("qmp_capabilities")

    def __enter__(self) -> Qmp:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._socket.close()

    def ignore_shared(self) -> None:
        """Leave shared RAM out of the state."""
        self.do(
            "migrate-set-capabilities",
            capabilities=[{"capability": "x-ignore-shared", "state": True}],
        )

    def do(self, command: str, **arguments: Any) -> Any:
        """One command and its answer."""
        self._file.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self._file.flush()
        while True:
            said = json.loads(self._file.readline())
            if "return" in said:
                return said["return"]
            if "error" in said:
                raise RuntimeError(said["error"])


class Floor:
    """A template's files, a warm state made of them, and machines restored from it."""

    def __init__(
        self, image: Path, work: Path, accelerator: list[str], arguments: str, initrd: Path
    ) -> None:
        self.image, self.accelerator, self.arguments = image, accelerator, arguments
        self.work = Path(tempfile.mkdtemp(prefix="floor-", dir=work))
        shutil.copy(initrd, self.work / "initrd")
        self._count = 0

    def close(self) -> None:
        """Leave nothing."""
        shutil.rmtree(self.work)

    def vm(self) -> Vm:
        """A machine that is not started yet."""
        self._count += 1
        return Vm(self, f"v{self._count}")

    def warm(self) -> None:
        """Boot once, let it settle, keep its state."""
        vm = self.vm()
        vm.network()
        overlay = vm.folder / "overlay.img"
        sh("truncate", "-s", "2G", str(overlay))
        sh(
            "mke2fs",
            "-q",
            "-t",
            "ext4",
            "-E",
            "lazy_itable_init=1,lazy_journal_init=1",
            str(overlay),
        )
        vm.start(self.work / "ram", "on")
        agent = Agent(vm.namespace)
        agent.hello()
        for _ in range(5):
            agent.exec("systemctl is-system-running --wait >/dev/null; sync; ls / | wc -l")
        agent.renew()
        agent.quiesce()
        agent.close()
        vm.save(self.work / "state")
        copy_sparse(overlay, self.work / "overlay.img")
        vm.destroy()

    def create(self) -> tuple[Vm, Agent]:
        """From nothing to an agent that has answered its first command."""
        return self._clone(self.work, own_ram=False)

    def create_own(self) -> tuple[Vm, Agent]:
        """As `create`, with a RAM file of its own, as a machine has that was paused before."""
        return self._clone(self.work, own_ram=True)

    def pause(self, vm: Vm) -> None:
        """Stop, save, quit, of a machine with a RAM file of its own."""
        vm.save(vm.folder / "state")
        vm.quit()

    def resume(self, vm: Vm, agent: Agent) -> None:
        """Back to the first command, on the connection that was open before."""
        vm.restore(vm.folder / "ram", "on", vm.folder / "state")
        agent.exec()

    def fork(self, parent: Vm, count: int) -> tuple[float, list[tuple[Vm, Agent]]]:
        """Stop, copy, go on; then children from the copy. Returns the standstill in ms too."""
        kept = self.vm()
        began = time.perf_counter()
        parent.save(kept.folder / "state")
        copy_sparse(parent.folder / "ram", kept.folder / "ram")
        copy_sparse(parent.folder / "overlay.img", kept.folder / "overlay.img")
        with Qmp(parent.folder / "qmp") as qmp:
            qmp.do("cont")
        standstill = (time.perf_counter() - began) * 1000
        return standstill, at_once(lambda: self._clone(kept.folder, own_ram=False), count)

    def _clone(self, source: Path, *, own_ram: bool) -> tuple[Vm, Agent]:
        vm = self.vm()
        vm.network()
        copy_sparse(source / "overlay.img", vm.folder / "overlay.img")
        ram = source / "ram"
        if own_ram:
            ram = vm.folder / "ram"
            copy_sparse(source / "ram", ram)
        vm.restore(ram, "on" if own_ram else "off", source / "state")
        agent = Agent(vm.namespace)
        agent.hello()
        agent.renew()
        agent.exec()
        return vm, agent


def at_once(work: Callable[[], Any], count: int) -> list[Any]:
    """The same work in so many threads."""
    with ThreadPoolExecutor(count) as pool:
        return [one.result() for one in [pool.submit(work) for _ in range(count)]]


def copy_sparse(source: Path, target: Path) -> None:
    """Copy what is written of a sparse file."""
    with source.open("rb") as src, target.open("wb") as dst:
        size = os.fstat(src.fileno()).st_size
        os.ftruncate(dst.fileno(), size)
        at = 0
        while at < size:
            try:
                at = os.lseek(src.fileno(), at, os.SEEK_DATA)
            except OSError:
                break
            end = os.lseek(src.fileno(), at, os.SEEK_HOLE)
            os.lseek(src.fileno(), at, os.SEEK_SET)
            os.lseek(dst.fileno(), at, os.SEEK_SET)
            while at < end:
                at += os.sendfile(dst.fileno(), src.fileno(), None, end - at)
