"""Logins: command lines that a person lets in by a browser."""
