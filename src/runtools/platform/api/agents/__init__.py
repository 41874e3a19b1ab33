"""Deployed agents."""
