"""Nothing is changed without a line of the audit log, wherever the api is killed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.flow.api.conftest import both_of
from tests.flow.api.test_pages import PASSWORD, Browser, signed_in

from runtools.platform.api.audit import edge, store
from runtools.platform.api.audit.store import Line
from runtools.platform.api.sandboxes import acts
from runtools.platform.kit.db import Transaction
from runtools.testing import postgres
from runtools.testing.api_world import World
from runtools.testing.made_once import bare_app
from runtools.testing.tenancy import rows
from runtools.testing.tenancy.operations import operations
from runtools.testing.tenancy.outside import NOT_OF_AN_ORG, OF_A_PERSON
from runtools.testing.tenancy.walk import Walk

# What goes on inside sandboxes is written down beside its answer (`test_secrets`).
INSIDE = re.compile(r"/v1/sandboxes/[^/]+/(exec|files|processes|desktop)(/|$)")
SILENT = {
    "POST /v1/deploys/plan": "it changes nothing",
    "POST /v1/tools/{ref}/execute": "nobody runs it yet",
}

NAMELESS = {"POST /v1/prune": "it is done to the whole machine"}


@contextmanager
def _ends(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No answer is given, and no line is told of one: as after an end of the api at that point."""

    def dies(point: str) -> None:
        if point == "api.audit.unanswered":
            raise ConnectionError("killed here")

    with monkeypatch.context() as patch:
        patch.setattr(edge, "reach", dies)
        yield


@pytest.mark.parametrize("any_url", postgres.ENGINES[-1:], indirect=True)
async def test_every_change_has_its_line_though_it_was_never_answered(
    any_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = {*NOT_OF_AN_ORG, *OF_A_PERSON}
    asked = [
        one
        for one in operations(bare_app())
        if one.mutates and one.name not in free and not INSIDE.match(one.path)
    ]
    assert {one.name for one in asked} >= {*SILENT, *NAMELESS}
    # An answer that was begun and is not given has headers of what it was to be.
    async with both_of(any_url, tmp_path, checked=False) as both:
        faults = await Walk(*both).told(asked, lambda: _ends(monkeypatch), SILENT, NAMELESS)
    assert faults == [], "\n\n".join(faults)


async def test_the_kept_disk_of_an_ended_one_is_not_given_up_untold(
    any_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = any_world
    made = await world.create()
    await world.host.die(made["id"], "the VMM was killed")
    await world.becomes(made["id"], state="stopped")

    async def dies(*_: Any) -> None:
        raise ConnectionError("killed here")

    with _ends(monkeypatch), monkeypatch.context() as patch:
        patch.setattr(acts, "settle", dies)
        assert (await world.http.delete(f"/v1/sandboxes/{made['id']}")).status_code == 500
    latest = world.host.machines[made["id"]].latest
    assert latest is not None
    assert latest.ending is not None
    assert latest.ending.recoverable_until is None  # it is done
    line = await _line(world, "sandboxes.destroy")
    assert (line["resource"], line["status"]) == (made["id"], None)


async def test_a_line_is_begun_once_however_many_transactions_the_call_has(
    any_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await any_world.create()
    begun: list[str] = []
    begin = store.begin

    def counted(conn: Transaction, line: Line) -> None:
        begun.append(line.action)
        begin(conn, line)

    monkeypatch.setattr(store, "begin", counted)
    assert (await any_world.http.delete(f"/v1/sandboxes/{made['id']}")).status_code == 200
    assert begun == ["sandboxes.destroy"]
    assert (await _line(any_world, "sandboxes.destroy"))["status"] == 200


async def _line(world: World, action: str) -> dict[str, Any]:
    """The one line of an act: in the org's log, or among those of no org."""
    found = []
    for where in ("", "&platform=true"):
        answer = await world.http.get(f"/v1/audit?action={action}{where}")
        found += answer.json()["data"]
    (line,) = found
    assert isinstance(line, dict)
    return line


class TestPeople:
    """Who is let in by the request itself, and what a person does for himself."""

    async def test_who_comes_in_is_written_down_with_it(
        self, any_world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world = any_world
        body = {"email": "bob@example.org"}
        made = (await world.http.post("/v1/invitations", json=body)).json()["data"]
        bob, code = Browser(world.url), made["link"].partition("#")[2]
        await bob.post("/invite", code=code)
        with _ends(monkeypatch):
            said = {"name": "Bob", "password": PASSWORD}
            assert (await bob.post("/invite/join", **said)).status_code == 500
        (member,) = (await world.http.get("/v1/members")).json()["data"]
        line = await _line(world, "pages.join")
        assert (line["actor"], line["resource"], line["status"]) == (
            member["userId"],
            made["id"],
            303,
        )
        with _ends(monkeypatch):
            form = {"email": "bob@example.org", "password": PASSWORD}
            assert (await bob.post("/signin", **form)).status_code == 500
        line = await _line(world, "pages.sign_in")
        assert (line["actor"], line["status"]) == (member["userId"], 303)

    async def test_a_password_that_a_link_has_set(
        self, any_world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ann = await any_world.person(password=PASSWORD)
        made = await any_world.http.post(f"/v1/people/{ann.user_id}/reset")
        code = made.json()["data"]["link"].partition("#")[2]
        with _ends(monkeypatch):
            form = {"code": code, "password": "another one of hers"}
            assert (await Browser(any_world.url).post("/reset", **form)).status_code == 500
        async with ann.http as http:
            assert (await http.get("/v1/me")).status_code == 401  # it is set, and she is out
        line = await _line(any_world, "pages.reset_password")
        assert (line["resource"], line["status"]) == (ann.user_id, 200)

    async def test_a_command_line_that_fetches_its_session(
        self, any_world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        verifier = "v" * 43
        body = {"challenge": hashlib.sha256(verifier.encode()).hexdigest(), "machine": "laptop"}
        browser = await signed_in(any_world)
        async with httpx.AsyncClient(base_url=any_world.url, trust_env=False) as http:
            login = (await http.post("/v1/logins", json=body)).json()["data"]
            await browser.post("/login/answer", code=login["code"], answer="yes")
            fetch = {"id": login["id"], "verifier": verifier}
            with _ends(monkeypatch):
                assert (await http.post("/v1/logins/finish", json=fetch)).status_code == 500
            assert (await http.post("/v1/logins/finish", json=fetch)).status_code == 200
        line = await _line(any_world, "logins.finish")
        assert line["resource"].startswith("ses_")
        assert line["actor"].startswith("usr_")

    async def test_what_a_person_does(
        self, any_world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world = any_world
        ann = await world.person("admin", password=PASSWORD)
        await world.person("admin", email="eve@example.org")
        body = {"email": "ann@example.org"}
        async with await world.stranger() as other, ann.http as http:
            theirs = (await other.get("/v1/org")).json()["data"]["id"]
            link = (await other.post("/v1/invitations", json=body)).json()["data"]["link"]
            code = {"code": link.partition("#")[2]}
            one, _ = await world.platform.sessions.open(ann.user_id, "cli", "x", "-")
            change = {"current": PASSWORD, "new": "another one of hers"}
            asked: list[tuple[str, str, str, Any]] = [
                ("sessions.end", "DELETE", f"/v1/sessions/{one.id}", None),
                ("sessions.end_others", "DELETE", "/v1/sessions", None),
                ("sessions.change_password", "POST", "/v1/me/password", change),
                ("invitations.accept", "POST", "/v1/invitations/accept", code),
                ("orgs.switch", "POST", f"/v1/orgs/{world.org}/switch", None),
                ("orgs.leave", "POST", "/v1/org/leave", None),
                ("sessions.close_account", "POST", "/v1/me/close", {"password": change["new"]}),
            ]
            for action, method, path, body in asked:
                name = f"by-{action}"
                with _ends(monkeypatch):
                    answer = await http.request(
                        method, path, json=body, headers={"X-Request-Id": name}
                    )
                assert answer.status_code == 500, (action, answer.text)
                lines = await world.platform.db.read(rows.told, name)
                assert {line[1] for line in lines} == {action}, (action, lines)
                if action == "invitations.accept":
                    assert lines[0][0] == theirs
