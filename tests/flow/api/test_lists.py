"""Lists come in pages: every item once, in one order, and nobody else's."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from runtools import AsyncRunTools
from runtools.testing.api_world import World
from runtools.testing.tenancy.org import Org
from runtools.testing.tenancy.records import PLACES

MADE = 5
_LISTS = {
    "/v1/api-keys": "/v1/api-keys/{key_id}",
    "/v1/projects": "/v1/projects/{ref}",
    "/v1/members": "/v1/members/{user_id}",
    "/v1/invitations": "/v1/invitations/{invitation_id}",
    "/v1/ssh-keys": "/v1/ssh-keys/{ref}",
}


async def pages(http: httpx.AsyncClient, path: str, size: int) -> list[list[dict[str, Any]]]:
    """Every page of a list."""
    found, cursor = [], ""
    while True:
        answer = await http.get(f"{path}?limit={size}{cursor}")
        assert answer.status_code == 200, answer.text
        body = answer.json()
        found.append(body["data"])
        assert body["meta"]["hasMore"] == (body["meta"]["nextCursor"] is not None)
        if not body["meta"]["hasMore"]:
            return found
        cursor = f"&cursor={body['meta']['nextCursor']}"


def _id(item: dict[str, Any]) -> str:
    return str(item.get("id") or item["userId"])


@pytest.mark.parametrize("path", _LISTS)
async def test_pages_are_the_list_cut_up(two: tuple[Org, Org], path: str) -> None:
    for org in two:
        for _ in range(MADE):
            await PLACES[_LISTS[path]](org, {})
    lists = []
    for org in two:
        (whole,) = await pages(org.http, path, 100)
        cut = await pages(org.http, path, 2)
        assert [_id(one) for page in cut for one in page] == [_id(one) for one in whole]
        assert len(whole) >= MADE
        assert all(len(page) == 2 for page in cut[:-1])
        lists.append({_id(one) for one in whole})
    assert not lists[0] & lists[1]


async def test_sessions_come_in_pages(any_world: World) -> None:
    person = await any_world.person("member")
    for _ in range(MADE):
        await any_world.platform.sessions.open(person.user_id, "cli", "laptop", "-")
    (whole,) = await pages(person.http, "/v1/sessions", 100)
    cut = await pages(person.http, "/v1/sessions", 2)
    assert [one for page in cut for one in page] == whole
    assert len(whole) == MADE + 1
    await person.http.aclose()


async def test_the_sdk_follows_all_pages(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("keys", "projects", "ssh_keys"):
        monkeypatch.setattr(f"runtools.sdk.{module}._PAGE", 2)
    org = Org(world, world.org, "amber", world.http)
    for _ in range(MADE):
        for path in _LISTS.values():
            await PLACES[path](org, {})
    async with AsyncRunTools(world.key, world.url) as rt:
        assert len(await rt.api_keys.list()) == MADE + 1
        assert len(await rt.projects.list()) == MADE + 1
        assert len(await rt.ssh_keys.list()) == MADE


@pytest.mark.parametrize("path", [*_LISTS, "/v1/sandboxes"])
async def test_no_cursor_of_a_list(world: World, path: str) -> None:
    for cursor in ("nonsense", "WzFd", "WyJhIiwiYiJd", "W10", "x" * 1001):
        answer = await world.http.get(f"{path}?cursor={cursor}")
        assert answer.status_code == 400, (path, cursor)
        assert answer.json()["error"]["code"] == "invalid_request"
