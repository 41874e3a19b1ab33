"""Signatures of webhooks: what is trusted, and what is not."""

from __future__ import annotations

import base64
import json
import time

import pytest

from runtools.errors import InvalidRequest, SignatureInvalid
from runtools.sdk import signatures
from runtools.sdk.signatures import sign
from runtools.webhooks import verify

SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()
OTHER = "whsec_" + base64.b64encode(b"o" * 32).decode()
BODY = json.dumps(
    {"id": "evt_1", "type": "sandbox.paused", "timestamp": "2026-11-23T12:00:00+00:00", "data": {}}
).encode()


def headers(*, at: float = 0, secret: str = SECRET, body: bytes = BODY) -> dict[str, str]:
    stamp = int(time.time() + at)
    signed = sign(secret, "evt_1", stamp, body)
    return {"Webhook-Id": "evt_1", "webhook-timestamp": str(stamp), "WEBHOOK-SIGNATURE": signed}


def test_the_example_of_the_specification() -> None:
    """standardwebhooks.com: the reference libraries' own test vector."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    body = b'{"test": 2432232314}'
    signed = sign(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_true_one_is_taken() -> None:
    event = verify(SECRET, headers(), BODY)
    assert (event.id, event.type) == ("evt_1", "sandbox.paused")
    assert verify(SECRET, headers(), BODY.decode()) == event


def test_one_of_several_signatures_is_enough() -> None:
    given = headers()
    given["WEBHOOK-SIGNATURE"] = f"v1,AAAA {given['WEBHOOK-SIGNATURE']} v2,x"
    assert verify(SECRET, given, BODY).id == "evt_1"


@pytest.mark.parametrize("change", ["body", "id", "stamp", "secret", "signature", "no signature"])
def test_whatever_is_changed_is_noticed(change: str) -> None:
    given, body, secret = headers(), BODY, SECRET
    if change == "body":
        body += b" "
    elif change == "id":
        given["Webhook-Id"] = "evt_2"
    elif change == "stamp":
        given["webhook-timestamp"] = str(int(given["webhook-timestamp"]) + 1)
    elif change == "secret":
        secret = OTHER
    elif change == "signature":
        given["WEBHOOK-SIGNATURE"] = "v1,\udcff€"
    else:
        del given["WEBHOOK-SIGNATURE"]
    with pytest.raises(SignatureInvalid):
        verify(secret, given, body)


@pytest.mark.parametrize("at", [-301, 302])
def test_an_old_one_is_not_taken(at: float) -> None:
    with pytest.raises(SignatureInvalid, match="clock"):
        verify(SECRET, headers(at=at), BODY)
    assert verify(SECRET, headers(at=at), BODY, tolerance_seconds=400).id == "evt_1"


@pytest.mark.parametrize("stamp", ["", "x", "-1", "1e3", "٣", "9" * 16])
def test_a_stamp_that_is_no_number(stamp: str) -> None:
    with pytest.raises(SignatureInvalid):
        verify(SECRET, headers() | {"webhook-timestamp": stamp}, BODY)


def test_a_body_that_is_no_event() -> None:
    with pytest.raises(SignatureInvalid, match="no event"):
        verify(SECRET, headers(body=b"[]"), b"[]")


@pytest.mark.parametrize("secret", ["", "abc", "whsec_!"])
def test_a_secret_that_is_none(secret: str) -> None:
    with pytest.raises(InvalidRequest):
        verify(secret, headers(), BODY)


def test_signatures_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    real = signatures.hmac.compare_digest
    monkeypatch.setattr(
        signatures.hmac, "compare_digest", lambda a, b: compared.append(b) or real(a, b)
    )
    given = headers()
    given["WEBHOOK-SIGNATURE"] += " v1,AAAA"
    verify(SECRET, given, BODY)
    assert len(compared) == 2
