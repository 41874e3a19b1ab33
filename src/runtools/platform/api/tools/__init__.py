"""Deployed custom tools."""
