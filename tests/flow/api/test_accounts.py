"""Accounts: who is an operator, forgotten passwords, other ways in, and closing one."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Connection
from tests.flow.api.test_pages import Browser

from runtools.errors import Unauthenticated
from runtools.platform.api.identities import store as identities
from runtools.platform.api.identities.store import Identity
from runtools.platform.api.keys import store as keys
from runtools.platform.api.keys.service import Rights
from runtools.platform.api.members import store as members
from runtools.platform.core.ids import new_id
from runtools.platform.kit.clock import SystemClock
from runtools.platform.kit.db import Database
from runtools.testing import api_world
from runtools.testing.api_world import Signed, World

PASSWORD, ANOTHER = "a password of Ann's", "another one of hers"


async def _operator(world: World, user_id: str, on: bool, **more: Any) -> httpx.Response:
    body = {"operator": on, **more}
    return await world.http.patch(f"/v1/people/{user_id}", json=body)


@dataclass(frozen=True)
class Key:
    """An API key, and the client that asks with it."""

    id: str
    http: httpx.AsyncClient
    headers: dict[str, str]

    async def ask(self, method: str, path: str) -> int:
        return (await self.http.request(method, path, headers=self.headers)).status_code


async def _key(by: httpx.AsyncClient | Key, *scopes: str) -> Key:
    http, headers = (by.http, by.headers) if isinstance(by, Key) else (by, {})
    body = {"name": "k", "scopes": scopes}
    made = await http.post("/v1/api-keys", json=body, headers=headers)
    assert made.status_code == 201, made.text
    data = made.json()["data"]
    return Key(data["id"], http, {"Authorization": f"Bearer {data['key']}"})


async def _enters(world: World, password: str, email: str = "ann@example.org") -> bool:
    answer = await Browser(world.url).post("/signin", email=email, password=password)
    return answer.status_code == 303


async def _lines(http: httpx.AsyncClient, action: str) -> list[tuple[str, int]]:
    found = (await http.get(f"/v1/audit?action={action}")).json()["data"]
    return [(one["resource"], one["status"]) for one in found]


class TestOperator:
    async def test_the_right_is_given_and_taken_back(self, world: World) -> None:
        ann = await world.person()
        async with ann.http as http:
            assert (await http.get("/v1/hosts")).status_code == 403
            assert (await _operator(world, ann.user_id, True)).json()["data"]["operator"]
            assert (await http.get("/v1/hosts")).status_code == 200
            assert (await http.get("/v1/people")).status_code == 200
            done = await _operator(world, ann.user_id, False)
            assert done.json()["data"]["operator"] is False
            assert (await http.get("/v1/hosts")).status_code == 403
            assert (await http.get("/v1/people")).status_code == 403
        assert await _lines(world.http, "people.set_operator") == [(ann.user_id, 200)] * 2

    async def test_the_last_one_stays(self, any_world: World) -> None:
        ann = await any_world.person("admin", operator=True)
        bob = await any_world.person("admin", email="bob@example.org", operator=True)
        async with ann.http as http, bob.http:
            path = f"/v1/people/{ann.user_id}"
            key = (await any_world.http.get("/v1/me")).json()["data"]["keyId"]
            await any_world.platform.keys.revoke(any_world.org, key)
            body = {"operator": False}
            assert (await http.patch(f"/v1/people/{bob.user_id}", json=body)).status_code == 200
            last = await http.patch(path, json=body)
            assert (last.status_code, last.json()["error"]["code"]) == (409, "conflict")
            assert (await http.post("/v1/me/close", json={})).status_code == 409
            await _key(http, "platform:*")
            assert (await http.patch(path, json=body)).status_code == 200

    async def test_of_two_who_act_on_each_other_one_stays(self, any_world: World) -> None:
        people = [
            await any_world.person(None, email=f"{name}@example.org", operator=True)
            for name in ("ann", "bob")
        ]
        key = (await any_world.http.get("/v1/me")).json()["data"]["keyId"]
        await any_world.platform.keys.revoke(any_world.org, key)
        asked = [
            mine.http.patch(f"/v1/people/{other.user_id}", json={"operator": False})
            for mine, other in (people, people[::-1])
        ]
        statuses = sorted(answer.status_code for answer in await asyncio.gather(*asked))
        assert statuses in ([200, 403], [200, 409])
        for person in people:
            await person.http.aclose()

    async def test_keys_made_with_the_right_end_with_it_where_that_is_said(
        self, any_world: World
    ) -> None:
        ann = await any_world.person("admin", operator=True)
        async with ann.http as http:
            first = await _key(http, "platform:*", "api-key:*")
            child = await _key(first, "platform:read")
            plain = await _key(http, "sandbox:read")
            assert await child.ask("GET", "/v1/hosts") == 200
            assert (await _operator(any_world, ann.user_id, False)).is_success
            assert await first.ask("GET", "/v1/hosts") == 200
            assert (await _operator(any_world, ann.user_id, False, revokeKeys=True)).is_success
            assert await first.ask("GET", "/v1/hosts") == 401
            assert await child.ask("GET", "/v1/hosts") == 401
            assert await plain.ask("GET", "/v1/sandboxes") == 200

    async def test_a_part_of_the_right_reaches_no_person(self, world: World) -> None:
        ann = await world.person()
        await ann.http.aclose()
        part, path = await _key(world.http, "platform:write"), f"/v1/people/{ann.user_id}"
        for method, where in (("POST", f"{path}/reset"), ("DELETE", path)):
            assert await part.ask(method, where) == 403, where
        body = {"operator": True}
        done = await world.http.patch(path, json=body, headers=part.headers)
        assert done.status_code == 403

    async def test_people_come_in_pages(self, world: World) -> None:
        for n in range(5):
            await (await world.person(None, email=f"p{n}@example.org")).http.aclose()
        first = (await world.http.get("/v1/people?limit=3")).json()
        path = f"/v1/people?limit=3&cursor={first['meta']['nextCursor']}"
        rest = (await world.http.get(path)).json()["data"]
        emails = [one["email"] for one in first["data"] + rest]
        assert emails == [f"p{n}@example.org" for n in range(5)]

    async def test_nobody_of_that_id(self, world: World) -> None:
        for method, path in (("PATCH", ""), ("POST", "/reset"), ("DELETE", "")):
            sent = {"json": {"operator": True}} if method == "PATCH" else {}
            answer = await world.http.request(method, f"/v1/people/usr_none{path}", **sent)
            assert answer.status_code == 404, method


class TestClosing:
    async def test_nobody_is_let_in_any_more_and_the_address_is_free(
        self, any_world: World
    ) -> None:
        ann = await any_world.person(password=PASSWORD)
        async with ann.http as http:
            key = await _key(http, "sandbox:read")
            key = replace(key, http=any_world.http)
            wrong = await http.post("/v1/me/close", json={"password": "not that one"})
            assert wrong.status_code == 403
            assert (await http.post("/v1/me/close", json={})).status_code == 403
            done = await http.post("/v1/me/close", json={"password": PASSWORD})
            assert done.json()["data"]["email"] is None
            assert (await http.get("/v1/me")).status_code == 401
            assert not await _enters(any_world, PASSWORD)
            with pytest.raises(Unauthenticated):
                await any_world.platform.sessions.open(ann.user_id, "cli", "late", "-")
            assert await key.ask("GET", "/v1/sandboxes") == 200  # the org's
        assert (await any_world.http.get("/v1/members")).json()["data"] == []
        (shown,) = (await any_world.http.get("/v1/people")).json()["data"]
        assert (shown["name"], shown["email"], shown["hasPassword"]) == ("ann", None, False)
        assert shown["closedAt"]
        again = await any_world.person(password=ANOTHER)
        assert await _enters(any_world, ANOTHER)
        await again.http.aclose()
        assert (ann.user_id, 200) in await _lines(any_world.http, "sessions.close_account")

    async def test_the_operator_closes_one_with_its_keys(self, any_world: World) -> None:
        ann = await any_world.person("admin")
        stays = await any_world.person("admin", email="bob@example.org")
        async with ann.http as http, stays.http:
            first = await _key(http)
            child = await _key(first)
            path = f"/v1/people/{ann.user_id}?revokeKeys=true"
            assert (await any_world.http.delete(path)).status_code == 200
            assert (await http.get("/v1/me")).status_code == 401
            for one in (first, child):
                assert await one.ask("GET", "/v1/me") == 401
            assert (await any_world.http.delete(path)).status_code == 404

    async def test_the_last_admin_stays_and_so_does_everything(self, any_world: World) -> None:
        ann = await any_world.person(None, password=PASSWORD)
        async with await any_world.stranger() as other, ann.http as http:
            theirs = (await other.get("/v1/me")).json()["data"]["orgId"]

            def joins(conn: Connection) -> None:
                now = SystemClock().now()
                members.add(conn, any_world.org, ann.user_id, "member", now)
                members.add(conn, theirs, ann.user_id, "admin", now)

            await any_world.platform.db.write(joins)
            refused = await http.post("/v1/me/close", json={"password": PASSWORD})
            assert refused.status_code == 409
            assert refused.json()["error"]["details"] == {"orgId": theirs}
            assert len((await any_world.http.get("/v1/members")).json()["data"]) == 1
            assert await _enters(any_world, PASSWORD)
            bob = await any_world.person("admin", email="bob@example.org", org=theirs)
            assert (await http.post("/v1/me/close", json={"password": PASSWORD})).is_success
            await bob.http.aclose()
            for by in (any_world.http, other):
                assert (ann.user_id, 200) in await _lines(by, "sessions.close_account")

    async def test_an_invitation_of_theirs_opens_nothing(self, world: World) -> None:
        ann = await world.person("admin")
        bob = await world.person("admin", email="bob@example.org")
        body = {"email": "eve@example.org"}
        async with ann.http as http, bob.http:
            link = (await http.post("/v1/invitations", json=body)).json()["data"]["link"]
            assert (await http.post("/v1/me/close", json={})).status_code == 200
        eve = await world.person(None, email="eve@example.org")
        async with eve.http as http:
            answer = await http.post("/v1/invitations/accept", json={"code": link.split("#")[1]})
            assert answer.status_code == 404


async def _link(world: World, person: Signed, by: httpx.AsyncClient | None = None) -> str:
    """The code of a link that an Admin of the org, or the operator, makes."""
    where = "/v1/people" if by is None else "/v1/members"
    made = await (by or world.http).post(f"{where}/{person.user_id}/reset")
    assert made.status_code == 201, made.text
    return str(made.json()["data"]["link"]).partition("#")[2]


async def _reset(world: World, code: str, password: str = ANOTHER) -> httpx.Response:
    return await Browser(world.url).post("/reset", code=code, password=password)


class TestResets:
    @pytest.mark.parametrize("by_admin", [True, False])
    async def test_a_link_sets_another_password_once(self, world: World, by_admin: bool) -> None:
        ann = await world.person(password=PASSWORD)
        admin = await world.person("admin", email="bob@example.org")
        async with ann.http as http, admin.http as theirs:
            code = await _link(world, ann, theirs if by_admin else None)
            assert await _enters(world, PASSWORD)  # until it is used, nothing has changed
            done = await _reset(world, code)
            assert (done.status_code, "signed out everywhere" in done.text) == (200, True)
            assert (await http.get("/v1/me")).status_code == 401
            assert not await _enters(world, PASSWORD)
            assert await _enters(world, ANOTHER)
            assert (await _reset(world, code, "a third one of hers")).status_code == 404
            assert await _enters(world, ANOTHER)
            action = f"{'members' if by_admin else 'people'}.reset"
            assert await _lines(world.http, action) == [(ann.user_id, 201)]
            where = "" if by_admin else "&platform=true"
            lines = await _lines(world.http, f"pages.reset_password{where}")
            assert lines == [(ann.user_id, 200)]
        page = await Browser(world.url).get("/reset")
        assert code not in page.text

    async def test_who_has_guessed_wrong_too_often_is_let_in_by_the_new_one(
        self, world: World
    ) -> None:
        ann = await world.person(password=PASSWORD)
        for _ in range(7):
            await _enters(world, "wrong")
        async with ann.http:
            assert (await _reset(world, await _link(world, ann), "short")).status_code == 400
            assert (await _reset(world, await _link(world, ann))).status_code == 200

    async def test_of_several_links_the_latest_is_good(self, any_world: World) -> None:
        ann = await any_world.person(password=PASSWORD)
        async with ann.http:
            first, second = await _link(any_world, ann), await _link(any_world, ann)
            assert (await _reset(any_world, first)).status_code == 404
            answers = await asyncio.gather(*(_reset(any_world, second) for _ in range(4)))
            assert sorted(one.status_code for one in answers) == [200, 404, 404, 404]

    async def test_no_admin_reaches_into_another_org(self, world: World) -> None:
        ann = await world.person(password=PASSWORD)
        admin = await world.person("admin", email="bob@example.org")
        async with await world.stranger() as other, ann.http, admin.http as http:
            theirs = (await other.get("/v1/me")).json()["data"]["orgId"]
            path = f"/v1/members/{ann.user_id}/reset"
            assert (await other.post(path)).status_code == 404
            code = await _link(world, ann, http)
            now = SystemClock().now()
            await world.platform.db.write(members.add, theirs, ann.user_id, "member", now)
            assert (await _reset(world, code)).status_code == 404  # not even by an older link
            assert (await http.post(path)).status_code == 403
            assert (await _reset(world, await _link(world, ann))).status_code == 200

    async def test_who_may_do_less_gets_none(self, world: World) -> None:
        ann = await world.person(password=PASSWORD)
        boss = await world.person("admin", email="bob@example.org")
        chief = await world.person("admin", email="eve@example.org", operator=True)
        async with ann.http as http, boss.http as his, chief.http as hers:
            assert (await http.post(f"/v1/members/{boss.user_id}/reset")).status_code == 403
            assert (await his.post(f"/v1/members/{chief.user_id}/reset")).status_code == 403
            assert (await his.post(f"/v1/members/{boss.user_id}/reset")).status_code == 403
            assert (await hers.post(f"/v1/people/{chief.user_id}/reset")).status_code == 403
            assert (await his.post(f"/v1/people/{ann.user_id}/reset")).status_code == 403
            key = await _key(his, "org:read", "org:write")  # it may do less than a Member
            assert await key.ask("POST", f"/v1/members/{ann.user_id}/reset") == 403

    async def test_a_link_of_who_may_not_any_more_opens_nothing(self, world: World) -> None:
        ann = await world.person(password=PASSWORD)
        admin = await world.person("admin", email="bob@example.org")
        stays = await world.person("admin", email="eve@example.org")
        async with ann.http, admin.http as http, stays.http:
            code = await _link(world, ann, http)
            path = f"/v1/members/{admin.user_id}"
            body = {"role": "member"}
            assert (await world.http.patch(path, json=body)).status_code == 200
            assert (await _reset(world, code)).status_code == 404
            assert await _enters(world, PASSWORD)

    async def test_after_a_day_it_is_over(self, tmp_path: Path) -> None:
        class Later(SystemClock):
            ahead = timedelta()

            def now(self) -> Any:
                return super().now() + self.ahead

        clock = Later()
        async with api_world.world(
            Database(f"sqlite:///{tmp_path}/runtools.db"), tmp_path, clock=clock
        ) as world:
            ann = await world.person(password=PASSWORD)
            code = await _link(world, ann)
            clock.ahead = timedelta(hours=24)
            assert (await _reset(world, code)).status_code == 404
            await ann.http.aclose()


async def _identity(world: World, user_id: str, subject: str = "one") -> str:
    now = SystemClock().now()
    made = Identity(new_id("idn"), "https://idp.example", subject, user_id, "ann@corp", now)
    assert await world.platform.db.write(identities.link, made)
    return made.id


class TestIdentities:
    async def test_they_are_listed_and_unlinked(self, world: World) -> None:
        ann = await world.person(password=PASSWORD)
        bob = await world.person(email="bob@example.org")
        one = await _identity(world, ann.user_id)
        _, secret = await world.platform.sessions.open(ann.user_id, "browser", "x", "-")
        other = api_world.client(world.url, secret)
        async with ann.http as http, bob.http as his, other:
            (shown,) = (await http.get("/v1/me/identities")).json()["data"]
            assert (shown["id"], shown["label"]) == (one, "ann@corp")
            assert (await his.get("/v1/me/identities")).json()["data"] == []
            assert (await his.delete(f"/v1/me/identities/{one}")).status_code == 404
            assert (await http.delete(f"/v1/me/identities/{one}")).status_code == 200
            assert (await http.get("/v1/me/identities")).json()["data"] == []
            assert (await http.delete(f"/v1/me/identities/{one}")).status_code == 404
            assert (await other.get("/v1/me")).status_code == 401  # it may have come in by it
            assert (await http.get("/v1/me")).status_code == 200

    async def test_the_only_way_in_stays(self, any_world: World) -> None:
        ann = await any_world.person()
        ids = [await _identity(any_world, ann.user_id, subject) for subject in ("one", "two")]
        async with ann.http as http:
            asked = [http.delete(f"/v1/me/identities/{one}") for one in ids]
            answers = await asyncio.gather(*asked)
            assert sorted(one.status_code for one in answers) == [200, 409]
            assert len((await http.get("/v1/me/identities")).json()["data"]) == 1


class TestPages:
    async def test_a_person_does_it_all_in_a_browser(self, world: World) -> None:
        ann = await world.person(password=PASSWORD)
        one = await _identity(world, ann.user_id)
        browser = Browser(world.url)
        await browser.post("/signin", email="ann@example.org", password=PASSWORD)
        assert one in (await browser.get("/account")).text
        wrong = await browser.post("/account/password", current="wrong", new=ANOTHER)
        assert (wrong.status_code, "present password" in wrong.text) == (403, True)
        short = await browser.post("/account/password", current=PASSWORD, new="short")
        assert short.status_code == 400
        done = await browser.post("/account/password", current=PASSWORD, new=ANOTHER)
        assert "1 other sessions ended" in done.text
        assert (await browser.post("/account/unlink", id=one)).status_code == 200
        assert (await browser.post("/account/unlink", id=one)).status_code == 404
        assert (await browser.post("/account/close", password=PASSWORD)).status_code == 403
        closed = await browser.post("/account/close", password=ANOTHER)
        assert closed.headers["location"] == "/signin"
        assert not browser.cookies
        assert not await _enters(world, ANOTHER)
        lines = await _lines(world.http, "pages.close_account")
        assert lines == [(ann.user_id, 303), (ann.user_id, 403)]
        await ann.http.aclose()

    async def test_nobody_else_and_no_other_page_does(self, world: World) -> None:
        await (await world.person(password=PASSWORD)).http.aclose()
        for path in ("/account/password", "/account/unlink", "/account/close"):
            answer = await Browser(world.url).post(path)
            assert answer.headers["location"] == "/signin"
            browser = Browser(world.url)
            await browser.post("/signin", email="ann@example.org", password=PASSWORD)
            browser.origin = "https://evil.example"
            assert (await browser.post(path, password=PASSWORD)).status_code == 403
        assert await _enters(world, PASSWORD)


class TestSignIn:
    async def test_an_old_password_that_was_checked_in_time_lets_nobody_in_later(
        self, world: World
    ) -> None:
        ann = await world.person(password=PASSWORD)
        sessions = world.platform.sessions
        async with ann.http:
            with pytest.raises(Unauthenticated):
                await sessions.open(ann.user_id, "browser", "x", "-", proven="an older hash")


class TestChains:
    async def test_what_a_key_made_ends_with_it_where_that_is_said(self, any_world: World) -> None:
        first = await _key(any_world.http)
        child = await _key(first)
        grandchild = await _key(child)
        assert await grandchild.ask("GET", "/v1/me") == 200
        assert (await any_world.http.delete(f"/v1/api-keys/{first.id}")).is_success
        assert await child.ask("GET", "/v1/me") == 200
        path = f"/v1/api-keys/{first.id}?revokeMade=true"
        assert (await any_world.http.delete(path)).is_success
        for one in (child, grandchild):
            assert await one.ask("GET", "/v1/me") == 401

    async def test_a_maker_is_kept_for_as_long_as_what_it_made(self, any_world: World) -> None:
        ann = await any_world.person("admin")
        await (await any_world.person("admin", email="bob@example.org")).http.aclose()
        db, org = any_world.platform.db, any_world.org
        later = SystemClock().now() + timedelta(days=1000)
        async with ann.http as http:
            first = await _key(http)
            child = await _key(first)
            assert (await any_world.http.delete(f"/v1/api-keys/{first.id}")).is_success
            await db.write(keys.drop, later)
            assert await db.read(keys.find, org, first.id) is not None
            path = f"/v1/members/{ann.user_id}?revokeKeys=true"
            assert (await any_world.http.delete(path)).is_success
            assert await child.ask("GET", "/v1/me") == 401
            for _ in range(2):
                await db.write(keys.drop, later)
            assert await db.read(keys.find, org, child.id) is None
            assert await db.read(keys.find, org, first.id) is None

    async def test_who_is_out_makes_none_by_a_request_that_was_let_in_before(
        self, any_world: World
    ) -> None:
        ann = await any_world.person()
        async with ann.http as http:
            key = await _key(http, "api-key:*")
        await any_world.http.delete(f"/v1/members/{ann.user_id}?revokeKeys=true")
        for maker in (ann.user_id, key.id):
            rights = Rights(created_by=maker)
            with pytest.raises(Unauthenticated):
                await any_world.platform.keys.make(any_world.org, "late", new_id("opn"), rights)
