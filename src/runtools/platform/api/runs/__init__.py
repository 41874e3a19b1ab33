"""Runs: their records and logs, what can be asked of them, and those who read along."""
