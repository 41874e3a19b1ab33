# Generated from sdk/client.py by scripts/generate_sync.py: edit that, then run it.
"""The client: one platform, and a manager for each noun."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from runtools.errors import RunToolsError
from runtools.sdk import shapes, wire
from runtools.sdk.patience import CALL_SECONDS
from runtools.sdk.settings import resolve
from runtools.sdk.shapes import account
from runtools.sdk.sync.transport import Transport

if TYPE_CHECKING:
    from runtools.sdk.sync.agents import Agents, StandingSandboxes, Tools
    from runtools.sdk.sync.audit import Audit
    from runtools.sdk.sync.deploys import Deploys
    from runtools.sdk.sync.keys import ApiKeys
    from runtools.sdk.sync.limits import Limits
    from runtools.sdk.sync.models import Models
    from runtools.sdk.sync.orgs import Invitations, Members, Orgs
    from runtools.sdk.sync.people import People
    from runtools.sdk.sync.projects import Projects
    from runtools.sdk.sync.runs import Runs, Threads
    from runtools.sdk.sync.sandboxes import Sandboxes
    from runtools.sdk.sync.secrets import Secrets
    from runtools.sdk.sync.sessions import Identities, Sessions
    from runtools.sdk.sync.ssh_keys import SshKeys
    from runtools.sdk.sync.templates import Templates
    from runtools.sdk.sync.usage import Usage
    from runtools.sdk.sync.webhooks import Webhooks


# Loaded at their first use, with the shapes that they need: few who ask need more than one or two.
_HOMES = {
    "sandboxes": ("runtools.sdk.sync.sandboxes", "Sandboxes"),
    "templates": ("runtools.sdk.sync.templates", "Templates"),
    "hosts": ("runtools.sdk.sync.client", "Hosts"),
    "projects": ("runtools.sdk.sync.projects", "Projects"),
    "api_keys": ("runtools.sdk.sync.keys", "ApiKeys"),
    "orgs": ("runtools.sdk.sync.orgs", "Orgs"),
    "members": ("runtools.sdk.sync.orgs", "Members"),
    "invitations": ("runtools.sdk.sync.orgs", "Invitations"),
    "sessions": ("runtools.sdk.sync.sessions", "Sessions"),
    "identities": ("runtools.sdk.sync.sessions", "Identities"),
    "people": ("runtools.sdk.sync.people", "People"),
    "ssh_keys": ("runtools.sdk.sync.ssh_keys", "SshKeys"),
    "limits": ("runtools.sdk.sync.limits", "Limits"),
    "usage": ("runtools.sdk.sync.usage", "Usage"),
    "secrets": ("runtools.sdk.sync.secrets", "Secrets"),
    "audit": ("runtools.sdk.sync.audit", "Audit"),
    "models": ("runtools.sdk.sync.models", "Models"),
    "webhooks": ("runtools.sdk.sync.webhooks", "Webhooks"),
    "deploys": ("runtools.sdk.sync.deploys", "Deploys"),
    "agents": ("runtools.sdk.sync.agents", "Agents"),
    "runs": ("runtools.sdk.sync.runs", "Runs"),
    "threads": ("runtools.sdk.sync.runs", "Threads"),
    "tools": ("runtools.sdk.sync.agents", "Tools"),
    "standing_sandboxes": ("runtools.sdk.sync.agents", "StandingSandboxes"),
}


class RunTools:
    """A RunTools platform.

        with RunTools() as rt:
            with rt.sandboxes.create() as sb:
                print((sb.exec("uname -a")).stdout)

    Safe to share. Calls that failed for a passing reason (no connection, 502, 503 but for want of
    room, 504, 429) are repeated under the same idempotency key, so nothing is done twice.

    Args:
        api_key: default: RUNTOOLS_API_KEY, else what `runtools login` kept, else the ``client.json`` that
            `runtools up` wrote.
        url: default: RUNTOOLS_API_URL, else where `runtools login` was, else ``client.json``, else
            http://127.0.0.1:7700.
        retry_seconds: how long such calls are repeated; 0: never.
        headers: what every request carries besides, as a proxy on the way may ask for.
        waiting: told, with what went wrong, while a call is repeated for longer than a second.

    Raises:
        Unauthenticated: no key is to be found.
        InvalidRequest: the key, the address or ``client.json`` is malformed.
    """

    sandboxes: Sandboxes
    templates: Templates
    hosts: Hosts
    projects: Projects
    api_keys: ApiKeys
    orgs: Orgs
    members: Members
    invitations: Invitations
    sessions: Sessions
    identities: Identities
    people: People
    ssh_keys: SshKeys
    limits: Limits
    usage: Usage
    secrets: Secrets
    audit: Audit
    models: Models
    webhooks: Webhooks
    deploys: Deploys
    agents: Agents
    runs: Runs
    threads: Threads
    tools: Tools
    standing_sandboxes: StandingSandboxes

    def __init__(
        self,
        api_key: str | None = None,
        url: str | None = None,
        *,
        retry_seconds: float = CALL_SECONDS,
        headers: Mapping[str, str] | None = None,
        waiting: Callable[[RunToolsError], None] | None = None,
    ) -> None:
        self._transport = Transport(
            resolve(api_key, url), retry_seconds=retry_seconds, headers=headers, waiting=waiting
        )
        self.url = self._transport.url

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    if not TYPE_CHECKING:  # else any name would be one

        def __getattr__(self, name: str) -> Any:
            if name not in _HOMES:
                raise AttributeError(f"{type(self).__name__} has no {name!r}", name=name, obj=self)
            module, kind = _HOMES[name]
            manager = getattr(importlib.import_module(module), kind)(self._transport)
            setattr(self, name, manager)
            return manager

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *_HOMES})

    def __enter__(self) -> RunTools:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections to the platform."""
        self._transport.close()

    def health(self) -> shapes.Health:
        """Whether the platform lives, its version, and what it warns of. Needs no right."""
        answer = self._transport.call("GET", "/healthz", root="")
        return wire.shape(shapes.Health, answer.data)

    def me(self) -> account.Me:
        """Who the key stands for."""
        return wire.shape(account.Me, (self._transport.call("GET", "/me")).data)

    def disk(self) -> shapes.DiskUse:
        """What takes how much disk, in bytes."""
        return wire.shape(shapes.DiskUse, (self._transport.call("GET", "/disk")).data)

    def prune(self, *, ended: bool = True, warm: bool = True) -> shapes.Pruned:
        """Free disk.

        Args:
            ended: the kept disks of ended sandboxes, which cannot be recovered any more then.
            warm: warm snapshots; they are made again when they are needed.
        """
        body = {"ended": ended, "warm": warm}
        answer = self._transport.call("POST", "/prune", body=body, seconds=wire.ACT_SECONDS)
        return wire.shape(shapes.Pruned, answer.data)


class Hosts:
    """The machines that run sandboxes: ``rt.hosts``."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> list[shapes.HostView]:
        """Every host, its driver and its room."""
        return wire.shapes(shapes.HostView, (self._transport.call("GET", "/hosts")).data)
