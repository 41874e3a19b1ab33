"""States of the world for the SDK's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from runtools import AsyncRunTools, RunTools
from runtools.testing.scripted_api import KEY, ScriptedApi


@pytest.fixture(scope="session")
def running_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedApi]:
    with ScriptedApi(tmp_path_factory.mktemp("api")) as running:
        yield running


@pytest.fixture
def api(running_api: ScriptedApi, tmp_path: Path) -> ScriptedApi:
    folder = tmp_path / "inside"
    folder.mkdir()
    running_api.reset(folder)
    return running_api


@pytest.fixture
def rt(api: ScriptedApi) -> Iterator[RunTools]:
    with RunTools(KEY, api.url) as client:
        yield client


@pytest.fixture
async def art(api: ScriptedApi) -> AsyncIterator[AsyncRunTools]:
    async with AsyncRunTools(KEY, api.url) as client:
        yield client
