"""The catalogue as an org sees it, and the org's own endpoints: adding, asking, taking away."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from runtools.errors import Forbidden, NotFound, Unavailable
from runtools.platform.api import guard
from runtools.platform.api.calls import Call
from runtools.platform.api.models import keys, store
from runtools.platform.api.models.store import Endpoint
from runtools.platform.api.secrets import store as secrets
from runtools.platform.core.ids import new_id
from runtools.platform.core.models import PROVIDERS
from runtools.platform.kit import http
from runtools.platform.kit.db import Transaction
from runtools.platform.kit.outbound import Failed, Refused, split
from runtools.sdk.shapes.models import KeySource, ModelEndpointCreate

MOST = 50
_ASK_SECONDS = 10.0
_MAX_ANSWER = 4 * 1024 * 1024
_MAX_MODELS = 2000


async def provider_keys(call: Call) -> dict[str, KeySource]:
    """Where the org has the key of each provider, by the name of the key."""
    names = [provider.key for provider in PROVIDERS.values() if provider.key is not None]
    return await keys.sources(call.platform, call.org, names)


async def keys_of(call: Call, endpoints: Sequence[Endpoint]) -> list[KeySource]:
    """Where the org has the key of each endpoint."""
    names = [endpoint.secret for endpoint in endpoints if endpoint.secret is not None]
    found = await keys.sources(call.platform, call.org, names)
    return [
        "not_needed" if endpoint.secret is None else found[endpoint.secret]
        for endpoint in endpoints
    ]


async def add(call: Call, wanted: ModelEndpointCreate) -> Endpoint:
    """A new endpoint.

    Raises:
        InvalidRequest: its URL cannot or may not be spoken to, or its slug is a provider's.
        NotFound: there is no such secret.
        Forbidden: the secret is none that models are asked with, or the caller may not see secrets:
            whoever runs the server there reads it.
        Conflict: there is one of that slug, or there are too many.
    """
    if wanted.secret is not None:
        guard.check_scope(call.who, "secret:reveal")
    if wanted.slug in PROVIDERS:
        raise http.wrong_field("slug", f"{wanted.slug} is a provider of the catalogue")
    try:
        if split(wanted.url).query:
            raise http.wrong_field("url", "a base URL has no query")
        await call.platform.outbound.check(wanted.url)
    except Refused as exc:
        raise http.wrong_field("url", str(exc)) from None
    endpoint = Endpoint(
        id=new_id("mep"),
        org_id=call.org,
        slug=wanted.slug,
        url=wanted.url.rstrip("/"),
        secret=wanted.secret,
        context_window=wanted.context_window,
        op=call.op,
        created_at=call.platform.clock.now(),
    )
    return await call.made(_add, endpoint)


async def all_of(call: Call) -> list[Endpoint]:
    """The org's endpoints."""
    return await call.platform.db.read(store.all_of, call.org)


async def get(call: Call, slug: str) -> Endpoint:
    """One of the org's."""
    return _found(await call.platform.db.read(store.find, call.org, slug), slug)


async def remove(call: Call, slug: str, look: Callable[[Endpoint], bytes]) -> Endpoint:
    """Take one away; agents that name it fail from then on, and say why.

    Args:
        look: how it is shown in the answer, which is kept with what it tells of.
    """

    def act(conn: Transaction) -> Endpoint:
        return _found(store.remove(conn, call.org, slug), slug)

    return await call.settled(look, act)


async def ask(call: Call, slug: str) -> list[str]:
    """Which models an endpoint says it has.

    Raises:
        SecretUnfit: its key cannot be sent.
        Unavailable: it does not answer, or not as such a server does; the message says what it said.
    """
    endpoint = await get(call, slug)
    headers = [("Accept", "application/json")]
    if endpoint.secret is not None:
        key = await keys.value(call.platform, call.org, endpoint.secret, around=False)
        if key is None:
            raise _no_secret(endpoint.secret)
        headers.append(("Authorization", f"Bearer {key}"))
    try:
        answer = await call.platform.outbound.ask(
            "GET", f"{endpoint.url}/models", headers, b"", _ASK_SECONDS, keep=_MAX_ANSWER
        )
    except (Refused, Failed) as exc:
        raise _silent(slug, str(exc)) from None
    if answer.status != 200:
        raise _silent(slug, f"it answered with status {answer.status}")
    try:
        found = [str(model["id"]) for model in json.loads(answer.body)["data"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _silent(slug, "its answer is no list of models") from None
    return sorted(set(found))[:_MAX_MODELS]


def _add(conn: Transaction, endpoint: Endpoint) -> Endpoint:
    known = store.find(conn, endpoint.org_id, endpoint.slug)
    if known is None and endpoint.secret is not None:
        _check_secret(conn, endpoint.org_id, endpoint.secret)
    return store.add(conn, endpoint, MOST)


def _check_secret(conn: Transaction, org_id: str, name: str) -> None:
    secret = secrets.find(conn, org_id, name)
    if secret is None:
        raise _no_secret(name)
    if not keys.is_usable(secret):
        raise Forbidden(
            f"secret {name} is {secret.category}/{secret.scope}: no model is asked with it",
            hint=f"only category {keys.CATEGORY} with scope agents or all is",
            details={"field": "secret"},
        )


def _found(endpoint: Endpoint | None, slug: str) -> Endpoint:
    if endpoint is None:
        raise NotFound(f"no endpoint {slug[:80]!r}", hint="runtools endpoint list shows them")
    return endpoint


def _no_secret(name: str) -> NotFound:
    details: dict[str, Any] = {"field": "secret", "name": name}
    return NotFound(
        f"no secret {name[:128]!r}", hint=f"runtools secret set {name}", details=details
    )


def _silent(slug: str, why: str) -> Unavailable:
    return Unavailable(
        f"endpoint {slug} did not say which models it has: {why}",
        hint="is its server running, and its URL the base that ends in /v1?",
    )
