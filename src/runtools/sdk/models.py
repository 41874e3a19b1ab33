"""The catalogue of models, and the org's own endpoints."""

from __future__ import annotations

from runtools.sdk import wire
from runtools.sdk.shapes.models import EndpointModel, Model, ModelEndpoint
from runtools.sdk.transport import AsyncTransport


class AsyncModels:
    """Models that agents can think with: ``rt.models``."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport
        self.endpoints = AsyncModelEndpoints(transport)

    async def list(self) -> list[Model]:
        """The catalogue; ``key`` says for which of them the org has its provider's key."""
        return wire.shapes(Model, (await self._transport.call("GET", "/models")).data)


class AsyncModelEndpoints:
    """OpenAI-compatible servers of the org's own: ``rt.models.endpoints``."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def create(
        self,
        slug: str,
        url: str,
        *,
        secret: str | None = None,
        context_window: int | None = None,
    ) -> ModelEndpoint:
        """Add one. Agents name its models ``slug:model``.

        Args:
            slug: lower-case letters, digits and hyphens.
            url: the base, as in ``http://127.0.0.1:11434/v1``. An address that is not public, or plain
                http, needs the operator's setting ``outbound_allow``.
            secret: name of the secret (category ``provider``) that holds its key, where it needs one.
            context_window: how many tokens its models take in: a conversation is summed up before it is
                longer. None: where the catalogue does not know the model, when the server refuses one.

        Raises:
            InvalidRequest: the URL is malformed, does not resolve, or is not allowed.
            Conflict: there is one of that slug.
            NotFound: there is no such secret.
        """
        body = {"slug": slug, "url": url, "secret": secret, "contextWindow": context_window}
        answer = await self._transport.call("POST", "/model-endpoints", body=body)
        return wire.shape(ModelEndpoint, answer.data)

    async def get(self, slug: str) -> ModelEndpoint:
        """One of them."""
        return wire.shape(ModelEndpoint, (await self._transport.call("GET", _path(slug))).data)

    async def models(self, slug: str) -> list[EndpointModel]:
        """Ask it which models it has.

        Raises:
            Unavailable: it does not answer, or not as such a server does.
        """
        answer = await self._transport.call("GET", f"{_path(slug)}/models")
        return wire.shapes(EndpointModel, answer.data)

    async def delete(self, slug: str) -> None:
        """Take one away. Agents that name it fail from then on, and say why."""
        await self._transport.call("DELETE", _path(slug))

    async def list(self) -> list[ModelEndpoint]:
        """All of them."""
        return wire.shapes(
            ModelEndpoint, (await self._transport.call("GET", "/model-endpoints")).data
        )


def _path(slug: str) -> str:
    return f"/model-endpoints/{wire.segment(slug)}"
