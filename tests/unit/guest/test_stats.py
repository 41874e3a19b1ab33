from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtools.guest import disk, netinfo
from runtools.guest.problems import Problem

from .conftest import Talk, until


class TestStats:
    def test_are_the_machines(self, talk: Talk) -> None:
        told = talk.do("stats")
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        assert told["memory_total"] == pages
        assert 0 < told["memory_used"] < told["memory_total"]
        assert 0 < told["disk_used"] < told["disk_total"]
        assert abs(told["uptime"] - time.clock_gettime(time.CLOCK_BOOTTIME)) < 10
        assert 0 <= told["cpu_percent"] <= 100
        assert told["processes"] > 1

    def test_show_what_listens(self, talk: Talk) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            assert port in talk.do("stats")["ports"]
        assert port not in talk.do("stats")["ports"]

    def test_cpu_is_counted_since_the_last_reading(self, talk: Talk) -> None:
        talk.do("stats")
        first = talk.do("activity")
        talk.exec("a", "timeout 0.5 sh -c 'while :; do :; done'")
        second = talk.do("activity")
        assert second["busy"] - first["busy"] >= 30
        assert second["total"] > first["total"]
        assert talk.do("stats")["cpu_percent"] > 10


class TestInbound:
    def test_only_the_served_side_from_outside_counts(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            before = netinfo.inbound(0)
            with socket.create_connection(server.getsockname()):
                assert netinfo.inbound(0)[0] == before[0]  # loopback is not outside

    @pytest.mark.skipif(os.geteuid() != 0, reason="needs a namespace")
    def test_counts_connections_and_their_bytes(self, outside: str) -> None:
        with socket.create_server(("10.99.0.1", 0)) as server:
            port = server.getsockname()[1]
            peer = _from_outside(outside, port)
            connection, _ = server.accept()
            with connection:
                count, before = netinfo.inbound(0)
                assert (count, netinfo.inbound(port)[0]) == (1, 0)
                connection.sendall(bytes(5000))
                assert before is not None
                until(lambda: (netinfo.inbound(0)[1] or 0) >= before + 5000)
            peer.kill()
            peer.wait()


def _may_resize() -> bool:
    status = Path("/proc/self/status").read_text()
    effective = next(line for line in status.splitlines() if line.startswith("CapEff"))
    return bool(int(effective.split()[1], 16) >> 24 & 1)  # CAP_SYS_RESOURCE


class TestGrow:
    @pytest.mark.skipif(not _may_resize(), reason="this root may not resize file systems")
    def test_a_mounted_file_system(self, tmp_path: Path) -> None:
        image = tmp_path / "disk"
        image.touch()
        os.truncate(image, 64 << 20)
        subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
        loop = _run("losetup", "--find", "--show", str(image))
        mount = tmp_path / "mnt"
        mount.mkdir()
        try:
            _run("mount", loop, str(mount))
            (mount / "f").write_text("kept")
            os.truncate(image, 256 << 20)
            with pytest.raises(Problem, match="not 268435456"):
                disk.grow(loop, 256 << 20)
            _run("losetup", "--set-capacity", loop)
            assert disk.grow(loop, 256 << 20) > 200 << 20
            assert os.statvfs(mount).f_blocks * os.statvfs(mount).f_frsize > 200 << 20
            assert (mount / "f").read_text() == "kept"
            assert disk.grow(loop, 0) > 200 << 20  # nothing to do is no error
        finally:
            subprocess.run(["umount", str(mount)], check=False)
            _run("losetup", "--detach", loop)

    def test_what_is_not_mounted(self, talk: Talk) -> None:
        assert talk.fail("grow") == "file_missing"


@pytest.fixture
def outside() -> Iterator[str]:
    """A network namespace joined to ours, 10.99.0.1 here and 10.99.0.2 there."""
    name = f"rt-test-{os.getpid()}"
    _run("ip", "netns", "add", name)
    try:
        _run("ip", "link", "add", "rttest0", "type", "veth", "peer", "name", "e0", "netns", name)
        _run("ip", "addr", "add", "10.99.0.1/24", "dev", "rttest0")
        _run("ip", "link", "set", "rttest0", "up")
        _run("ip", "-n", name, "addr", "add", "10.99.0.2/24", "dev", "e0")
        _run("ip", "-n", name, "link", "set", "e0", "up")
        yield name
    finally:
        _run("ip", "netns", "del", name)


def _from_outside(namespace: str, port: int) -> subprocess.Popen[bytes]:
    line = f"exec 3<>/dev/tcp/10.99.0.1/{port}; cat <&3 >/dev/null"
    return subprocess.Popen(["ip", "netns", "exec", namespace, "bash", "-c", line])


def _run(*words: str) -> str:
    done = subprocess.run(words, check=True, capture_output=True)
    return done.stdout.decode().strip()
