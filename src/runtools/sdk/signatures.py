"""Signatures of webhooks, as the Standard Webhooks specification has them: made and checked.

The key is what follows ``whsec_``, in base64; signed is ``<webhook-id>.<webhook-timestamp>.<body>``.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Mapping

from pydantic import ValidationError

from runtools.errors import InvalidRequest, SignatureInvalid
from runtools.sdk.shapes.webhooks import WebhookEvent

PREFIX = "whsec_"
TOLERANCE_SECONDS = 300
_VERSION = "v1"
_MAX_SIGNATURES = 20


def sign(secret: str, event_id: str, timestamp: int, body: bytes) -> str:
    """The value of ``webhook-signature``.

    Raises:
        InvalidRequest: the secret is none.
    """
    signed = b"%b.%d.%b" % (event_id.encode("utf-8", "replace"), timestamp, body)
    mac = hmac.new(_key(secret), signed, hashlib.sha256).digest()
    return f"{_VERSION},{base64.b64encode(mac).decode()}"


def verify(
    secret: str,
    headers: Mapping[str, str],
    body: bytes | str,
    *,
    tolerance_seconds: float = TOLERANCE_SECONDS,
) -> WebhookEvent:
    """Check that a request comes from the platform that holds the secret, and is not an old one.

    The same event may come more than once: remember ``event.id``.

    Args:
        secret: ``whsec_…``, as shown when the webhook was made.
        headers: the request's, under names of any case.
        body: the request's body, byte for byte as it came.
        tolerance_seconds: how far the sender's clock may be from ours.

    Raises:
        SignatureInvalid: it is not to be trusted; the message says what is wrong with it.
        InvalidRequest: the secret is none.
    """
    data = body.encode() if isinstance(body, str) else body
    named = {name.lower(): value for name, value in headers.items()}
    missing = [
        name
        for name in ("webhook-id", "webhook-timestamp", "webhook-signature")
        if not named.get(name)
    ]
    if missing:
        raise SignatureInvalid(f"the request has no header {missing[0]}")
    stamp = named["webhook-timestamp"]
    if not stamp.isascii() or not stamp.isdigit() or len(stamp) > 15:
        raise SignatureInvalid("webhook-timestamp is not a number of seconds")
    expected = sign(secret, named["webhook-id"], int(stamp), data).encode()
    given = named["webhook-signature"].split(" ")[:_MAX_SIGNATURES]
    # All are compared, so that the time tells nothing.
    matches = [hmac.compare_digest(expected, one.encode("utf-8", "replace")) for one in given]
    if not any(matches):
        raise SignatureInvalid("no signature fits: another secret, or the request was changed")
    if abs(time.time() - int(stamp)) > tolerance_seconds:
        raise SignatureInvalid(
            f"the request is {abs(time.time() - int(stamp)):.0f} s from now: a repeat of an old "
            "one, or a clock is wrong"
        )
    try:
        event = WebhookEvent.model_validate_json(data)
    except ValidationError as exc:
        raise SignatureInvalid(f"the body is no event: {exc.error_count()} fields") from exc
    if event.id != named["webhook-id"]:
        raise SignatureInvalid("the body is another event than webhook-id names")
    return event


def _key(secret: str) -> bytes:
    if not secret.startswith(PREFIX):
        raise InvalidRequest(f"a webhook secret begins with {PREFIX}")
    try:
        return base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest("the webhook secret is not whole") from None
