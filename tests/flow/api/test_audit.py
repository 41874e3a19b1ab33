"""What no caller can do to the audit log, and to whom its lines point."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runtools.platform.api.audit import store
from runtools.platform.api.audit.edge import Audit
from runtools.platform.api.audit.store import Line, Sought
from runtools.platform.core.ids import new_id
from runtools.platform.kit.db import Database
from runtools.testing import api_world
from runtools.testing.api_world import World, holds

FORGED = {"X-Forwarded-For": "203.0.113.9"}


async def lines(world: World, **sought: str) -> list[dict[str, Any]]:
    answer = await world.http.get("/v1/audit", params={"limit": 100, **sought})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["data"]
    return found


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


class TestSource:
    async def made(self, world: World) -> str:
        await world.http.post("/v1/projects", json={"name": "p"}, headers=FORGED)
        (line,) = await lines(world, action="projects.create")
        return str(line["source"])

    async def test_nobody_forges_an_address(self, world: World) -> None:
        assert await self.made(world) == "127.0.0.1"

    async def test_a_trusted_proxy_names_its_client(self, tmp_path: Path) -> None:
        db = Database(f"sqlite:///{tmp_path}/db/runtools.db")
        async with api_world.world(db, tmp_path, trusted_proxies="127.0.0.0/8") as world:
            assert await self.made(world) == "203.0.113.9"
