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
from runtools.sdk.transport import AsyncTransport

if TYPE_CHECKING:
    from runtools.sdk.agents import AsyncAgents, AsyncStandingSandboxes, AsyncTools
    from runtools.sdk.audit import AsyncAudit
    from runtools.sdk.deploys import AsyncDeploys
    from runtools.sdk.keys import AsyncApiKeys
    from runtools.sdk.limits import AsyncLimits
    from runtools.sdk.models import AsyncModels
    from runtools.sdk.orgs import AsyncInvitations, AsyncMembers, AsyncOrgs
    from runtools.sdk.people import AsyncPeople
    from runtools.sdk.projects import AsyncProjects
    from runtools.sdk.runs import AsyncRuns, AsyncThreads
    from runtools.sdk.sandboxes import AsyncSandboxes
    from runtools.sdk.secrets import AsyncSecrets
    from runtools.sdk.sessions import AsyncIdentities, AsyncSessions
    from runtools.sdk.ssh_keys import AsyncSshKeys
    from runtools.sdk.templates import AsyncTemplates
    from runtools.sdk.usage import AsyncUsage
    from runtools.sdk.webhooks import AsyncWebhooks


# Loaded at their first use, with the shapes that they need: few who ask need more than one or two.
_HOMES = {
    "sandboxes": ("runtools.sdk.sandboxes", "AsyncSandboxes"),
    "templates": ("runtools.sdk.templates", "AsyncTemplates"),
    "hosts": ("runtools.sdk.client", "AsyncHosts"),
    "projects": ("runtools.sdk.projects", "AsyncProjects"),
    "api_keys": ("runtools.sdk.keys", "AsyncApiKeys"),
    "orgs": ("runtools.sdk.orgs", "AsyncOrgs"),
    "members": ("runtools.sdk.orgs", "AsyncMembers"),
    "invitations": ("runtools.sdk.orgs", "AsyncInvitations"),
    "sessions": ("runtools.sdk.sessions", "AsyncSessions"),
    "identities": ("runtools.sdk.sessions", "AsyncIdentities"),
    "people": ("runtools.sdk.people", "AsyncPeople"),
    "ssh_keys": ("runtools.sdk.ssh_keys", "AsyncSshKeys"),
    "limits": ("runtools.sdk.limits", "AsyncLimits"),
    "usage": ("runtools.sdk.usage", "AsyncUsage"),
    "secrets": ("runtools.sdk.secrets", "AsyncSecrets"),
    "audit": ("runtools.sdk.audit", "AsyncAudit"),
    "models": ("runtools.sdk.models", "AsyncModels"),
    "webhooks": ("runtools.sdk.webhooks", "AsyncWebhooks"),
    "deploys": ("runtools.sdk.deploys", "AsyncDeploys"),
    "agents": ("runtools.sdk.agents", "AsyncAgents"),
    "runs": ("runtools.sdk.runs", "AsyncRuns"),
    "threads": ("runtools.sdk.runs", "AsyncThreads"),
    "tools": ("runtools.sdk.agents", "AsyncTools"),
    "standing_sandboxes": ("runtools.sdk.agents", "AsyncStandingSandboxes"),
}


class AsyncRunTools:
    """A RunTools platform.

        async with AsyncRunTools() as rt:
            async with await rt.sandboxes.create() as sb:
                print((await sb.exec("uname -a")).stdout)

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

    sandboxes: AsyncSandboxes
    templates: AsyncTemplates
    hosts: AsyncHosts
    projects: AsyncProjects
    api_keys: AsyncApiKeys
    orgs: AsyncOrgs
    members: AsyncMembers
    invitations: AsyncInvitations
    sessions: AsyncSessions
    identities: AsyncIdentities
    people: AsyncPeople
    ssh_keys: AsyncSshKeys
    limits: AsyncLimits
    usage: AsyncUsage
    secrets: AsyncSecrets
    audit: AsyncAudit
    models: AsyncModels
    webhooks: AsyncWebhooks
    deploys: AsyncDeploys
    agents: AsyncAgents
    runs: AsyncRuns
    threads: AsyncThreads
    tools: AsyncTools
    standing_sandboxes: AsyncStandingSandboxes

    def __init__(
        self,
        api_key: str | None = None,
        url: str | None = None,
        *,
        retry_seconds: float = CALL_SECONDS,
        headers: Mapping[str, str] | None = None,
        waiting: Callable[[RunToolsError], None] | None = None,
    ) -> None:
        self._transport = AsyncTransport(
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

    async def __aenter__(self) -> AsyncRunTools:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections to the platform."""
        await self._transport.close()

    async def health(self) -> shapes.Health:
        """Whether the platform lives, its version, and what it warns of. Needs no right."""
        answer = await self._transport.call("GET", "/healthz", root="")
        return wire.shape(shapes.Health, answer.data)

    async def me(self) -> account.Me:
        """Who the key stands for."""
        return wire.shape(account.Me, (await self._transport.call("GET", "/me")).data)

    async def disk(self) -> shapes.DiskUse:
        """What takes how much disk, in bytes."""
        return wire.shape(shapes.DiskUse, (await self._transport.call("GET", "/disk")).data)

    async def prune(self, *, ended: bool = True, warm: bool = True) -> shapes.Pruned:
        """Free disk.

        Args:
            ended: the kept disks of ended sandboxes, which cannot be recovered any more then.
            warm: warm snapshots; they are made again when they are needed.
        """
        body = {"ended": ended, "warm": warm}
        answer = await self._transport.call("POST", "/prune", body=body, seconds=wire.ACT_SECONDS)
        return wire.shape(shapes.Pruned, answer.data)


class AsyncHosts:
    """The machines that run sandboxes: ``rt.hosts``."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def list(self) -> list[shapes.HostView]:
        """Every host, its driver and its room."""
        return wire.shapes(shapes.HostView, (await self._transport.call("GET", "/hosts")).data)
