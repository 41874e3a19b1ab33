"""Following the changes of files."""

from __future__ import annotations

from itertools import islice

import pytest

from runtools import AsyncRunTools, RunTools
from runtools.errors import VersionMismatch
from runtools.sdk.shapes import FileChange
from runtools.testing.scripted_api import ScriptedApi

PATH = "/v1/sandboxes/sandbox-000000000000/files/watch"


def told(number: int, kind: str) -> bytes:
    change = FileChange.model_validate({"id": number, "kind": kind, "path": f"/w/{number}"})
    return b"id: %d\nevent: change\ndata: %b\n\n" % (number, change.model_dump_json().encode())


def test_changes_come_and_go_on_where_it_broke(api: ScriptedApi, rt: RunTools) -> None:
    api.streams[PATH] = [
        told(7, "armed") + told(8, "create"),
        told(8, "armed") + told(9, "change"),
        told(40, "overflow") + told(41, "delete"),
    ]
    with rt.sandboxes.get(api.add().id).files.watch("/w") as changes:
        seen = [(change.id, change.kind) for change in islice(changes, 4)]
    assert seen == [(8, "create"), (9, "change"), (40, "overflow"), (41, "delete")]
    asked = [request for request in api.seen if request.path == PATH]
    assert [request.headers.get("last-event-id") for request in asked] == [None, "8", "9"]
    assert asked[0].query == [("path", "/w"), ("recursive", "true")]


async def test_likewise_in_the_async_client(api: ScriptedApi, art: AsyncRunTools) -> None:
    api.streams[PATH] = [told(7, "armed") + told(8, "create")]
    sandbox = await art.sandboxes.get(api.add().id)
    async with sandbox.files.watch("/w", recursive=False) as changes:
        assert (await anext(changes)).path == "/w/8"
    assert ("recursive", "false") in api.seen[-1].query


def test_it_is_armed_on_entry_or_refused_there(api: ScriptedApi, rt: RunTools) -> None:
    files = rt.sandboxes.get(api.add().id).files
    entered = []
    with pytest.raises(VersionMismatch), files.watch("/w"):
        entered.append(True)
    assert entered == []
    api.streams[PATH] = [told(7, "armed")]
    with files.watch("/w"):
        assert api.seen[-1].path == PATH
