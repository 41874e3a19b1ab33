"""Limits: how much an org may have at once, and what it has."""
