"""Signing in: proving to be a person, and slowing down who guesses."""
