"""Idempotency: a repeat of a mutating request is answered, not done again."""
