"""Orgs, members, invitations, sessions: over REST."""

from __future__ import annotations

import asyncio
import itertools
import threading
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import httpx
import pytest

from runtools.errors import Unauthenticated, Unavailable
from runtools.platform.api import reconcile
from runtools.platform.api.invitations import store as invitations
from runtools.platform.api.logins import store as logins
from runtools.platform.api.orgs import store as orgs
from runtools.platform.api.signin import service as signin
from runtools.platform.api.users import store as users
from runtools.platform.core.ids import new_id
from runtools.platform.kit.clock import SystemClock
from runtools.platform.kit.crypto import digest
from runtools.platform.kit.db import Transaction
from runtools.testing.api_world import Signed, World, client
from runtools.testing.tenancy.records import public_key


async def invite(http: httpx.AsyncClient, email: str = "bob@example.org", **body: Any) -> str:
    """An invitation's code."""
    answer = await http.post("/v1/invitations", json={"email": email, **body})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["data"]["link"]).partition("#")[2]


async def test_an_invitation_that_another_process_makes_at_the_same_moment(
    any_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await invite(any_world.http)
    db = any_world.platform.db
    [made] = await db.read(invitations.page, any_world.org, None, 10)
    monkeypatch.setattr(invitations, "by_op", lambda *_: None)  # it is not committed yet
    other = replace(made, id=new_id("inv"), digest=digest("another"))
    with pytest.raises(Unavailable, match="under way"):
        await db.write(invitations.add, other)


async def test_an_org_that_another_process_makes_at_the_same_moment(any_world: World) -> None:
    """Both act under the op of one idempotency key: one org, and both are told of it."""
    db, now = any_world.platform.db, any_world.platform.clock.now()
    ids = [new_id("org") for _ in range(6)]
    made = await asyncio.gather(
        *(db.write(orgs.add_once, one, "twin", "opn_of_both", now) for one in ids)
    )
    assert len(set(made)) == 1
    assert made[0] in ids


async def accept(who: Signed, code: str) -> httpx.Response:
    return await who.http.post("/v1/invitations/accept", json={"code": code})


class TestOrgs:
    async def test_the_operator_makes_one_and_is_its_admin(self, any_world: World) -> None:
        root = await any_world.person("member", operator=True)
        async with root.http as http:
            made = (await http.post("/v1/orgs", json={"name": "Acme"})).json()["data"]
            assert (made["name"], made["role"], made["current"]) == ("Acme", "admin", False)
            assert (await http.get("/v1/org")).json()["data"]["id"] == any_world.org
            path = f"/v1/orgs/{made['id']}/switch"
            assert (await http.post(path)).json()["data"]["current"]
            me = (await http.get("/v1/me")).json()["data"]
            assert (me["orgId"], me["role"]) == (made["id"], "admin")
            assert (await http.get("/v1/sandboxes")).json()["data"] == []
            key = (await http.post("/v1/api-keys", json={"name": "k"})).json()["data"]
            assert key["projectId"] == me["defaultProjectId"] is not None
            names = [org["name"] for org in (await http.get("/v1/orgs")).json()["data"]]
            assert names == ["default", "Acme"]

    async def test_an_operator_of_no_org_makes_one_by_a_repeated_request(
        self, any_world: World
    ) -> None:
        root = await any_world.person(None, operator=True)
        body = {"name": "Acme", "adminEmail": "bob@example.org"}
        async with root.http as http:
            headers = {"Idempotency-Key": "one"}
            made = (await http.post("/v1/orgs", json=body, headers=headers)).json()["data"]
            again = (await http.post("/v1/orgs", json=body, headers=headers)).json()["data"]
            assert again["id"] == made["id"]
            assert (bool(made["invitation"]["link"]), again["invitation"]["link"]) == (True, None)
            other = await http.post("/v1/orgs", json=body, headers={"Idempotency-Key": "two"})
            assert other.json()["data"]["id"] != made["id"]

    async def test_the_operators_key_invites_the_first_admin(self, any_world: World) -> None:
        http = any_world.http
        assert (await http.post("/v1/orgs", json={"name": "Acme"})).status_code == 400
        body = {"name": "Acme", "adminEmail": "Bob@Example.org"}
        headers = {"Idempotency-Key": "one"}
        made = (await http.post("/v1/orgs", json=body, headers=headers)).json()["data"]
        again = (await http.post("/v1/orgs", json=body, headers=headers)).json()["data"]
        assert again["id"] == made["id"]
        assert again["invitation"]["id"] == made["invitation"]["id"]
        assert again["invitation"]["link"] is None
        bob = await any_world.person(None, email="bob@example.org")
        code = made["invitation"]["link"].partition("#")[2]
        joined = await accept(bob, code)
        assert joined.json()["data"] == {
            "id": made["id"],
            "name": "Acme",
            "role": "admin",
            "current": True,
            "createdAt": made["createdAt"],
        }
        await bob.http.aclose()

    async def test_nobody_else_makes_one(self, world: World) -> None:
        admin = await world.person("admin")
        async with admin.http as http, await world.stranger() as key:
            for who in (http, key):
                body = {"name": "Acme", "adminEmail": "a@b.example"}
                assert (await who.post("/v1/orgs", json=body)).status_code == 403

    async def test_one_where_the_person_is_not_is_not_there(self, world: World) -> None:
        ann = await world.person("admin")
        async with ann.http as http, await world.stranger() as other:
            theirs = (await other.get("/v1/org")).json()["data"]["id"]
            for org in (theirs, "org_nobody"):
                answer = await http.post(f"/v1/orgs/{org}/switch")
                assert answer.status_code == 404
            assert [org["id"] for org in (await http.get("/v1/orgs")).json()["data"]] == [world.org]

    async def test_rename(self, world: World) -> None:
        admin, ann = await world.person("admin"), await world.person("member", email="b@x.example")
        async with admin.http as http, ann.http as member:
            done = await http.patch("/v1/org", json={"name": "  New name "})
            assert done.json()["data"]["name"] == "New name"
            assert (await member.patch("/v1/org", json={"name": "x"})).status_code == 403
            assert (await member.get("/v1/org")).json()["data"]["name"] == "New name"

    async def test_bad_names_are_refused_by_field(self, world: World) -> None:
        wrong = (None, 7, "", " ", "a\nb", "\u0410cme", "x" * 64, ["a"])
        for name, place in itertools.product(wrong, ("POST /v1/orgs", "PATCH /v1/org")):
            method, path = place.split()
            answer = await world.http.request(method, path, json={"name": name})
            assert answer.status_code == 400
            assert answer.json()["error"]["details"]["fields"][0]["field"] == "name"

    async def test_a_key_is_no_person(self, world: World) -> None:
        for method, path in (
            ("POST", f"/v1/orgs/{world.org}/switch"),
            ("POST", "/v1/org/leave"),
            ("POST", "/v1/invitations/accept"),
            ("GET", "/v1/sessions"),
            ("DELETE", "/v1/sessions/current"),
            ("POST", "/v1/me/password"),
        ):
            answer = await world.http.request(method, path)
            assert answer.status_code == 403, path
            assert "people" in answer.json()["error"]["message"]


class TestMembers:
    async def test_the_last_admin_stays(self, any_world: World) -> None:
        admin = await any_world.person("admin")
        async with admin.http as http:
            path = f"/v1/members/{admin.user_id}"
            assert (await http.patch(path, json={"role": "member"})).status_code == 409
            assert (await http.delete(path)).status_code == 409
            assert (await http.post("/v1/org/leave")).status_code == 409
            assert (await any_world.http.delete(path)).status_code == 409

    async def test_two_admins_who_leave_at_once_do_not_both(self, any_world: World) -> None:
        one = await any_world.person("admin")
        two = await any_world.person("admin", email="two@example.org")
        async with one.http as first, two.http as second:
            answers = await asyncio.gather(
                first.post("/v1/org/leave"), second.post("/v1/org/leave")
            )
            assert sorted(answer.status_code for answer in answers) == [200, 409]

    async def test_roles_change_and_act_within_a_second(self, any_world: World) -> None:
        admin = await any_world.person("admin")
        bob = await any_world.person("member", email="bob@example.org")
        async with admin.http as http, bob.http as his:
            assert (await his.get("/v1/audit")).status_code == 403
            path = f"/v1/members/{bob.user_id}"
            assert (await his.patch(path, json={"role": "admin"})).status_code == 403
            done = await http.patch(path, json={"role": "admin"})
            assert done.json()["data"]["role"] == "admin"
            assert (await his.get("/v1/audit")).status_code == 200
            assert (await http.delete(path)).status_code == 200
            assert (await his.get("/v1/audit")).status_code == 403
            assert (await http.delete(path)).status_code == 404
            names = [one["email"] for one in (await http.get("/v1/members")).json()["data"]]
            assert names == ["ann@example.org"]

    async def test_who_leaves_has_gone(self, world: World) -> None:
        ann = await world.person("member")
        async with ann.http as http:
            assert (await http.post("/v1/org/leave")).status_code == 200
            assert (await http.get("/v1/sandboxes")).status_code == 403
            assert (await http.get("/v1/orgs")).json()["data"] == []

    @pytest.mark.parametrize("revoke", [True, False])
    async def test_the_keys_of_who_goes_end_where_that_is_said(
        self, any_world: World, revoke: bool
    ) -> None:
        ann = await any_world.person("member")
        body = {"name": "k", "scopes": ["sandbox:read", "api-key:write"]}
        asked: list[dict[str, Any]] = []
        places = ("", "", "/{id}/rotate")
        async with ann.http as http:
            headers: dict[str, str] = {}
            for place in places:
                path = f"/v1/api-keys{place.format(id=asked[-1]['id'] if asked else '')}"
                made = await (any_world.http if headers else http).post(
                    path, json=None if place else body, headers=headers
                )
                asked.append(made.json()["data"])
                headers = {"Authorization": f"Bearer {asked[-1]['key']}"}
        query = "?revokeKeys=true" if revoke else ""
        await any_world.http.delete(f"/v1/members/{ann.user_id}{query}")
        for key in (asked[0], asked[2]):
            headers = {"Authorization": f"Bearer {key['key']}"}
            answer = await any_world.http.get("/v1/sandboxes", headers=headers)
            assert answer.status_code == (401 if revoke else 200)
        assert (await any_world.http.get("/v1/sandboxes")).status_code == 200

    async def test_a_limited_key_raises_nobody_above_itself(self, world: World) -> None:
        ann = await world.person("member")
        admin = await world.person("admin", email="admin@example.org")
        body = {"name": "k", "scopes": ["org:*", "sandbox:*"]}
        key = (await world.http.post("/v1/api-keys", json=body)).json()["data"]["key"]
        headers = {"Authorization": f"Bearer {key}"}
        for method, path, asked in (
            ("PATCH", f"/v1/members/{ann.user_id}", {"role": "admin"}),
            ("DELETE", f"/v1/members/{admin.user_id}", None),
            ("POST", "/v1/invitations", {"email": "x@x.example", "role": "admin"}),
            ("POST", "/v1/invitations", {"email": "x@x.example", "operator": True}),
        ):
            answer = await world.http.request(method, path, json=asked, headers=headers)
            assert answer.status_code == 403, path

    async def test_another_orgs_members_are_not_there(self, world: World) -> None:
        ann = await world.person("member")
        async with await world.stranger() as other:
            path = f"/v1/members/{ann.user_id}"
            assert (await other.get("/v1/members")).json()["data"] == []
            assert (await other.patch(path, json={"role": "member"})).status_code == 404
            assert (await other.delete(path)).status_code == 404


class TestInvitations:
    async def test_a_link_lets_one_in_once(self, any_world: World) -> None:
        admin = await any_world.person("admin")
        bob = await any_world.person(None, email="bob@example.org")
        eve = await any_world.person(None, email="eve@example.org")
        code = await invite(admin.http)
        both = (bob, eve)
        answers = await asyncio.gather(*(accept(one, code) for one in both))
        codes = [answer.status_code for answer in answers]
        assert sorted(codes) == [200, 404]
        assert [(await accept(one, code)).status_code for one in both] == codes
        (shown,) = (await admin.http.get("/v1/invitations")).json()["data"]
        assert (shown["state"], shown["link"], shown["createdBy"]) == (
            "accepted",
            None,
            admin.user_id,
        )
        for one in (admin, bob, eve):
            await one.http.aclose()

    async def test_who_came_in_by_it_is_told_so_again(self, any_world: World) -> None:
        """The answer may have been lost; and nobody else, or after having left, is let in by it."""
        admin = await any_world.person("admin")
        bob = await any_world.person(None, email="bob@example.org")
        eve = await any_world.person("member", email="eve@example.org")
        async with admin.http, bob.http, eve.http:
            code = await invite(admin.http)
            first = await accept(bob, code)
            again = await accept(bob, code)
            assert again.json()["data"] == first.json()["data"]
            assert (await bob.http.get("/v1/me")).json()["data"]["orgId"] == any_world.org
            assert (await accept(eve, code)).status_code == 404
            assert (await bob.http.post("/v1/org/leave")).is_success
            assert (await accept(bob, code)).status_code == 404
            assert (await accept(bob, await invite(admin.http))).status_code == 200
            assert (await accept(bob, code)).status_code == 404

    async def test_the_code_lies_nowhere_in_the_clear(self, world: World) -> None:
        code = await invite(world.http)
        listed = await world.http.get("/v1/invitations")
        audit = await world.http.get("/v1/audit")
        for answer in (listed, audit):
            assert code not in answer.text

    async def test_over_revoked_unknown_and_of_a_member_already(self, world: World) -> None:
        bob = await world.person(None, email="bob@example.org")
        admin = await world.person("admin")
        async with bob.http, admin.http:
            assert (await accept(bob, "rt_invite_nobody")).status_code == 404
            revoked = await invite(world.http)
            (shown,) = (await world.http.get("/v1/invitations")).json()["data"]
            done = await world.http.delete(f"/v1/invitations/{shown['id']}")
            assert done.json()["data"]["state"] == "revoked"
            assert (await accept(bob, revoked)).status_code == 404
            assert (await accept(admin, await invite(world.http))).status_code == 409
            late = await invite(world.http, expiresIn="1h")
            clock = Later()
            clock.ahead = timedelta(hours=1, seconds=1)
            world.platform.clock = clock
            assert (await accept(bob, late)).status_code == 404

    async def test_one_of_who_may_not_invite_any_more_opens_nothing(self, any_world: World) -> None:
        await any_world.person("admin", email="other@example.org")
        admin = await any_world.person("admin")
        bob = await any_world.person(None, email="bob@example.org")
        async with admin.http, bob.http:
            code = await invite(admin.http, "ann2@example.org", role="admin")
            path = f"/v1/members/{admin.user_id}"
            await any_world.http.patch(path, json={"role": "member"})
            assert (await accept(bob, code)).status_code == 404
            await any_world.http.delete(path)
            assert (await accept(admin, code)).status_code == 404

    async def test_an_operator_who_was_removed_does_not_come_back_by_one(
        self, any_world: World
    ) -> None:
        await any_world.person("admin", email="other@example.org")
        root = await any_world.person("admin", operator=True)
        async with root.http as http:
            code = await invite(http, "root2@example.org", role="admin")
            await any_world.http.delete(f"/v1/members/{root.user_id}")
            assert (await accept(root, code)).status_code == 404
            body = {"name": "Acme", "adminEmail": "eve@example.org"}
            made = (await http.post("/v1/orgs", json=body)).json()["data"]
            eve = await any_world.person(None, email="eve@example.org")
            first = made["invitation"]["link"].partition("#")[2]
            assert (await accept(eve, first)).status_code == 200
            await eve.http.aclose()

    async def test_one_of_a_key_that_is_over_opens_nothing(self, any_world: World) -> None:
        bob = await any_world.person(None, email="bob@example.org")
        body = {"name": "k", "scopes": ["*"], "expiresIn": "1d"}
        key = (await any_world.http.post("/v1/api-keys", json=body)).json()["data"]["key"]
        asked = {"email": "bob@example.org"}
        headers = {"Authorization": f"Bearer {key}"}
        made = await any_world.http.post("/v1/invitations", json=asked, headers=headers)
        code = made.json()["data"]["link"].partition("#")[2]
        clock = Later()
        clock.ahead = timedelta(days=1, seconds=1)
        any_world.platform.clock = clock
        async with bob.http:
            assert (await accept(bob, code)).status_code == 404
            clock.ahead = timedelta()
            assert (await accept(bob, code)).status_code == 200

    async def test_who_is_read_waits_for_no_transaction(self, any_world: World) -> None:
        ann = await any_world.person("admin")
        found, go_on = threading.Event(), threading.Event()

        def hold(conn: Transaction) -> None:
            users.find(conn, ann.user_id)
            found.set()
            go_on.wait(90)

        async with ann.http as http:
            held = asyncio.ensure_future(any_world.platform.db.write(hold))
            try:
                await asyncio.to_thread(found.wait, 60)
                async with asyncio.timeout(60):
                    assert (await http.get("/v1/me")).status_code == 200
            finally:
                go_on.set()
                await held

    async def test_an_operator_is_made_by_an_operator_alone(self, world: World) -> None:
        admin, bob = await world.person("admin"), await world.person(None, email="b@x.example")
        async with admin.http, bob.http as his:
            body = {"email": "b@x.example", "operator": True}
            assert (await admin.http.post("/v1/invitations", json=body)).status_code == 403
            code = await invite(world.http, "b@x.example", operator=True)
            assert (await his.get("/v1/hosts")).status_code == 403
            assert (await accept(bob, code)).status_code == 200
            assert (await his.get("/v1/hosts")).status_code == 200
            assert (await his.get("/v1/me")).json()["data"]["role"] == "member"

    async def test_another_orgs_are_not_there(self, world: World) -> None:
        await invite(world.http)
        (shown,) = (await world.http.get("/v1/invitations")).json()["data"]
        async with await world.stranger() as other:
            assert (await other.get("/v1/invitations")).json()["data"] == []
            assert (await other.delete(f"/v1/invitations/{shown['id']}")).status_code == 404

    async def test_bad_input_names_its_field(self, world: World) -> None:
        wrong: tuple[tuple[str, object], ...] = (
            ("email", None),
            ("email", 7),
            ("email", "\u0430nn@example.org"),
            ("email", "a\nb@example.org"),
            ("email", "x" * 300 + "@example.org"),
            ("role", "owner"),
            ("role", None),
            ("expiresIn", "31d"),
            ("expiresIn", "0d"),
            ("operator", "perhaps"),
            ("colour", "red"),
        )
        for field, value in wrong:
            body = {"email": "a@b.example", field: value}
            answer = await world.http.post("/v1/invitations", json=body)
            assert answer.status_code == 400
            assert answer.json()["error"]["details"]["fields"][0]["field"] == field
        assert (await world.http.post("/v1/invitations", json={})).status_code == 400


class TestLines:
    """In which org's audit log a line is that concerns two."""

    async def test_who_joins_is_in_the_log_of_the_org_joined(self, any_world: World) -> None:
        async with await any_world.stranger() as other:
            bob = await any_world.person("member", email="bob@example.org")
            async with bob.http:
                assert (await accept(bob, await invite(other))).status_code == 200
            theirs = (await other.get("/v1/audit?action=invitations.accept")).json()["data"]
            assert [line["actor"] for line in theirs] == [bob.user_id]
            ours = await any_world.http.get("/v1/audit?action=invitations.accept")
            assert ours.json()["data"] == []

    async def test_limits_are_in_the_log_of_the_org_that_has_them(self, any_world: World) -> None:
        async with await any_world.stranger() as other:
            org = (await other.get("/v1/org")).json()["data"]["id"]
            path = f"/v1/orgs/{org}/limits"
            done = await any_world.http.patch(path, json={"sandboxes": 3})
            assert done.status_code == 200
            (line,) = (await other.get("/v1/audit?action=limits.change")).json()["data"]
            assert (line["resource"], line["status"]) == (org, 200)


class TestSessions:
    async def test_they_are_listed_and_ended(self, any_world: World) -> None:
        ann = await any_world.person()
        sessions = any_world.platform.sessions
        other, secret = await sessions.open(ann.user_id, "browser", "Firefox", "10.0.0.7")
        async with ann.http as http:
            shown = (await http.get("/v1/sessions")).json()["data"]
            assert {(one["id"], one["current"]) for one in shown} == {
                (ann.session_id, True),
                (other.id, False),
            }
            assert secret not in str(shown)
            headers = {"Authorization": f"Bearer {secret}"}
            assert (await http.get("/v1/me", headers=headers)).status_code == 200
            assert (await http.delete(f"/v1/sessions/{other.id}")).status_code == 200
            assert (await http.get("/v1/me", headers=headers)).status_code == 401
            assert (await http.delete(f"/v1/sessions/{other.id}")).status_code == 404
            assert (await http.delete("/v1/sessions/current")).status_code == 200
            assert (await http.get("/v1/me")).status_code == 401

    async def test_anothers_is_not_there(self, world: World) -> None:
        ann, bob = await world.person(), await world.person(email="bob@example.org")
        async with ann.http as http, bob.http as his:
            assert (await his.delete(f"/v1/sessions/{ann.session_id}")).status_code == 404
            assert (await his.delete("/v1/sessions")).json()["data"] == {"ended": 0}
            assert (await http.get("/v1/me")).status_code == 200

    async def test_another_password_ends_all_others(self, any_world: World) -> None:
        ann = await any_world.person(password="the present password")
        _, secret = await any_world.platform.sessions.open(ann.user_id, "cli", "x", "-")
        headers = {"Authorization": f"Bearer {secret}"}
        async with ann.http as http:
            assert (await http.get("/v1/me", headers=headers)).status_code == 200
            body = {"current": "the present password", "new": "the password after it"}
            done = await http.post("/v1/me/password", json=body)
            assert done.json()["data"] == {"ended": 1}
            assert (await http.get("/v1/me", headers=headers)).status_code == 401
            assert (await http.get("/v1/me")).status_code == 200
            for _ in range(5):
                assert (await http.post("/v1/me/password", json=body)).status_code == 403
            slowed = await http.post("/v1/me/password", json=body)
            assert slowed.status_code == 429
            assert int(slowed.headers["Retry-After"]) >= 1

    async def test_another_password_ends_what_was_let_in_and_not_fetched(
        self, any_world: World
    ) -> None:
        ann = await any_world.person(password="the present password")
        verifier = "v" * 43
        async with ann.http as http:
            body = {"challenge": digest(verifier), "machine": "elsewhere"}
            login = (await http.post("/v1/logins", json=body)).json()["data"]
            code, now = digest(login["code"].replace("-", "")), SystemClock().now()
            await any_world.platform.db.write(logins.approve, code, ann.user_id, None, now)
            body = {"current": "the present password", "new": "the password after it"}
            assert (await http.post("/v1/me/password", json=body)).status_code == 200
            fetch = {"id": login["id"], "verifier": verifier}
            assert (await http.post("/v1/logins/finish", json=fetch)).status_code == 401

    async def test_a_hash_made_anew_brings_back_no_old_password(
        self, any_world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ann = await any_world.person(password="the present password")
        passwords = any_world.platform.passwords
        hashed, changed = (
            passwords.hash,
            {"current": "the present password", "new": "the new one!!"},
        )

        async def slowly(password: str) -> str:
            made = await hashed(password)
            if password == changed["current"]:
                done = await ann.http.post("/v1/me/password", json=changed)
                assert done.status_code == 200
            return made

        monkeypatch.setattr(passwords, "hash", slowly)
        monkeypatch.setattr(passwords, "is_old", lambda kept: True)
        enter = partial(signin.by_password, any_world.platform, "ann@example.org", source="-")
        async with ann.http:
            await enter(password=changed["current"])
            with pytest.raises(Unauthenticated):
                await enter(password=changed["current"])
            await enter(password=changed["new"])


class Later(SystemClock):
    """A clock that can be put forward."""

    ahead = timedelta()

    def now(self):
        return super().now() + self.ahead


SCOPED = {"scopes": ["api-key:*", "ssh-key:*", "sandbox:*"]}


class TestSweep:
    async def test_what_the_log_names_no_more_is_dropped(
        self, any_world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Revoked keys and invitations whose time is over go with the log; what lives stays."""
        http, platform = any_world.http, any_world.platform
        made = [
            (await http.post("/v1/api-keys", json={"name": name})).json()["data"]["id"]
            for name in ("kept", "gone")
        ]
        await http.delete(f"/v1/api-keys/{made[1]}")
        await invite(http)
        await reconcile.sweep(platform)
        assert set(made) <= await _ids(http, "api-keys")
        assert len(await _ids(http, "invitations")) == 1
        later = platform.clock.now() + timedelta(days=platform.settings.audit_days + 60)
        monkeypatch.setattr(SystemClock, "now", lambda _: later)
        await reconcile.sweep(platform)
        assert set(made) & await _ids(http, "api-keys") == {made[0]}
        assert await _ids(http, "invitations") == set()

    async def test_whose_an_ssh_key_is_stays_known(
        self, any_world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Registered by a key of somebody's that has long been revoked, and made by one that has, too."""
        platform, secrets = any_world.platform, []
        ann = await any_world.person("member")
        by = ann.http
        for _ in range(2):
            async with by as http:
                made = (await http.post("/v1/api-keys", json={"name": "k"} | SCOPED)).json()["data"]
                secrets.append(made["id"])
            by = client(any_world.url, made["key"])
        async with by as http:
            body = {"label": "left", "publicKey": public_key("left")}
            assert (await http.post("/v1/ssh-keys", json=body)).status_code == 201
        for one in secrets:
            assert (await any_world.http.delete(f"/v1/api-keys/{one}")).status_code == 200
        later = platform.clock.now() + timedelta(days=platform.settings.audit_days + 60)
        with monkeypatch.context() as patch:
            patch.setattr(SystemClock, "now", lambda _: later)
            await reconcile.sweep(platform)
        assert len(await _ids(any_world.http, "ssh-keys")) == 1
        removal = f"/v1/members/{ann.user_id}?revokeKeys=true"
        assert (await any_world.http.delete(removal)).status_code == 200
        assert await _ids(any_world.http, "ssh-keys") == set()
        with monkeypatch.context() as patch:
            patch.setattr(SystemClock, "now", lambda _: later)
            for _ in range(2):
                await reconcile.sweep(platform)
        assert not set(secrets) & await _ids(any_world.http, "api-keys")


async def _ids(http: httpx.AsyncClient, nouns: str) -> set[str]:
    return {one["id"] for one in (await http.get(f"/v1/{nouns}")).json()["data"]}
