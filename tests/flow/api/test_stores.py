"""Every store function that is given an org, called with one org and the records of another."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, delete, select

from runtools.platform.api.secrets.store import secrets as table
from runtools.testing.tenancy.operations import Operation
from runtools.testing.tenancy.org import Org
from runtools.testing.tenancy.probe import faults
from runtools.testing.tenancy.records import PLACES
from runtools.testing.tenancy.stores import Method, methods

SCOPED = [one for one in methods() if one.is_scoped]


async def _furnish(org: Org) -> None:
    """Something of everything, and traces of what has gone."""
    made: dict[str, list[str]] = {}
    for place, make in PLACES.items():
        params = {where: made[up][0] for up, where in _above(place) if up in made}
        made[place] = await make(org, params)
    key = {"Idempotency-Key": f"key of {org.word}".replace(" ", "-")}
    box = made["/v1/sandboxes/{ref}"][0]
    await org.ask("POST", "/v1/sandboxes", json={})
    kept = (await org.ask("POST", f"/v1/sandboxes/{box}/snapshots", json={"name": "gone"}))["id"]
    await org.ask("DELETE", f"/v1/sandboxes/{box}/snapshots/{kept}", headers=key)
    await org.ask("DELETE", f"/v1/templates/{made['/v1/templates/{slug}'][0]}")
    await PLACES["/v1/templates/{slug}"](org, {})
    await org.ask("POST", f"/v1/sandboxes/{box}/urls", json={"access": "public", "port": 3000})
    await org.ask("POST", f"/v1/sandboxes/{box}/urls/3000/links", json={})
    await org.ask("POST", "/v1/dev-urls", json={"access": "public"})
    for run in await org.ask("GET", "/v1/runs"):
        if run["status"] not in {"cancelled", "completed", "failed", "limit_reached"}:
            await org.ask("POST", f"/v1/runs/{run['id']}/messages", json={"message": "Wait."})
    project, box = made["/v1/projects/{ref}"][0], made["/v1/sandboxes/{ref}"][0]
    await org.ask("POST", f"/v1/projects/{project}/move", json={"sandboxes": [box]})
    await org.world.person("member", email=f"{org.word}@example.org", org=org.id)
    await org.world.heard()


def _above(place: str) -> list[tuple[str, str]]:
    """The places that a place's records lie in, with the names of theirs in the path."""
    operation = Operation("GET", place)
    return [(up, name) for name, up in operation.prefixes().items() if up != place]


async def test_each_of_them_keeps_to_its_org(two: tuple[Org, Org]) -> None:
    house, other = two
    await _furnish(house)
    await _furnish(other)
    await (
        house.world.platform.rest()
    )  # what is written beside requests would differ between two looks
    db = house.world.platform.db
    found: list[str] = []
    for method in SCOPED:
        found += await faults(db, method, house.id, other.id)
        found += await faults(db, method, other.id, house.id)
    assert found == [], "\n".join(found)
    assert len(SCOPED) > 40


class TestProbe:
    """It is worth something only as long as it finds what is wrong."""

    async def test_a_fetch_that_is_compared_afterwards_is_found(self, two: tuple[Org, Org]) -> None:
        house, other = two
        await house.ask("POST", "/v1/secrets", json={"name": "AMBER", "value": "v"})

        def find(conn: Connection, org_id: str, name: str) -> Any:
            row = conn.execute(
                select(table.c.id, table.c.org_id).where(table.c.name == name)
            ).first()
            return row if row and row.org_id == org_id else None

        find.__module__ = "runtools.platform.api.secrets.store"
        [fault] = await faults(
            house.world.platform.db, Method("secrets", "find", find), house.id, other.id
        )
        assert "asks for records of any org" in fault

    async def test_one_that_forgets_the_org_is_found(self, two: tuple[Org, Org]) -> None:
        house, other = two
        await house.ask("POST", "/v1/secrets", json={"name": "AMBER", "value": "v"})

        def remove(conn: Connection, org_id: str, name: str) -> Any:
            return conn.execute(delete(table).where(table.c.name == name)).rowcount or None

        remove.__module__ = "runtools.platform.api.secrets.store"
        found = await faults(
            house.world.platform.db, Method("secrets", "remove", remove), house.id, other.id
        )
        assert any("a stranger changed {'secrets'" in fault for fault in found)
