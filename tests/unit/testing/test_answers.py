"""What of two answers counts as a difference."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import httpx

from runtools.testing.tenancy.answers import Answer, ask
from runtools.testing.tenancy.operations import Operation
from runtools.testing.tenancy.org import Org

KEYS = Operation("GET", "/v1/api-keys")


async def answered(*data: dict[str, Any]) -> Answer:
    def say(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"data": list(data)})

    async with httpx.AsyncClient(
        transport=httpx.MockTransport(say), base_url="http://api", trust_env=False
    ) as http:
        return await ask(cast(Org, SimpleNamespace(http=http)), KEYS, {}, {"query": ""})


async def test_a_use_that_is_written_down_meanwhile_is_none() -> None:
    """Once it is, the answer is longer."""
    used = await answered({"id": "key_1", "lastUsedAt": "2026-01-01T00:00:00.000001Z"})
    assert used == await answered({"id": "key_1", "lastUsedAt": None})


async def test_everything_else_is_one() -> None:
    one = {"id": "key_1", "lastUsedAt": None}
    assert await answered(one) != await answered({**one, "id": "key_12"})
    assert await answered(one) != await answered(one, one)
