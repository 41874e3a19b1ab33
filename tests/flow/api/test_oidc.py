"""Signing in by an OpenID Connect provider: a real one, on a socket of its own."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest
import pytest_asyncio
from sqlalchemy import func, select
from tests.flow.api.test_pages import PASSWORD, Browser, invitation, signed_in

from runtools.platform.api.identities import service, store
from runtools.platform.api.identities.provider import Claims
from runtools.platform.api.platform import Platform
from runtools.platform.kit.db import Database
from runtools.testing import api_world
from runtools.testing.api_world import World

PEOPLE = (
    {"sub": "bob", "email": "Bob@example.org", "email_verified": True, "name": "Bob"},
    {"sub": "liar", "email": "bob@example.org", "email_verified": False},
    {"sub": "ann", "email": "ann@example.org", "email_verified": True},
)


@pytest.fixture(scope="session")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    claims = [word for one in PEOPLE for word in ("--user-claims", json.dumps(one))]
    argv = [sys.executable, "-m", "oidc_provider_mock", "-p", str(port), "-n", "true", *claims]
    log = tmp_path_factory.mktemp("oidc") / "log"
    with log.open("wb") as out, subprocess.Popen(argv, stdout=out, stderr=out) as server:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 60
        while True:
            try:
                found = httpx.get(f"{url}/.well-known/openid-configuration", trust_env=False)
                break
            except httpx.TransportError:
                assert server.poll() is None, log.read_text()
                assert time.monotonic() < deadline
                time.sleep(0.05)
        yield str(found.json()["issuer"])
        server.terminate()
        server.wait(20)


@pytest_asyncio.fixture
async def house(any_url: str, issuer: str, tmp_path: Path) -> AsyncIterator[World]:
    said = {"oidc_issuer": issuer, "oidc_client_id": "runtools", "oidc_client_secret": "s"}
    async with api_world.world(Database(any_url), tmp_path, **said) as made:
        yield made


async def leave(browser: Browser, to: str = "") -> str:
    """Where the platform sends the browser."""
    path = f"/signin/oidc?{urlencode({'next': to})}"
    answer = await browser.ask("GET", path, headers={"Sec-Fetch-Site": "same-origin"})
    assert answer.status_code == 303, answer.text
    return str(answer.headers["location"])


async def vouched(address: str, sub: str) -> str:
    """Where the provider sends the browser back to, as a path."""
    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.post(address, data={"sub": sub})
    parts = urlsplit(answer.headers["location"])
    return f"{parts.path}?{parts.query}"


async def through(browser: Browser, sub: str, to: str = "") -> httpx.Response:
    return await browser.get(await vouched(await leave(browser, to), sub))


class TestInvitation:
    async def test_somebody_new_comes_in_by_an_invitation_to_the_verified_address(
        self, house: World
    ) -> None:
        browser = Browser(house.url)
        await browser.post("/invite", code=await invitation(house))
        assert "single sign-on" in (await browser.get("/invite")).text
        assert (await through(browser, "bob", "/invite")).status_code == 303
        me = (await browser.get("/v1/me")).json()["data"]
        assert me["user"]["email"] == "bob@example.org"
        assert me["orgId"] == house.org
        again = Browser(house.url)
        assert (await through(again, "bob")).headers["location"] == "/account"
        assert (await again.get("/v1/me")).json()["data"]["user"]["id"] == me["user"]["id"]
        (line, *_) = (await house.http.get("/v1/audit?action=pages.sign_in_by_provider")).json()[
            "data"
        ]
        assert line["actor"] == me["user"]["id"]

    async def test_not_by_one_to_another_or_an_unverified_address(self, house: World) -> None:
        code = await invitation(house)
        for sub in ("ann", "liar"):
            browser = Browser(house.url)
            await browser.post("/invite", code=code)
            refused = await through(browser, sub, "/invite")
            assert refused.status_code == 403
            assert (await browser.get("/v1/me")).status_code == 401

    async def test_without_one_nobody_comes_in(self, house: World) -> None:
        browser = Browser(house.url)
        refused = await through(browser, "bob")
        assert refused.status_code == 403
        assert "No account is linked" in refused.text


class TestLinking:
    async def test_the_same_address_links_nothing(self, house: World) -> None:
        await house.person(None, email="bob@example.org", password=PASSWORD)
        assert (await through(Browser(house.url), "bob")).status_code == 403
        browser = Browser(house.url)
        await browser.post("/invite", code=await invitation(house))
        refused = await through(browser, "bob", "/invite")
        assert refused.status_code == 409
        assert (await browser.get("/v1/me")).status_code == 401

    async def test_who_is_signed_in_links_and_signs_in_with_it_from_then_on(
        self, house: World
    ) -> None:
        browser = await signed_in(house)
        assert "Linked" in (await through(browser, "bob")).text
        other = Browser(house.url)
        await through(other, "bob")
        me = (await other.get("/v1/me")).json()["data"]
        assert me["user"]["email"] == "ann@example.org"
        thief = await signed_in(house, email="eve@example.org")
        assert (await through(thief, "bob")).status_code == 409

    async def test_who_is_in_no_org_is_not_told_to_that_of_who_was_signed_in(
        self, house: World
    ) -> None:
        bob = await signed_in(house, role=None, email="bob@example.org")
        assert "Linked" in (await through(bob, "bob")).text
        me = (await bob.get("/v1/me")).json()["data"]["user"]["id"]
        await house.person(password=PASSWORD)
        browser = Browser(house.url)
        address = await leave(browser)  # before she signs in, in another tab
        await browser.post("/signin", email="ann@example.org", password=PASSWORD)
        answer = await browser.get(await vouched(address, "bob"))
        assert answer.status_code == 303
        asked = "/v1/audit?action=pages.sign_in_by_provider"
        assert (await house.http.get(asked)).json()["data"] == []
        (line, *_) = (await house.http.get(f"{asked}&platform=true")).json()["data"]
        assert (line["actor"], line["status"]) == (me, 303)

    async def test_one_that_is_unlinked_meanwhile_lets_nobody_in(
        self, house: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It was looked up before, and its session is opened after."""
        browser = await signed_in(house)
        await through(browser, "bob")
        looked_up = service.user_of

        async def late(platform: Platform, claims: Claims) -> str:
            found = await looked_up(platform, claims)
            await platform.db.write(store.unlink_all, found)
            return found

        monkeypatch.setattr(service, "user_of", late)
        other = Browser(house.url)
        assert (await through(other, "bob")).status_code == 401
        assert (await other.get("/v1/me")).status_code == 401


class TestWhatIsForged:
    async def test_a_page_of_somebody_else_begins_nothing(self, house: World) -> None:
        browser = await signed_in(house)
        for site in ("cross-site", "same-site", "none", None):
            headers = {} if site is None else {"Sec-Fetch-Site": site}
            answer = await browser.ask("GET", "/signin/oidc", headers=headers)
            assert answer.headers["location"] == "/signin?next=/account"
            assert "__Host-runtools-oidc" not in browser.cookies

    async def test_state_nonce_code_and_browser_are_checked(self, house: World) -> None:
        await signed_in(house)
        browser = await signed_in(house, email="bob2@example.org")
        await through(browser, "bob")
        mine = Browser(house.url)
        back = await vouched(await leave(mine), "bob")
        query = {name: values[0] for name, values in parse_qs(urlsplit(back).query).items()}
        path = urlsplit(back).path

        async def comes(by: Browser, **changed: str) -> int:
            return (await by.get(f"{path}?{urlencode(query | changed)}")).status_code

        stranger = Browser(house.url)
        assert await comes(mine, state="x" * 43) == 401
        mine = Browser(house.url)
        back = await vouched(await leave(mine), "bob")
        query = {name: values[0] for name, values in parse_qs(urlsplit(back).query).items()}
        assert await comes(stranger) == 401  # another browser; the state is used up by it
        assert await comes(mine) == 401
        mine = Browser(house.url)
        back = await vouched(await leave(mine), "bob")
        query = {name: values[0] for name, values in parse_qs(urlsplit(back).query).items()}
        kept = dict(mine.cookies)
        assert await comes(mine) == 303
        replayed = Browser(house.url, cookies=kept)
        assert await comes(replayed) == 401
        mine = Browser(house.url)
        back = await vouched(await leave(mine), "bob")
        query = {name: values[0] for name, values in parse_qs(urlsplit(back).query).items()}
        assert await comes(mine, code="x" * 43) == 401
        assert await comes(Browser(house.url), code="") == 401

    async def test_another_nonce_is_refused(self, house: World) -> None:
        browser = Browser(house.url)
        address = urlsplit(await leave(browser))
        query = {key: values[0] for key, values in parse_qs(address.query).items()}
        assert query["code_challenge_method"] == "S256"
        assert len(query["code_challenge"]) == 43
        forged = address._replace(query=urlencode(query | {"nonce": "n" * 43})).geturl()
        refused = await browser.get(await vouched(forged, "bob"))
        assert refused.status_code == 401
        assert "does not hold" in refused.text

    @pytest.mark.parametrize(
        "wrong",
        [
            {"iss": "https://evil.example"},
            {"aud": "another"},
            {"aud": ["runtools", "another"]},
            {"aud": ["runtools", "another"], "azp": "another"},
            {"exp": 1},
            {"exp": None},
            {"nonce": "another"},
            {"nonce": None},
            {"sub": ""},
            {"sub": 7},
            {"sub": "x" * 256},
        ],
    )
    async def test_a_token_that_does_not_hold_is_refused(self, wrong: dict[str, Any]) -> None:
        from runtools.errors import Unauthenticated
        from runtools.platform.api.identities.provider import Provider
        from runtools.platform.kit.clock import SystemClock
        from runtools.platform.kit.config import Settings

        settings = Settings(oidc_issuer="https://id.example", oidc_client_id="runtools")
        provider = Provider(settings, SystemClock())
        good = {"iss": "https://id.example", "aud": "runtools", "exp": time.time() + 60}
        good |= {"nonce": "n", "sub": "bob", "email": "B@x.example", "email_verified": "true"}
        assert provider._checked(good, "n").email is None  # verified is said by a true alone
        with pytest.raises(Unauthenticated):
            provider._checked(good | wrong, "n")


async def test_who_comes_back_from_nowhere_fills_no_log(house: World) -> None:
    path = "/v1/audit?action=pages.sign_in_by_provider"

    async def lines() -> int:
        found = await house.http.get(f"{path}&platform=true")
        return len(found.json()["data"])

    browser = Browser(house.url)
    for query in ("", "?state=x", "?state=x&code=y"):
        assert (await browser.get(f"/signin/oidc/callback{query}")).status_code == 401
    assert await lines() == 0
    assert (await through(browser, "bob")).status_code == 403
    assert await lines() == 1


async def test_strangers_have_no_more_kept_than_others_are_asked(
    any_url: str, issuer: str, tmp_path: Path
) -> None:
    """Each sign-in that is begun is a row for ten minutes: they are counted by their address."""
    said = {"oidc_issuer": issuer, "oidc_client_id": "runtools", "oidc_client_secret": "s"}
    db = Database(any_url)
    async with api_world.world(db, tmp_path, rate_limit_failed=3, **said) as world:
        headers = {"Sec-Fetch-Site": "same-origin"}
        browser = Browser(world.url)
        codes = [
            (await browser.ask("GET", "/signin/oidc", headers=headers)).status_code
            for _ in range(5)
        ]
        assert codes == [303, 303, 303, 429, 429]
        kept = await db.read(
            lambda conn: conn.scalar(select(func.count()).select_from(store.flows))
        )
        assert kept == 3


async def test_a_provider_that_is_away_is_said_so(any_url: str, tmp_path: Path) -> None:
    said = {"oidc_issuer": "http://127.0.0.1:9", "oidc_client_id": "runtools"}
    async with api_world.world(Database(any_url), tmp_path, **said) as world:
        headers = {"Sec-Fetch-Site": "same-origin"}
        answer = await Browser(world.url).ask("GET", "/signin/oidc", headers=headers)
        assert answer.status_code == 503
        assert "does not answer" in answer.text
        await signed_in(world)  # passwords go on


async def test_without_one_there_is_none(world: World) -> None:
    browser = Browser(world.url)
    assert "single sign-on" not in (await browser.get("/signin")).text
    headers = {"Sec-Fetch-Site": "same-origin"}
    assert (await browser.ask("GET", "/signin/oidc", headers=headers)).status_code == 404
