"""``/v1/models`` and ``/v1/model-endpoints``."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter, Request
from starlette.responses import Response

from runtools.errors import (
    Conflict,
    IdempotencyMismatch,
    NotFound,
    SecretUnfit,
    Unavailable,
    WrongMasterKey,
)
from runtools.platform.api import document
from runtools.platform.api.calls import Call, call_of
from runtools.platform.api.models import prices, service
from runtools.platform.api.models.store import Endpoint
from runtools.platform.core import models
from runtools.platform.kit.http import many, one
from runtools.sdk.shapes.events import Envelope
from runtools.sdk.shapes.models import (
    EndpointModel,
    KeySource,
    Model,
    ModelEndpoint,
    ModelEndpointCreate,
)

router = APIRouter(prefix="/v1", tags=["models"])


@router.get("/models", **document.route(Envelope[list[Model]]))
async def list_models(request: Request) -> Response:
    """The catalogue, and for which of its models the org has a key."""
    call = call_of(request)
    now, sources = call.platform.clock.now(), await service.provider_keys(call)

    def shown(model: models.Model) -> Model:
        key = models.PROVIDERS[model.provider].key
        return Model(
            alias=model.alias,
            name=model.name,
            provider=model.provider,
            api_id=model.api_id,
            context_window=model.context_window,
            images=model.images,
            thinking=model.thinking,
            price=prices.price(model, now),
            key_name=key,
            key="not_needed" if key is None else sources[key],
        )

    return call.answer(many([shown(model) for model in models.MODELS.values()]))


@router.post(
    "/model-endpoints",
    **document.route(
        Envelope[ModelEndpoint],
        Conflict,
        NotFound,
        IdempotencyMismatch,
        status=201,
        takes=ModelEndpointCreate,
    ),
)
async def create(request: Request) -> Response:
    """Add an OpenAI-compatible server. Agents name its models `slug:model`."""
    call = call_of(request)
    made = await service.add(call, call.take(ModelEndpointCreate))
    [shown] = await _shown(call, [made])
    return call.answer(one(shown), 201)


@router.get("/model-endpoints", **document.route(Envelope[list[ModelEndpoint]]))
async def list_(request: Request) -> Response:
    """The org's endpoints by slug."""
    call = call_of(request)
    return call.answer(many(await _shown(call, await service.all_of(call))))


@router.get("/model-endpoints/{slug}", **document.route(Envelope[ModelEndpoint], NotFound))
async def get(request: Request, slug: str) -> Response:
    """One of them."""
    call = call_of(request)
    [shown] = await _shown(call, [await service.get(call, slug)])
    return call.answer(one(shown))


@router.get(
    "/model-endpoints/{slug}/models",
    **document.route(
        Envelope[list[EndpointModel]], NotFound, SecretUnfit, Unavailable, WrongMasterKey
    ),
)
async def ask(request: Request, slug: str) -> Response:
    """Ask an endpoint which models it has."""
    call = call_of(request)
    found = await service.ask(call, slug)
    return call.answer(
        many([EndpointModel(name=f"{slug}:{api_id}", api_id=api_id) for api_id in found])
    )


@router.delete(
    "/model-endpoints/{slug}",
    **document.route(Envelope[ModelEndpoint], NotFound, IdempotencyMismatch),
)
async def delete(request: Request, slug: str) -> Response:
    """Take an endpoint away. Agents that name it fail from then on, and say why."""
    call = call_of(request)
    return call.answer(_look_gone(await service.remove(call, slug, _look_gone)))


async def _shown(call: Call, endpoints: Sequence[Endpoint]) -> list[ModelEndpoint]:
    sources = await service.keys_of(call, endpoints)
    return [_shape(endpoint, key) for endpoint, key in zip(endpoints, sources, strict=True)]


def _look_gone(endpoint: Endpoint) -> bytes:
    return one(_shape(endpoint, "not_needed" if endpoint.secret is None else "missing"))


def _shape(endpoint: Endpoint, key: KeySource) -> ModelEndpoint:
    return ModelEndpoint(
        id=endpoint.id,
        slug=endpoint.slug,
        url=endpoint.url,
        secret=endpoint.secret,
        context_window=endpoint.context_window,
        key=key,
        created_at=endpoint.created_at,
    )
