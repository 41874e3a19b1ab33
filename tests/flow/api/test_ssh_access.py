"""Who may come in by SSH, as the gateway asks it, and passes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import asyncssh
import httpx
import pytest
import pytest_asyncio

from runtools.errors import GuestMisbehaved, NotFound, QuotaExceeded, RunToolsError, SandboxStopped
from runtools.platform.api.platform import Platform
from runtools.platform.api.sandboxes import acts
from runtools.platform.api.sandboxes.load import until
from runtools.platform.api.sandboxes.tables import Record
from runtools.platform.api.ssh_access import service, store
from runtools.platform.core.ports.doorway import (
    Address,
    Entering,
    Entry,
    KeyShown,
    PasswordShown,
    Visit,
)
from runtools.platform.gateway.ssh.asking import ApiDoorway
from runtools.platform.gateway.ssh.keys import line
from runtools.testing.api_world import World, holds

NOBODY = "sandbox-zzzzzzzzzzzz"
PASSWORD = "a password of its own"


@pytest_asyncio.fixture
async def doorway(any_world: World) -> AsyncIterator[ApiDoorway]:
    """The gateway's line to the api."""
    async with ApiDoorway(any_world.url, any_world.token("gateway")) as made:
        yield made


def key() -> asyncssh.SSHKey:
    return asyncssh.generate_private_key("ssh-ed25519")


async def register(http: httpx.AsyncClient, one: asyncssh.SSHKey, label: str = "laptop") -> None:
    body = {"label": label, "publicKey": line(one)}
    assert (await http.post("/v1/ssh-keys", json=body)).status_code == 201


async def opens(doorway: ApiDoorway, sandbox: str, one: asyncssh.SSHKey) -> bool:
    return await doorway.key_opens(KeyShown(sandbox_id=sandbox, fingerprint=one.get_fingerprint()))


def visit(sandbox: str, one: asyncssh.SSHKey | None) -> Visit:
    return Visit(sandbox_id=sandbox, fingerprint=one.get_fingerprint() if one else None)


async def enter(doorway: ApiDoorway, sandbox: str, one: asyncssh.SSHKey | None) -> Entry:
    authority = line(key())
    wanted = Entering(visit=visit(sandbox, one), source="192.0.2.7", authority=authority)
    return await doorway.enter(wanted)


async def put(world: World, sandbox: str, path: str, text: str) -> None:
    url = f"/v1/sandboxes/{sandbox}/files?path={path}"
    assert (await world.http.put(url, content=text.encode())).is_success


async def text(world: World, sandbox: str, path: str) -> str:
    return (await world.http.get(f"/v1/sandboxes/{sandbox}/files?path={path}")).text


async def has_host_key(world: World, sandbox: str) -> str:
    host_key = line(key())
    await put(world, sandbox, "/etc/ssh/ssh_host_ed25519_key.pub", f"{host_key} root@x\n")
    return host_key


async def give(
    http: httpx.AsyncClient, ref: str, one: asyncssh.SSHKey, **body: Any
) -> httpx.Response:
    return await http.post(f"/v1/sandboxes/{ref}/ssh", json={"publicKey": line(one), **body})


class TestKeys:
    async def test_a_key_of_the_org_opens_its_sandboxes_and_no_others(
        self, any_world: World, doorway: ApiDoorway
    ) -> None:
        mine, theirs = key(), key()
        box = (await any_world.create())["id"]
        await register(any_world.http, mine)
        async with await any_world.stranger() as http:
            await register(http, theirs)
        assert await opens(doorway, box, mine)
        assert not await opens(doorway, box, theirs)
        assert not await opens(doorway, NOBODY, mine)
        assert (await doorway.ended([visit(box, mine)])).over == []

    async def test_one_that_is_removed_opens_nothing_and_ends_what_it_opened(
        self, any_world: World, doorway: ApiDoorway
    ) -> None:
        mine = key()
        box = (await any_world.create())["id"]
        await register(any_world.http, mine)
        assert (await any_world.http.delete("/v1/ssh-keys/laptop")).is_success
        assert not await opens(doorway, box, mine)
        [over] = (await doorway.ended([visit(box, mine)])).over
        assert over.because == f"the SSH key that opened {box} was taken away"
        with pytest.raises(NotFound):
            await enter(doorway, box, mine)

    async def test_one_that_the_sandbox_was_made_with(
        self, any_world: World, doorway: ApiDoorway
    ) -> None:
        mine = key()
        box = (await any_world.create(sshKeys=[line(mine)]))["id"]
        other = (await any_world.create())["id"]
        assert await opens(doorway, box, mine)
        assert not await opens(doorway, other, mine)

    async def test_it_takes_the_right_to_work_in_sandboxes_to_register_one(
        self, world: World
    ) -> None:
        """For it opens all of them."""
        body = {"name": "weak", "scopes": ["ssh-key:write"]}
        weak = (await world.http.post("/v1/api-keys", json=body)).json()["data"]["key"]
        answer = await world.http.post(
            "/v1/ssh-keys",
            json={"label": "l", "publicKey": line(key())},
            headers={"Authorization": f"Bearer {weak}"},
        )
        assert (answer.status_code, answer.json()["error"]["details"]["needed"]) == (
            403,
            "sandbox:write",
        )

    async def test_those_of_a_removed_member_go_with_its_keys(
        self, any_world: World, doorway: ApiDoorway
    ) -> None:
        ann = await any_world.person("member")
        own, by_key = key(), key()
        box = (await any_world.create())["id"]
        await register(ann.http, own, "own")
        body = {"name": "k", "scopes": ["ssh-key:write", "sandbox:write"]}
        made = (await ann.http.post("/v1/api-keys", json=body)).json()["data"]
        await ann.http.aclose()
        headers = {"Authorization": f"Bearer {made['key']}"}
        body = {"label": "by-key", "publicKey": line(by_key)}
        assert (await any_world.http.post("/v1/ssh-keys", json=body, headers=headers)).is_success
        gone = await any_world.http.request(
            "DELETE", f"/v1/members/{ann.user_id}", params={"revokeKeys": "true"}
        )
        assert gone.is_success, gone.text
        assert not await opens(doorway, box, own)
        assert not await opens(doorway, box, by_key)


class TestPasswords:
    async def test_the_sandboxes_own_and_no_other(
        self, any_world: World, doorway: ApiDoorway
    ) -> None:
        box = (await any_world.create(password=PASSWORD))["id"]
        bare = (await any_world.create())["id"]

        async def fits(sandbox: str, password: str) -> bool:
            shown = PasswordShown(sandbox_id=sandbox, password=password, source="192.0.2.7")
            return await doorway.password_opens(shown)

        assert await fits(box, PASSWORD)
        for sandbox, wrong in (
            (box, PASSWORD + "x"), (box, ""), (box, f"{PASSWORD}\nx"), (box, "\0"), (box, "ü" * 300),
            (bare, PASSWORD), (bare, ""), (NOBODY, PASSWORD),
        ):  # fmt: skip
            assert not await fits(sandbox, wrong), (sandbox, wrong)
        assert (await doorway.ended([visit(box, None)])).over == []
        lines = (await any_world.http.get("/v1/audit?action=ssh.login")).json()["data"]
        assert {(one["resource"], one["status"]) for one in lines} == {(box, 401), (bare, 401)}

    async def test_a_refusal_takes_the_same_time_for_all(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What is slept is what is left of one and the same time."""
        box = (await world.create(password=PASSWORD))["id"]
        clock, reads, me = world.platform.clock, world.platform.db.read, asyncio.current_task()
        sleeps, now = clock.sleep, clock.monotonic()
        ends: list[float] = []

        async def read(*asked: Any) -> Any:
            nonlocal now
            now += 0.001
            return await reads(*asked)

        async def sleep(seconds: float) -> None:
            if asyncio.current_task() is me:
                ends.append(now + seconds)
            else:
                await sleeps(seconds)

        monkeypatch.setattr(world.platform.db, "read", read)
        monkeypatch.setattr(clock, "monotonic", lambda: now)
        monkeypatch.setattr(clock, "sleep", sleep)
        for sandbox in (box, NOBODY):
            began = now
            shown = PasswordShown(sandbox_id=sandbox, password="wrong", source="")
            assert not await service.password_opens(world.platform, shown)
            assert now > began
            assert ends.pop() - began == pytest.approx(service._PASSWORD_SECONDS)
            began = now
            assert not await service.key_opens(world.platform, sandbox, "SHA256:x")
            assert ends.pop() - began == pytest.approx(service._KEY_SECONDS)


class TestEntering:
    async def test_it_is_written_down_and_prepared(
        self, any_world: World, doorway: ApiDoorway
    ) -> None:
        mine = key()
        await register(any_world.http, mine)
        box = (await any_world.create())["id"]
        host_key = await has_host_key(any_world, box)
        assert (await enter(doorway, box, mine)).host_keys == [host_key]
        config = await text(any_world, box, "/etc/ssh/sshd_config.d/runtools-gateway.conf")
        assert "TrustedUserCAKeys /etc/ssh/runtools_gateway.pub" in config
        assert (await text(any_world, box, "/etc/ssh/runtools_gateway.pub")).startswith(
            "ssh-ed25519 "
        )
        [said] = (await any_world.http.get("/v1/audit?action=ssh.login")).json()["data"]
        [registered] = (await any_world.http.get("/v1/ssh-keys")).json()["data"]
        assert said["actor"] == registered["id"]
        assert (said["resource"], said["status"], said["source"]) == (box, 200, "192.0.2.7")

    async def test_a_paused_one_is_woken_and_a_stopped_one_says_so(
        self, any_world: World, doorway: ApiDoorway
    ) -> None:
        mine = key()
        await register(any_world.http, mine)
        box = (await any_world.create())["id"]
        await has_host_key(any_world, box)
        await any_world.http.post(f"/v1/sandboxes/{box}/pause")
        await enter(doorway, box, mine)
        await any_world.becomes(box, state="running")
        await any_world.http.delete(f"/v1/sandboxes/{box}")
        await any_world.becomes(box, state="stopped")
        with pytest.raises(SandboxStopped, match=f"{box} has stopped"):
            await enter(doorway, box, mine)
        [over] = (await doorway.ended([visit(box, mine)])).over
        assert over.because.startswith(f"{box} has stopped: ")

    async def test_host_keys_that_are_none_are_not_believed(
        self, any_world: World, doorway: ApiDoorway
    ) -> None:
        mine = key()
        await register(any_world.http, mine)
        box = (await any_world.create())["id"]
        for garbage in ("", "ssh-ed25519 AAAA", "x" * 100_000, "\x1b[2J"):
            await put(any_world, box, "/etc/ssh/ssh_host_ed25519_key.pub", garbage)
            with pytest.raises(GuestMisbehaved, match="has no SSH host key"):
                await enter(doorway, box, mine)

    async def test_who_was_never_let_in(self, any_world: World, doorway: ApiDoorway) -> None:
        box = (await any_world.create())["id"]
        with pytest.raises(NotFound) as wrong:
            await enter(doorway, box, key())
        with pytest.raises(NotFound) as nobody:
            await enter(doorway, NOBODY, key())
        assert str(wrong.value).replace(box, NOBODY) == str(nobody.value)
        assert (await doorway.ended([visit(NOBODY, key())])).over[0].place == 0


class TestWaking:
    async def test_what_wakes_by_a_session_is_counted(
        self, any_world: World, doorway: ApiDoorway
    ) -> None:
        mine = key()
        box, other = (await any_world.create())["id"], (await any_world.create())["id"]
        await register(any_world.http, mine)
        await has_host_key(any_world, box)
        assert (await enter(doorway, box, mine)).wakes
        inside = visit(box, mine)
        assert (await doorway.ended([inside])).limited == []
        org = (await any_world.http.get("/v1/me")).json()["data"]["orgId"]
        await any_world.http.post(f"/v1/sandboxes/{box}/pause")
        await any_world.http.patch(f"/v1/orgs/{org}/limits", json={"sandboxes": 1})
        gone = visit(NOBODY, mine)
        ends = await doorway.ended([gone, inside, inside])
        assert ([one.place for one in ends.over], ends.limited) == ([0], [1, 2])
        with pytest.raises(QuotaExceeded):
            await doorway.waken(inside)
        with pytest.raises(QuotaExceeded):
            await enter(doorway, box, mine)
        assert (await any_world.get(box))["state"] == "paused"
        await any_world.http.post(f"/v1/sandboxes/{other}/pause")
        await doorway.waken(inside)
        await any_world.becomes(box, state="running")
        assert not (await enter(doorway, box, mine)).wakes

    async def test_one_that_is_being_paused_is_woken_when_it_sleeps(
        self, any_world: World, doorway: ApiDoorway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What it was told before would end the session, whose stream is not to wake it."""
        mine = key()
        box = (await any_world.create())["id"]
        await register(any_world.http, mine)
        org = (await any_world.http.get("/v1/me")).json()["data"]["orgId"]
        await any_world.http.patch(f"/v1/orgs/{org}/limits", json={"sandboxes": 5})
        waits: list[str] = []

        async def noted(platform: Platform, sandbox_id: str, *about: Any) -> Record:
            waits.append(sandbox_id)
            return await until(platform, sandbox_id, *about)

        monkeypatch.setattr(acts, "until", noted)
        any_world.host.gate.clear()
        pausing = asyncio.create_task(any_world.http.post(f"/v1/sandboxes/{box}/pause"))
        await any_world.becomes(box, operation="pausing")
        waking = asyncio.create_task(doorway.waken(visit(box, mine)))
        await holds(lambda: waits or waking.done())
        assert not waking.done()
        any_world.host.gate.set()
        await waking
        assert (await pausing).is_success
        assert any(name.startswith("resume ") for name, _ in any_world.host.calls)
        await any_world.becomes(box, state="running", operation=None)

    async def test_one_that_is_paused_for_too_long_is_not_said_to_be_awake(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(acts, "_PAUSE_SECONDS", 0.05)
        box = (await world.create())["id"]
        org = (await world.http.get("/v1/me")).json()["data"]["orgId"]
        await world.http.patch(f"/v1/orgs/{org}/limits", json={"sandboxes": 5})
        world.host.gate.clear()
        pausing = asyncio.create_task(world.http.post(f"/v1/sandboxes/{box}/pause"))
        await world.becomes(box, operation="pausing")
        answer = await world.http.post(f"/v1/sandboxes/{box}/exec", json={"command": "true"})
        assert answer.status_code == 504
        error = answer.json()["error"]
        assert (error["code"], box in error["message"]) == ("deadline_exceeded", True)
        world.host.gate.set()
        assert (await pausing).is_success
        await world.becomes(box, state="paused", operation=None)

    async def test_who_may_not_be_in_any_more_wakes_nothing(
        self, any_world: World, doorway: ApiDoorway
    ) -> None:
        mine = key()
        box = (await any_world.create())["id"]
        await any_world.http.post(f"/v1/sandboxes/{box}/pause")
        for one in (visit(box, mine), visit(NOBODY, mine), visit(NOBODY, None)):
            with pytest.raises(NotFound):
                await doorway.waken(one)
        assert (await any_world.get(box))["state"] == "paused"


class TestPasses:
    async def test_one_opens_one_sandbox(self, any_world: World, doorway: ApiDoorway) -> None:
        mine = key()
        box, other = (await any_world.create())["id"], (await any_world.create())["id"]
        await doorway.announce(Address(host="x", port=1, host_keys=[line(key())]))
        answer = await give(any_world.http, box, mine, ttlSeconds=60)
        assert answer.status_code == 201, answer.text
        shown = answer.json()["data"]
        assert (shown["user"], shown["host"], shown["port"]) == (box, "127.0.0.1", 2222)
        assert len(shown["hostKeys"]) == 1
        assert shown["fingerprint"] == mine.get_fingerprint()
        assert await opens(doorway, box, mine)
        assert not await opens(doorway, other, mine)

    async def test_its_time_bounds_logins_and_not_sessions(
        self, any_world: World, doorway: ApiDoorway
    ) -> None:
        mine = key()
        box = (await any_world.create())["id"]
        await give(any_world.http, box, mine, ttlSeconds=1)
        await _until_closed(doorway, box, mine)
        assert (await doorway.ended([visit(box, mine)])).over == []

    async def test_it_ends_with_the_key_that_gave_it(
        self, any_world: World, doorway: ApiDoorway
    ) -> None:
        mine = key()
        box = (await any_world.create())["id"]
        made = (await any_world.http.post("/v1/api-keys", json={"name": "k"})).json()["data"]
        headers = {"Authorization": f"Bearer {made['key']}"}
        body = {"publicKey": line(mine)}
        await any_world.http.post(f"/v1/sandboxes/{box}/ssh", json=body, headers=headers)
        assert await opens(doorway, box, mine)
        await any_world.http.delete(f"/v1/api-keys/{made['id']}")
        assert not await opens(doorway, box, mine)
        assert len((await doorway.ended([visit(box, mine)])).over) == 1

    async def test_it_ends_when_the_key_that_gave_it_expires(
        self, any_world: World, doorway: ApiDoorway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """And a clock that jumps ends nothing else: no session of a key of the org's, and none by a pass
        that is over, as long as who gave it may act.
        """
        given, own, passed = key(), key(), key()
        box = (await any_world.create())["id"]
        body = {"name": "k", "expiresIn": "1d"}
        made = (await any_world.http.post("/v1/api-keys", json=body)).json()["data"]
        headers = {"Authorization": f"Bearer {made['key']}"}
        body = {"publicKey": line(given)}
        answer = await any_world.http.post(f"/v1/sandboxes/{box}/ssh", json=body, headers=headers)
        assert answer.status_code == 201, answer.text
        await register(any_world.http, own)
        await give(any_world.http, box, passed, ttlSeconds=60)
        visits = [visit(box, one) for one in (given, own, passed)]
        assert (await doorway.ended(visits)).over == []
        now = any_world.platform.clock.now()
        later, sooner = now + timedelta(days=2), now - timedelta(days=300)
        monkeypatch.setattr(any_world.platform.clock, "now", lambda: sooner)
        assert (await service.ended(any_world.platform, visits)).over == []
        monkeypatch.setattr(any_world.platform.clock, "now", lambda: later)
        [over] = (await service.ended(any_world.platform, visits)).over
        assert (over.place, "was taken away" in over.because) == (0, True)
        for one, opens_it in ((given, False), (own, True), (passed, False)):
            found = await service.key_opens(any_world.platform, box, one.get_fingerprint())
            assert found is opens_it

    async def test_it_ends_with_the_membership(self, any_world: World, doorway: ApiDoorway) -> None:
        ann = await any_world.person("member")
        mine = key()
        box = (await any_world.create())["id"]
        assert (await give(ann.http, box, mine)).status_code == 201
        await ann.http.aclose()
        assert await opens(doorway, box, mine)
        await any_world.http.delete(f"/v1/members/{ann.user_id}")
        assert not await opens(doorway, box, mine)

    async def test_there_are_not_more_than_a_bound(
        self, any_world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """However many ask at once; those that are over do not count, and one's own is replaced."""
        monkeypatch.setattr(store, "MOST", 3)
        box, other = (await any_world.create())["id"], (await any_world.create())["id"]
        mine = key()
        assert (await give(any_world.http, box, mine, ttlSeconds=1)).status_code == 201
        now = any_world.platform.clock.now()
        monkeypatch.setattr(any_world.platform.clock, "now", lambda: now + timedelta(hours=1))
        answers = await asyncio.gather(*(give(any_world.http, box, key()) for _ in range(6)))
        codes = sorted(answer.status_code for answer in answers)
        assert codes == [201, 201, 201, 409, 409, 409]
        [refused] = {one.json()["error"]["code"] for one in answers if one.status_code == 409}
        assert refused == "conflict"
        assert (await give(any_world.http, other, mine)).status_code == 201
        assert (await give(any_world.http, other, mine)).status_code == 201

    async def test_bad_ones_are_refused(self, world: World) -> None:
        box = (await world.create())["id"]
        for body in ({"publicKey": "nonsense"}, {"publicKey": line(key()), "ttlSeconds": 0}, {}):
            answer = await world.http.post(f"/v1/sandboxes/{box}/ssh", json=body)
            assert answer.status_code == 400
        await world.http.delete(f"/v1/sandboxes/{box}")
        assert (await give(world.http, box, key())).json()["error"]["code"] == "sandbox_stopped"


async def _until_closed(doorway: ApiDoorway, box: str, one: asyncssh.SSHKey) -> None:
    async with asyncio.timeout(60):
        while await opens(doorway, box, one):
            await asyncio.sleep(0.02)


async def test_another_part_and_no_part_are_refused(world: World) -> None:
    for token in (world.token("worker"), world.key, "nonsense"):
        async with ApiDoorway(world.url, token) as stranger:
            with pytest.raises(RunToolsError):
                await opens(stranger, NOBODY, key())
