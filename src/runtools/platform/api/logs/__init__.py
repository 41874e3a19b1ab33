"""Logs of runs, read in pieces."""
