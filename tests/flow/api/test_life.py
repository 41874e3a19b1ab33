"""The life of sandboxes through the api."""

from __future__ import annotations

from runtools.testing.api_world import World


class TestCreate:
    async def test_it_runs_and_says_where_from(self, any_world: World) -> None:
        made = await any_world.create(name="one", tags={"team": "blue"}, env={"A": "1"})
        assert made["state"] == "running"
        assert made["operation"] is None
        assert made["startedFrom"] == "warm"
        assert made["timings"]["totalMs"] == 2.0
        assert made["envNames"] == ["A"]
        assert made["template"] == "base-debian"
        assert made["templateVersion"] == 1
        assert await any_world.get("one") == made

    async def test_ledger_tells_every_move(self, any_world: World) -> None:
        made = await any_world.create()
        lines = await any_world.why(made["id"])
        assert [(line["state"], line["operation"]) for line in lines] == [
            ("creating", "starting"),
            ("running", None),
        ]
        assert {line["actor"] for line in lines} == {lines[0]["actor"]}
        assert lines[0]["actor"].startswith("key_")
