"""Webhooks: receivers of events, and the deliveries on their way to them."""
