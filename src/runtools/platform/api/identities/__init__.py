"""Identities: people whom an OpenID Connect provider vouches for."""
