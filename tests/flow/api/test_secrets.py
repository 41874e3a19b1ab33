"""Secrets and the audit log through the API."""

from __future__ import annotations

import asyncio
import logging
import sqlite3

import httpx
import pytest
from sqlalchemy import Connection, text

from runtools.testing.api_world import World, holds

VALUE = "s3cr3t-value-that-must-not-leak"


async def put(world: World, name: str = "TOKEN", value: str = VALUE, **more: object) -> dict:
    answer = await world.http.post("/v1/secrets", json={"name": name, "value": value, **more})
    assert answer.status_code == 201, answer.text
    assert VALUE not in answer.text
    return answer.json()["data"]


def _execute(conn: Connection, statement: str) -> None:
    conn.execute(text(statement))


async def reveal(world: World, name: str = "TOKEN") -> str:
    answer = await world.http.post(f"/v1/secrets/{name}/reveal")
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]["value"]


class TestSecrets:
    async def test_only_reveal_shows_a_value(self, world: World) -> None:
        made = await put(world, category="custom", scope="sandboxes", description="for x")
        assert (made["version"], made["category"], made["scope"]) == (1, "custom", "sandboxes")
        for path in ("/v1/secrets", "/v1/secrets/TOKEN"):
            answer = await world.http.get(path)
            assert answer.status_code == 200
            assert VALUE not in answer.text
        assert await reveal(world) == VALUE

    async def test_another_value_keeps_what_is_not_said(self, world: World) -> None:
        first = await put(world, category="custom", scope="sandboxes", description="for x")
        second = await put(world, value="2")
        assert (second["id"], second["version"]) == (first["id"], 2)
        assert (second["category"], second["description"]) == ("custom", "for x")
        answer = await world.http.patch("/v1/secrets/TOKEN", json={"value": "3"})
        assert answer.json()["data"]["version"] == 3
        assert await reveal(world) == "3"

    @pytest.mark.parametrize("end", ["\r", "\n", "\r\n", " ", "\t", "\u20ac", "\x07", "\nmore"])
    @pytest.mark.parametrize("category", ["tool", "custom"])
    async def test_what_is_sent_in_headers_is_what_one_may_hold(
        self, world: World, category: str, end: str
    ) -> None:
        odd = {"name": "TOKEN", "value": f"{VALUE}{end}", "category": "provider"}
        refused = await world.http.post("/v1/secrets", json=odd)
        assert (await world.http.get("/v1/secrets/TOKEN")).status_code == 404
        await put(world, value=f"{VALUE}{end}", category=category)  # anything may be in those
        as_sent = await world.http.post("/v1/secrets", json=odd)
        assert (await world.http.get("/v1/secrets/TOKEN")).json()["data"]["category"] == category
        await put(world, value="good", category="provider")
        rotated = await world.http.patch("/v1/secrets/TOKEN", json={"value": odd["value"]})
        assert await reveal(world) == "good"
        for answer in (refused, as_sent, rotated):
            assert answer.status_code == 400, answer.text
            assert answer.json()["error"]["details"]["fields"][0]["field"] == "value"
            assert VALUE not in answer.text

    async def test_nothing_to_rotate_reveal_or_delete(self, world: World) -> None:
        for method, path, body in (
            ("PATCH", "/v1/secrets/NONE", {"value": "1"}),
            ("POST", "/v1/secrets/NONE/reveal", None),
            ("DELETE", "/v1/secrets/NONE", None),
            ("GET", "/v1/secrets/NONE", None),
        ):
            answer = await world.http.request(method, path, json=body)
            assert answer.status_code == 404, (method, path)

    async def test_a_list_goes_by_name_and_page(self, world: World) -> None:
        for name in ("B", "A", "C"):
            await put(world, name, category="tool")
        await put(world, "D")
        first = (await world.http.get("/v1/secrets?limit=2&category=tool")).json()
        assert [one["name"] for one in first["data"]] == ["A", "B"]
        cursor = first["meta"]["nextCursor"]
        rest = (await world.http.get(f"/v1/secrets?category=tool&cursor={cursor}")).json()
        assert [one["name"] for one in rest["data"]] == ["C"]

    async def test_a_stranger_sees_none_and_may_have_the_same_name(self, world: World) -> None:
        await put(world)
        async with await world.stranger() as theirs:
            assert (await theirs.get("/v1/secrets")).json()["data"] == []
            for method, path in (
                ("GET", "/v1/secrets/TOKEN"),
                ("POST", "/v1/secrets/TOKEN/reveal"),
                ("DELETE", "/v1/secrets/TOKEN"),
            ):
                assert (await theirs.request(method, path)).status_code == 404
            body = {"name": "TOKEN", "value": "theirs"}
            assert (await theirs.post("/v1/secrets", json=body)).status_code == 201
            seen = (await theirs.post("/v1/secrets/TOKEN/reveal")).json()["data"]["value"]
        assert (seen, await reveal(world)) == ("theirs", VALUE)

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({"value": "x"}, "name"),
            ({"name": "A"}, "value"),
            ({"name": "A", "value": None}, "value"),
            ({"name": "A", "value": ""}, "value"),
            ({"name": "A", "value": 3}, "value"),
            ({"name": "A", "value": "a\0b"}, "value"),
            ({"name": "A", "value": "x" * 65_537}, "value"),
            ({"name": "", "value": "x"}, "name"),
            ({"name": "1A", "value": "x"}, "name"),
            ({"name": "A B", "value": "x"}, "name"),
            ({"name": "А", "value": "x"}, "name"),  # noqa: RUF001 - a Cyrillic look-alike
            ({"name": "A" * 129, "value": "x"}, "name"),
            ({"name": "A", "value": "x", "category": "other"}, "category"),
            ({"name": "A", "value": "x", "scope": "nobody"}, "scope"),
            ({"name": "A", "value": "x", "description": "x" * 1001}, "description"),
            ({"name": "A", "value": "x", "colour": "red"}, "colour"),
        ],
    )
    async def test_bad_input_names_its_field(self, world: World, body: dict, field: str) -> None:
        answer = await world.http.post("/v1/secrets", json=body)
        assert answer.status_code == 400
        assert field in answer.text
        assert "x" * 100 not in answer.text

    async def test_a_value_lies_nowhere_in_the_clear(
        self, world: World, tmp_path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        headers = {"Idempotency-Key": "once"}
        body = {"name": "TOKEN", "value": VALUE}
        for _ in range(2):
            answer = await world.http.post("/v1/secrets", json=body, headers=headers)
            assert answer.status_code == 201
        for _ in range(2):
            answer = await world.http.post(
                "/v1/secrets/TOKEN/reveal", headers={"Idempotency-Key": "r"}
            )
            assert answer.json()["data"]["value"] == VALUE
        assert VALUE not in caplog.text
        await world.platform.db.write(lambda conn: None)
        for file in tmp_path.rglob("*"):
            if file.is_file():
                assert VALUE.encode() not in file.read_bytes(), file

    async def test_a_row_that_was_moved_does_not_open(self, world: World, tmp_path) -> None:
        await put(world, "A", "one")
        await put(world, "B", "two")
        (file,) = tmp_path.rglob("*.db")
        with sqlite3.connect(file) as conn:
            conn.execute("UPDATE secrets SET sealed = (SELECT sealed FROM secrets WHERE name='A')")
        conn.close()
        answer = await world.http.post("/v1/secrets/B/reveal")
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "wrong_master_key"


class TestAudit:
    async def test_one_line_for_each_mutating_call(self, world: World) -> None:
        await put(world)
        await reveal(world)
        await world.http.delete("/v1/secrets/NONE")
        await world.http.get("/v1/secrets")
        made = await world.create(name="box")
        lines = (await world.http.get("/v1/audit")).json()["data"]
        told = [(one["action"], one["resource"], one["status"], one["error"]) for one in lines]
        assert told[:4] == [
            ("sandboxes.create", made["id"], 201, None),
            ("secrets.delete", "NONE", 404, "not_found"),
            ("secrets.reveal", "TOKEN", 200, None),
            ("secrets.set", "TOKEN", 201, None),
        ]
        me = (await world.http.get("/v1/me")).json()["data"]
        assert {one["actor"] for one in lines} == {me["keyId"]}
        assert {one["source"] for one in lines} == {"127.0.0.1"}
        assert len({one["requestId"] for one in lines}) == len(lines)
        assert VALUE not in str(lines)

    async def test_no_value_goes_out_whose_line_cannot_be_written(self, any_world: World) -> None:
        assert (
            await any_world.http.post("/v1/secrets", json={"name": "A", "value": VALUE})
        ).is_success
        await any_world.platform.db.write(_execute, "ALTER TABLE audit RENAME TO away")
        answer = await any_world.http.post("/v1/secrets/A/reveal")
        assert answer.status_code >= 500
        assert VALUE not in answer.text
        await any_world.platform.db.write(_execute, "ALTER TABLE away RENAME TO audit")
        assert (await any_world.http.post("/v1/secrets/A/reveal")).is_success
        lines = (await any_world.http.get("/v1/audit?action=secrets.reveal")).json()["data"]
        assert [(one["resource"], one["status"]) for one in lines] == [("A", 200)]

    async def test_what_does_not_open_has_the_line_of_its_failure_alone(self, world: World) -> None:
        await put(world)
        await world.platform.db.write(_execute, "UPDATE secrets SET sealed = 'AAAA:AAAA:AAAA'")
        assert (await world.http.post("/v1/secrets/TOKEN/reveal")).status_code == 503
        lines = (await world.http.get("/v1/audit?action=secrets.reveal")).json()["data"]
        assert [(one["status"], one["error"]) for one in lines] == [(503, "wrong_master_key")]

    async def test_a_repeat_that_does_nothing_has_no_line(self, world: World) -> None:
        for _ in range(3):
            answer = await world.http.post(
                "/v1/secrets",
                json={"name": "A", "value": "1"},
                headers={"Idempotency-Key": "the-same"},
            )
            assert answer.status_code == 201
        lines = (await world.http.get("/v1/audit?action=secrets.set")).json()["data"]
        assert len(lines) == 1

    async def test_commands_are_written_down_too(self, world: World) -> None:
        made = await world.create()
        answer = await world.http.post(f"/v1/sandboxes/{made['id']}/exec", json={"command": "true"})
        assert answer.status_code == 200

        async def seen() -> bool:
            path = f"/v1/audit?resource={made['id']}"
            lines = (await world.http.get(path)).json()["data"]
            return any(line["action"].endswith(".exec") for line in lines)

        await holds(seen)

    async def test_pages_and_filters(self, world: World) -> None:
        for name in ("A", "B", "C"):
            await put(world, name)
        await reveal(world, "B")
        first = (await world.http.get("/v1/audit?action=secrets.set&limit=2")).json()
        cursor = first["meta"]["nextCursor"]
        rest = (await world.http.get(f"/v1/audit?action=secrets.set&cursor={cursor}")).json()
        assert len(first["data"]) + len(rest["data"]) == 3
        assert not {one["id"] for one in first["data"]} & {one["id"] for one in rest["data"]}
        lines = (await world.http.get("/v1/audit?resource=B")).json()["data"]
        assert [line["action"] for line in lines] == ["secrets.reveal", "secrets.set"]

    async def test_a_stranger_sees_none(self, world: World) -> None:
        await put(world)
        async with await world.stranger() as theirs:
            assert (await theirs.get("/v1/audit")).json()["data"] == []


class TestInSandboxes:
    async def test_one_enters_by_name_and_is_echoed_by_no_answer(self, world: World) -> None:
        await put(world, category="custom", scope="sandboxes")
        made = await world.create(env={"A": "1"}, secrets=["TOKEN"])
        assert made["envNames"] == ["A", "TOKEN"]
        assert VALUE not in str(await world.get(made["id"])) + str(await world.why(made["id"]))
        assert world.host.machines[made["id"]].order.guest.env == {"A": "1", "TOKEN": VALUE}

    @pytest.mark.parametrize(
        ("category", "scope"),
        [("provider", "all"), ("tool", "all"), ("custom", "agents"), ("custom", "tools")],
    )
    async def test_no_other_kind_enters(self, world: World, category: str, scope: str) -> None:
        await put(world, category=category, scope=scope)
        answer = await world.http.post("/v1/sandboxes", json={"secrets": ["TOKEN"]})
        assert answer.status_code == 403
        assert (await world.http.get("/v1/sandboxes")).json()["data"] == []

    async def test_an_unknown_one_or_a_name_twice(self, world: World) -> None:
        answer = await world.http.post("/v1/sandboxes", json={"secrets": ["NONE"]})
        assert answer.status_code == 404
        await put(world, category="custom")
        body = {"secrets": ["TOKEN"], "env": {"TOKEN": "x"}}
        answer = await world.http.post("/v1/sandboxes", json=body)
        assert answer.status_code == 400
        assert "secrets" in answer.text

    async def test_what_a_sandbox_was_told_lies_nowhere_in_the_clear(
        self, world: World, tmp_path
    ) -> None:
        await put(world, category="custom")
        plain = "an-environment-value"
        parent = await world.create(env={"A": plain}, secrets=["TOKEN"])
        answer = await world.http.post(f"/v1/sandboxes/{parent['id']}/fork", json={"count": 2})
        assert answer.status_code == 201, answer.text
        for file in tmp_path.rglob("*"):
            if file.is_file() and "host" not in file.relative_to(tmp_path).parts:
                data = file.read_bytes()
                assert VALUE.encode() not in data, file
                assert plain.encode() not in data, file


class TestAtOnce:
    async def test_the_first_of_a_name_is_made_once(self, any_world: World) -> None:
        async def put(value: str) -> httpx.Response:
            return await any_world.http.post("/v1/secrets", json={"name": "A", "value": value})

        answers = await asyncio.gather(*(put(f"value {count}") for count in range(6)))
        assert {answer.status_code for answer in answers} == {201}
        versions = sorted(answer.json()["data"]["version"] for answer in answers)
        assert versions == [1, 2, 3, 4, 5, 6]
