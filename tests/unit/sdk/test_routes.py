"""What the API can do, the SDK can ask for, and commands by it: a new route fails until they can."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import SimpleNamespace
from typing import Any

import runtools.sdk as sdk
from runtools import AsyncRunTools

ROOT = Path(__file__).resolve().parents[3]
DOCUMENT = json.loads((ROOT / "docs/openapi.json").read_text())

ELSEWHERE = {
    "GET /metrics": "for Prometheus",
    "GET /readyz": "for whoever balances the load",
    "POST /v1/run/ag-ui": "for front ends that speak AG-UI",
    "POST /v1/run/ai-sdk": "for front ends of the AI SDK",
    "GET /v1/run/ai-sdk/{chat}/stream": "for front ends of the AI SDK",
    "GET /v1/sandboxes/{ref}/files/archive": "by a download, once that knows it for a folder",
    "POST /v1/sandboxes/{ref}/processes/{process_id}/terminal-ticket": "for pages in a browser",
}
NO_COMMAND = {
    "agents.run": "`agent run` follows what it has begun",
    "agents.stream": "`agent run` follows what it has begun",
    "models.endpoints.get": "`endpoint list` shows all of each",
    "orgs.current": "`auth status` says which it is",
    "sandboxes.events": "for programs: people ask `sandbox list` and `sandbox why`",
    "standing_sandboxes.get": "`sandbox standing` shows all of each",
    "templates.get": "`template list` shows all of each",
    "threads.get": "`threads list` shows all of each",
}


class Asked(Exception):
    """A request would have been sent."""


class Recorder:
    """A transport that sends nothing: what it is asked for is noted."""

    url = "http://nowhere"

    def __init__(self) -> None:
        self.asked: set[str] = set()

    def _note(self, method: str, path: str, root: str = "/v1") -> None:
        self.asked.add(f"{method} {root}{path}")
        raise Asked

    async def call(self, method: str, path: str, *, root: str = "/v1", **_: Any) -> Any:
        self._note(method, path, root)

    async def put(self, path: str, *_: Any, **__: Any) -> Any:
        self._note("PUT", path)

    async def pages(self, path: str, *_: Any) -> AsyncIterator[Any]:
        self._note("GET", path)
        yield

    async def follow(self, path: str, **_: Any) -> AsyncIterator[Any]:
        self._note("GET", path)
        yield

    @asynccontextmanager
    async def stream(self, path: str, **_: Any) -> AsyncIterator[Any]:
        self._note("GET", path)
        yield


def _objects(transport: Recorder) -> Iterator[Any]:
    """Everything of the SDK that asks for something."""
    view = SimpleNamespace(id="x", history=1, thread_id="x", status="running", state="running")
    given = {
        "transport": transport,
        "sandbox": "/sandboxes/x",
        "heard": view,
        "view": view,
        "process_id": "x",
    }
    for module in iter_modules(sdk.__path__):
        if module.ispkg or module.name == "transport":
            continue
        loaded = import_module(f"{sdk.__name__}.{module.name}")
        for name, kind in vars(loaded).items():
            if not name.startswith("Async") or getattr(kind, "__module__", "") != loaded.__name__:
                continue
            wanted = inspect.signature(kind).parameters
            if "transport" in wanted:
                within = "/processes" if name == "AsyncProcess" else ""
                known = {**given, "path": f"/sandboxes/x{within}"}
                yield kind(**{word: known[word] for word in wanted})
            elif "url" in wanted:
                asking = kind("key" if "api_key" in wanted else "http://nowhere", retry_seconds=0)
                asking._transport = transport
                yield asking


def _value(name: str, annotation: Any, folder: Path) -> Any:
    said = str(annotation)
    plain = {"str": "x", "int": 1, "float": 1, "bool": False, "bytes": b"x"}
    for word, value in plain.items():
        if re.match(rf"{word}\b", said):
            return str(folder) if name in ("local", "source", "target") else value
    if said.startswith("Literal"):
        return "x"
    if "Path" in said or "Source" in said:
        return folder
    if said.startswith(("Mapping", "dict")):
        return {}
    if said in ("Plan", "Login"):
        return SimpleNamespace(id="x", project="x", changes=[], digest="x")
    return []


async def _call(method: Any, folder: Path, *, fully: bool) -> None:
    by_place, by_name = [], {}
    for name, wanted in inspect.signature(method).parameters.items():
        if wanted.kind in (wanted.VAR_POSITIONAL, wanted.VAR_KEYWORD):
            continue
        needed = wanted.default is wanted.empty
        if not needed and not (fully and re.match(r"(str|int) \|", str(wanted.annotation))):
            continue
        value = _value(name, wanted.annotation, folder)
        if wanted.kind is wanted.KEYWORD_ONLY or not needed:
            by_name[name] = value
        else:
            by_place.append(value)
    made = method(*by_place, **by_name)
    if hasattr(made, "__anext__"):
        await anext(made)
    elif hasattr(made, "__aenter__"):
        await made.__aenter__()
    elif inspect.isawaitable(made):
        await made


async def test_every_route_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    transport, odd = Recorder(), {}
    for one in _objects(transport):
        for name, method in inspect.getmembers(one, inspect.ismethod):
            if name.startswith("_"):
                continue
            for fully in (False, True):
                try:
                    await _call(method, tmp_path, fully=fully)
                except Asked:
                    continue
                except Exception as exc:  # noqa: BLE001 - told where a route is missing: it may be why
                    odd[f"{type(one).__name__}.{name}"] = repr(exc)
    missing = {
        f"{method.upper()} {path}"
        for path, methods in DOCUMENT["paths"].items()
        for method in methods
        if not any(map(_of(method.upper(), path).fullmatch, transport.asked))
    }
    assert missing == set(ELSEWHERE), odd


def _of(method: str, path: str) -> re.Pattern[str]:
    words = re.split(r"(\{[^}]*\})", path)
    return re.compile(
        f"{method} " + "".join("[^/]+" if word[:1] == "{" else re.escape(word) for word in words)
    )


def _managers(of: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    for noun in dir(of):
        manager = None if noun[0] == "_" else getattr(of, noun)
        if type(manager).__module__.startswith(sdk.__name__):
            yield f"{place}{noun}", manager
            yield from _managers(manager, f"{place}{noun}.")


def test_every_manager_has_its_commands() -> None:
    text = "".join(file.read_text() for file in (ROOT / "src/runtools/cli").rglob("*.py"))
    text = re.sub(r"\s+", "", text)
    missing = {
        f"{place}.{verb}"
        for place, manager in _managers(AsyncRunTools("key", "http://nowhere"))
        for verb, _ in inspect.getmembers(type(manager), inspect.isfunction)
        if verb[0] != "_" and f".{place}.{verb}(" not in text
    }
    assert missing == set(NO_COMMAND)
