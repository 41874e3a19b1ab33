"""Who may do what: scopes, the roles of people, and what a caller is. Pure.

A scope is ``noun:verb``, ``noun:*`` or ``*``. ``*`` is everything in the caller's org and nothing beyond:
what acts on the whole machine needs a scope of `PLATFORM`, held only where it is named. Who holds those is
the operator of the installation. The parts of the platform have scopes of their own, which nobody can be
given.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

ALL = "*"
PLATFORM = "platform"
OPERATOR = frozenset({f"{PLATFORM}:{ALL}"})
"""What the operator's identity has beside its rights in an org."""

VERBS: Mapping[str, tuple[str, ...]] = {
    "sandbox": ("create", "read", "write"),
    "files": ("read", "write"),
    "template": ("read", "write"),
    "deploy": ("read", "write"),
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
    PLATFORM: ("read", "write"),
}
"""Every noun that a scope can name, and what can be done with it."""

SCOPES = frozenset(
    {ALL, *(f"{noun}:{verb}" for noun, verbs in VERBS.items() for verb in (*verbs, ALL))}
)

Kind = Literal["key", "session", "part", "run"]
"""What kinds of callers there are."""
Part = Literal["worker", "gateway"]
PARTS: Mapping[Part, str] = {"worker": "worker:link", "gateway": "gateway:admit"}
"""What each part of the platform may do, beyond which it may do nothing. No key and no person may."""
_BEYOND = frozenset({PLATFORM, *(scope.partition(":")[0] for scope in PARTS.values())})

Role = Literal["admin", "member"]

ROLES: Mapping[Role, frozenset[str]] = {
    "admin": frozenset({ALL}),
    "member": frozenset(
        {
            *(f"{noun}:{ALL}" for noun in ("sandbox", "files", "template", "agent", "tool")),
            *(f"{noun}:{ALL}" for noun in ("deploy", "workflow", "ssh-key", "api-key", "project")),
            "secret:read",
            "secret:write",
            "webhook:read",
            "model:read",
            "org:read",
        }
    ),
}
"""What people may do in an org: an Admin everything; a Member works, but does not say who else may, where
events are sent, or what the secrets are."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a request: an API key, a person's session, a part of the platform, or a run.

    Attributes:
        id: the key's, the session's or the run's, or the name of the part.
        digest: what is kept of the secret that it sent.
        org_id: None: a part, or a person who is in no org, or in none any more.
        scopes: all that it may do; nothing, when empty.
        user_id: the person, None for all others.
        sandbox_id: the one that a run works in, beyond which it may do nothing.
    """

    kind: Kind
    id: str
    digest: str
    org_id: str | None
    scopes: frozenset[str]
    expires_at: datetime | None = None
    user_id: str | None = None
    role: Role | None = None
    sandbox_id: str | None = None

    @property
    def actor(self) -> str:
        """Who is written into ledgers and the audit log."""
        return self.user_id or self.id


def of_key(scopes: Iterable[str]) -> frozenset[str]:
    """What a key may do: what its scopes name, and without any everything in its org."""
    return frozenset(scopes) or frozenset({ALL})


def of_person(role: Role | None, *, operator: bool) -> frozenset[str]:
    """What a person may do in an org, by the role there; None: no member."""
    mine = ROLES[role] if role is not None else frozenset()
    return mine | OPERATOR if operator else mine


def unknown(scopes: Iterable[str]) -> dict[str, list[str]]:
    """The scopes that do not exist, each with those that look like it."""
    wrong = sorted(set(scopes) - SCOPES)
    return {scope: difflib.get_close_matches(scope, sorted(SCOPES), n=3) for scope in wrong}


def covers(held: frozenset[str], needed: str) -> bool:
    """Whether who holds these scopes may do what needs that one."""
    noun = needed.partition(":")[0]
    if needed in held or f"{noun}:{ALL}" in held:
        return True
    return ALL in held and noun not in _BEYOND


def within(asked: frozenset[str], held: frozenset[str]) -> bool:
    """Whether everything that the first scopes allow is allowed by the others too."""
    return all(_is_held(scope, held) for scope in asked)


def _is_held(scope: str, held: frozenset[str]) -> bool:
    if scope == ALL:
        return ALL in held
    noun, _, verb = scope.partition(":")
    if verb != ALL or covers(held, scope):
        return covers(held, scope)
    return all(f"{noun}:{one}" in held for one in VERBS[noun])
