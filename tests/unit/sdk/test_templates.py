from __future__ import annotations

import json
from typing import Any

import pytest

from runtools import RunTools
from runtools.errors import BuildFailed
from runtools.testing.scripted_api import ScriptedApi

BUILT: dict[str, Any] = {
    "id": "bld_1",
    "slug": "mine",
    "version": 4,
    "recipe": "base-debian",
    "state": "building",
    "progress": 0,
    "step": "",
    "tested": True,
    "isDefault": False,
    "sizeBytes": 0,
    "error": None,
    "createdAt": "2026-01-01T00:00:00Z",
    "finishedAt": None,
}
LINE = {"n": 1, "at": "2026-01-01T00:00:00Z", "progress": 0.5, "step": "apt", "text": "unpacking"}


@pytest.fixture
def builds(api: ScriptedApi) -> ScriptedApi:
    api.fixed["POST /v1/templates/mine/builds"] = BUILT
    return api


def log(api: ScriptedApi, **end: object) -> None:
    line = f"id: 1\nevent: line\ndata: {json.dumps(LINE)}\n\n"
    over = f"event: end\ndata: {json.dumps(BUILT | end)}\n\n"
    api.streams["/v1/templates/mine/logs"] = [(line + over).encode()]


def test_a_build_is_followed_to_its_end(builds: ScriptedApi, rt: RunTools) -> None:
    log(builds, state="ready", sizeBytes=5)
    lines: list[str] = []
    built = rt.templates.build(
        "mine",
        recipe="base-debian",
        apt=["jq"],
        run="true",
        on_line=lambda one: lines.append(one.text),
    )
    assert (built.state, built.size_bytes, lines) == ("ready", 5, ["unpacking"])
    assert json.loads(builds.seen[0].body) == {
        "recipe": "base-debian",
        "apt": ["jq"],
        "run": "true",
    }
    assert builds.seen[1].query == [("version", "4")]


def test_a_build_that_failed_says_why(builds: ScriptedApi, rt: RunTools) -> None:
    log(builds, state="failed", error="no package jqq")
    with pytest.raises(BuildFailed, match="no package jqq") as caught:
        rt.templates.build("mine")
    assert "template logs mine" in (caught.value.hint or "")


def test_it_need_not_be_followed_and_can_be_later(builds: ScriptedApi, rt: RunTools) -> None:
    begun = rt.templates.build("mine", wait=False)
    assert begun.state == "building"
    assert len(builds.seen) == 1
    log(builds, state="ready")
    assert rt.templates.wait("mine", begun.version).state == "ready"
    assert builds.seen[1].query == [("version", "4")]


def test_one_that_was_deleted_has_no_log_to_look_at(builds: ScriptedApi, rt: RunTools) -> None:
    log(builds, state="failed", step="deleted", error="it was deleted")
    with pytest.raises(BuildFailed, match="it was deleted") as caught:
        rt.templates.build("mine")
    assert caught.value.hint is None


def test_list_get_versions_delete(api: ScriptedApi, rt: RunTools) -> None:
    api.fixed["GET /v1/templates"] = [BUILT]
    api.fixed["GET /v1/templates/mine"] = BUILT
    api.fixed["GET /v1/templates/mine/versions"] = [BUILT, BUILT | {"version": 3}]
    api.fixed["DELETE /v1/templates/mine"] = [BUILT | {"version": 3, "state": "ready"}]
    assert rt.templates.list()[0].slug == "mine"
    assert rt.templates.get("mine").version == 4
    assert [one.version for one in rt.templates.versions("mine")] == [4, 3]
    assert [one.version for one in rt.templates.delete("mine", 3)] == [3]
    assert api.seen[-1].query == [("version", "3")]
