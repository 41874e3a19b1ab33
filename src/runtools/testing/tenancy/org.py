"""An org of a test, and somebody of it who asks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx

from runtools.testing.api_world import World


@dataclass
class Org:
    """An org, somebody of it, and the word that the names of its records have in them."""

    world: World
    id: str
    word: str
    http: httpx.AsyncClient
    count: int = 0

    def fresh(self) -> str:
        """A name that nobody has had."""
        self.count += 1
        return f"{self.word}{self.count}"

    async def ask(self, method: str, path: str, **sent: Any) -> Any:
        """The data of an answer that must be a success."""
        answer = await self.http.request(method, path, **sent)
        assert answer.is_success, f"{method} {path}: {answer.text}"
        return answer.json()["data"]
