"""The whole product on real virtual machines, used as a person uses it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.vm.conftest import free_port

from runtools import errors
from runtools.sdk.sync.sandbox import Sandbox
from runtools.testing.real_platform import RUNTOOLS, Platform, eventually

pytestmark = pytest.mark.vm

WHO = """
cat /etc/machine-id; hostname
cat /etc/ssh/ssh_host_ed25519_key.pub; cat /proc/sys/kernel/random/uuid
"""


@pytest.fixture
def box(platform: Platform) -> Iterator[Sandbox]:
    """A running sandbox."""
    sandbox = platform.rt.sandboxes.create()
    yield sandbox
    sandbox.destroy()


@pytest.fixture
def counting(box: Sandbox) -> Sandbox:
    """A sandbox in which a process counts."""
    line = "i=0; while :; do i=$((i+1)); echo $i > count; sleep 0.1; done"
    box.exec(f"setsid sh -c '{line}' >/dev/null 2>&1 </dev/null &")
    box.exec("until [ -s count ]; do sleep 0.05; done")
    return box


def count(sandbox: Sandbox) -> int:
    return int(sandbox.exec("cat count").stdout or 0)


def goes_on(sandbox: Sandbox) -> bool:
    """Whether the process that counts is alive."""
    first = count(sandbox)
    done = sandbox.exec(f"until [ $(cat count || echo 0) -gt {first} ]; do sleep 0.05; done")
    return not done.timed_out


def ask_often(sandbox: Sandbox) -> None:
    for _ in range(400):
        sandbox.exec("true", timeout_ms=2000)


class TestLife:
    def test_a_sandbox_comes_from_the_warm_snapshot(self, box):
        assert (box.state, box.started_from) == ("running", "warm")
        assert box.timings.total_ms > 0
        assert box.exec("uname -s; id -un; pwd").stdout == "Linux\nroot\n/workspace\n"

    def test_processes_survive_pause_and_resume_again_and_again(self, counting):
        for _ in range(3):
            counting.pause()
            assert counting.refresh().state == "paused"
            counting.resume()
            assert goes_on(counting)
            drift = abs(float(counting.exec("date +%s.%N").stdout) - time.time())
            assert drift < 1.0

    def test_a_command_wakes_a_paused_sandbox(self, platform, box):
        held = platform.vmm(box.id)
        box.pause()
        assert not Path(f"/proc/{held}").exists()
        with pytest.raises(AssertionError, match="has no VMM"):
            platform.vmm(box.id)
        assert box.exec("echo awake").stdout == "awake\n"

    def test_children_have_the_memory_and_an_identity_of_their_own(self, counting):
        children = list(counting.fork(count=2))
        try:
            assert all(goes_on(child) for child in children)
            lines = [one.exec(WHO).stdout.splitlines() for one in (counting, *children)]
            for facts in zip(*lines, strict=True):
                assert len(set(facts)) == 3
            counting.files.write("/workspace/mine", b"parent")
            assert not children[0].exec("ls mine 2>/dev/null").stdout
        finally:
            for child in children:
                child.destroy()

    def test_rollback_brings_back_files_and_processes(self, counting):
        counting.files.write("/workspace/kept", b"before")
        kept = counting.snapshot(name="good")
        counting.exec("rm kept; pkill -f 'echo .i > count'; echo changed > other")
        counting.rollback("good")
        assert counting.exec("cat kept; ls other 2>/dev/null").stdout == "before"
        assert goes_on(counting)
        assert [one.id for one in counting.snapshots()] == [kept.id]

    def test_a_larger_disk_is_there_at_once(self, platform):
        with platform.rt.sandboxes.create(disk_mb=4096) as big:
            assert int(big.exec("df -m --output=size / | tail -1").stdout) > 3500


class TestFiles:
    def test_megabytes_go_in_and_out_unchanged(self, box):
        data = os.urandom(48 << 20)
        box.files.write("/workspace/blob", data)
        assert box.exec("sha256sum blob").stdout.split()[0] == hashlib.sha256(data).hexdigest()
        assert box.files.read("/workspace/blob") == data

    def test_a_full_disk_is_said_and_survived(self, platform):
        with platform.rt.sandboxes.create(disk_mb=512) as small:
            # Most of it is taken without being written, which an emulated machine does slowly.
            free = "$(($(df --output=avail -B1 . | tail -1) - (48 << 20)))"
            small.exec(f"fallocate -l {free} taken")
            done = small.exec("head -c 3G /dev/zero > fill", timeout_ms=120_000)
            assert done.exit_code == 1
            assert "No space left" in done.stderr
            with pytest.raises(errors.DiskFull):
                small.files.write("/workspace/more", bytes(32 << 20))
            small.exec("rm fill")
            small.files.write("/workspace/more", b"again")


class TestNetwork:
    def test_names_resolve_and_the_host_is_out_of_reach(self, platform, box):
        port = os.environ["RUNTOOLS_API_PORT"]
        line = f"curl -s -m 3 -o /dev/null http://10.0.2.2:{port}/healthz; echo $?"
        assert box.exec(line).stdout.strip() in {"7", "28"}
        assert box.exec("cat /etc/resolv.conf").stdout.split() == ["nameserver", "10.0.2.2"]

    def test_without_internet_nothing_resolves(self, platform):
        with platform.rt.sandboxes.create(internet=False) as closed:
            done = closed.exec("getent hosts deb.debian.org", timeout_ms=20_000)
            assert (done.stdout, done.exit_code or done.timed_out) == ("", done.exit_code or True)
            assert not closed.exec("getent hosts deb.debian.org", timeout_ms=20_000).stdout

    def test_a_policy_by_name_holds_and_is_inherited(self, platform):
        rules = {"allow": ["allowed.example.org"], "deny": []}
        with platform.rt.sandboxes.create(egress=rules) as ruled:
            ask = "getent ahostsv4 {}; echo $?"
            assert ruled.exec(ask.format("secret.example.net")).stdout.strip() == "2"
            assert ruled.exec("curl -s -m 5 http://203.0.113.9:8080/").exit_code == 7
            log = {(one.reason, one.protocol, one.name) for one in ruled.egress.log().refusals}
            assert ("not_allowed", "dns", "secret.example.net") in log
            assert ("not_allowed", "tcp", None) in log
            with ruled.fork()[0] as child:
                assert child.egress.get() == ruled.egress.get()
                child.exec(ask.format("other.example.net"))
                assert {one.name for one in child.egress.log().refusals} == {"other.example.net"}
            ruled.egress.change(internet=False)
            ruled.exec(ask.format("allowed.example.org"))
            assert ruled.egress.log().refusals[0].reason == "internet_off"


class TestHostileGuest:
    def test_a_fork_bomb_ends_with_its_timeout(self, box):
        done = box.exec("b() { b | b & }; b; sleep 60", timeout_ms=3000)
        assert done.timed_out
        assert box.exec("echo still here").stdout == "still here\n"

    def test_a_flood_is_cut_and_said_to_be(self, box):
        done = box.exec("head -c 64M /dev/zero | tr '\\0' x", timeout_ms=120_000)
        assert done.truncated
        assert len(done.stdout) == 8 << 20

    def test_a_killed_agent_comes_back(self, box):
        before = agent_pid(box)
        box.exec("(sleep 0.3; pkill -9 -f 'm runtools.guest') >/dev/null 2>&1 &")
        eventually(lambda: agent_pid(box) not in ("", before))

    def test_one_that_talks_garbage_hurts_only_itself(self, platform, box):
        liar = (
            "import socket\n"
            "s=socket.socket();s.setsockopt(1,2,1)\n"
            "import time\n"
            "while True:\n"
            "  try: s.bind(('0.0.0.0',7709));break\n"
            "  except OSError: time.sleep(.01)\n"
            "s.listen(9)\n"
            "while True: c=s.accept()[0];c.sendall(b'\\xff'*99)\n"
        )
        box.files.write("/workspace/liar.py", liar.encode())
        box.exec("setsid python3 liar.py >/dev/null 2>&1 </dev/null & sleep 2")
        box.exec("(sleep 0.5; pkill -9 -f 'm runtools.guest') >/dev/null 2>&1 </dev/null &")
        with pytest.raises(errors.GuestUnreachable):
            ask_often(box)
        with platform.rt.sandboxes.create() as other:
            assert other.exec("echo fine").stdout == "fine\n"


def agent_pid(box):
    """The agent's process; empty while none answers."""
    try:
        return box.exec("pgrep -of 'm runtools.guest'").stdout.strip()
    except errors.RunToolsError:
        return ""


class TestCrashes:
    def test_a_killed_host_loses_nothing(self, counting, killed):
        killed("host")
        assert counting.refresh().state == "running"
        assert goes_on(counting)

    def test_a_killed_platform_finds_its_machines_again(self, platform, counting):
        os.kill(platform.pid("up"), signal.SIGKILL)
        eventually(lambda: platform.cli("status", ok=False).returncode != 0)
        eventually(lambda: platform.cli("up", "--detach", ok=False).returncode == 0)
        assert goes_on(counting)

    def test_a_dead_vmm_is_told_and_its_disk_recovered(self, platform):
        sandbox = platform.rt.sandboxes.create(name="doomed")
        sandbox.files.write("/workspace/work", b"hours of it")
        sandbox.exec("sync; echo these are the last words > /dev/console")
        eventually(lambda: is_said(sandbox.console()))
        os.kill(platform.vmm(sandbox.id), signal.SIGKILL)
        eventually(lambda: sandbox.refresh().state == "stopped", seconds=5)
        assert (sandbox.ending.cause, sandbox.ending.signal) == ("vmm_exit", 9)
        assert "ended by SIGKILL" in sandbox.ending.reason
        assert is_said(sandbox.ending.console_tail)
        told = platform.cli("sandbox", "why", "doomed").stdout.decode()
        assert "ended by itself" in told
        assert "these are the last words" in told
        with sandbox.recover() as again:
            assert again.files.read("/workspace/work") == b"hours of it"

    def test_a_paused_one_that_fits_no_more_is_recovered_from_its_disk(self, platform, killed):
        """As after an upgrade of QEMU: what its state was saved with is not there any more."""
        sandbox = platform.rt.sandboxes.create(name="saved-by-another")
        sandbox.files.write("/workspace/work", b"hours of it")
        sandbox.exec("sync")
        process = sandbox.processes.start("echo hello; exec sleep 1000")
        eventually(lambda: process.refresh().view.output.end == 6)
        sandbox.pause()
        eventually(lambda: sandbox.refresh().durable)
        journal = platform.home / "host" / "sandboxes" / sandbox.id / "machine.json"
        record = json.loads(journal.read_text())
        record["fingerprint"]["vmm"] = "QEMU of another day"
        journal.write_text(json.dumps(record))
        killed("host")
        assert [one.id for one in sandbox.processes.list()] == [process.id]
        with pytest.raises(errors.SnapshotUnfit) as refused:
            sandbox.resume()
        assert "sandbox recover" in refused.value.hint
        with sandbox.recover() as again:
            assert again.files.read("/workspace/work") == b"hours of it"
        assert sandbox.refresh().state == "paused"
        sandbox.destroy()

    def test_down_pauses_and_up_finds_it(self, platform, counting):
        platform.cli("down")
        # A copy of the home is a backup, and copying it back is the restore: this is another home.
        away = platform.home.with_name(f"{platform.home.name}-away")
        platform.home.rename(away)
        subprocess.run(["cp", "-a", "--sparse=always", away, platform.home], check=True)
        shutil.rmtree(away)
        platform.cli("up", "--detach")
        assert counting.refresh().state == "paused"
        assert goes_on(counting)

    def test_down_pauses_what_a_dead_host_part_has_left(self, platform, counting):
        up, host, vmm = platform.pid("up"), platform.pid("host"), platform.vmm(counting.id)
        os.kill(up, signal.SIGSTOP)  # or it starts another one at once
        os.kill(host, signal.SIGKILL)
        with subprocess.Popen([RUNTOOLS, "down"], stderr=subprocess.PIPE) as down:
            eventually(lambda: awaits(up, signal.SIGTERM))
            assert Path(f"/proc/{vmm}").exists()
            os.kill(up, signal.SIGCONT)
            said = down.communicate(timeout=300)[1]
        assert down.returncode == 0, said.decode()
        assert not Path(f"/proc/{vmm}").exists()
        platform.cli("up", "--detach")
        eventually(
            lambda: counting.refresh().state == "paused"
        )  # the api hears of it from the host
        assert goes_on(counting)

    def test_two_platforms_reclaim_each_its_own(self, platform, counting, killed):
        vmm, home = platform.vmm(counting.id), platform.home.with_name(f"{platform.home.name}-two")
        said = {f"RUNTOOLS_{part}_PORT": str(free_port()) for part in ("API", "GATEWAY", "SSH")}
        said["RUNTOOLS_ACCELERATOR"] = "tcg"  # or it would try out for long what there is
        env, two = {**os.environ, **said, "RUNTOOLS_HOME": str(home)}, Platform(home, platform.rt)

        def run(*words: str) -> int:
            return subprocess.run(
                [RUNTOOLS, *words], env=env, capture_output=True, timeout=300, check=False
            ).returncode

        try:
            assert run("up", "--detach") == 0
            ids = [(one / "install-id").read_text().strip() for one in (platform.home, home)]
            assert len(set(ids)) == 2
            killed("host")
            eventually(lambda: all(one in tables() for one in ids))
            assert goes_on(counting)
            pid = two.pid("host")
            os.kill(pid, signal.SIGKILL)
            eventually(lambda: two.pid("host") not in (0, pid) and run("status") == 0)
            eventually(lambda: all(one in tables() for one in ids))
            assert goes_on(counting)
            assert run("down") == 0
            assert ids[1] not in tables()
        finally:
            run("down")
            shutil.rmtree(home, ignore_errors=True)
        assert goes_on(counting)
        assert platform.vmm(counting.id) == vmm
        assert ids[0] in tables()


def tables() -> str:
    return subprocess.run(
        ["nft", "list", "tables"], capture_output=True, text=True, check=True
    ).stdout


def is_said(console: list[str]) -> bool:
    return any("these are the last words" in line for line in console)


def awaits(pid: int, number: int) -> bool:
    """Whether a process that stands still was sent a signal."""
    words = Path(f"/proc/{pid}/status").read_text().split()
    return bool(int(words[words.index("ShdPnd:") + 1], 16) >> (number - 1) & 1)


class TestCommandLine:
    def test_a_signal_reaches_all_that_the_command_started(self, platform, box):
        line = "setsid sleep 97531 & touch begun; sleep 97532"
        words = [RUNTOOLS, "sandbox", "exec", box.id, "-c", line]
        with subprocess.Popen(words, stderr=subprocess.DEVNULL) as waiting:
            box.exec("until [ -e begun ]; do sleep 0.1; done")
            waiting.send_signal(signal.SIGTERM)
            assert waiting.wait(30) == 128 + signal.SIGTERM
        assert box.exec("pgrep -f 'sleep 9753[12]'").stdout == ""

    def test_words_streams_and_exit_codes_are_handed_on(self, platform, box):
        done = platform.cli("sandbox", "exec", box.id, "--", "printf", "%s|", "a b", "", "ü\n'")
        assert done.stdout == "a b||ü\n'|".encode()
        done = platform.cli(
            "sandbox", "exec", box.id, "--", "sh", "-c", "echo no >&2; exit 7", ok=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (7, b"", b"no\n")
        done = platform.cli("sandbox", "exec", box.id, "--", "sh", "-c", "kill -9 $$", ok=False)
        assert done.returncode == 137

    def test_many_at_once(self, platform):
        with ThreadPoolExecutor(4) as pool:
            boxes = list(pool.map(lambda _: platform.rt.sandboxes.create(), range(4)))
        assert len({one.exec("cat /etc/machine-id").stdout for one in boxes}) == 4
        for one in boxes:
            one.destroy()
