"""Sandboxes: what is wanted of each, what was last seen of it, and its ledger."""
