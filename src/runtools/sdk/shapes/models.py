"""Models that agents can think with, and endpoints of the org's own."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from runtools.sdk.shapes.base import Request, Shape
from runtools.sdk.shapes.secrets import SecretName

KeySource = Literal["secret", "environment", "missing", "not_needed"]

EndpointSlug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]


class ModelPrice(Shape):
    """US dollars for a million tokens, where a request is short. Long ones may cost more."""

    input: Decimal
    output: Decimal


class Model(Shape):
    """A model of the catalogue."""

    alias: str = Field(description="what an agent's definition says")
    name: str
    provider: str
    api_id: str = Field(description="what the provider calls it")
    context_window: int | None = Field(description="tokens; null: not published")
    images: bool = Field(description="whether it sees pictures")
    thinking: bool = Field(description="whether it can think before it answers")
    price: ModelPrice | None = Field(description="null: not known, or it costs nothing")
    key_name: str | None = Field(description="the secret that holds its provider's API key")
    key: KeySource = Field(description="where the org has that key")


class ModelEndpointCreate(Request):
    """What `POST /v1/model-endpoints` takes."""

    slug: EndpointSlug = Field(description="agents name its models `slug:model`")
    url: str = Field(min_length=1, max_length=2048, description="the base, up to `/v1`")
    secret: SecretName | None = Field(None, description="of category provider; null: it needs none")
    context_window: int | None = Field(
        None,
        ge=1_000,
        le=100_000_000,
        description="tokens that its models take in; conversations are summed up before they are longer",
    )


class ModelEndpoint(Shape):
    """An OpenAI-compatible server of the org's own: Ollama, vLLM, llama.cpp, a gateway."""

    id: str
    slug: str
    url: str
    secret: str | None
    context_window: int | None = Field(None, description="tokens; null: nobody has said")
    key: KeySource
    created_at: datetime


class EndpointModel(Shape):
    """A model that an endpoint says it has."""

    name: str = Field(description="what an agent's definition says: `slug:model`")
    api_id: str
