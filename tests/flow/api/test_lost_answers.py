"""Every route that changes something, asked again with its key when no answer of the first was kept."""

from __future__ import annotations

import pytest

from runtools.platform.api.idempotency import edge
from runtools.testing.made_once import bare_app
from runtools.testing.tenancy.operations import operations
from runtools.testing.tenancy.org import Org
from runtools.testing.tenancy.outside import NOT_OF_AN_ORG, OF_A_PERSON
from runtools.testing.tenancy.walk import Walk

_ONCE = "a secret is shown once"
_STANDS = "it says how what was begun stands by now"
OTHERWISE = {
    "POST /v1/api-keys": _ONCE,
    "POST /v1/api-keys/{key_id}/rotate": _ONCE,
    "POST /v1/invitations": _ONCE,
    "POST /v1/orgs": _ONCE,
    "POST /v1/webhooks": _ONCE,
    "POST /v1/deploys": _STANDS,
    "POST /v1/sandboxes/{ref}/processes": _STANDS,
    "POST /v1/sandboxes/{ref}/processes/{process_id}/signal": _STANDS,
    "POST /v1/templates/{slug}/builds": _STANDS,
    "POST /v1/prune": "what is freed is freed: there is less to free",
    "POST /v1/sandboxes/{ref}/processes/{process_id}/terminal-ticket": "it is kept nowhere",
}
_SECRET = "its secret is kept nowhere: a repeat gets another, and the first opens nothing"
ANEW = {
    "POST /v1/members/{user_id}/reset": _SECRET,
    "POST /v1/people/{user_id}/reset": _SECRET,
    "POST /v1/sandboxes/{ref}/urls/{port}/links": _SECRET,
    "POST /v1/sandboxes/{ref}/ssh": "the pass lasts from then on",
}


# What stores do is shown on both engines elsewhere (`test_stores`).
@pytest.mark.parametrize("any_url", ["sqlite"], indirect=True)
async def test_nothing_is_done_twice_and_the_same_is_answered(
    two: tuple[Org, Org], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after an end of the api between an answer and its being kept, for every route there is."""

    def lost(point: str) -> None:
        if point == "api.idempotency.answered":
            raise ConnectionError("killed here")

    monkeypatch.setattr(edge, "reach", lost)
    free = {*NOT_OF_AN_ORG, *OF_A_PERSON}
    asked = [one for one in operations(bare_app()) if one.mutates and one.name not in free]
    whole = [one for one in asked if not one.streams]
    assert {*OTHERWISE, *ANEW} <= {one.name for one in whole}
    faults = await Walk(*two).repeated(whole, OTHERWISE, ANEW)
    assert faults == [], "\n\n".join(faults)
