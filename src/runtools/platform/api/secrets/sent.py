"""Secrets that go out in a header: to a model's provider, to the search, to a server of tools.

What no header may hold is refused when it is set. What was kept before, or comes from the machine's
environment, is looked at when it is used.
"""

from __future__ import annotations

from runtools.errors import SecretUnfit
from runtools.platform.core.headers import may_hold
from runtools.platform.kit import http

_SENT = frozenset({"provider", "tool"})
_WHAT = "ASCII without line ends, and no space at either end"


def check(category: str, value: str) -> None:
    """Refuse a value that could not be sent, of a category that is.

    Raises:
        InvalidRequest: with what is wrong, and without the value.
    """
    if category in _SENT and not may_hold(value):
        raise http.wrong_field(
            "value",
            f"a secret of category {category} is sent in a header: {_WHAT}",
            hint="was it read from a file with its line end? Other things are of category custom",
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
