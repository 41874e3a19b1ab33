"""The forms on the page of an account, and the page of a link that resets a password."""

from __future__ import annotations

from typing import TypeVar

from fastapi import APIRouter, Request
from pydantic import BaseModel, ValidationError
from starlette.responses import Response

from runtools.errors import RunToolsError
from runtools.platform.api.callers import sent
from runtools.platform.api.calls import NULL, Call, call_of
from runtools.platform.api.identities import service as identities
from runtools.platform.api.pages import render
from runtools.platform.api.pages.routes import account_page, user_of
from runtools.platform.api.resets import service as resets
from runtools.platform.api.signin import service as signin
from runtools.platform.api.users import service as accounts
from runtools.platform.api.users.store import User
from runtools.platform.kit import http
from runtools.sdk.shapes.people import PasswordChange, PasswordReset

router = APIRouter(tags=["pages"], include_in_schema=False)

_SHOWN = 200

ModelT = TypeVar("ModelT", bound=BaseModel)


@router.post("/account/password", name="change_password")
async def change_password(request: Request) -> Response:
    """Another password."""
    call = call_of(request)
    user = await user_of(call)
    if user is None:
        return _signed_out(call)
    call.subject = user.id
    form = render.fields(call)
    try:
        wanted = _checked(PasswordChange, form)
        ended = await signin.change_password(call, wanted.current, wanted.new, _nothing)
    except RunToolsError as error:
        return await _refused(call, user, error)
    return await account_page(call, user, done=f"Changed. {ended} other sessions ended.")


@router.post("/account/unlink", name="unlink_identity")
async def unlink(request: Request) -> Response:
    """Unlink an identity."""
    call = call_of(request)
    user = await user_of(call)
    if user is None:
        return _signed_out(call)
    call.subject = render.fields(call).get("id", "")
    try:
        await identities.unlink(call, call.subject, _nothing)
    except RunToolsError as error:
        return await _refused(call, user, error)
    return await account_page(call, user, done="Unlinked, and signed out everywhere else.")


@router.post("/account/close", name="close_account")
async def close(request: Request) -> Response:
    """Close the account."""
    call = call_of(request)
    user = await user_of(call)
    if user is None:
        return _signed_out(call)
    call.subject = user.id
    try:
        await signin.show_password(call, render.fields(call).get("password", "")[:1000])
        await accounts.close(call, user.id, render.AWAY, revoke_keys=False)
    except RunToolsError as error:
        return await _refused(call, user, error)
    return render.without_cookie(render.away("/signin"), sent.SESSION_COOKIE)


@router.get("/reset")
async def reset_page(request: Request) -> Response:
    """Another password, by a link."""
    call_of(request)
    return _reset_page()


@router.post("/reset", name="reset_password")
async def reset(request: Request) -> Response:
    """Set it."""
    call = call_of(request)
    form = render.fields(call)
    form["code"] = form.get("code", "").strip().rpartition("#")[2]
    try:
        wanted = _checked(PasswordReset, form)
        await resets.use(call, wanted.code, wanted.password, _SHOWN)
    except RunToolsError as error:
        call.failed = error.code
        return _reset_page(code=form["code"][:200], error=error)
    return _reset_page(done=True)


def _checked(kind: type[ModelT], form: dict[str, str]) -> ModelT:
    try:
        return kind.model_validate(form)
    except ValidationError as exc:
        raise http.invalid(exc.errors(include_url=False, include_input=False)) from None


def _nothing(_: object) -> bytes:
    """What is kept of the answer to a form, which nobody sends again with a key."""
    return NULL


def _signed_out(call: Call) -> Response:
    call.did_nothing = True
    return render.away("/signin")


async def _refused(call: Call, user: User, error: RunToolsError) -> Response:
    call.failed = error.code
    return await account_page(call, user, error=render.said(error), status=error.status)


def _reset_page(
    *, code: str = "", done: bool = False, error: RunToolsError | None = None
) -> Response:
    said = None if error is None else render.said(error)
    values = {"code": code, "done": done, "error": said}
    return render.page("reset", values, status=200 if error is None else error.status)
