from __future__ import annotations

import base64
import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from .conftest import Agent, Talk, until


def order(**fields: object) -> dict[str, Any]:
    return {
        "nonce": "n1",
        "clock": time.time(),
        "entropy": base64.b64encode(bytes(64)).decode(),
        "fresh": True,
        "token": "another token",
        "machine_id": "0123456789abcdef0123456789abcdef",
        "hostname": "sandbox-abc",
        "host_keys": {},
        "env": {"GREETING": "hello"},
        "ssh_keys": ["ssh-ed25519 AAAA one", "ssh-ed25519 BBBB two"],
        "password_hash": "$6$salt$hash",
    } | fields


@pytest.fixture
def key(tmp_path: Path) -> tuple[dict[str, str], str]:
    """A host key and its public half, by OpenSSH's own hand."""
    file = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(file)], check=True)
    public = file.with_suffix(".pub").read_text()
    return {"private": file.read_text(), "public": public}, public.split()[1]


class TestFresh:
    def test_becomes_what_was_ordered(
        self, agent: Agent, talk: Talk, key: tuple[dict[str, str], str]
    ) -> None:
        (agent.root / "etc/hosts").write_text("127.0.0.1 localhost\n127.0.1.1 old\n")
        (agent.root / "etc/shadow").write_text("root:*:19000:0:99999:7:::\ndaemon:*:1::::::\n")
        (agent.root / "var/lib/dbus").mkdir(parents=True)
        (agent.root / "var/lib/dbus/machine-id").write_text("old\n")
        evidence = talk.do("renew", **order(host_keys={"ed25519": key[0]}))
        etc = agent.root / "etc"
        assert evidence["nonce"] == "n1"
        assert evidence["machine_id"] == "0123456789abcdef0123456789abcdef"
        assert evidence["hostname"] == "sandbox-abc"
        assert evidence["host_keys"] == {"ed25519": key[1]}
        assert (etc / "machine-id").read_text() == "0123456789abcdef0123456789abcdef\n"
        assert (agent.root / "var/lib/dbus/machine-id").read_text() == (
            "0123456789abcdef0123456789abcdef\n"
        )
        assert (etc / "hosts").read_text() == "127.0.0.1 localhost\n127.0.1.1 sandbox-abc\n"
        private = etc / "ssh/ssh_host_ed25519_key"
        assert (private.read_text(), private.stat().st_mode & 0o777) == (key[0]["private"], 0o600)
        assert (etc / "ssh/ssh_host_ed25519_key.pub").read_text() == key[0]["public"]
        root, daemon = (etc / "shadow").read_text().splitlines()
        assert root.startswith("root:$6$salt$hash:")
        assert root.endswith(":0:99999:7:::")
        assert daemon == "daemon:*:1::::::"
        keys = agent.root / "root/.ssh/authorized_keys"
        assert keys.read_text() == "ssh-ed25519 AAAA one\nssh-ed25519 BBBB two\n"
        assert (keys.stat().st_mode & 0o777, keys.parent.stat().st_mode & 0o777) == (0o600, 0o700)
        seed = agent.root / "var/lib/systemd/random-seed"
        assert (len(seed.read_bytes()), seed.stat().st_mode & 0o777) == (512, 0o600)

    def test_a_stand_in_says_what_it_did_not_do(self, talk: Talk) -> None:
        before = Path("/proc/sys/kernel/hostname").read_text()
        evidence = talk.do("renew", **order(clock=1.0))
        assert evidence["machine"] is False
        assert evidence["reseeded"] is False
        assert set(evidence["skipped"]) == {"clock", "entropy", "hostname", "sshd"}
        assert abs(evidence["clock"] - time.time()) < 5
        assert Path("/proc/sys/kernel/hostname").read_text() == before

    def test_the_environment_is_in_every_command(self, agent: Agent, talk: Talk) -> None:
        talk.do("renew", **order())
        assert talk.exec("a", "echo $GREETING")["out"] == b"hello\n"
        assert talk.exec("b", "echo $GREETING", env={"GREETING": "hi"})["out"] == b"hi\n"
        agent.restart()
        assert agent.talk(token="another token").exec("c", "echo $GREETING")["out"] == b"hello\n"
        file = agent.root / "etc/runtools/env.json"
        assert json.loads(file.read_text()) == {"GREETING": "hello"}
        assert file.stat().st_mode & 0o777 == 0o600

    def test_the_token_changes_for_good(self, agent: Agent, talk: Talk) -> None:
        talk.do("renew", **order())
        assert agent.talk().hello["error"]["code"] == "unauthenticated"
        assert "ok" in agent.talk(token="another token").hello
        agent.restart()
        assert agent.talk().hello["error"]["code"] == "unauthenticated"
        assert "ok" in agent.talk(token="another token").hello

    def test_connections_of_before_are_cut(self, agent: Agent, talk: Talk) -> None:
        other = agent.talk()
        talk.do("renew", **order())
        with pytest.raises((ConnectionError, OSError)):
            other.do("ping")
        assert talk.do("ping") == {}

    def test_can_be_repeated(self, talk: Talk) -> None:
        first = talk.do("renew", **order())
        again = talk.do("renew", **order(nonce="n2"))
        assert again | {"nonce": "", "clock": 0} == first | {"nonce": "", "clock": 0}
        assert again["nonce"] == "n2"

    def test_what_is_not_given_stays(self, agent: Agent, talk: Talk) -> None:
        (agent.root / "etc/shadow").write_text("root:secret:1::::::\n")
        (agent.root / "root/.ssh").mkdir()
        (agent.root / "root/.ssh/authorized_keys").write_text("mine\n")
        talk.do("renew", **order(ssh_keys=[], password_hash=None))
        assert (agent.root / "etc/shadow").read_text() == "root:secret:1::::::\n"
        assert (agent.root / "root/.ssh/authorized_keys").read_text() == "mine\n"

    @pytest.mark.parametrize("bad", ["a:b", "a\nroot2::0"])
    def test_a_password_cannot_add_a_user(self, agent: Agent, talk: Talk, bad: str) -> None:
        (agent.root / "etc/shadow").write_text("root:*:1::::::\n")
        assert talk.fail("renew", **order(password_hash=bad)) == "invalid_request"

    def test_what_was_there_gives_way(self, agent: Agent, talk: Talk) -> None:
        etc = agent.root / "etc"
        (etc / "hostname").write_text("a much longer name than the new one\n")
        (etc / "machine-id").symlink_to("elsewhere")
        (etc / "elsewhere").write_text("kept")
        (etc / "ssh").mkdir()
        key = etc / "ssh/ssh_host_ed25519_key"
        key.write_text("x" * 5000)
        key.chmod(0o644)
        pair = {"private": "new", "public": "new"}
        talk.do("renew", **order(host_keys={"ed25519": pair}))
        assert (etc / "hostname").read_text() == "sandbox-abc\n"
        assert not (etc / "machine-id").is_symlink()
        assert (etc / "elsewhere").read_text() == "kept"
        assert (key.read_text(), key.stat().st_mode & 0o777) == ("new", 0o600)

    def test_a_key_cannot_leave_its_folder(self, talk: Talk) -> None:
        pair = {"private": "x", "public": "x"}
        assert talk.fail("renew", **order(host_keys={"../x": pair})) == "invalid_request"

    def test_a_key_that_was_not_written_has_no_public_half(self, talk: Talk) -> None:
        broken = {"private": "no key", "public": "x"}
        evidence = talk.do("renew", **order(host_keys={"ed25519": broken}))
        assert evidence["host_keys"] == {"ed25519": None}


class TestResumed:
    def test_touches_no_identity(self, agent: Agent, talk: Talk) -> None:
        (agent.root / "etc/hostname").write_text("mine\n")
        other = agent.talk()
        evidence = talk.do("renew", **order(fresh=False, token=""))
        assert evidence["hostname"] == "mine"
        assert not (agent.root / "etc/machine-id").exists()
        assert other.do("ping") == {}

    def test_a_command_that_runs_goes_on(self, agent: Agent, talk: Talk) -> None:
        other = agent.talk()
        line = "until [ -e $HOME/go ]; do sleep 0.01; done; echo ended"
        other.send({"do": "exec", "id": "a", "command": line, "cwd": "/"})
        until(lambda: talk.do("activity")["running"] == 1)
        talk.do("renew", **order(fresh=False, token=""))
        (agent.root / "root/go").touch()
        assert other.answer()["ok"]["exit_code"] == 0
