"""What a provider's failure means: try again and when, make the conversation shorter, or give up. Pure."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import Literal

from pydantic_ai import exceptions as theirs

from runtools.platform.agents.answer import Cut, TooMuch
from runtools.platform.agents.models.http import Unbounded
from runtools.platform.core.ports.worker import ModelAccess
from runtools.platform.kit.outbound import Refused, Unsendable
from runtools.sdk.shapes.runs import RunError

Then = Literal["again", "shorten", "give_up"]

MOST_TRIES = 6
_MOST_STRANGE = 3
"""Of answers that make no sense: another seldom does."""
_FIRST, _LONGEST = 1.0, 60.0
_PATIENCE = 300.0
_TEXT = 500
_SAY, _DEEPEST = ("error", "message", "detail"), 4
REJECTED = "model_rejected"
_CHECK_KEY = "check the provider's key: runtools models shows which one is used"
_TOO_LONG = (
    "context length",
    "context limit",
    "context size",
    "context window",
    "maximum context",
    "prompt length",
    "too many tokens",
    "too long",
)


@dataclass(frozen=True, slots=True)
class Trouble:
    """A failure, and what is to be done about it."""

    then: Then
    error: RunError
    most: int = MOST_TRIES
    after: float | None = None


class Empty(Exception):
    """The model answered with nothing at all."""


def understood(failure: Exception, access: ModelAccess) -> Trouble:
    """What a failure of asking a model means.

    Args:
        failure: what was raised.
        access: how it was asked; the key is in no message.
    """
    secret = access.api_key
    refused = _packed_in(failure, Refused)
    if refused is not None and access.base_url is not None:  # a provider's own name passes again
        hint = "the operator can allow it by the setting outbound_allow"
        return _give("endpoint_refused", refused, secret, hint)
    beyond = _packed_in(failure, TooMuch, Unbounded)
    if beyond is not None:
        hint = "an answer has bounds that no model needs: look at who answers there"
        return _give("model_answer_too_large", beyond, secret, hint)
    unsent = _packed_in(failure, Unsendable)
    if unsent is not None:
        return _give("model_unauthorized", unsent, secret, _CHECK_KEY)
    match failure:
        case theirs.ModelAPIError():
            return _refused(failure, secret) or _passing(failure, secret)
        case theirs.ContentFilterError():
            return _give("model_refused", failure, secret, "the provider's filter stopped it")
        case theirs.UserError():
            return _give(REJECTED, failure, secret)  # its client does, before it is sent
        case theirs.UnexpectedModelBehavior():
            return _again("model_misbehaved", failure, secret, most=_MOST_STRANGE)
        case Empty():
            error = RunError(code="model_empty", message="the model answered with nothing")
            return Trouble("again", error, _MOST_STRANGE)
        case Cut() | OSError() | TimeoutError():
            message = "the answer broke off before its end"
            return Trouble("again", RunError(code="model_unavailable", message=message))
        case _:
            return _give("model_failed", failure, secret)


def _packed_in(failure: BaseException | None, *kinds: type[Exception]) -> Exception | None:
    """A failure of one of these kinds, wherever a provider's client has packed it in."""
    while failure is not None:
        if isinstance(failure, kinds):
            return failure
        failure = failure.__cause__ or failure.__context__
    return None


def _refused(failure: theirs.ModelAPIError, secret: str | None) -> Trouble | None:
    """What another try would not mend."""
    match failure:
        case theirs.ModelContextWindowExceededError():
            return _give("context_overflow", failure, secret, then="shorten")
        case theirs.ModelHTTPError() if _overflows(failure):
            return _give("context_overflow", failure, secret, then="shorten")
        case theirs.ModelQuotaExceededError():
            hint = "the account at the provider has no quota or credit left"
            return _give("model_quota_exceeded", failure, secret, hint)
        case theirs.ModelAuthenticationError():
            return _give("model_unauthorized", failure, secret, _CHECK_KEY)
        case theirs.ModelNotFoundError():
            hint = "the provider knows no such model: name another, as provider:id"
            return _give("model_not_found", failure, secret, hint)
        case theirs.ModelRequestRejectedError():
            return _give(REJECTED, failure, secret)
        case _:
            return None


def _passing(failure: theirs.ModelAPIError, secret: str | None) -> Trouble:
    """What may be over in a moment."""
    if isinstance(failure, theirs.ModelRateLimitError):
        code = "model_rate_limited"
    elif isinstance(failure, theirs.ModelUnavailableError):
        code = "model_overloaded"
    else:
        code = "model_unavailable"
        if isinstance(failure, theirs.ModelHTTPError) and not _may_pass(failure.status_code):
            return _give(REJECTED, failure, secret)
    return _again(code, failure, secret, failure.retry_after)


def _may_pass(status: int) -> bool:
    return status >= 500 or status in (408, 409, 425, 429)


def pause(trouble: Trouble, tries: int) -> float | None:
    """Seconds until the next try; None: there is to be none. What the provider asks for counts."""
    if trouble.then != "again" or tries >= trouble.most:
        return None
    if trouble.after is not None:
        return trouble.after + random.uniform(0, 0.5) if trouble.after <= _PATIENCE else None  # noqa: S311
    longest = min(_FIRST * 2 ** (tries - 1), _LONGEST)
    return random.uniform(longest / 2, longest)  # noqa: S311 - no secret


def _again(
    code: str,
    failure: Exception,
    secret: str | None,
    after: float | None = None,
    most: int = MOST_TRIES,
) -> Trouble:
    hint = None
    if after is not None and after > _PATIENCE:
        hint = f"the provider asks to wait {after:.0f} s, and a run waits {_PATIENCE:.0f} at most"
    error = RunError(code=code, message=_said(failure, secret), hint=hint)
    return Trouble("again", error, most, after)


def _give(
    code: str,
    failure: Exception,
    secret: str | None,
    hint: str | None = None,
    then: Then = "give_up",
) -> Trouble:
    return Trouble(then, RunError(code=code, message=_said(failure, secret), hint=hint))


def _said(failure: Exception, secret: str | None) -> str:
    text = str(failure) or type(failure).__name__
    if isinstance(failure, theirs.ModelHTTPError) and (words := _words(failure.body)):
        text = f"status {failure.status_code}: {words}"
    if secret:
        text = text.replace(secret, "[key]")
    return " ".join(text.split())[:_TEXT]


def _words(body: object, deep: int = 0) -> str | None:
    """What the provider itself says is wrong, wherever its kind of answer has it; None: nobody can tell."""
    if isinstance(body, str):
        try:
            packed = json.loads(body)
        except (ValueError, RecursionError):
            packed = None
        return (_words(packed, deep + 1) if isinstance(packed, dict) else None) or body.strip()
    if not isinstance(body, dict) or deep > _DEEPEST:
        return None
    return next((said for name in _SAY if (said := _words(body.get(name), deep + 1))), None)


def _overflows(failure: theirs.ModelHTTPError) -> bool:
    """Servers of one's own say it in words of their own."""
    if failure.status_code not in (400, 413, 422):
        return False
    said = str(failure).lower()
    return any(words in said for words in _TOO_LONG)
