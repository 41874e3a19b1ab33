"""Threads: conversations that are kept across runs."""
