"""Two orgs on one platform: neither can read, change or infer what is the other's, by any route."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.flow.api.test_events import events

from runtools.platform.api.sandboxes import store as sandboxes
from runtools.platform.api.secrets import store as secrets
from runtools.testing import postgres
from runtools.testing.api_world import client
from runtools.testing.made_once import bare_app
from runtools.testing.tenancy.operations import Operation, nested, operations
from runtools.testing.tenancy.org import Org
from runtools.testing.tenancy.outside import NOT_OF_AN_ORG, OF_A_PERSON, WHOLE_MACHINE
from runtools.testing.tenancy.records import PLACES
from runtools.testing.tenancy.references import NO_REFERENCES, REFERENCES
from runtools.testing.tenancy.scenes import SCENES, Scene
from runtools.testing.tenancy.walk import Walk, uncovered

Two = tuple[Org, Org]
ROUTES = operations(bare_app())


# Each direction is walked on one engine: what is asked of the stores is the same, and the stores are proven
# function by function on both (`test_stores`).
on_sqlite = pytest.mark.parametrize("any_url", ["sqlite"], indirect=True)
on_postgresql = pytest.mark.parametrize("any_url", postgres.ENGINES[1:], indirect=True)


class TestWalk:
    @on_postgresql
    async def test_a_stranger_finds_nothing_of_the_house(self, two: Two) -> None:
        house, other = two
        assert await Walk(house, other).all(ROUTES) == []

    @on_sqlite
    async def test_the_house_finds_nothing_of_a_stranger(self, two: Two) -> None:
        house, other = two
        assert await Walk(other, house).all(ROUTES) == []

    @pytest.mark.parametrize("name", WHOLE_MACHINE)
    async def test_the_machine_is_shown_to_the_operator_alone(self, two: Two, name: str) -> None:
        house, other = two
        method, path = name.replace("{org_id}", house.id).split()
        if "{user_id}" in path:
            (person,) = await PLACES[path.removesuffix("/reset")](house, {})
            path = path.replace("{user_id}", person)
        body = SCENES.get(name, Scene()).body
        if path != "/v1/orgs":  # the house's key must say who is to be its Admin
            assert (await house.http.request(method, path, json=body)).is_success
        answer = await other.http.request(method, path, json=body)
        assert answer.json()["error"]["code"] == "forbidden"

    @on_sqlite
    async def test_a_key_without_the_scope_does_not_tell_what_there_is(self, two: Two) -> None:
        _, other = two
        body = {"name": "limited", "scopes": ["workflow:read"]}
        key = (await other.ask("POST", "/v1/api-keys", json=body))["key"]
        async with client(other.world.url, key) as http:
            limited = replace(other, http=http)
            faults = await Walk(other, limited).refused(_guarded(ROUTES))
        assert faults == []

    async def test_a_stream_tells_of_ones_own_alone(self, two: Two) -> None:
        house, other = two
        async with other.http.stream("GET", "/v1/events?after=0") as stream:
            theirs = await house.ask("POST", "/v1/sandboxes", json={})
            await house.ask("DELETE", f"/v1/sandboxes/{theirs['id']}")
            mine = await other.ask("POST", "/v1/sandboxes", json={})
            number, _, data = await anext(events(stream))
        assert number == 1  # counted for each org by itself
        assert data["sandbox"]["id"] == mine["id"]


def _guarded(routes: list[Operation]) -> list[Operation]:
    free = {"GET /v1/me", "GET /v1/orgs", *NOT_OF_AN_ORG, *OF_A_PERSON}
    return [one for one in routes if one.name not in free]


class TestFrame:
    """The walk is worth something only as long as it finds what is wrong."""

    def test_every_route_is_covered(self) -> None:
        assert uncovered(ROUTES) == []
        assert len(ROUTES) > 70

    def test_no_table_speaks_of_what_is_not_there(self) -> None:
        known = {one.name for one in ROUTES}
        assert {*SCENES, *WHOLE_MACHINE, *NOT_OF_AN_ORG, *OF_A_PERSON} <= known
        assert set(PLACES) <= {place for one in ROUTES for place in one.prefixes().values()}

    def test_a_new_kind_of_record_is_a_fault(self) -> None:
        new = Operation("GET", "/v1/things/{thing_id}")
        [fault] = uncovered([new])
        assert "/v1/things/{thing_id}" in fault

    def test_a_new_reference_is_a_fault(self) -> None:
        new = Operation("POST", "/v1/sandboxes", frozenset({"volumeId"}))
        [fault] = uncovered([new])
        assert "volumeId" in fault

    def test_so_is_one_by_another_name_or_further_in(self) -> None:
        for name in ("agent", "agentSlug", "project", "sandbox", "templates"):
            known = {**REFERENCES, **NO_REFERENCES}
            new = Operation("POST", "/v1/things", frozenset({name}))
            assert (name in known) != bool(uncovered([new])), name
        schema = {"type": "array", "items": {"$ref": "#/components/schemas/Thing"}}
        thing = {"type": "object", "properties": {"volume": {}, "secret": {}, "inner": schema}}
        document = {"components": {"schemas": {"Thing": thing}}}
        ways = nested(document, {"things": schema})
        assert ways == {"things[].volume", "things[].secret", "things[].inner"}
        new = Operation("POST", "/v1/sandboxes", nested=ways)
        [fault] = uncovered([new])
        assert "things[].secret" in fault

    @on_sqlite
    async def test_a_record_fetched_without_its_org_is_found(
        self, two: Two, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def by_id(conn: Any, _org: str, sandbox_id: str) -> Any:
            return sandboxes.get(conn, sandbox_id)

        monkeypatch.setattr(sandboxes, "by_id", by_id)
        look = next(one for one in ROUTES if one.name == "GET /v1/sandboxes/{ref}")
        walk = Walk(*two)
        await walk.record(look)
        assert any("theirs is 200" in fault for fault in walk.faults)

    @on_sqlite
    async def test_an_answer_that_differs_by_a_word_is_found(
        self, two: Two, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from runtools.errors import NotFound
        from runtools.platform.api.secrets import service

        house, _ = two

        async def value(call: Any, name: str) -> Any:
            theirs = await call.platform.db.read(secrets.find, house.id, name)
            raise NotFound(f"no secret {name!r}" + (" of yours" if theirs else ""))

        monkeypatch.setattr(service, "reveal", value)
        reveal = next(one for one in ROUTES if one.name == "POST /v1/secrets/{name}/reveal")
        walk = Walk(*two)
        await walk.record(reveal)
        assert any("of yours" in fault for fault in walk.faults)

    @on_sqlite
    async def test_a_change_of_the_other_org_is_found(
        self, two: Two, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        house, _ = two
        remove = secrets.remove

        def careless(conn: Any, org_id: str, name: str) -> Any:
            return remove(conn, house.id, name) or remove(conn, org_id, name)

        monkeypatch.setattr(secrets, "remove", careless)
        delete = next(one for one in ROUTES if one.name == "DELETE /v1/secrets/{name}")
        walk = Walk(*two)
        await walk.record(delete)
        assert any("a stranger changed {'secrets'" in fault for fault in walk.faults)
