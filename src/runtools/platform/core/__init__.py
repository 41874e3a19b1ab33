"""Ids, states and legal moves, and the ports between parts: pure, no I/O."""
