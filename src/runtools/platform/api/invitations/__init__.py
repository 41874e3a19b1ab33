"""Invitations: links by which people come into an org."""
