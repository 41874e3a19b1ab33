# Generated from sdk/sandboxes.py by scripts/generate_sync.py: edit that, then run it.
"""Sandboxes as a whole: create, find, list, follow."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing

from runtools.sdk import shapes, wire
from runtools.sdk.shapes.dev_urls import Access
from runtools.sdk.shapes.sandboxes import (
    DEFAULT_DISK_MB,
    DEFAULT_IDLE_TIMEOUT_SECONDS,
    DEFAULT_VCPUS,
    Isolation,
    State,
)
from runtools.sdk.sync.sandbox import Sandbox
from runtools.sdk.sync.transport import Transport

_PAGE = 100


class Sandboxes:
    """The sandboxes of the key's org: ``rt.sandboxes``."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self,
        template: str | None = None,
        *,
        name: str | None = None,
        tags: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        secrets: Sequence[str] = (),
        ssh_keys: Sequence[str] = (),
        password: str | None = None,
        idle_timeout_seconds: int = DEFAULT_IDLE_TIMEOUT_SECONDS,
        max_lifetime_seconds: int | None = None,
        vcpus: int = DEFAULT_VCPUS,
        memory_mb: int | None = None,
        disk_mb: int = DEFAULT_DISK_MB,
        internet: bool = True,
        egress: Mapping[str, Sequence[str]] | None = None,
        require_isolation: Isolation | None = None,
        dev_urls: Access | None = None,
        project_id: str | None = None,
        wait_for_ready: bool = True,
        queue: bool = True,
        on_wait: Callable[[Sandbox], None] | None = None,
        idempotency_key: str | None = None,
    ) -> Sandbox:
        """Make a sandbox; returns when it runs. As a context manager it is destroyed at the end.

        Args:
            template: slug or ``slug@version``; default: the platform's (base-debian).
            name: unique among the org's living sandboxes; lower-case letters, digits, dashes.
            tags: anything of yours to find it by.
            env: set for every command inside; at most 128 KB in all.
            secrets: names of secrets (category custom, scope sandboxes or all) to be set in it too.
            ssh_keys: who may log in by SSH: public keys, and labels or ids of registered ones.
            password: another way to log in by SSH, 8 to 512 characters.
            idle_timeout_seconds: pause after so long without activity; 0: never.
            max_lifetime_seconds: pause after so long in any case; None: never.
            vcpus: 1 to 64.
            memory_mb: in units of 2**20 bytes, from 256; default: what the template is made for,
                1024 or a desktop's 2048.
            disk_mb: likewise, from 512; sparse: only what is written takes room.
            internet: False closes everything, DNS included.
            egress: what it reaches: ``{"allow": ["*.example.org", "203.0.113.0/24"], "deny": []}``;
                default: every public address. `Sandbox.egress` changes it later.
            require_isolation: ``"hardware"``: refuse to run under emulation.
            dev_urls: who may enter its ports by their URLs, ``"public"`` or ``"private"``; default:
                what the org has chosen. ``sandbox.urls.choose`` chooses later, and for one port.
            project_id: id or name of the project it lies in; default: the org's default one.
            wait_for_ready: False: return at once, still creating.
            queue: False: refuse when there is no room, rather than wait for it.
            on_wait: called while it waits in the queue, with the sandbox as it stands.
            idempotency_key: a repeat with the same key is answered, not done again.

        Raises:
            NotFound: no such template.
            NameTaken: a living sandbox bears the name.
            InvalidRequest: a value out of range; ``details["fields"]`` names it.
            CapacityExhausted: no room, and ``queue`` was False.
            IsolationUnavailable: hardware isolation was required and is not to be had.
            SandboxStopped: it never came to run; the message says why.
        """
        body = {
            "template": template,
            "name": name,
            "tags": dict(tags) if tags else None,
            "env": dict(env) if env else None,
            "secrets": list(secrets) or None,
            "sshKeys": list(ssh_keys) or None,
            "password": password,
            "idleTimeoutSeconds": idle_timeout_seconds,
            "maxLifetimeSeconds": max_lifetime_seconds,
            "vcpus": vcpus,
            "memoryMb": memory_mb,
            "diskMb": disk_mb,
            "internet": internet,
            "egress": egress and {name: list(rules) for name, rules in egress.items()},
            "requireIsolation": require_isolation,
            "devUrls": dev_urls,
            "projectId": project_id,
            "waitForReady": wait_for_ready,
            "queue": queue,
        }
        answer = self._transport.call(
            "POST", "/sandboxes", body=body, key=idempotency_key, seconds=wire.ACT_SECONDS
        )
        sandbox = Sandbox(self._transport, wire.shape(shapes.Sandbox, answer.data))
        if wait_for_ready and sandbox.state == "creating":
            sandbox.wait_until_running(on_wait=on_wait)
        return sandbox

    def get(self, ref: str) -> Sandbox:
        """The sandbox of that id or name; after death, the latest that bore the name.

        Raises:
            NotFound: there is none that the key may see.
        """
        answer = self._transport.call("GET", f"/sandboxes/{wire.segment(ref)}")
        return Sandbox(self._transport, wire.shape(shapes.Sandbox, answer.data))

    def list(
        self,
        *,
        state: State | Sequence[State] | None = None,
        tags: Mapping[str, str] | None = None,
        template: str | None = None,
        name: str | None = None,
        project_id: str | None = None,
    ) -> Generator[Sandbox, None, None]:
        """The sandboxes that fit all of what is given, fetched page by page as they are used.

        ``state`` may be several; by default it is all but stopped.
        """
        states = [state] if isinstance(state, str) else state or []
        query: list[tuple[str, object]] = [
            *(("state", one) for one in states),
            ("template", template),
            ("name", name),
            ("projectId", project_id),
            *(("tag", f"{key}:{value}") for key, value in (tags or {}).items()),
        ]
        with closing(self._transport.pages("/sandboxes", query, _PAGE)) as items:
            for item in items:
                yield Sandbox(self._transport, wire.shape(shapes.Sandbox, item))

    def events(self, after: int | None = None) -> Generator[shapes.SandboxEvent, None, None]:
        """Every change of every sandbox as it happens, for ever; ``after``: an event's id.

        A connection that breaks off is taken up again where it broke.
        """
        last = None if after is None else str(after)
        with closing(self._transport.follow("/events", after=last)) as events:
            for event in events:
                if event.name == "sandbox":
                    yield wire.parsed(shapes.SandboxEvent, event.data)
