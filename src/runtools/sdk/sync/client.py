# Generated from sdk/client.py by scripts/generate_sync.py: edit that, then run it.
"""The client: one platform, and a manager for each noun."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType

from runtools.errors import RunToolsError
from runtools.sdk import shapes, wire
from runtools.sdk.patience import CALL_SECONDS
from runtools.sdk.settings import resolve
from runtools.sdk.shapes import account
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
from runtools.sdk.sync.transport import Transport
from runtools.sdk.sync.usage import Usage
from runtools.sdk.sync.webhooks import Webhooks


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
        self.sandboxes = Sandboxes(self._transport)
        self.templates = Templates(self._transport)
        self.hosts = Hosts(self._transport)
        self.projects = Projects(self._transport)
        self.api_keys = ApiKeys(self._transport)
        self.orgs = Orgs(self._transport)
        self.members = Members(self._transport)
        self.invitations = Invitations(self._transport)
        self.sessions = Sessions(self._transport)
        self.identities = Identities(self._transport)
        self.people = People(self._transport)
        self.ssh_keys = SshKeys(self._transport)
        self.limits = Limits(self._transport)
        self.usage = Usage(self._transport)
        self.secrets = Secrets(self._transport)
        self.audit = Audit(self._transport)
        self.models = Models(self._transport)
        self.webhooks = Webhooks(self._transport)
        self.deploys = Deploys(self._transport)
        self.agents = Agents(self._transport)
        self.runs = Runs(self._transport)
        self.threads = Threads(self._transport)
        self.tools = Tools(self._transport)
        self.standing_sandboxes = StandingSandboxes(self._transport)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

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
