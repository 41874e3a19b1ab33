"""What the gateway asks about logins by SSH, and passes.

What is refused takes the same time and gets the same answer, whether there is such a sandbox or not.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta

from runtools.errors import FileMissing, GuestMisbehaved, NotFound, Unauthenticated
from runtools.platform.api.audit import store as audit
from runtools.platform.api.audit.store import Line
from runtools.platform.api.calls import Call, behalf
from runtools.platform.api.limits import store as limits
from runtools.platform.api.limits.rules import standard
from runtools.platform.api.platform import Platform
from runtools.platform.api.sandboxes import inside
from runtools.platform.api.ssh_access import store
from runtools.platform.api.ssh_access.store import Pass, Place
from runtools.platform.api.ssh_keys.service import public_key
from runtools.platform.api.vault.vault import Vault
from runtools.platform.core.ids import new_id
from runtools.platform.core.ports.doorway import Ends, Entering, Entry, Over, PasswordShown, Visit
from runtools.platform.core.ports.host import Host
from runtools.platform.kit import crypto, sshkeys
from runtools.platform.kit.db import Transaction
from runtools.platform.kit.sshkeys import BadKey
from runtools.sdk.shapes.limits import Amounts
from runtools.sdk.shapes.ssh_access import SshAccess, SshAccessCreate

# What a refusal takes at least: longer than any of the ways to it.
_KEY_SECONDS, _PASSWORD_SECONDS = 0.05, 0.3
# Of what nobody has as a password, so that guesses at no sandbox cost what others do.
_NOBODY = "$6$runtools00000000$" + "." * 86
_ACTION = "ssh.login"
_LET_IN, _REFUSED = 200, 401
_AUTHORITY_FILE = "/etc/ssh/runtools_gateway.pub"
_CONFIG_FILE = "/etc/ssh/sshd_config.d/runtools-gateway.conf"
_CONFIG = (
    "# The platform's gateway logs in by certificates of this authority.\n"
    f"TrustedUserCAKeys {_AUTHORITY_FILE}\n"
)
_HOST_KEYS = ("/etc/ssh/ssh_host_ed25519_key.pub", "/etc/ssh/ssh_host_ecdsa_key.pub")
_MOST = 4096  # bytes of such a file


# --- what the gateway asks ---


async def key_opens(platform: Platform, sandbox_id: str, fingerprint: str) -> bool:
    """Whether a key would be let in now."""
    began, now = platform.clock.monotonic(), platform.clock.now()
    found = await _opens(platform, sandbox_id, fingerprint, now)
    return await _after(platform, began, _KEY_SECONDS, found is not None)


async def password_opens(platform: Platform, shown: PasswordShown) -> bool:
    """Whether a password is the one that the sandbox was made with."""
    began = platform.clock.monotonic()
    place, kept = await platform.db.read(store.password_of, platform.vault, shown.sandbox_id)
    fits = await crypto.login_fits(shown.password, kept or _NOBODY)
    opens = fits and kept is not None and place is not None
    if not opens and place is not None:
        # Beside the answer, which must not take longer for it.
        line = _line(platform, place.org_id, "-", shown.sandbox_id, shown.source, _REFUSED)
        platform.spawn(platform.db.write(audit.add, [line]), "writing down a wrong password")
    return await _after(platform, began, _PASSWORD_SECONDS, opens)


async def enter(platform: Platform, entering: Entering) -> Entry:
    """Write a login down, wake the sandbox and make it take logins by the gateway's authority.

    Raises:
        NotFound: it does not open, or not any more.
        SandboxStopped, QuotaExceeded: there is nothing to enter, or it may not be woken.
    """
    visit, now = entering.visit, platform.clock.now()
    if visit.fingerprint is None:
        found = await platform.db.read(store.place, visit.sandbox_id)
    else:
        found = await _opens(platform, visit.sandbox_id, visit.fingerprint, now)
    if found is None:
        raise NotFound(f"that opens {visit.sandbox_id[:80]!r} no more")
    actor = found.actor or "password"
    line = _line(platform, found.org_id, actor, visit.sandbox_id, entering.source, _LET_IN)
    await platform.db.write(audit.add, [line])
    call = behalf(platform, found.org_id, actor, new_id("opn"))
    host, sandbox_id = await inside.enter(call, visit.sandbox_id)
    host_keys = await _prepare(host, sandbox_id, entering.authority)
    usual = standard(platform.settings)
    is_limited = await platform.db.read(limits.bounds_what_runs, found.org_id, usual)
    return Entry(host_keys=host_keys, wakes=not is_limited)


async def ended(platform: Platform, visits: Sequence[Visit]) -> Ends:
    """Which of these are over, and why; and which are at orgs that have limits to keep."""
    idle, now = platform.settings.session_idle, platform.clock.now()
    usual = standard(platform.settings)
    return await platform.db.read(_ended, platform.vault, idle, usual, visits, now)


async def waken(platform: Platform, visit: Visit) -> None:
    """Have a sandbox awake that somebody is in, counted among what its org runs.

    Raises:
        NotFound: they may not be in any more.
        SandboxStopped, QuotaExceeded: there is nothing to wake, or it may not be.
    """
    idle, now = platform.settings.session_idle, platform.clock.now()
    found = await platform.db.read(_in, platform.vault, idle, visit, now)
    if found is None:
        raise NotFound(f"that opens {visit.sandbox_id[:80]!r} no more")
    call = behalf(platform, found.org_id, found.actor or "password", new_id("opn"))
    await inside.enter(call, visit.sandbox_id)


# --- passes ---


async def give_pass(call: Call, ref: str, wanted: SshAccessCreate) -> SshAccess:
    """Let a key into one sandbox, for as long as the caller may let it in."""
    record = await inside.living(call, ref)
    key = public_key(wanted.public_key, "publicKey")
    now = call.platform.clock.now()
    lasts = wanted.ttl_seconds
    made = Pass(
        sandbox_id=record.id,
        fingerprint=key.fingerprint,
        org_id=call.org,
        caller_id=call.who.id,
        created_at=now,
        expires_at=None if lasts is None else now + timedelta(seconds=lasts),
    )
    await call.platform.db.write(store.add, made)
    call.subject = record.id
    return await _shown(call.platform, record.id, made)


async def look(call: Call, ref: str) -> SshAccess:
    """Where a sandbox is reached by SSH."""
    _, record = await inside.beside(call, ref)
    return await _shown(call.platform, record.id, None)


async def _shown(platform: Platform, sandbox_id: str, made: Pass | None) -> SshAccess:
    host, port = platform.settings.ssh_place
    return SshAccess(
        sandbox_id=sandbox_id,
        user=sandbox_id,
        host=host,
        port=port,
        host_keys=await platform.db.read(store.host_keys),
        fingerprint=None if made is None else made.fingerprint,
        expires_at=None if made is None else made.expires_at,
    )


# --- how ---


async def _opens(
    platform: Platform, sandbox_id: str, fingerprint: str, now: datetime
) -> Place | None:
    idle = platform.settings.session_idle
    return await platform.db.read(store.opens, platform.vault, idle, sandbox_id, fingerprint, now)


async def _after(platform: Platform, began: float, least: float, opens: bool) -> bool:
    """The answer; a refusal not before its time."""
    if not opens:
        await platform.clock.sleep(max(0.0, began + least - platform.clock.monotonic()))
    return opens


def _ended(
    conn: Transaction,
    vault: Vault,
    idle: timedelta,
    usual: Amounts,
    visits: Sequence[Visit],
    now: datetime,
) -> Ends:
    known: dict[Visit, tuple[str | None, str]] = {}
    orgs: dict[str, bool] = {}  # whether each has limits to keep
    over, limited = [], []
    for place, visit in enumerate(visits):
        if visit not in known:
            known[visit] = _look(conn, vault, idle, visit, now)
        because, org = known[visit]
        if because is not None:
            over.append(Over(place=place, because=because))
            continue
        if org not in orgs:
            orgs[org] = limits.bounds_what_runs(conn, org, usual)
        if orgs[org]:
            limited.append(place)
    return Ends(over=over, limited=limited)


def _look(
    conn: Transaction, vault: Vault, idle: timedelta, visit: Visit, now: datetime
) -> tuple[str | None, str]:
    """Why a visit is over, if it is, and the org that it is at."""
    name = visit.sandbox_id
    there = store.place(conn, name)
    if there is None:
        return f"there is no sandbox {name} any more", ""
    if "stopped" in (there.state, there.wanted):
        why = (there.ending or {}).get("reason", "it was destroyed")
        return f"{name} has stopped: {why}", there.org_id
    if _in(conn, vault, idle, visit, now) is None:
        return f"the SSH key that opened {name} was taken away", there.org_id
    return None, there.org_id


def _in(
    conn: Transaction, vault: Vault, idle: timedelta, visit: Visit, now: datetime
) -> Place | None:
    """The sandbox, where somebody who is in may be there."""
    if visit.fingerprint is None:
        return store.place(conn, visit.sandbox_id)
    return store.opens(conn, vault, idle, visit.sandbox_id, visit.fingerprint, now, is_in=True)


async def _prepare(host: Host, sandbox_id: str, authority: str) -> list[str]:
    """Make the sandbox's SSH server believe the gateway; returns the host keys that lie there."""
    wanted = {
        _AUTHORITY_FILE: f"{public_key(authority, 'authority').line}\n",
        _CONFIG_FILE: _CONFIG,
    }
    await asyncio.gather(*(_put(host, sandbox_id, path, text) for path, text in wanted.items()))
    lines = await asyncio.gather(*(_text(host, sandbox_id, path) for path in _HOST_KEYS))
    found = []
    for line in lines:
        try:
            found.append(sshkeys.parse(" ".join(line.split()[:2])).line)
        except BadKey:
            continue  # it has none of that kind
    if not found:
        raise GuestMisbehaved(
            f"{sandbox_id} has no SSH host key",
            hint=f"`runtools sandbox exec {sandbox_id} -- ssh-keygen -A` makes some",
        )
    return found


async def _put(host: Host, sandbox_id: str, path: str, text: str) -> None:
    if await _text(host, sandbox_id, path) != text:
        await host.write(sandbox_id, new_id("opn"), path, _once(text.encode()), 0o644, "replace")


async def _text(host: Host, sandbox_id: str, path: str) -> str:
    """The beginning of a file inside; nothing where there is none."""
    try:
        _, pieces = await host.read(sandbox_id, path, 0, _MOST)
        return b"".join([piece async for piece in pieces])[:_MOST].decode("utf-8", "replace")
    except FileMissing:
        return ""


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


def _line(
    platform: Platform, org_id: str, actor: str, sandbox_id: str, source: str, status: int
) -> Line:
    return Line(
        id=new_id("aud"),
        org_id=org_id,
        at=platform.clock.now(),
        actor=actor,
        action=_ACTION,
        resource=sandbox_id,
        status=status,
        error=None if status == _LET_IN else Unauthenticated.code,
        request_id=new_id("req"),
        source="".join(char if char.isprintable() else "?" for char in source),
    )
