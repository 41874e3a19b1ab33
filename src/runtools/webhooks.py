"""For those who receive webhooks: ``runtools.webhooks.verify(secret, headers, body)``."""

from __future__ import annotations

from runtools.sdk.shapes.webhooks import WebhookEvent
from runtools.sdk.signatures import verify

__all__ = ["WebhookEvent", "verify"]
