"""What is in a template and how it behaves: seen from inside a machine made of it.

One version is built with a package and a script of its own (`conftest`); everything else looks at the
platform's `base-debian`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.vm.conftest import OWN, House

from runtools import errors
from runtools.sdk.shapes.templates import BuildLine
from runtools.sdk.sync.sandbox import Sandbox
from runtools.testing.real_platform import Platform, eventually

pytestmark = pytest.mark.vm


@pytest.fixture(scope="module")
def box(platform: Platform) -> Iterator[Sandbox]:
    """One machine of the default template; the tests here only look at it."""
    with platform.rt.sandboxes.create() as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def own(house: House) -> list[BuildLine]:
    """The log of a version of our own."""
    assert house.own is not None
    return house.own.result()


def out(sandbox: Sandbox, command: str) -> str:
    done = sandbox.exec(command, timeout_ms=120_000)
    assert done.exit_code == 0, done.stderr
    return done.stdout.strip()


class TestContents:
    @pytest.mark.parametrize(
        "command",
        [
            "node -e 'console.log(6 * 7)'",
            "bun -e 'console.log(6 * 7)'",
            "python3 -c 'import ssl, sqlite3, asyncio, venv; print(6 * 7)'",
            "echo '{\"n\": 42}' | jq .n",
            "printf 'a\\n42\\n' | rg -o '[0-9]+'",
        ],
    )
    def test_languages_and_tools_work(self, box: Sandbox, command: str) -> None:
        assert out(box, command) == "42"

    def test_the_usual_programs_are_there(self, box: Sandbox) -> None:
        names = "git curl wget npm npx bunx pip3 ssh rsync tmux vi nano less unzip xz make ps ip"
        assert out(box, f"for p in {names}; do command -v $p >/dev/null || echo $p; done") == ""

    def test_it_is_what_its_name_says(self, box: Sandbox) -> None:
        assert out(box, ". /etc/os-release; echo $ID $VERSION_CODENAME") == "debian trixie"

    def test_packages_can_be_looked_up_as_on_any_debian(self, box: Sandbox) -> None:
        assert "trixie-security" in out(box, "cat /etc/apt/sources.list")
        assert out(box, "dpkg --audit") == ""


class TestMachine:
    def test_everything_has_started_and_nothing_failed(self, box: Sandbox) -> None:
        assert out(box, "systemctl is-system-running") == "running"

    def test_the_root_is_the_shared_base_under_a_disk_of_its_own(self, box: Sandbox) -> None:
        where = "/ /run/runtools/base /run/runtools/overlay"
        kinds = out(box, f"for at in {where}; do findmnt -no FSTYPE $at; done")
        assert kinds.split() == ["overlay", "erofs", "ext4"]

    def test_the_shared_base_cannot_be_written(self, box: Sandbox) -> None:
        done = box.exec("mount -o remount,rw /run/runtools/base; touch /run/runtools/base/x")
        assert done.exit_code != 0

    def test_nothing_wakes_an_idle_machine(self, box: Sandbox) -> None:
        timers = json.loads(out(box, "systemctl list-timers --all --output=json"))
        assert [timer["unit"] for timer in timers if timer["next"]] == []

    def test_an_idle_machine_idles(self, box: Sandbox) -> None:
        busy = "awk '/^cpu /{print $2+$3+$4}' /proc/stat"
        before, after = out(box, f"{busy}; sleep 5; {busy}").split()
        assert int(after) - int(before) < 50, "a tenth of a second of five"

    def test_only_the_agent_and_ssh_listen(self, box: Sandbox) -> None:
        ports = out(box, "ss -Hltn | awk '{print $4}' | sort")
        assert ports.split() == ["0.0.0.0:22", "0.0.0.0:7709"]

    def test_an_ssh_server_greets_with_a_key_of_its_own(self, box: Sandbox) -> None:
        assert out(box, "head -c 8 < /dev/tcp/127.0.0.1/22") == "SSH-2.0-"
        seen = out(
            box, "ssh-keyscan -t ed25519 127.0.0.1 2>/dev/null | grep -v '^#' | cut -d' ' -f3"
        )
        assert seen == out(box, "cut -d' ' -f2 /etc/ssh/ssh_host_ed25519_key.pub")

    def test_the_boot_token_is_roots_alone(self, box: Sandbox) -> None:
        assert out(box, "stat -c %a:%U /run/runtools /run/runtools/token") == "700:root\n600:root"

    def test_ipv6_is_closed_but_for_the_machine_itself(self, box: Sandbox) -> None:
        assert out(box, "ip -6 -o addr show | awk '{print $2, $4}'") == "lo ::1/128"


class TestBuild:
    def test_its_log_was_streamed_and_counts_to_the_end(self, own: list[BuildLine]) -> None:
        assert [line.n for line in own] == list(range(1, len(own) + 1))
        progress = [line.progress for line in own if line.step != "failed"]
        assert progress == sorted(progress)
        assert progress[-1] == 1.0
        assert {"packages", "script", "image", "first boot", "ready"} <= {line.step for line in own}

    def test_package_and_script_are_in_it(self, platform: Platform, own: list[BuildLine]) -> None:
        with platform.rt.sandboxes.create(template=OWN) as sandbox:
            assert sandbox.started_from == "warm"
            assert "hello" in out(sandbox, "/usr/games/cowsay hello")
            assert out(sandbox, "cat /root/done") == "as root in /workspace"
            assert len(out(sandbox, "cat /etc/machine-id")) == 32

    def test_it_cannot_be_deleted_while_it_is_used(
        self, platform: Platform, own: list[BuildLine]
    ) -> None:
        with (
            platform.rt.sandboxes.create(template=OWN),
            pytest.raises(errors.TemplateInUse),
        ):
            platform.rt.templates.delete(OWN)

    def test_nothing_of_the_build_is_left(self, platform: Platform, own: list[BuildLine]) -> None:
        work = platform.home / "host/work"
        assert not work.exists() or list(work.iterdir()) == []
        assert not [m for m in Path("/proc/mounts").read_text().splitlines() if str(work) in m]


def _told_of(what: str) -> list[Path]:
    """The processes whose arguments name it."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if what.encode() in file.read_bytes():
                found.append(file)
    return found


class TestFailedBuild:
    def test_says_which_package_nobody_has(self, platform: Platform) -> None:
        with pytest.raises(errors.BuildFailed, match="Unable to locate package no-such-thing"):
            platform.rt.templates.build("test-bad", recipe="base-debian", apt=["no-such-thing"])
        assert platform.rt.templates.get("test-bad").state == "failed"
        with pytest.raises(errors.RunToolsError):
            platform.rt.sandboxes.create(template="test-bad")
        platform.rt.templates.delete("test-bad")

    def test_one_that_is_deleted_ends_with_all_that_it_started(self, platform: Platform) -> None:
        templates = platform.rt.templates
        begun = templates.build("test-gone", recipe="base-debian", wait=False)
        for line in templates.logs("test-gone", begun.version):
            if line.step == "packages" and line.text.startswith("I: "):
                break  # the bootstrapper is at work
        assert _told_of(begun.id)
        (gone,) = templates.delete("test-gone", begun.version)
        assert (gone.state, gone.step) == ("failed", "deleted")
        host = platform.home / "host"
        assert not (host / "work" / begun.id).exists()
        assert not (host / "templates" / begun.id).exists()
        eventually(lambda: not _told_of(begun.id))
        with pytest.raises(errors.NotFound):
            templates.get("test-gone")

    def test_refuses_what_is_no_package(self, platform: Platform) -> None:
        with pytest.raises(errors.InvalidRequest, match="is no package name"):
            platform.rt.templates.build("test-bad", recipe="base-debian", apt=["--force-yes"])
