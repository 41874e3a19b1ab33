"""Waiting for an outcome: what comes of it when whoever waited is not told."""

from __future__ import annotations

import asyncio
import gc
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock

import pytest
from starlette.requests import Request

from runtools.errors import Unauthenticated
from runtools.platform.api import attending


async def test_a_failure_that_nobody_is_told_of_is_no_stray(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attending, "BELIEVED_SECONDS", 0.01)
    strays: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, said: strays.append(said))

    async def outcome() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("it fails while it is ended")

    door = SimpleNamespace(still_good=AsyncMock(return_value=False))
    call: Any = SimpleNamespace(who=None, platform=SimpleNamespace(door=door))
    stays: Any = asyncio.Event().wait
    request = Request({"type": "http"}, stays)
    with pytest.raises(Unauthenticated):
        await attending.attended(request, call, outcome())
    gc.collect()
    assert strays == []
