"""States of the world for the SDK's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from runtools import AsyncRunTools, RunTools
from runtools.testing.scripted_api import KEY, ScriptedApi


@pytest.fixture
def api(tmp_path: Path) -> Iterator[ScriptedApi]:
    folder = tmp_path / "inside"
    folder.mkdir()
    with ScriptedApi(folder) as running:
        yield running


@pytest.fixture
def rt(api: ScriptedApi) -> Iterator[RunTools]:
    with RunTools(KEY, api.url) as client:
        yield client


@pytest.fixture
async def art(api: ScriptedApi) -> AsyncIterator[AsyncRunTools]:
    async with AsyncRunTools(KEY, api.url) as client:
        yield client
