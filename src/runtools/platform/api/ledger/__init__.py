"""The ledger: every change of every sandbox, append-only."""
