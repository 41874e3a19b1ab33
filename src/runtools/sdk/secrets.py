"""Secrets of the org."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from runtools.sdk import wire
from runtools.sdk.shapes.secrets import Category, RevealedSecret, Scope, Secret
from runtools.sdk.transport import AsyncTransport

_PAGE = 100


class AsyncSecrets:
    """Secrets: ``rt.secrets``. Only `reveal` shows a value."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def set(
        self,
        name: str,
        value: str,
        *,
        category: Category | None = None,
        scope: Scope | None = None,
        description: str | None = None,
    ) -> Secret:
        """Make a secret, or give the one of that name another value.

        Args:
            name: letters, digits and underscores.
            value: up to 65,536 characters; of ``provider`` and ``tool`` what a header may hold.
            category: ``provider`` (default), ``tool`` or ``custom``.
            scope: ``all`` (default), ``agents``, ``tools`` or ``sandboxes``.
            description: what it is for.

        What is left out stays as it is where the secret exists.
        """
        said = {"category": category, "scope": scope, "description": description}
        body = {"name": name, "value": value}
        body |= {field: text for field, text in said.items() if text is not None}
        return wire.shape(Secret, (await self._transport.call("POST", "/secrets", body=body)).data)

    async def rotate(self, name: str, value: str) -> Secret:
        """Give a secret that exists another value. Sandboxes that were given the old one keep it."""
        path = f"/secrets/{wire.segment(name)}"
        answer = await self._transport.call("PATCH", path, body={"value": value})
        return wire.shape(Secret, answer.data)

    async def get(self, name: str) -> Secret:
        """What is known of a secret, but its value."""
        answer = await self._transport.call("GET", f"/secrets/{wire.segment(name)}")
        return wire.shape(Secret, answer.data)

    async def reveal(self, name: str) -> RevealedSecret:
        """A secret with its ``value``. The audit log says who saw it."""
        answer = await self._transport.call("POST", f"/secrets/{wire.segment(name)}/reveal")
        return wire.shape(RevealedSecret, answer.data)

    async def delete(self, name: str) -> None:
        """Delete a secret. Sandboxes that were given it keep it."""
        await self._transport.call("DELETE", f"/secrets/{wire.segment(name)}")

    async def list(self, *, category: Category | None = None) -> AsyncGenerator[Secret, None]:
        """The org's secrets by name, without their values, fetched page by page as they are used."""
        query: list[tuple[str, object]] = [("category", category)]
        async with aclosing(self._transport.pages("/secrets", query, _PAGE)) as items:
            async for item in items:
                yield wire.shape(Secret, item)
