"""How a run's model is reached: by which provider or endpoint, and with which key."""

from __future__ import annotations

from runtools.platform.api.models import keys, store
from runtools.platform.api.models.store import Endpoint
from runtools.platform.api.platform import Platform
from runtools.platform.core.models import PROVIDERS, Choice, choose, published
from runtools.platform.core.ports.worker import ModelAccess


async def access(platform: Platform, org_id: str, name: str) -> ModelAccess:
    """The way to a model that an agent of the org names, with the key.

    Raises:
        InvalidRequest: nothing is called that (any more).
        SecretUnfit: its key cannot be sent.
    """
    found = await way(platform, org_id, name)
    if found.key_name is None:
        return found
    around = (
        found.base_url is None
    )  # the machine's own keys are not for addresses that members choose
    key = await keys.value(platform, org_id, found.key_name, around=around)
    return found.model_copy(update={"api_key": key})


async def way(platform: Platform, org_id: str, name: str) -> ModelAccess:
    """The way to a model that an agent of the org names, without the key.

    Raises:
        InvalidRequest: nothing is called that (any more).
    """
    endpoints = {one.slug: one for one in await platform.db.read(store.all_of, org_id)}
    chosen = choose(name, endpoints)
    endpoint = endpoints.get(chosen.provider)
    return ModelAccess(
        provider=chosen.provider,
        api_id=chosen.api_id,
        base_url=None if endpoint is None else endpoint.url,
        context_window=_window(chosen, endpoint),
        key_name=PROVIDERS[chosen.provider].key if endpoint is None else endpoint.secret,
    )


def _window(chosen: Choice, endpoint: Endpoint | None) -> int | None:
    """Tokens that a model takes in; a gateway serves models of the catalogue by the ids they have there."""
    if endpoint is not None and endpoint.context_window is not None:
        return endpoint.context_window
    model = chosen.model or published(chosen.api_id)
    return None if model is None else model.context_window
