"""Bad bodies for every route that takes one, made from the document: a new route is tried without a word.

Each field is left out, null, of a wrong type, too long, and has control characters and letters that look
like others. What is refused gets a typed error that names the field, and nothing comes of it.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from runtools.platform.kit.db import Database
from runtools.testing import api_world
from runtools.testing.made_once import bare_app, sqlite_url
from runtools.testing.tenancy import rows
from runtools.testing.tenancy.answers import ask
from runtools.testing.tenancy.operations import Operation, operations, resolve
from runtools.testing.tenancy.org import Org
from runtools.testing.tenancy.records import PLACES
from runtools.testing.tenancy.scenes import SCENES, Scene

DOCUMENT = bare_app().openapi()
TAKING = [one for one in operations(bare_app()) if one.example is not None]

STRANGE = {
    "a control character": "a\x1b[31mb",
    "a NUL": "a\0b",
    "a line break": "a\nb",
    "a letter that looks like another": "\u0430dmin",
    "letters of full width": "\uff41\uff42\uff43",
    "no width at all": "ad\u200bmin",
    "text turned round": "\u202eabc",
}
# What they send beside is their own.
OF_FRONT_ENDS = frozenset({"POST /v1/run/ag-ui", "POST /v1/run/ai-sdk"})
# Names by which a thing is called. A key's is for people to read: any letters that can be seen.
NAMES = frozenset({"name", "slug", "label"})
# What a deploy makes, each as short as it can be.
DEFINED: Mapping[str, dict[str, Any]] = {
    "tools": {
        "name": "count",
        "actions": {"count": {"description": "Counts.", "parameters": {"type": "object"}}},
        "source": {"entry": "a.py", "files": {"a.py": ""}, "digest": "0" * 64},
    },
    "sandboxes": {"slug": "dev"},
    "agents": {"slug": "hello", "name": "Hello", "model": "demo"},
}
# What a refusal may say beside `invalid_request`: that a thing of that name is not there, and the like.
REFUSALS = frozenset({400, 403, 404, 409, 413, 422})


@pytest_asyncio.fixture
async def org(tmp_path: Path) -> AsyncIterator[Org]:
    db = Database(sqlite_url(tmp_path))
    async with api_world.world(db, tmp_path, outbound_allow="127.0.0.0/8") as world:
        yield Org(world, world.org, "amber", world.http)


def _fields(route: Operation) -> Mapping[str, Any]:
    content = DOCUMENT["paths"][route.path][route.method.lower()]["requestBody"]["content"]
    return _properties(content["application/json"]["schema"])


def _properties(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    found = resolve(DOCUMENT, schema).get("properties", {})
    return {name: resolve(DOCUMENT, schema) for name, schema in found.items()}


def _kinds(schema: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The types that a field may have, each with its schema."""
    several = [resolve(DOCUMENT, one) for one in schema.get("anyOf", schema.get("oneOf", [schema]))]
    if {} in several:  # whatever JSON has
        return {kind: {} for kind in ("null", "object", "string", "array", "number", "boolean")}
    return {one.get("type", "string"): one for one in several}


def wrong(schema: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Values that the field cannot have, and why."""
    kinds = _kinds(schema)
    if "null" not in kinds:
        yield "null", None
    if "object" not in kinds:
        yield "an object", {"a": {"b": 1}}
    if "string" not in kinds:
        yield "a text", "certainly not"
    if "array" not in kinds:
        yield "a list", [[[]]]
    if not {"integer", "number"} & set(kinds) and "boolean" not in kinds:
        yield "a number", 10**30
    yield from beyond(kinds)


def beyond(kinds: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Values of a type that the field may have, beyond what it may hold."""
    for number in (kinds[kind] for kind in ("integer", "number") if kind in kinds):
        if "maximum" in number:
            yield "too large a number", number["maximum"] + 1
            yield "far too large a number", 10**400
        if "minimum" in number:
            yield "too small a number", number["minimum"] - 1
    text, several = kinds.get("string", {}), kinds.get("array", {})
    if "maxLength" in text:
        yield "too long a text", "x" * (text["maxLength"] + 1)
    if text.get("minLength"):
        yield "an empty text", ""
    if (item := resolve(DOCUMENT, several.get("items", {}))) != {}:
        yield "a list of something else", [[] if item.get("type") == "object" else {"a": 1}]
    if "maxItems" in several:
        yield "too long a list", ["x"] * (several["maxItems"] + 1)


def strange(
    route: Operation, name: str, schema: Mapping[str, Any]
) -> Iterator[tuple[str, str, bool]]:
    """Texts that are odd, and whether the field must refuse them."""
    text = _kinds(schema).get("string")
    if text is None or "enum" in text or "const" in text:
        return
    pattern = text.get("pattern")
    for why, value in STRANGE.items():
        refused = pattern is not None and re.search(pattern, value) is None
        called = name in NAMES and route.path != "/v1/api-keys"
        yield why, value, refused or called


def _is_plain(sent: Any, answer: str) -> bool:
    """Whether letters of another width were taken for the plain ones that they look like."""
    plain = unicodedata.normalize("NFKC", sent) if isinstance(sent, str) else ""
    return plain != sent and plain.isascii() and json.dumps(plain) in answer


class Tries:
    """One route, asked for many things that it must refuse."""

    def __init__(self, org: Org, route: Operation) -> None:
        self.org, self.route = org, route
        self.faults: list[str] = []
        self.refs: dict[str, str] = {}
        self._held: rows.Rows | None = None

    async def prepare(self) -> dict[str, Any]:
        for name, place in self.route.prefixes().items():
            own = {"org_id": self.org.id}
            self.refs[name] = own.get(name) or (await PLACES[place](self.org, self.refs))[0]
        scene = SCENES.get(self.route.name, Scene())
        body = await scene.body(self.org, self.refs) if callable(scene.body) else scene.body
        await self.org.world.heard()
        return dict(body if isinstance(body, Mapping) else self.route.example or {})

    async def granted(self, body: Any) -> None:
        answer = await ask(self.org, self.route, self.refs, {"query": "", "json": body})
        if answer.status not in (200, 201):
            self.faults.append(f"{self.route.name}: {answer}")

    async def refused(self, body: Any, name: str, why: str, *, must: bool = True) -> None:
        before, self._held = self._held or await self._rows(), None
        query = SCENES.get(self.route.name, Scene()).query
        answer = await ask(self.org, self.route, self.refs, {"query": query, "json": body})
        what = f"{self.route.name}: {name} with {why}: {answer}"
        if answer.status not in REFUSALS:
            await api_world.holds(self._built)
            if _is_plain(body.get(name), answer.body):
                return
            if must or answer.status >= 500:
                self.faults.append(what)
            return
        await self.org.world.heard()
        self._held = await self._rows()
        if changed := rows.difference(before, self._held):
            self.faults.append(f"{what}, and yet {changed}")
        if must and answer.status == 400 and not self._names(answer.body, name):
            self.faults.append(f"{what} does not name {name}")

    async def _rows(self) -> rows.Rows:
        found = await self.org.world.platform.db.read(rows.of_org, self.org.id)
        return {table: held for table, held in found.items() if table != "audit"}

    async def _built(self) -> bool:
        """Whether what was let pass is done: a build goes on after its answer."""
        return "'building'" not in str((await self._rows()).get("template_versions"))

    def _names(self, body: str, name: str) -> bool:
        return re.search(rf'"field":"{name}(?:[."])', body) is not None


@pytest.mark.parametrize("route", TAKING, ids=lambda route: route.name)
async def test_each_wrong_field_is_named_and_nothing_comes_of_it(
    org: Org, route: Operation
) -> None:
    tries = Tries(org, route)
    good = await tries.prepare()
    for name, schema in _fields(route).items():
        for why, value in wrong(schema):
            await tries.refused({**good, name: value}, name, why)
        for why, odd, must in strange(route, name, schema):
            await tries.refused({**good, name: odd}, name, why, must=must)
    for name in route.example or {}:
        without = {field: value for field, value in good.items() if field != name}
        await tries.refused(without, name, "nothing")
    if route.name not in OF_FRONT_ENDS:
        await tries.refused({**good, "nobodysField": 1}, "nobodysField", "a name that nobody knows")
    assert tries.faults == [], "\n".join(tries.faults)


async def test_each_wrong_field_of_what_is_deployed_is_named(org: Org) -> None:
    [route] = [one for one in TAKING if one.name == "POST /v1/deploys/plan"]
    tries, lists = Tries(org, route), _fields(route)

    def body(kind: str, definition: Mapping[str, Any]) -> dict[str, Any]:
        return {"project": "shop", kind: [definition]}

    for kind, good in DEFINED.items():
        await tries.granted(body(kind, good))
        for name, schema in _properties(lists[kind]["items"]).items():
            at = f"{kind}.0.{name}"
            for why, value in wrong(schema):
                await tries.refused(body(kind, {**good, name: value}), at, why)
            for why, odd, _ in strange(route, name, schema):
                # What people are called has any letters that can be seen.
                must = name == "slug" or (kind, name) == ("tools", "name")
                await tries.refused(body(kind, {**good, name: odd}), at, why, must=must)
        for name in good:
            without = {field: value for field, value in good.items() if field != name}
            await tries.refused(body(kind, without), f"{kind}.0.{name}", "nothing")
        more = {**good, "nobodysField": 1}
        await tries.refused(body(kind, more), f"{kind}.0.nobodysField", "a name that nobody knows")
    assert tries.faults == [], "\n".join(tries.faults)


def test_there_are_routes_to_try() -> None:
    assert len(TAKING) > 20
