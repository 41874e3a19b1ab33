"""SSH keys: registering, removing, and naming them where a sandbox is made."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from runtools.platform.api.guests import store as guests
from runtools.platform.api.ssh_keys import store as ssh_keys
from runtools.platform.kit.db import Transaction
from runtools.testing.api_world import World


def fresh() -> tuple[str, str]:
    """A key: its public line, and the private file."""
    key = ed25519.Ed25519PrivateKey.generate()
    line = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    file = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
    return line, file


async def add(http: httpx.AsyncClient, label: str, key: str, **body: Any) -> httpx.Response:
    return await http.post("/v1/ssh-keys", json={"label": label, "publicKey": key, **body})


async def told(world: World, sandbox_id: str) -> list[str]:
    """The keys that a sandbox was given."""
    platform = world.platform
    return (await platform.db.read(guests.of, platform.vault, sandbox_id)).ssh_keys


class TestRegistering:
    async def test_it_is_added_shown_and_removed(self, any_world: World) -> None:
        http = any_world.http
        line, _ = fresh()
        me = (await http.get("/v1/me")).json()["data"]
        made = (await add(http, "laptop", f"{line} ada@home\n")).json()["data"]
        assert made["id"].startswith("ssh_")
        assert (made["kind"], made["bits"]) == ("ssh-ed25519", None)
        assert made["publicKey"] == f"{line} ada@home"
        assert made["fingerprint"].startswith("SHA256:")
        assert (made["createdBy"], made["projectId"]) == (me["keyId"], me["defaultProjectId"])
        for ref in ("laptop", made["id"]):
            assert (await http.get(f"/v1/ssh-keys/{ref}")).json()["data"] == made
        assert (await http.get("/v1/ssh-keys")).json()["data"] == [made]
        assert (await http.delete("/v1/ssh-keys/laptop")).json()["data"] == made
        assert (await http.get("/v1/ssh-keys/laptop")).status_code == 404
        assert (await add(http, "laptop", line)).status_code == 201

    async def test_those_added_at_once_stay_within_what_there_may_be(
        self, any_world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One that is added while another is not yet committed counts that one too."""
        monkeypatch.setattr(ssh_keys, "MOST", 1)
        http, inner = any_world.http, ssh_keys.add
        written, go_on = threading.Event(), threading.Event()

        def held(conn: Transaction, key: ssh_keys.SshKey) -> None:
            inner(conn, key)
            written.set()
            assert go_on.wait(30)

        monkeypatch.setattr(ssh_keys, "add", held)
        one = asyncio.create_task(add(http, "one", fresh()[0]))
        await asyncio.to_thread(written.wait, 30)
        monkeypatch.setattr(ssh_keys, "add", inner)
        other = asyncio.create_task(add(http, "other", fresh()[0]))
        await asyncio.wait([other], timeout=1)  # time enough to slip in, where nothing holds it
        go_on.set()
        assert ((await one).status_code, (await other).status_code) == (201, 409)
        assert len((await http.get("/v1/ssh-keys")).json()["data"]) == 1

    async def test_by_project(self, any_world: World) -> None:
        http = any_world.http
        await http.post("/v1/projects", json={"name": "web"})
        await add(http, "one", fresh()[0], projectId="web")
        await add(http, "two", fresh()[0])
        listed = (await http.get("/v1/ssh-keys?projectId=web")).json()["data"]
        assert [key["label"] for key in listed] == ["one"]
        moved = await http.post("/v1/projects/web/move", json={"sshKeys": ["two"]})
        assert moved.json()["data"]["contents"]["sshKeys"] == 2

    async def test_a_key_is_registered_once_in_an_org(self, any_world: World) -> None:
        http = any_world.http
        line, _ = fresh()
        answers = await asyncio.gather(*(add(http, f"key-{n}", f"{line} {n}") for n in range(6)))
        assert sorted(answer.status_code for answer in answers) == [201] + [409] * 5
        refused = next(answer for answer in answers if answer.status_code == 409)
        assert refused.json()["error"]["code"] == "conflict"
        assert refused.json()["error"]["details"]["fingerprint"].startswith("SHA256:")
        async with await any_world.stranger() as other:
            assert (await add(other, "theirs", line)).status_code == 201

    async def test_a_label_is_given_once(self, any_world: World) -> None:
        answers = await asyncio.gather(*(add(any_world.http, "a", fresh()[0]) for _ in range(4)))
        assert sorted(answer.status_code for answer in answers) == [201] + [409] * 3
        assert {a.json()["error"]["code"] for a in answers if a.status_code == 409} == {
            "name_taken"
        }

    async def test_a_private_key_is_refused_and_not_told_back(self, world: World) -> None:
        _, secret = fresh()
        answer = await add(world.http, "oops", secret)
        assert answer.status_code == 400
        (wrong,) = answer.json()["error"]["details"]["fields"]
        assert (wrong["field"], wrong["problem"]) == ("publicKey", "is a private key")
        assert not any(line in answer.text for line in secret.splitlines())
        made = await world.http.post("/v1/sandboxes", json={"sshKeys": [secret]})
        assert made.status_code == 400
        assert not any(line in made.text for line in secret.splitlines())

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("label", None),
            ("label", ""),
            ("label", "a" * 64),
            ("label", 5),
            ("label", "a b"),
            ("label", "a\n"),
            ("label", "lаptop"),  # noqa: RUF001 - a Cyrillic letter
            ("label", "ssh_" + "a" * 20),
            ("publicKey", None),
            ("publicKey", ""),
            ("publicKey", "nonsense"),
            ("publicKey", "x" * 16_385),
            ("publicKey", ["x"]),
            ("projectId", 5),
            ("comment", "x"),
        ],
    )
    async def test_bad_input_names_its_field(self, world: World, field: str, value: Any) -> None:
        body = {"label": "laptop", "publicKey": fresh()[0]} | {field: value}
        answer = await world.http.post("/v1/ssh-keys", json=body)
        assert answer.status_code == 400
        assert answer.json()["error"]["details"]["fields"][0]["field"] == field
        missing = {name: value for name, value in body.items() if name != field}
        if field in ("label", "publicKey"):
            assert (await world.http.post("/v1/ssh-keys", json=missing)).status_code == 400
        assert (await world.http.get("/v1/ssh-keys")).json()["data"] == []


class TestSandboxes:
    async def test_a_create_takes_keys_labels_and_ids(self, any_world: World) -> None:
        http = any_world.http
        lines = [fresh()[0] for _ in range(3)]
        await add(http, "laptop", lines[0])
        second = (await add(http, "work", lines[1])).json()["data"]
        asked = ["laptop", second["id"], lines[2], lines[0]]
        box = await any_world.create(sshKeys=asked)
        assert await told(any_world, box["id"]) == lines

    async def test_one_that_was_removed_stays_where_it_was_given(self, world: World) -> None:
        line, _ = fresh()
        await add(world.http, "laptop", line)
        box = await world.create(sshKeys=["laptop"])
        await world.http.delete("/v1/ssh-keys/laptop")
        assert await told(world, box["id"]) == [line]

    async def test_a_name_of_nobody_is_refused(self, world: World) -> None:
        line, _ = fresh()
        async with await world.stranger() as other:
            theirs = (await add(other, "theirs", line)).json()["data"]
        for ref in ("theirs", theirs["id"], "ssh-ed25519"):
            answer = await world.http.post("/v1/sandboxes", json={"sshKeys": [ref]})
            assert answer.status_code == 404
            assert answer.json()["error"]["details"] == {"field": "sshKeys.0"}
        assert (await world.http.get("/v1/sandboxes")).json()["data"] == []
