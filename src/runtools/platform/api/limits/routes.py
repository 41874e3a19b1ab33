"""``/v1/limits`` and, for the operator, ``/v1/orgs/{org_id}/limits``."""

from __future__ import annotations

from datetime import datetime

from fastapi import APIRouter, Request
from starlette.responses import Response

from runtools.errors import IdempotencyMismatch, NotFound
from runtools.platform.api import document
from runtools.platform.api.calls import Call, call_of
from runtools.platform.api.limits import store
from runtools.platform.api.limits.rules import NANO_A_CENT, standard
from runtools.platform.api.orgs import store as orgs
from runtools.platform.api.runs import store as runs
from runtools.platform.api.runs.rules import month
from runtools.platform.kit.db import Transaction
from runtools.platform.kit.http import one
from runtools.sdk.shapes.events import Envelope
from runtools.sdk.shapes.limits import Amounts, LimitsChange, OrgLimits

router = APIRouter(prefix="/v1", tags=["limits"])


@router.get("/limits", **document.route(Envelope[OrgLimits]))
async def get(request: Request) -> Response:
    """What the caller's org may have at once, and what it has."""
    call = call_of(request)
    usual = standard(call.platform.settings)
    return call.answer(one(await call.platform.db.read(_look, call.org, usual, _now(call))))


@router.get("/orgs/{org_id}/limits", **document.route(Envelope[OrgLimits], NotFound))
async def of_org(request: Request, org_id: str) -> Response:
    """The same of any org, for the operator."""
    call = call_of(request)
    usual = standard(call.platform.settings)
    return call.answer(one(await call.platform.db.read(_look, org_id, usual, _now(call))))


@router.patch(
    "/orgs/{org_id}/limits",
    **document.route(Envelope[OrgLimits], NotFound, IdempotencyMismatch, takes=LimitsChange),
)
async def change(request: Request, org_id: str) -> Response:
    """Set limits of an org, as the operator. What it has already is left alone."""
    call = call_of(request)
    wanted = call.take(LimitsChange)
    usual = standard(call.platform.settings)
    call.subject = org_id
    done = await call.settled(one, _change, call, org_id, wanted, usual)
    return call.answer(one(done))


def _now(call: Call) -> datetime:
    return call.platform.clock.now()


def _change(
    conn: Transaction, call: Call, org_id: str, wanted: LimitsChange, usual: Amounts
) -> OrgLimits:
    _check(conn, org_id)
    call.line_org = org_id
    said = wanted.model_dump(by_alias=False, exclude_none=True)
    values = {name: None if value == "default" else value for name, value in said.items()}
    store.change(conn, org_id, values)
    return _look(conn, org_id, usual, _now(call))


def _look(conn: Transaction, org_id: str, usual: Amounts, now: datetime) -> OrgLimits:
    _check(conn, org_id)
    limits, used = store.limits(conn, org_id, usual), store.used(conn, org_id)
    tokens, nano_usd = runs.spent(conn, org_id, month(now))
    spent = {"agent_tokens": tokens, "agent_cents": nano_usd // NANO_A_CENT}
    return OrgLimits(org_id=org_id, limits=limits, used=used.model_copy(update=spent))


def _check(conn: Transaction, org_id: str) -> None:
    if not orgs.there(conn, org_id):
        raise NotFound(f"no org {org_id[:80]!r}")
