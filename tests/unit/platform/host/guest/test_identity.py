from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from runtools import errors
from runtools.platform.host.guest.client import GuestClient
from runtools.platform.host.guest.identity import Evidence, Identity, check
from runtools.platform.kit.clock import SystemClock

from .conftest import Agent

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def make(*, fresh: bool = True) -> Identity:
    return Identity.make(
        hostname="sandbox-abc",
        env={"A": "1"},
        ssh_keys=["ssh-ed25519 AAAA"],
        password_hash="$6$x$y",
        fresh=fresh,
    )


def proof(identity: Identity) -> Evidence:
    return Evidence(
        nonce=identity.nonce,
        machine=True,
        clock=NOW.timestamp(),
        reseeded=True,
        machine_id=identity.machine_id,
        hostname=identity.hostname,
        host_keys={kind: key.blob for kind, key in identity.host_keys.items()},
        skipped=(),
    )


class TestMake:
    def test_no_two_are_alike(self) -> None:
        one, two = make(), make()
        for field in ("nonce", "entropy", "token", "machine_id", "host_keys"):
            assert getattr(one, field) != getattr(two, field)

    def test_one_that_goes_on_gets_no_identity(self) -> None:
        identity = make(fresh=False)
        assert (identity.token, identity.machine_id, identity.host_keys) == ("", "", {})
        assert len(identity.entropy) == 64

    @pytest.mark.parametrize("kind", ["ed25519", "ecdsa"])
    def test_keys_are_ones_that_openssh_reads(self, kind: str, tmp_path: Path) -> None:
        key = make().host_keys[kind]
        file = tmp_path / "key"
        file.write_text(key.private)
        file.chmod(0o600)
        told = subprocess.run(
            ["ssh-keygen", "-yf", str(file)], check=True, capture_output=True, text=True
        )
        assert told.stdout.split()[:2] == key.public.split()[:2]

    def test_secrets_are_not_shown(self) -> None:
        identity = make()
        assert identity.token not in repr(identity)
        assert "PRIVATE" not in repr(identity)
        assert "$6$" not in repr(identity)


class TestGate:
    @pytest.mark.parametrize("fresh", [True, False])
    def test_lets_pass_what_was_renewed(self, fresh: bool) -> None:
        identity = make(fresh=fresh)
        check(identity, proof(identity), NOW)

    @pytest.mark.parametrize(
        ("change", "named"),
        [
            ({"nonce": "another"}, "answer"),
            ({"clock": NOW.timestamp() - 60}, "clock"),
            ({"clock": NOW.timestamp() + 60}, "clock"),
            ({"clock": float("nan")}, "clock"),
            ({"reseeded": False}, "entropy"),
            ({"machine_id": "0" * 32}, "machine-id"),
            ({"hostname": "template"}, "hostname"),
            ({"host_keys": {}}, "ssh host keys"),
            ({"host_keys": {"ed25519": "x", "ecdsa": "y"}}, "ssh host keys"),
        ],
    )
    def test_refuses_what_was_not(self, change: dict[str, object], named: str) -> None:
        identity = make()
        with pytest.raises(errors.GuestMisbehaved) as caught:
            check(identity, replace(proof(identity), **change), NOW)  # type: ignore[arg-type]
        assert caught.value.details["notRenewed"] == [named]

    def test_refuses_everything_when_nothing_was_done(self) -> None:
        identity = make()
        old = proof(make())
        with pytest.raises(errors.GuestMisbehaved) as caught:
            check(identity, replace(old, clock=0.0, reseeded=False), NOW + timedelta(days=1))
        assert len(caught.value.details["notRenewed"]) == 5

    def test_a_stand_in_shares_the_kernels_entropy(self) -> None:
        identity = make()
        check(identity, replace(proof(identity), reseeded=False, machine=False), NOW)


@pytest.fixture
async def guest(agent: Agent) -> AsyncIterator[GuestClient]:
    client = agent.client()
    yield client
    await client.close()


class TestAgainstAnAgent:
    async def test_a_renewal_passes_the_gate(self, agent: Agent, guest: GuestClient) -> None:
        identity = make()
        evidence = await guest.renew(identity)
        check(identity, evidence, SystemClock().now())
        assert (agent.state / "token").read_text() == identity.token
        await guest.stats()  # with the new token

    async def test_a_repeat_after_a_lost_answer_uses_the_new_token(
        self, agent: Agent, guest: GuestClient
    ) -> None:
        identity = make()
        await guest.renew(identity)
        late = agent.client()  # knows the old one only
        check(identity, await late.renew(identity), SystemClock().now())
        await late.close()

    async def test_one_that_goes_on_keeps_its_token(self, agent: Agent, guest: GuestClient) -> None:
        identity = make(fresh=False)
        check(identity, await guest.renew(identity), SystemClock().now())
        await guest.hello()

    async def test_an_unrenewed_agent_is_refused(self, agent: Agent, guest: GuestClient) -> None:
        evidence = await guest.renew(make())
        with pytest.raises(errors.GuestMisbehaved):
            check(make(), evidence, SystemClock().now())
