"""Secrets of an org: named values that are sealed at rest and shown to those who may see them only."""
