# Generated from sdk/webhooks.py by scripts/generate_sync.py: edit that, then run it.
"""Webhooks: receivers that are told what happens to sandboxes."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing

from runtools.sdk import wire
from runtools.sdk.shapes.webhooks import EventType, Webhook, WebhookDelivery
from runtools.sdk.sync.transport import Transport


class Webhooks:
    """Receivers of events: ``rt.webhooks``. They check what they get by `runtools.webhooks.verify`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self, url: str, *, events: Sequence[EventType] = (), description: str = ""
    ) -> Webhook:
        """Have events sent to a URL. Its ``secret`` is in this answer alone.

        Args:
            url: https, at a public address; what else the platform allows is its operator's matter.
            events: which; default: all.
            description: for people.

        Raises:
            InvalidRequest: the URL is malformed, does not resolve, or is not allowed.
        """
        body = {"url": url, "events": list(events), "description": description}
        answer = self._transport.call("POST", "/webhooks", body=body)
        return wire.shape(Webhook, answer.data)

    def get(self, webhook_id: str) -> Webhook:
        """One, without its secret."""
        return wire.shape(Webhook, (self._transport.call("GET", _path(webhook_id))).data)

    def enable(self, webhook_id: str) -> Webhook:
        """Let events flow again to one that was disabled. Those of the time between are not sent."""
        answer = self._transport.call("POST", f"{_path(webhook_id)}/enable")
        return wire.shape(Webhook, answer.data)

    def delete(self, webhook_id: str) -> None:
        """Delete one, with its deliveries."""
        self._transport.call("DELETE", _path(webhook_id))

    def test(self, webhook_id: str) -> WebhookDelivery:
        """Send a ``webhook.test`` event now, once; returns what became of it."""
        answer = self._transport.call("POST", f"{_path(webhook_id)}/test")
        return wire.shape(WebhookDelivery, answer.data)

    def deliveries(self, webhook_id: str) -> Generator[WebhookDelivery, None, None]:
        """Its deliveries of the last week, newest first."""
        path = f"{_path(webhook_id)}/deliveries"
        with closing(self._transport.pages(path, [], 100)) as items:
            for item in items:
                yield wire.shape(WebhookDelivery, item)

    def redeliver(self, webhook_id: str, delivery_id: str) -> WebhookDelivery:
        """Send the event of a delivery once more, under the same event id; returns the new one."""
        path = f"{_path(webhook_id)}/deliveries/{wire.segment(delivery_id)}/redeliver"
        return wire.shape(WebhookDelivery, (self._transport.call("POST", path)).data)

    def list(self) -> list[Webhook]:
        """The org's webhooks."""
        return wire.shapes(Webhook, (self._transport.call("GET", "/webhooks")).data)


def _path(webhook_id: str) -> str:
    return f"/webhooks/{wire.segment(webhook_id)}"
