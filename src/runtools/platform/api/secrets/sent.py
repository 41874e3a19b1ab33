"""Secrets that go out in a header: to a model's provider, to the search, to a server of tools.

A provider's key that no header may hold is refused when it is set. What a tool needs may be a file of many
lines; it, what was kept before, and what the machine's environment holds are looked at when they are used.
"""

from __future__ import annotations

from runtools.errors import SecretUnfit
from runtools.platform.core.headers import may_hold
from runtools.platform.kit import http

_SENT = "provider"
_WHAT = "ASCII without line ends, and no space at either end"


def check(category: str, value: str) -> None:
    """Refuse a value that could not be sent, of the category that always is.

    Raises:
        InvalidRequest: with what is wrong, and without the value.
    """
    if category == _SENT and not may_hold(value):
        raise http.wrong_field(
            "value",
            f"a secret of category {category} is sent in a header: {_WHAT}",
            hint="was it read from a file with its line end? Several lines go with category tool or custom",
        )


def checked(name: str, value: str) -> str:
    """A value that can be sent.

    Raises:
        SecretUnfit: it cannot; the message is without it.
    """
    if not may_hold(value):
        raise SecretUnfit(
            f"{name} cannot be sent in a header, which holds {_WHAT}",
            hint=f"set it anew: runtools secret set {name}",
            details={"name": name},
        )
    return value
