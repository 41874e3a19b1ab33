"""Where the API keys of model providers come from: the org's secrets, then the machine's environment.

Keys of the environment are the operator's own, and serve the first org of the platform only: a tenant
spends no money that is not its own.
"""

from __future__ import annotations

from collections.abc import Iterable

from runtools.platform.api.orgs import store as orgs
from runtools.platform.api.platform import Platform
from runtools.platform.api.secrets import sent
from runtools.platform.api.secrets import store as secrets
from runtools.platform.kit.db import Transaction
from runtools.sdk.shapes.models import KeySource

CATEGORY = "provider"
SCOPES = frozenset({"all", "agents"})


async def sources(platform: Platform, org_id: str, names: Iterable[str]) -> dict[str, KeySource]:
    """Where the org has the key of each name."""
    return await platform.db.read(_sources, org_id, frozenset(names), platform.provider_keys.keys())


async def value(platform: Platform, org_id: str, name: str, *, around: bool = True) -> str | None:
    """The key of that name; None: the org has none.

    Args:
        around: whether the machine's environment serves too: not where an address that a member has
            chosen would get it.

    Raises:
        SecretUnfit: it could not be sent.
    """
    found = await platform.db.read(secrets.value, org_id, name)
    kept: str | None = None
    if found is not None and is_usable(found[0]):
        kept = platform.vault.open(found[1], secrets.LABEL, org_id, name)
    elif around and org_id == await platform.db.read(orgs.first):
        kept = platform.provider_keys.get(name)
    return None if kept is None else sent.checked(name, kept)


def is_usable(secret: secrets.Secret) -> bool:
    """Whether category and scope let models be asked with it."""
    return secret.category == CATEGORY and secret.scope in SCOPES


def _sources(
    conn: Transaction, org_id: str, names: frozenset[str], given: Iterable[str]
) -> dict[str, KeySource]:
    kept = {secret.name for secret in secrets.named(conn, org_id, names) if is_usable(secret)}
    around = frozenset(given) if org_id == orgs.first(conn) else frozenset[str]()
    return {name: _source(name, kept, around) for name in names}


def _source(name: str, kept: set[str], around: frozenset[str]) -> KeySource:
    if name in kept:
        return "secret"
    return "environment" if name in around else "missing"
