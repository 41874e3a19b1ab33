"""Runs in the languages of existing front ends: the AI SDK's UI messages, and AG-UI."""
