"""Callers: telling who makes a request, by what it sends."""
