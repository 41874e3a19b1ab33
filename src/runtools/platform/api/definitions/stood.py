"""What stands in a project, with the private parts of it opened: what a plan begins from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from runtools.platform.api.definitions import store
from runtools.platform.api.definitions.tables import LABEL
from runtools.platform.api.deploys.plan import Stood
from runtools.platform.api.vault.vault import Vault
from runtools.platform.kit.db import Transaction
from runtools.sdk.shapes.definitions import DEFINITIONS, Kind, to_wire


def stood(conn: Transaction, vault: Vault, org_id: str, project_id: str) -> list[Stood]:
    """All that stands there, with what was changed of its sandboxes by other ways."""
    found = []
    for row in store.standing(conn, org_id, project_id):
        says = _as_it_is_said_now(row.kind, row.says)
        if row.sealed is not None:
            says[store.PRIVATE] = json.loads(vault.open(row.sealed, LABEL, row.version_id))
        if row.internet is not None:
            says |= {"internet": row.internet, "egress": row.egress, "devUrls": row.dev_urls}
        found.append(
            Stood(
                id=row.id,
                kind=row.kind,
                slug=row.slug,
                version=row.version,
                says=says,
                sandbox_id=row.sandbox_id,
                gone="stopped" in (row.state, row.wanted),
            )
        )
    return found


def _as_it_is_said_now(kind: Kind, says: Mapping[str, Any]) -> dict[str, Any]:
    """What was said when its shape had fewer fields: what is new has its default, and is no change."""
    return to_wire(DEFINITIONS[kind].model_validate(says))
