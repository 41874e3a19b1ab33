"""Snapshots: kept states of sandboxes."""
