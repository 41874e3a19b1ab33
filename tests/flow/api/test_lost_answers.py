"""Every route that changes something, asked again with its key when no answer of the first was kept."""

from __future__ import annotations

from typing import Any

import pytest

from runtools.platform.api.idempotency import edge
from runtools.platform.api.identities import store as identities
from runtools.platform.api.identities.store import Identity
from runtools.testing.api_world import Signed, World
from runtools.testing.made_once import bare_app
from runtools.testing.tenancy.operations import operations
from runtools.testing.tenancy.org import Org
from runtools.testing.tenancy.outside import NOT_OF_AN_ORG, OF_A_PERSON
from runtools.testing.tenancy.walk import Walk

_ONCE = "a secret is shown once"
_STANDS = "it says how what was begun stands by now"
OTHERWISE = {
    "POST /v1/api-keys": _ONCE,
    "POST /v1/api-keys/{key_id}/rotate": _ONCE,
    "POST /v1/invitations": _ONCE,
    "POST /v1/orgs": _ONCE,
    "POST /v1/webhooks": _ONCE,
    "POST /v1/deploys": _STANDS,
    "POST /v1/sandboxes/{ref}/processes": _STANDS,
    "POST /v1/sandboxes/{ref}/processes/{process_id}/signal": _STANDS,
    "POST /v1/templates/{slug}/builds": _STANDS,
    "POST /v1/prune": "what is freed is freed: there is less to free",
    "POST /v1/sandboxes/{ref}/processes/{process_id}/terminal-ticket": "it is kept nowhere",
}
_SECRET = "its secret is kept nowhere: a repeat gets another, and the first opens nothing"
ANEW = {
    "POST /v1/members/{user_id}/reset": _SECRET,
    "POST /v1/people/{user_id}/reset": _SECRET,
    "POST /v1/sandboxes/{ref}/urls/{port}/links": _SECRET,
    "POST /v1/sandboxes/{ref}/ssh": "the pass lasts from then on",
}

# What changes the rights or the org of who asks, beside what is of a person alone.
OF_ONESELF = {
    "PATCH /v1/members/{user_id}",
    "DELETE /v1/members/{user_id}",
    "PATCH /v1/people/{user_id}",
}
ENDS = {"POST /v1/me/close": "its session is over: nobody is let in to be told"}
_PASSWORD = "correct horse battery"


# What stores do is shown on both engines elsewhere (`test_stores`).
@pytest.mark.parametrize("any_url", ["sqlite"], indirect=True)
async def test_nothing_is_done_twice_and_the_same_is_answered(
    two: tuple[Org, Org], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after an end of the api between an answer and its being kept, for every route there is."""

    monkeypatch.setattr(edge, "reach", _lost)
    free = {*NOT_OF_AN_ORG, *OF_A_PERSON}
    asked = [one for one in operations(bare_app()) if one.mutates and one.name not in free]
    whole = [one for one in asked if not one.streams]
    assert {*OTHERWISE, *ANEW} <= {one.name for one in whole}
    faults = await Walk(*two).repeated(whole, OTHERWISE, ANEW)
    assert faults == [], "\n\n".join(faults)


async def test_what_somebody_did_to_themselves_is_told_again(
    any_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though who asks is in another org by then, or in none, and may do less."""
    monkeypatch.setattr(edge, "reach", _lost)
    asked = [one.name for one in operations(bare_app()) if one.mutates and one.name in OF_A_PERSON]
    acts = await _acts(any_world)
    assert set(acts) == {*asked, *OF_ONESELF}
    for name, (who, path, body) in acts.items():
        method, headers = name.partition(" ")[0], {"Idempotency-Key": name.replace(" ", "")}
        first = await who.http.request(method, path, json=body, headers=headers)
        again = await who.http.request(method, path, json=body, headers=headers)
        assert first.is_success, (name, first.text)
        if name in ENDS:
            assert again.status_code == 401, (name, again.text)
        else:
            same = (again.status_code, again.json().get("data"))
            assert same == (first.status_code, first.json()["data"]), (name, again.text)
        await who.http.aclose()


def _lost(point: str) -> None:
    if point == "api.idempotency.answered":
        raise ConnectionError("killed here")


async def _acts(world: World) -> dict[str, tuple[Signed, str, Any]]:
    """By the name of the operation: who does it, and the path and body of the request."""
    db, sessions, now = world.platform.db, world.platform.sessions, world.platform.clock.now()
    who: list[Signed] = []
    for n in range(11):
        role, said = ("admin", {"operator": True}) if n < 3 else ("member", {"password": _PASSWORD})
        who.append(await world.person(role, email=f"{n}@example.org", **said))
    async with await world.stranger() as http:
        codes = []
        for one in (who[3], who[4]):
            body = {"email": "any@example.org"}
            made = (await http.post("/v1/invitations", json=body)).json()["data"]
            codes.append({"code": made["link"].partition("#")[2]})
            if one is who[4]:
                await one.http.post("/v1/invitations/accept", json=codes[-1])
    open_too = [(await sessions.open(who[n].user_id, "cli", "x", "::1"))[0] for n in (5, 6)]
    linked = Identity("idn_1", "https://id.example", "s", who[7].user_id, None, now)
    assert await db.write(identities.link, linked)
    changed = {"current": _PASSWORD, "new": f"{_PASSWORD} staple"}
    return {
        "PATCH /v1/members/{user_id}": (
            who[0],
            f"/v1/members/{who[0].user_id}",
            {"role": "member"},
        ),
        "DELETE /v1/members/{user_id}": (who[1], f"/v1/members/{who[1].user_id}", None),
        "PATCH /v1/people/{user_id}": (who[2], f"/v1/people/{who[2].user_id}", {"operator": False}),
        "POST /v1/invitations/accept": (who[3], "/v1/invitations/accept", codes[0]),
        "POST /v1/orgs/{org_id}/switch": (who[4], f"/v1/orgs/{world.org}/switch", None),
        "DELETE /v1/sessions": (who[5], "/v1/sessions", None),
        "DELETE /v1/sessions/{session_id}": (who[6], f"/v1/sessions/{open_too[1].id}", None),
        "DELETE /v1/me/identities/{identity_id}": (who[7], "/v1/me/identities/idn_1", None),
        "POST /v1/me/password": (who[8], "/v1/me/password", changed),
        "POST /v1/me/close": (who[9], "/v1/me/close", {"password": _PASSWORD}),
        "POST /v1/org/leave": (who[10], "/v1/org/leave", None),
    }
