"""The pages: sessions of browsers, invitations and logins of command lines, as a browser asks for them."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from runtools.platform.api.app import PAGES
from runtools.testing.api_world import World

PASSWORD = "a password of Ann's"


@dataclass
class Browser:
    """A browser on the machine itself: it keeps cookies for loopback, and says its origin."""

    url: str
    origin: str | None = ""
    cookies: dict[str, str] = field(default_factory=dict)

    async def get(self, path: str) -> httpx.Response:
        return await self.ask("GET", path)

    async def post(self, path: str, **form: str) -> httpx.Response:
        return await self.ask("POST", path, content=urlencode(form))

    async def ask(self, method: str, path: str, **sent: Any) -> httpx.Response:
        headers = self.headers | sent.pop("headers", {})
        if method == "GET":
            headers.pop("Origin", None)
        async with httpx.AsyncClient(base_url=self.url, trust_env=False) as http:
            answer = await http.request(method, path, headers=headers, **sent)
        for line in answer.headers.get_list("set-cookie"):
            self._keep(line)
        return answer

    @property
    def headers(self) -> dict[str, str]:
        headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())}
        if self.origin is not None:
            headers["Origin"] = self.origin or self.url
        return {name: value for name, value in headers.items() if value}

    def _keep(self, line: str) -> None:
        words = [word.strip() for word in line.split(";")]
        name, _, value = words[0].partition("=")
        said = {word.lower() for word in words[1:]}
        assert name.startswith("__Host-")
        assert {"secure", "httponly", "path=/", "samesite=lax"} <= said
        assert not any(word.startswith("domain") for word in said)
        if "max-age=0" in said:
            self.cookies.pop(name, None)
        else:
            self.cookies[name] = value


async def signed_in(world: World, **person: Any) -> Browser:
    await world.person(password=PASSWORD, **person)
    browser = Browser(world.url)
    email = person.get("email", "ann@example.org")
    answer = await browser.post("/signin", email=email, password=PASSWORD)
    assert (answer.status_code, answer.headers["location"]) == (303, "/account")
    return browser


async def invitation(world: World, **body: Any) -> str:
    body = {"email": "bob@example.org"} | body
    answer = await world.http.post("/v1/invitations", json=body)
    return str(answer.json()["data"]["link"]).partition("#")[2]


class TestEveryPage:
    async def test_nothing_foreign_is_let_in(self, world: World) -> None:
        browser = await signed_in(world)
        paths = {"/signin", "/account", "/invite", "/login", "/reset"}
        assert paths <= {getattr(route, "path", "") for one in PAGES for route in one.routes}
        for path in paths:
            headers = (await browser.get(path)).headers
            policy = headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert headers["cache-control"] == "no-store"
            assert headers["referrer-policy"] == "same-origin"
            assert headers["x-frame-options"] == "DENY"

    async def test_no_script_and_no_style_stands_in_a_page(self, world: World) -> None:
        for path in ("/signin", "/invite", "/reset"):
            text = (await Browser(world.url).get(path)).text
            assert "<style" not in text
            assert " style=" not in text
            assert "onclick" not in text
            assert text.count("<script") == text.count(
                '<script src="/pages/code.js" defer></script>'
            )

    async def test_what_people_are_called_is_text(self, world: World) -> None:
        name = "<b>Bold</b> & 'co'"
        await world.http.patch("/v1/org", json={"name": name})
        browser = await signed_in(world)
        text = (await browser.get("/account")).text
        assert "<b>" not in text
        assert "&lt;b&gt;Bold&lt;/b&gt; &amp; &#39;co&#39;" in text

    async def test_a_form_of_somebody_else_is_refused(self, world: World) -> None:
        foreign = (None, "null", "https://evil.example", "http://localhost:1", "http://127.0.0.1")
        for path in ("/signin", "/signout", "/invite", "/invite/join", "/login", "/login/answer"):
            for origin in foreign:
                browser = Browser(world.url, origin=origin)
                answer = await browser.post(path, email="a@b.example", password="x", code="x")
                assert answer.status_code == 403, (path, origin)
                assert browser.cookies == {}

    async def test_a_broken_form_is_refused(self, world: World) -> None:
        for body in (b"\xff", b"a=%ff", b"&".join([b"a=b"] * 50)):
            answer = await Browser(world.url).ask("POST", "/signin", content=body)
            assert answer.status_code == 400


class TestSignIn:
    async def test_the_session_is_kept_as_a_digest_and_ends_with_signing_out(
        self, any_world: World
    ) -> None:
        browser = await signed_in(any_world)
        secret = browser.cookies["__Host-runtools"]
        assert (await browser.get("/account")).status_code == 200
        assert (await browser.get("/v1/me")).json()["data"]["kind"] == "session"
        kept = await any_world.platform.db.read(
            lambda conn: conn.exec_driver_sql("SELECT digest FROM sessions").scalars().all()
        )
        assert hashlib.sha256(secret.encode()).hexdigest() in kept
        assert secret not in kept
        await browser.post("/signout")
        assert browser.cookies == {}
        browser.cookies = {"__Host-runtools": secret}
        assert (await browser.get("/v1/me")).status_code == 401
        assert (await browser.get("/account")).status_code == 303

    async def test_who_signs_in_gets_a_fresh_session_and_the_one_before_ends(
        self, world: World
    ) -> None:
        browser = await signed_in(world)
        before = browser.cookies["__Host-runtools"]
        await browser.post("/signin", email="ann@example.org", password=PASSWORD)
        assert browser.cookies["__Host-runtools"] != before
        assert (
            await Browser(world.url, cookies={"__Host-runtools": before}).get("/v1/me")
        ).status_code == 401

    async def test_it_goes_on_to_pages_of_ours_alone(self, world: World) -> None:
        await world.person(password=PASSWORD)
        for wanted in ("https://evil.example", "//evil.example", "/v1/me", "/account/../x", ""):
            form = {"email": "ann@example.org", "password": PASSWORD, "next": wanted}
            answer = await Browser(world.url).post("/signin", **form)
            assert answer.headers["location"] == "/account"

    async def test_the_audit_log_tells_who_came_in_and_that_somebody_did_not(
        self, world: World
    ) -> None:
        await signed_in(world)
        await Browser(world.url).post("/signin", email="ann@example.org", password="no")
        (came,) = (await world.http.get("/v1/audit?action=pages.sign_in")).json()["data"]
        assert came["actor"].startswith("usr_")
        lines = (await world.http.get("/v1/audit?platform=true")).json()["data"]
        (failed,) = [line for line in lines if line["action"] == "pages.sign_in"]
        assert (failed["actor"], failed["status"], failed["error"]) == ("-", 401, "unauthenticated")
        async with await world.stranger() as other:
            assert (await other.get("/v1/audit?platform=true")).status_code == 403

    async def test_whether_there_is_an_account_is_told_by_nothing(self, any_world: World) -> None:
        await any_world.person(password=PASSWORD)
        browser = Browser(any_world.url)
        known = await browser.post("/signin", email="ann@example.org", password="wrong")
        unknown = await browser.post("/signin", email="eve@example.org", password="wrong")
        assert known.status_code == unknown.status_code == 401
        assert known.text.replace("ann@", "eve@") == unknown.text

        async def until_slowed(email: str) -> int:
            for tried in range(10):
                answer = await browser.post("/signin", email=email, password="wrong")
                if answer.status_code == 429:
                    assert "Too many attempts" in answer.text
                    return tried
            return -1

        assert await until_slowed("ann@example.org") == await until_slowed("eve@example.org") == 4

    async def test_a_right_password_while_guessing_is_slowed_down_waits_too(
        self, world: World
    ) -> None:
        await world.person(password=PASSWORD)
        browser = Browser(world.url)
        for _ in range(6):
            await browser.post("/signin", email="ann@example.org", password="wrong")
        answer = await browser.post("/signin", email="ann@example.org", password=PASSWORD)
        assert answer.status_code == 429

    async def test_over_plain_http_from_elsewhere_it_says_why_it_cannot(self, world: World) -> None:
        answer = await Browser(world.url).ask("GET", "/signin", headers={"Host": "rt.example:7700"})
        assert "no session over plain HTTP" in answer.text
        assert "<form" not in answer.text


class TestCookie:
    async def test_what_changes_something_needs_our_origin(self, world: World) -> None:
        browser = await signed_in(world)
        assert (await browser.get("/v1/sandboxes")).status_code == 200
        for origin in (None, "null", "https://evil.example", "http://localhost:1"):
            browser.origin = origin
            answer = await browser.ask("POST", "/v1/sandboxes", json={})
            assert answer.status_code == 403
            assert "page of the platform" in answer.json()["error"]["message"]
        assert (await browser.get("/v1/sandboxes")).json()["data"] == []
        browser.origin = ""
        assert (await browser.ask("POST", "/v1/sandboxes", json={})).status_code == 201

    async def test_no_key_is_taken_from_a_cookie(self, world: World) -> None:
        browser = Browser(world.url, cookies={"__Host-runtools": world.key})
        assert (await browser.get("/v1/me")).status_code == 401

    async def test_those_of_other_programs_hide_ours_from_nobody(self, world: World) -> None:
        browser = await signed_in(world)
        ours = browser.headers["Cookie"]
        headers = {"Cookie": f'other={{"a": [1, "x;y"]}}; {ours}; last="'}
        assert (await browser.ask("GET", "/v1/me", headers=headers)).status_code == 200

    async def test_a_broken_one_is_none(self, world: World) -> None:
        async with httpx.AsyncClient(base_url=world.url, trust_env=False) as http:
            for cookie in ("__Host-runtools=", "__Host-runtools=x", "=;;=", 'a="', "\xff"):
                headers = [("Cookie", cookie.encode("latin-1"))]
                assert (await http.get("/v1/me", headers=headers)).status_code == 401
                assert (await http.get("/signin", headers=headers)).status_code == 200

    async def test_a_terminal_opens_to_a_page_of_ours_alone(self, world: World) -> None:
        browser = await signed_in(world)
        box = (await browser.ask("POST", "/v1/sandboxes", json={})).json()["data"]["id"]
        path = f"/v1/sandboxes/{box}/processes"
        body = {"command": "cat", "terminal": {"rows": 24, "columns": 80}}
        made = await browser.ask("POST", path, json=body)
        url = f"{world.url.replace('http', 'ws')}{path}/{made.json()['data']['id']}/terminal"
        async with connect(url, additional_headers=browser.headers, proxy=None) as socket:
            assert '"start"' in str(await socket.recv())
        for origin in ("https://evil.example", "http://localhost:1", "null"):
            browser.origin = origin
            with pytest.raises(InvalidStatus) as refused:
                await connect(url, additional_headers=browser.headers, proxy=None)
            assert refused.value.response.status_code == 403


class TestInvitation:
    async def test_somebody_new_makes_an_account(self, any_world: World) -> None:
        code, browser = await invitation(any_world, role="admin"), Browser(any_world.url)
        assert (await browser.post("/invite", code=code)).headers["location"] == "/invite"
        page = (await browser.get("/invite")).text
        assert "Join default" in page
        assert "bob@example.org" in page
        assert code not in page
        short = await browser.post("/invite/join", name="Bob", password="short")
        assert short.status_code == 400
        assert "at least 12 characters" in short.text
        assert 'value="Bob"' in short.text
        done = await browser.post("/invite/join", name="Bob", password=PASSWORD)
        assert done.headers["location"] == "/account"
        me = (await browser.get("/v1/me")).json()["data"]
        assert (me["user"]["email"], me["role"]) == ("bob@example.org", "admin")
        assert "__Host-runtools-invite" not in browser.cookies
        again = await Browser(any_world.url).post("/invite", code=code)
        assert again.status_code == 404
        other = Browser(any_world.url)
        await other.post("/signin", email="Bob@Example.org", password=PASSWORD)
        assert (await other.get("/v1/me")).status_code == 200

    async def test_somebody_with_an_account_accepts(self, world: World) -> None:
        browser = await signed_in(world, email="bob@example.org", role=None)
        await browser.post("/invite", code=f"http://x/invite#{await invitation(world)}")
        assert "Join as bob" in (await browser.get("/invite")).text
        assert (await browser.post("/invite/accept")).headers["location"] == "/account"
        assert (await browser.get("/v1/me")).json()["data"]["orgId"] == world.org

    async def test_an_account_that_is_there_is_not_taken_over(self, any_world: World) -> None:
        world = any_world
        await world.person(None, email="bob@example.org", password=PASSWORD)
        browser = Browser(world.url)
        await browser.post("/invite", code=await invitation(world))
        answer = await browser.post("/invite/join", name="Eve", password="a password of Eve's")
        assert answer.status_code == 409
        assert "sign in with it first" in answer.text
        await browser.post("/signin", email="bob@example.org", password=PASSWORD, next="/invite")
        assert (await browser.post("/invite/accept")).headers["location"] == "/account"


class TestCommandLine:
    async def begin(self, world: World, verifier: str = "v" * 43) -> dict[str, Any]:
        challenge = hashlib.sha256(verifier.encode()).hexdigest()
        body = {"challenge": challenge, "machine": "laptop"}
        async with httpx.AsyncClient(base_url=world.url, trust_env=False) as http:
            answer = await http.post("/v1/logins", json=body)
        assert answer.status_code == 201, answer.text
        data: dict[str, Any] = answer.json()["data"]
        return data

    async def finish(self, world: World, login: str, verifier: str = "v" * 43) -> httpx.Response:
        async with httpx.AsyncClient(base_url=world.url, trust_env=False) as http:
            return await http.post("/v1/logins/finish", json={"id": login, "verifier": verifier})

    async def test_a_person_lets_it_in_once(self, any_world: World) -> None:
        login, browser = await self.begin(any_world), await signed_in(any_world)
        waiting = (await self.finish(any_world, login["id"])).json()["data"]
        assert waiting == {"state": "waiting", "token": None}
        page = (await browser.post("/login", code=login["code"].lower())).text
        assert "laptop" in page
        assert login["code"] in page
        done = await browser.post("/login/answer", code=login["code"], answer="yes")
        assert "Your command line is in" in done.text
        assert (await self.finish(any_world, login["id"], "w" * 43)).status_code == 401
        token = (await self.finish(any_world, login["id"])).json()["data"]["token"]
        headers = {"Authorization": f"Bearer {token}"}
        me = (await any_world.http.get("/v1/me", headers=headers)).json()["data"]
        assert me["user"]["email"] == "ann@example.org"
        shown = await any_world.http.get("/v1/sessions", headers=headers)
        assert {(one["place"], one["label"]) for one in shown.json()["data"]} >= {("cli", "laptop")}
        assert (await browser.post("/login", code=login["code"])).status_code == 404

    async def test_an_answer_that_was_lost_is_given_again(self, any_world: World) -> None:
        login, browser = await self.begin(any_world), await signed_in(any_world)
        await browser.post("/login/answer", code=login["code"], answer="yes")
        answers = await asyncio.gather(*(self.finish(any_world, login["id"]) for _ in range(5)))
        told = {answer.json()["data"]["token"] for answer in answers}
        again = (await self.finish(any_world, login["id"])).json()["data"]["token"]
        assert told == {again}
        headers = {"Authorization": f"Bearer {again}"}
        shown = (await any_world.http.get("/v1/sessions", headers=headers)).json()["data"]
        assert [one["label"] for one in shown].count("laptop") == 1
        lines = (await any_world.http.get("/v1/audit?action=logins.finish")).json()["data"]
        assert len(lines) == 1
        assert (await self.finish(any_world, login["id"], "w" * 43)).status_code == 401
        # Who has ended the session is not let in by its login again.
        assert (await any_world.http.delete("/v1/sessions/current", headers=headers)).is_success
        assert (await self.finish(any_world, login["id"])).status_code == 401

    async def test_refused_it_stays_out(self, world: World) -> None:
        login, browser = await self.begin(world), await signed_in(world)
        await browser.post("/login/answer", code=login["code"], answer="no")
        assert (await self.finish(world, login["id"])).status_code == 401

    async def test_nobody_who_is_not_signed_in_lets_one_in(self, world: World) -> None:
        login, browser = await self.begin(world), Browser(world.url)
        for path in ("/login", "/login/answer"):
            answer = await browser.post(path, code=login["code"], answer="yes")
            assert answer.headers["location"] == "/signin?next=/login"
        assert (await self.finish(world, login["id"])).json()["data"]["state"] == "waiting"

    async def test_guessing_codes_is_slowed_down(self, world: World) -> None:
        browser = await signed_in(world)
        seen = [(await browser.post("/login", code="BCDF-GHJK")).status_code for _ in range(7)]
        assert seen[:5] == [404] * 5
        assert 429 in seen[5:]

    async def test_asking_too_often_is_slowed_down(self, world: World) -> None:
        for _ in range(20):
            await self.begin(world)
        body = {"challenge": "0" * 64, "machine": "x"}
        seen = [(await world.http.post("/v1/logins", json=body)).status_code for _ in range(3)]
        assert 429 in seen

    async def test_bad_input_is_refused(self, world: World) -> None:
        good = {"challenge": "0" * 64, "machine": "m"}
        wrong: tuple[dict[str, Any], ...] = (
            {"challenge": "x"},
            {"challenge": None},
            {"machine": None},
            {"machine": "a\nb"},
            {"machine": "x" * 101},
            {"machine": 7},
            {"colour": "red"},
        )
        for one in wrong:
            answer = await world.http.post("/v1/logins", json=good | one)
            assert answer.status_code == 400, one
