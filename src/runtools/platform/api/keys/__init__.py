"""API keys: who calls, for which org."""
