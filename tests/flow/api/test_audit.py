"""What no caller can do to the audit log, and to whom its lines point."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Connection, func, select
from starlette.types import Receive, Scope, Send
from tests.flow.api.test_pages import PASSWORD, signed_in

from runtools.errors import Unavailable
from runtools.platform.api.audit import store
from runtools.platform.api.audit.edge import Audit
from runtools.platform.api.audit.store import Line, Sought
from runtools.platform.api.calls import SCOPE, Call
from runtools.platform.api.signin import service as signin
from runtools.platform.core.ids import new_id
from runtools.platform.kit.db import Database, Transaction
from runtools.testing import api_world
from runtools.testing.api_world import World, holds
from runtools.testing.made_once import sqlite_url

FORGED = {"X-Forwarded-For": "203.0.113.9"}


async def lines(world: World, **sought: str) -> list[dict[str, Any]]:
    answer = await world.http.get("/v1/audit", params={"limit": 100, **sought})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["data"]
    return found


class TestWhoIsInNoOrg:
    """Whoever else was signed in at the browser: that org is told nothing of them."""

    async def test_a_sign_in_at_the_browser_of_somebody_else(self, any_world: World) -> None:
        ann = await signed_in(any_world)
        bob = await any_world.person(None, email="bob@example.org", password=PASSWORD)
        form = {"email": "bob@example.org", "password": PASSWORD}
        assert (await ann.post("/signin", **form)).status_code == 303
        (hers,) = await lines(any_world, action="pages.sign_in")
        assert hers["actor"] != bob.user_id
        (line,) = await lines(any_world, action="pages.sign_in", platform="true")
        assert (line["actor"], line["status"]) == (bob.user_id, 303)
        (left,) = await lines(any_world, action="pages.sign_out")
        assert (left["actor"], left["resource"]) == (hers["actor"], hers["resource"])
        assert (left["status"], left["requestId"]) == (303, line["requestId"])
        assert bob.user_id not in str(left)
        await bob.http.aclose()

    async def test_one_that_fails_in_the_last_moment_ends_nothing(
        self, any_world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ann = await signed_in(any_world)
        by_password = signin.by_password

        async def just_before_another_is_set(*given: Any) -> Any:
            return replace(await by_password(*given), password="of before")

        monkeypatch.setattr(signin, "by_password", just_before_another_is_set)
        form = {"email": "ann@example.org", "password": PASSWORD}
        assert (await ann.post("/signin", **form)).status_code == 401
        assert (await ann.get("/account")).status_code == 200
        assert await lines(any_world, action="pages.sign_out") == []

    async def test_a_reset_by_the_operator_at_the_browser_of_somebody_else(
        self, any_world: World
    ) -> None:
        ann = await signed_in(any_world)
        bob = await any_world.person(None, email="bob@example.org", password=PASSWORD)
        made = await any_world.http.post(f"/v1/people/{bob.user_id}/reset")
        code = made.json()["data"]["link"].partition("#")[2]
        answer = await ann.post("/reset", code=code, password="another one of his")
        assert answer.status_code == 200, answer.text
        assert await lines(any_world, action="pages.reset_password") == []
        (line,) = await lines(any_world, action="pages.reset_password", platform="true")
        assert (line["resource"], line["status"]) == (bob.user_id, 200)
        await bob.http.aclose()


class TestWhatCallersChoose:
    async def test_a_long_request_id_hides_nothing(self, any_world: World) -> None:
        headers = {"X-Request-Id": "a" * 100}
        made = await any_world.http.post("/v1/projects", json={"name": "p"}, headers=headers)
        assert made.status_code == 201, made.text
        (line,) = await lines(any_world, action="projects.create")
        assert line["requestId"] == made.headers["X-Request-Id"] != headers["X-Request-Id"]

    async def test_one_that_fits_is_kept(self, any_world: World) -> None:
        headers = {"X-Request-Id": "a" * 64}
        made = await any_world.http.post("/v1/projects", json={"name": "p"}, headers=headers)
        assert made.headers["X-Request-Id"] == headers["X-Request-Id"]
        (line,) = await lines(any_world, action="projects.create")
        assert line["requestId"] == headers["X-Request-Id"]

    async def test_a_long_name_with_signs_takes_no_other_line_along(self, any_world: World) -> None:
        made = await any_world.create()
        for name in ("%00", "%1b%5b31m" + "b" * 300, made["id"]):
            await any_world.http.post(f"/v1/sandboxes/{name}/exec", json={"command": "true"})

        async def written() -> bool:
            found = await lines(any_world)
            return made["id"] in [
                line["resource"] for line in found if line["action"].endswith(".exec")
            ]

        await holds(written)
        for line in await lines(any_world):
            assert "\x1b" not in (line["resource"] or "")

    async def test_a_line_that_cannot_be_written_is_lost_alone(
        self, any_world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        platform = any_world.platform

        def line(org: str) -> Line:
            at = platform.clock.now()
            return Line(new_id("aud"), org, at, "-", "test.one", None, 200, None, f"of {org}", "-")

        audit = Audit(None, platform)  # type: ignore[arg-type]
        audit._waiting = [line("org_nobody"), line(any_world.org)]
        await audit._flush_later()
        kept = await platform.db.read(
            store.page, any_world.org, Sought(action="test.one"), None, 10
        )
        assert len(kept) == 1
        assert "lost: test.one of request of org_nobody" in caplog.text

    async def test_what_waits_at_the_end_is_written(self, any_world: World) -> None:
        """Also where the task that was to write it is ended before it has begun."""
        platform = any_world.platform
        before = len(platform.last)
        audit = Audit(None, platform)  # type: ignore[arg-type]
        at = platform.clock.now()
        audit._waiting = [
            Line(new_id("aud"), any_world.org, at, "-", "test.last", None, 200, None, "-", "-")
        ]
        task = platform.spawn(audit._flush_later(), "writing the audit log")
        task.cancel()
        await asyncio.wait((task,))
        for act in platform.last[before:]:
            await act()
        assert len(await lines(any_world, action="test.last")) == 1


class TestWhatIsTakenBack:
    async def test_a_line_that_went_with_its_change_is_written_with_the_answer(
        self, any_world: World
    ) -> None:
        """The route tells of what it does in a transaction that fails, and answers the same."""
        platform = any_world.platform
        call = Call(platform, "req-taken-back", line_org=any_world.org, entering="usr_of_a_test")

        def fails(conn: Transaction) -> None:
            call.tell(conn, 200)
            raise Unavailable("away")

        async def route(scope: Scope, _receive: Receive, send: Send) -> None:
            with suppress(Unavailable):
                await platform.db.write(fails)
            await platform.db.write(lambda _: None)  # another change of the same request
            await send({"type": "http.response.start", "status": 200, "headers": []})

        async def nothing(*_: object) -> Any:
            return None

        scope = {"type": "http", "method": "POST", "path": "/v1/test", SCOPE: call}
        await Audit(route, platform)(scope, nothing, nothing)
        (line,) = await lines(any_world, actor="usr_of_a_test")
        assert (line["status"], line["requestId"]) == (200, "req-taken-back")


class TestSource:
    async def made(self, world: World) -> str:
        await world.http.post("/v1/projects", json={"name": "p"}, headers=FORGED)
        (line,) = await lines(world, action="projects.create")
        return str(line["source"])

    async def test_nobody_forges_an_address(self, world: World) -> None:
        assert await self.made(world) == "127.0.0.1"

    async def test_a_trusted_proxy_names_its_client(self, tmp_path: Path) -> None:
        db = Database(sqlite_url(tmp_path))
        async with api_world.world(db, tmp_path, trusted_proxies="127.0.0.0/8") as world:
            assert await self.made(world) == "203.0.113.9"


class TestStrangers:
    async def test_what_is_refused_to_them_fills_no_table(self, any_world: World) -> None:
        def count(conn: Connection) -> int:
            return int(conn.scalar(select(func.count()).select_from(store.audit)) or 0)

        before = await any_world.platform.db.read(count)
        async with httpx.AsyncClient(base_url=any_world.url, trust_env=False) as http:
            body = {"id": "lgn_none", "verifier": "a" * 43}
            assert (await http.post("/v1/logins/finish", json=body)).status_code == 401
            assert (await http.post("/v1/logins/finish", json={})).status_code == 400
            assert (await http.post("/healthz")).status_code == 405
            ours = {"Origin": any_world.url}
            for path in ("/login", "/login/answer", "/signout"):
                answer = await http.post(path, data={"code": "none"}, headers=ours)
                assert answer.status_code == 303, path
        assert await any_world.platform.db.read(count) == before

    async def test_they_are_counted(self, tmp_path: Path) -> None:
        db = Database(sqlite_url(tmp_path))
        async with (
            api_world.world(db, tmp_path, rate_limit_failed=3) as world,
            httpx.AsyncClient(base_url=world.url, trust_env=False) as http,
        ):
            codes = [(await http.post("/healthz")).status_code for _ in range(3)]
            assert codes == [405, 405, 405]
            body = {"id": "lgn_none", "verifier": "a" * 43}
            assert (await http.post("/v1/logins/finish", json=body)).status_code == 429
            assert (await http.get("/healthz")).status_code == 200
            assert (await world.http.get("/v1/me")).status_code == 200

    async def test_a_made_up_session_is_a_try_at_pages_too(self, tmp_path: Path) -> None:
        db = Database(sqlite_url(tmp_path))
        async with (
            api_world.world(db, tmp_path, rate_limit_failed=3) as world,
            httpx.AsyncClient(base_url=world.url, trust_env=False) as http,
        ):
            made_up = {"Cookie": f"__Host-runtools=rt_session_{'x' * 40}"}
            codes = [(await http.get("/account", headers=made_up)).status_code for _ in range(4)]
            assert codes == [303, 303, 303, 429]
            assert (await http.get("/signin")).status_code == 200
            ann = await world.person("member")
            mine = {"Cookie": f"__Host-runtools={ann.secret}"}
            shown = [await http.get("/account", headers=mine) for _ in range(2)]
            assert [one.status_code for one in shown] == [200, 200]
            assert all("x-ratelimit-limit" in one.headers for one in shown)
            await ann.http.aclose()

    async def test_a_network_of_ipv6_is_one_of_them(self, tmp_path: Path) -> None:
        db = Database(sqlite_url(tmp_path))
        async with (
            api_world.world(db, tmp_path, trusted_proxies="127.0.0.0/8") as world,
            httpx.AsyncClient(base_url=world.url, trust_env=False) as http,
        ):

            async def login(address: str) -> int:
                headers = {"X-Forwarded-For": address}
                body = {"challenge": "a" * 64, "machine": "laptop"}
                return (await http.post("/v1/logins", json=body, headers=headers)).status_code

            async def sign_in(count: int) -> int:
                headers = {"X-Forwarded-For": f"2001:db8::{count:x}", "Origin": world.url}
                form = {"email": f"p{count}@example.org", "password": "wrong and long"}
                return (await http.post("/signin", data=form, headers=headers)).status_code

            codes = [await login(f"2001:db8::{count:x}") for count in range(1, 40)]
            assert (codes[0], codes[-1]) == (201, 429)
            assert await login("2001:db8:0:1::1") == 201
            signs = [await sign_in(count) for count in range(1, 40)]
            assert signs[0] != 429 == signs[-1]
