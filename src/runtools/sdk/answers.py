"""What a server in a sandbox answers, as `sb.http(port)` gives it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class HttpAnswer:
    """One whole answer.

    Attributes:
        headers: names in small letters; of several of a name the last.
    """

    status: int
    headers: dict[str, str]
    content: bytes = field(repr=False)

    @property
    def text(self) -> str:
        """The body as text; what is not UTF-8 in it is replaced."""
        return self.content.decode("utf-8", "replace")

    def json(self) -> Any:
        """The body as the JSON that it is.

        Raises:
            ValueError: it is none.
        """
        return json.loads(self.content)
