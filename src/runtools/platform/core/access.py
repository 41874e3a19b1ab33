"""What an API key may do: its scopes, and whether they cover what is asked. Pure.

A scope is ``noun:verb``, ``noun:*`` or ``*``; a key without scopes may do everything.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

ALL = "*"

VERBS: Mapping[str, tuple[str, ...]] = {
    "sandbox": ("create", "read", "write"),
    "files": ("read", "write"),
    "template": ("read", "write"),
    "agent": ("run", "read", "write"),
    "tool": ("run", "read", "write"),
    "model": ("read", "write"),
    "workflow": ("run", "read", "write"),
    "secret": ("read", "write", "reveal"),
    "ssh-key": ("read", "write"),
    "api-key": ("read", "write"),
    "project": ("read", "write"),
    "webhook": ("read", "write"),
    "org": ("read", "write"),
    "audit": ("read",),
    "host": ("read", "write"),
}
"""Every noun that a scope can name, and what can be done with it."""

SCOPES = frozenset(
    {ALL, *(f"{noun}:{verb}" for noun, verbs in VERBS.items() for verb in (*verbs, ALL))}
)


def unknown(scopes: Iterable[str]) -> dict[str, list[str]]:
    """The scopes that do not exist, each with those that look like it."""
    wrong = sorted(set(scopes) - SCOPES)
    return {scope: difflib.get_close_matches(scope, sorted(SCOPES), n=3) for scope in wrong}


def covers(scopes: Iterable[str], needed: str) -> bool:
    """Whether a key with these scopes may do what needs that one."""
    held = frozenset(scopes)
    noun = needed.partition(":")[0]
    return not held or ALL in held or needed in held or f"{noun}:{ALL}" in held


def within(scopes: Iterable[str], wider: Iterable[str]) -> bool:
    """Whether everything that the first scopes allow is allowed by the others too."""
    asked, held = frozenset(scopes), frozenset(wider)
    if not held or ALL in held:
        return True
    if not asked:
        return False
    return all(_is_held(scope, held) for scope in asked)


def _is_held(scope: str, held: frozenset[str]) -> bool:
    noun, _, verb = scope.partition(":")
    if verb != ALL:
        return covers(held, scope)
    return scope in held or all(f"{noun}:{one}" in held for one in VERBS[noun])
