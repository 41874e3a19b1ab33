"""Dev URLs as the api knows them: who may enter is chosen, told, and ends where it should."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, TypeVar
from urllib.parse import parse_qs, quote, urlsplit

import httpx
import pytest
from sqlalchemy import Connection, event
from tests.flow.api.test_pages import Browser

from runtools.platform.api.callers import sent
from runtools.platform.api.dev_urls import admission
from runtools.platform.api.sandboxes import acts
from runtools.platform.core.ports.admitting import PREFIX, Asked, Verdict
from runtools.platform.kit import crypto
from runtools.platform.kit.db import Database
from runtools.testing import api_world
from runtools.testing.api_world import World, client
from runtools.testing.clock import ManualClock
from runtools.testing.made_once import sqlite_url

ADMIT = f"{PREFIX}/admit"
T = TypeVar("T")


class Gateway:
    """Asks as the gateway does."""

    def __init__(self, world: World) -> None:
        self.http = client(world.url, world.token("gateway"))

    async def ask(self, box: str, port: int = 3000, **shown: Any) -> dict[str, Any]:
        body = {"sandbox_id": box, "port": port, **shown}
        answer = await self.http.post(ADMIT, json=body)
        assert answer.status_code == 200, answer.text
        said: dict[str, Any] = answer.json()["data"]
        return said

    async def enters(self, box: str, port: int = 3000, **shown: Any) -> bool:
        said = await self.ask(box, port, **shown)
        if said["answer"] == "unknown":
            assert said == Verdict(answer="unknown").model_dump()
        return bool(said["answer"] == "enter")


@pytest.fixture
async def box(any_world: World) -> str:
    return str((await any_world.create(name="web"))["id"])


@pytest.fixture
async def gate(any_world: World) -> AsyncIterator[Gateway]:
    made = Gateway(any_world)
    yield made
    await made.http.aclose()


class Statements:
    """What is said to the database for one caller's sake, while others talk to it too."""

    def __init__(self) -> None:
        self.lists: list[list[str]] = []
        self._mine: ContextVar[list[str] | None] = ContextVar("mine", default=None)

    async def of(self, work: Coroutine[Any, Any, T]) -> T:
        self.lists.append([])
        token = self._mine.set(self.lists[-1])
        try:
            return await work
        finally:
            self._mine.reset(token)

    def read(self, real: Callable[..., Any]) -> Callable[..., Any]:
        async def noted(ask: Callable[..., Any], *args: Any) -> Any:
            found = self._mine.get()
            if found is None:
                return await real(ask, *args)

            def asked(conn: Connection, *args: Any) -> Any:
                def note(*words: Any) -> None:
                    found.append(words[2])

                event.listen(conn, "before_cursor_execute", note)
                return ask(conn, *args)

            return await real(asked, *args)

        return noted


async def ask(http: httpx.AsyncClient, method: str, path: str, **body: Any) -> Any:
    answer = await http.request(method, path, json=body or None)
    assert answer.is_success, answer.text
    return answer.json()["data"]


def secret(link: str) -> str:
    [found] = parse_qs(urlsplit(link).query)["runtools-link"]
    return found


class TestChoices:
    async def test_a_port_is_private_until_something_else_is_chosen(
        self, any_world: World, gate: Gateway, box: str
    ) -> None:
        shown = await ask(any_world.http, "GET", "/v1/sandboxes/web/urls/3000")
        assert shown == {
            "port": 3000,
            "url": f"http://3000-{box}.sandboxes.localhost:7780",
            "access": "private",
            "decidedBy": "default",
            "links": 0,
        }
        assert not await gate.enters(box)
        assert not await gate.enters("sandbox-zzzzzzzzzzzz")

    async def test_the_nearest_choice_counts(
        self, any_world: World, gate: Gateway, box: str
    ) -> None:
        http, urls = any_world.http, "/v1/sandboxes/web/urls"
        await ask(http, "POST", "/v1/dev-urls", access="public")
        assert await gate.enters(box)
        await ask(http, "POST", urls, access="private")
        assert not await gate.enters(box)
        shown = await ask(http, "POST", urls, port=3000, access="public")
        assert await gate.enters(box)
        assert not await gate.enters(box, 3001)
        assert [(one["port"], one["access"], one["decidedBy"]) for one in shown["ports"]] == [
            (3000, "public", "port")
        ]
        assert (shown["access"], shown["decidedBy"]) == ("private", "sandbox")
        assert shown["pattern"] == f"http://{{port}}-{box}.sandboxes.localhost:7780"
        await ask(http, "DELETE", f"{urls}/3000")
        assert not await gate.enters(box)
        shown = await ask(http, "DELETE", urls)
        assert (shown["access"], shown["decidedBy"], shown["ports"]) == ("public", "org", [])
        assert await gate.enters(box)

    async def test_it_is_chosen_when_a_sandbox_is_made(
        self, any_world: World, gate: Gateway
    ) -> None:
        http = any_world.http
        made = await any_world.create(name="open", devUrls="public")
        shown = await ask(http, "GET", "/v1/sandboxes/open/urls")
        assert (shown["access"], shown["decidedBy"]) == ("public", "sandbox")
        assert await gate.enters(made["id"])
        forked = await ask(http, "POST", "/v1/sandboxes/open/fork")
        assert not await gate.enters(forked["children"][0]["id"])  # it is another one
        await ask(http, "POST", "/v1/dev-urls", access="public")
        made = await any_world.create(name="shut", devUrls="private")
        assert not await gate.enters(made["id"])
        answer = await http.post("/v1/sandboxes", json={"devUrls": "all"})
        assert answer.status_code == 400

    async def test_some_ports_have_none(self, any_world: World, gate: Gateway, box: str) -> None:
        await ask(any_world.http, "POST", "/v1/sandboxes/web/urls", access="public")
        urls = "/v1/sandboxes/web/urls"
        for port in (22, 7709):
            answers = [
                await any_world.http.get(f"{urls}/{port}"),
                await any_world.http.post(urls, json={"port": port, "access": "public"}),
                await any_world.http.post(f"{urls}/{port}/links", json={}),
            ]
            assert [one.status_code for one in answers] == [400, 400, 400]
            assert not await gate.enters(box, port)

    async def test_an_ended_sandbox_gets_no_new_ones(self, any_world: World, box: str) -> None:
        await any_world.http.delete(f"/v1/sandboxes/{box}")
        for path, body in (("", {"access": "public"}), ("/3000/links", {})):
            answer = await any_world.http.post(f"/v1/sandboxes/{box}/urls{path}", json=body)
            assert answer.json()["error"]["code"] == "sandbox_stopped"


class TestKeys:
    async def test_keys_and_sessions_of_the_org_open_until_they_end(
        self, any_world: World, gate: Gateway, box: str
    ) -> None:
        made = await ask(any_world.http, "POST", "/v1/api-keys", name="ci")
        member = await any_world.person("member")
        await member.http.aclose()
        assert await gate.enters(box, key=made["key"])
        assert await gate.enters(box, key=member.secret)
        await ask(any_world.http, "DELETE", f"/v1/api-keys/{made['id']}")
        assert not await gate.enters(box, key=made["key"])

    async def test_a_key_that_may_only_look_does_not_enter(
        self, any_world: World, gate: Gateway, box: str
    ) -> None:
        made = await ask(
            any_world.http, "POST", "/v1/api-keys", name="looks", scopes=["sandbox:read"]
        )
        assert not await gate.enters(box, key=made["key"])

    async def test_another_orgs_key_opens_nothing(
        self, any_world: World, gate: Gateway, box: str
    ) -> None:
        stranger = await any_world.stranger()
        key = stranger.headers["authorization"].removeprefix("Bearer ")
        assert not await gate.enters(box, key=key)
        assert not await gate.enters(box, key=any_world.token("gateway"))
        assert not await gate.enters(box, key="rt_live_nobodys")
        await stranger.aclose()

    async def test_foreign_and_unknown_are_looked_up_alike(
        self, any_world: World, box: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stranger = await any_world.stranger()
        keys = [stranger.headers["authorization"].removeprefix("Bearer "), "rt_live_nobodys", None]
        await stranger.aclose()
        platform, said = any_world.platform, Statements()
        # Whether keys were revoked is looked for as time passes: here none does, once it was.
        now = platform.clock.monotonic()
        monkeypatch.setattr(platform.clock, "monotonic", lambda: now)
        await platform.door.admit(str(keys[0]))
        monkeypatch.setattr(platform.db, "read", said.read(platform.db.read))
        for key in keys:
            for shown in ({}, {"link": "rt_link_a", "cookies": ("rt_link_b",)}):
                for one in (box, "sandbox-zzzzzzzzzzzz"):
                    if key is not None:
                        platform.door.forget(crypto.digest(key))
                    asked = Asked(sandbox_id=one, port=3000, key=key, **shown)  # type: ignore[arg-type]
                    assert (await said.of(admission.admit(platform, asked))).answer == "unknown"
                assert said.lists[-1] == said.lists[-2]
                assert said.lists[-1]


class TestStaying:
    async def stays(self, gate: Gateway, *asked: dict[str, Any]) -> list[bool]:
        answer = await gate.http.post(f"{PREFIX}/stays", json={"asked": asked})
        assert answer.status_code == 200, answer.text
        return [one["may"] for one in answer.json()["data"]["stays"]]

    async def test_many_are_asked_about_at_once(
        self, any_world: World, gate: Gateway, box: str
    ) -> None:
        await ask(any_world.http, "POST", "/v1/sandboxes/web/urls", port=80, access="public")
        made = await ask(any_world.http, "POST", "/v1/api-keys", name="ci")
        link = await ask(any_world.http, "POST", "/v1/sandboxes/web/urls/3000/links")
        asked = [
            {"sandbox_id": box, "port": 3000, "key": made["key"]},
            {"sandbox_id": box, "port": 3000, "cookies": [secret(link["url"])]},
            {"sandbox_id": box, "port": 80},
            {"sandbox_id": box, "port": 3000},
            {"sandbox_id": box, "port": 3000, "link": secret(link["url"])},
            {"sandbox_id": "sandbox-zzzzzzzzzzzz", "port": 80, "key": made["key"]},
        ]
        assert await self.stays(gate, *asked) == [True, True, True, False, False, False]
        await ask(any_world.http, "DELETE", f"/v1/api-keys/{made['id']}")
        await ask(any_world.http, "DELETE", "/v1/sandboxes/web/urls/3000/links")
        await ask(any_world.http, "DELETE", "/v1/sandboxes/web/urls")
        assert await self.stays(gate, *asked) == [False] * 6
        assert await self.stays(gate) == []


class TestWaking:
    async def waken(self, gate: Gateway, box: str) -> httpx.Response:
        return await gate.http.post(f"{PREFIX}/waken", json={"sandbox_id": box})

    async def test_what_wakes_by_a_request_is_counted(
        self, any_world: World, gate: Gateway, box: str
    ) -> None:
        other = (await any_world.create())["id"]
        key = any_world.http.headers["authorization"].removeprefix("Bearer ")
        assert (await gate.ask(box, key=key))["wakes"] is True
        org = (await ask(any_world.http, "GET", "/v1/me"))["orgId"]
        await any_world.http.post(f"/v1/sandboxes/{box}/pause")
        await ask(any_world.http, "PATCH", f"/v1/orgs/{org}/limits", sandboxes=1)
        said = await gate.ask(box, key=key)
        assert (said["answer"], said["wakes"]) == ("enter", False)
        asked = {"asked": [{"sandbox_id": box, "port": 3000, "key": key}]}
        stays = (await gate.http.post(f"{PREFIX}/stays", json=asked)).json()["data"]["stays"]
        assert stays == [{"may": True, "wakes": False}]
        full = await self.waken(gate, box)
        assert (full.status_code, full.json()["error"]["code"]) == (409, "quota_exceeded")
        assert (await any_world.get(box))["state"] == "paused"
        await any_world.http.post(f"/v1/sandboxes/{other}/pause")
        assert (await self.waken(gate, box)).status_code == 200
        await any_world.becomes(box, state="running")
        assert (await self.waken(gate, box)).status_code == 200
        assert (await self.waken(gate, other)).status_code == 409

    async def test_why_one_is_not_awake_yet_is_said(
        self, any_world: World, gate: Gateway, box: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        org = (await ask(any_world.http, "GET", "/v1/me"))["orgId"]
        await ask(any_world.http, "PATCH", f"/v1/orgs/{org}/limits", sandboxes=5)
        monkeypatch.setattr(acts, "_PAUSE_SECONDS", 0.1)
        any_world.host.gate.clear()
        pausing = asyncio.create_task(any_world.http.post(f"/v1/sandboxes/{box}/pause"))
        await any_world.becomes(box, operation="pausing")
        said = (await self.waken(gate, box)).json()["error"]
        any_world.host.gate.set()
        assert (await pausing).is_success
        assert (said["code"], said["details"]) == ("deadline_exceeded", {"operation": "pausing"})

    async def test_what_is_not_there_does_not_wake(
        self, any_world: World, gate: Gateway, box: str
    ) -> None:
        assert (await self.waken(gate, "sandbox-zzzzzzzzzzzz")).status_code == 404
        await any_world.http.delete(f"/v1/sandboxes/{box}")
        assert (await self.waken(gate, box)).json()["error"]["code"] == "sandbox_stopped"


class TestLinks:
    async def link(self, world: World, port: int = 3000, **body: Any) -> str:
        path = f"/v1/sandboxes/web/urls/{port}/links"
        return str((await ask(world.http, "POST", path, **body))["url"])

    async def test_one_opens_its_port_and_becomes_a_cookie_of_it(
        self, any_world: World, gate: Gateway, box: str
    ) -> None:
        link = await self.link(any_world, ttlSeconds=60)
        assert link.startswith(
            f"http://3000-{box}.sandboxes.localhost:7780/?runtools-link=rt_link_"
        )
        said = await gate.ask(box, link=secret(link))
        assert (said["answer"], said["cookie"]) == ("enter", secret(link))
        assert 50 < said["seconds"] <= 60
        assert await gate.enters(box, cookies=["rt_link_other", said["cookie"]])
        assert not await gate.enters(box, 3001, link=secret(link))
        other = (await any_world.create())["id"]
        assert not await gate.enters(other, link=secret(link))

    async def test_it_is_kept_as_a_digest_and_counted(
        self, any_world: World, gate: Gateway, box: str
    ) -> None:
        link = await self.link(any_world)
        shown = await any_world.http.get("/v1/sandboxes/web/urls")
        assert [(one["port"], one["links"]) for one in shown.json()["data"]["ports"]] == [(3000, 1)]
        assert secret(link) not in shown.text
        log = await any_world.http.get("/v1/audit")
        assert "create_link" in log.text or "links" in log.text
        assert secret(link) not in log.text

    async def test_a_repeat_makes_another_in_its_place(
        self, any_world: World, gate: Gateway, box: str
    ) -> None:
        path, headers = "/v1/sandboxes/web/urls/3000/links", {"Idempotency-Key": "once"}
        first, again = [
            secret(
                (await any_world.http.post(path, json={}, headers=headers)).json()["data"]["url"]
            )
            for _ in range(2)
        ]
        assert not await gate.enters(box, link=first)
        assert await gate.enters(box, link=again)

    async def test_they_end_when_they_are_ended(
        self, any_world: World, gate: Gateway, box: str
    ) -> None:
        link = await self.link(any_world)
        assert await gate.enters(box, cookies=[secret(link)])
        await ask(any_world.http, "DELETE", "/v1/sandboxes/web/urls/3000/links")
        assert not await gate.enters(box, cookies=[secret(link)])
        link = await self.link(any_world)
        await ask(any_world.http, "DELETE", "/v1/sandboxes/web/urls/3000")
        assert not await gate.enters(box, link=secret(link))

    async def test_one_opens_no_longer_than_its_maker_could(
        self, any_world: World, gate: Gateway, box: str
    ) -> None:
        made = await ask(any_world.http, "POST", "/v1/api-keys", name="maker")
        async with client(any_world.url, made["key"]) as http:
            link = (await ask(http, "POST", "/v1/sandboxes/web/urls/3000/links"))["url"]
        assert await gate.enters(box, link=secret(link))
        await ask(any_world.http, "DELETE", f"/v1/api-keys/{made['id']}")
        assert not await gate.enters(box, link=secret(link))

    async def test_its_use_is_no_use_of_its_makers_session(
        self, any_world: World, gate: Gateway, box: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        member = await any_world.person("member")
        link = (await ask(member.http, "POST", "/v1/sandboxes/web/urls/3000/links"))["url"]
        await member.http.aclose()
        door, noted = any_world.platform.door, list[str]()
        monkeypatch.setattr(door, "_note_use", lambda caller: noted.append(caller.id))
        assert await gate.enters(box, link=secret(link))
        door.forget_user(member.user_id)
        assert await gate.enters(box, cookies=[secret(link)])
        assert noted == []
        assert await gate.enters(box, key=member.secret)
        assert noted == [member.session_id]


async def test_time_ends_links(tmp_path: Any) -> None:
    clock = ManualClock()
    async with api_world.world(Database(sqlite_url(tmp_path)), tmp_path, clock=clock) as world:
        box = (await world.create(name="web"))["id"]
        made = await ask(world.http, "POST", "/v1/sandboxes/web/urls/3000/links", ttlSeconds=60)
        gate = Gateway(world)
        assert await gate.enters(box, link=secret(made["url"]))
        clock.advance(timedelta(seconds=61).total_seconds())
        assert not await gate.enters(box, link=secret(made["url"]))
        await gate.http.aclose()


class TestBrowsers:
    def browser(self, world: World, session: str | None = None) -> Browser:
        cookies = {} if session is None else {sent.SESSION_COOKIE: session}
        return Browser(world.url, cookies=cookies)

    def path(self, box: str, more: str = "/a?b=1", port: int = 3000) -> str:
        url = f"http://{port}-{box}.sandboxes.localhost:7780{more}"
        return f"/open?to={quote(url, safe='')}"

    async def test_who_is_signed_in_gets_a_ticket_that_is_good_once(
        self, any_world: World, gate: Gateway, box: str
    ) -> None:
        member = await any_world.person("member")
        await member.http.aclose()
        answer = await self.browser(any_world, member.secret).get(self.path(box))
        assert answer.status_code == 303
        to = answer.headers["location"]
        assert to.startswith(f"http://3000-{box}.sandboxes.localhost:7780/a?b=1&runtools-link=")
        ticket = secret(to)
        assert not await gate.enters(box, cookies=[ticket])
        said = await gate.ask(box, link=ticket)
        assert said["answer"] == "enter"
        assert said["cookie"] != ticket
        assert not await gate.enters(box, link=ticket)
        assert await gate.enters(box, cookies=[said["cookie"]])
        assert not await gate.enters(box, link=said["cookie"])
        # ... and what it became ends with the session.
        await any_world.platform.sessions.end(member.user_id, member.session_id)
        assert not await gate.enters(box, cookies=[said["cookie"]])

    async def test_who_is_not_signs_in_first_and_comes_back(
        self, any_world: World, gate: Gateway, box: str
    ) -> None:
        ann = await any_world.person("member", password="a password of Ann's")
        await ann.http.aclose()
        browser = self.browser(any_world)
        answer = await browser.get(self.path(box))
        assert answer.headers["location"] == "/signin?next=/open"
        answer = await browser.post(
            "/signin", email="ann@example.org", password="a password of Ann's", next="/open"
        )
        assert answer.headers["location"] == "/open"
        page = await browser.get("/open")
        assert page.status_code == 200
        assert (
            f"0; url=http://3000-{box}.sandboxes.localhost:7780/a?b=1&amp;runtools-link="
            in page.text
        )
        assert list(browser.cookies) == [sent.SESSION_COOKIE]

    async def test_another_orgs_and_nobodys_are_answered_alike(
        self, any_world: World, box: str
    ) -> None:
        stranger = await any_world.stranger()
        org = (await stranger.get("/v1/me")).json()["data"]["orgId"]
        await stranger.aclose()
        member = await any_world.person("member", org=org)
        await member.http.aclose()
        browser = self.browser(any_world, member.secret)
        nobodys = "sandbox-zzzzzzzzzzzz"
        answers = [await browser.get(self.path(one)) for one in (box, nobodys)]
        assert [one.status_code for one in answers] == [404, 404]
        assert answers[0].text.replace(box, "") == answers[1].text.replace(nobodys, "")

    async def test_no_other_address_is_gone_to(self, any_world: World, box: str) -> None:
        member = await any_world.person("member")
        await member.http.aclose()
        browser = self.browser(any_world, member.secret)
        for to in (
            "http://evil.example.org/",
            f"http://3000-{box}.sandboxes.localhost.evil.org/",
            f"http://evil@3000-{box}.sandboxes.localhost:7780/",
            "//evil.example.org",
            "javascript:alert(1)",
            f"http://22-{box}.sandboxes.localhost:7780/",
            "http://[",
            "",
        ):
            answer = await browser.get(f"/open?to={quote(to, safe='')}")
            assert answer.status_code == 404, to
            assert "location" not in answer.headers
