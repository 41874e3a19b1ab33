"""How a secret is shown: without its value."""

from __future__ import annotations

from typing import Any

from runtools.platform.api.secrets import store
from runtools.platform.kit.http import one
from runtools.sdk.shapes.secrets import Secret

_SHOWN = tuple(Secret.model_fields)


def look(secret: store.Secret) -> bytes:
    """A secret as the API answers with it."""
    return one(Secret.model_validate(said(secret)))


def said(secret: store.Secret) -> dict[str, Any]:
    """What is told of a secret beside its value."""
    return {name: getattr(secret, name) for name in _SHOWN}
