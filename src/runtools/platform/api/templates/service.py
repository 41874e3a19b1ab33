"""Templates: building versions, following their builds, listing and deleting them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import ExitStack, aclosing
from dataclasses import replace
from datetime import datetime, timedelta
from typing import cast

from runtools.errors import HostUnavailable, NotFound, RunToolsError, TemplateInUse
from runtools.platform.api.calls import Call
from runtools.platform.api.hosts.service import present
from runtools.platform.api.platform import Platform
from runtools.platform.api.points import reach
from runtools.platform.api.sandboxes import store as sandboxes
from runtools.platform.api.snapshots import store as snapshots
from runtools.platform.api.templates import rules, store
from runtools.platform.api.templates.store import Version
from runtools.platform.core.access import Caller
from runtools.platform.core.ids import is_name, new_id
from runtools.platform.core.ports.host import BuildOrder, Built
from runtools.platform.kit.db import Transaction
from runtools.sdk.shapes.templates import BuildLine, TemplateBuild

_NOTE_SECONDS = 1.0


async def build(call: Call, slug: str, wanted: TemplateBuild) -> Version:
    """Begin the next version of a template; returns as soon as the host has taken it up.

    Raises:
        QuotaExceeded: the org has as many builds under way or waiting as it may.
    """
    platform = call.platform
    rules.check_slug(slug)
    recipe = rules.recipe_of(slug, wanted)
    rules.check_packages(wanted.apt)
    await present(platform, platform.hosts.first)
    version = Version(
        id=new_id("tpl"),
        org_id=call.org,
        host_id=platform.hosts.first,
        slug=slug,
        version=0,
        recipe=recipe,
        apt=wanted.apt,
        run=wanted.run,
        op=call.op,
        created_at=platform.clock.now(),
    )
    most = platform.settings.limit_builds
    version = await call.once(store.by_op, lambda: platform.db.write(_write, version, most))
    reach("api.build.written")
    if version.state == "building":  # a repeat may find it at its end, or dropped since
        await ask(platform, version)
        platform.spawn(watch(platform, version), f"build {version.id}")
    return await _again(platform, version)


def _write(conn: Transaction, version: Version, most: int) -> Version:
    rules.check_queue(most, store.under_way(conn, version))
    made = replace(version, version=store.next_number(conn, version.org_id, version.slug))
    store.add(conn, made)
    return made


async def ask(platform: Platform, version: Version) -> None:
    """Ask the host to build what is written down; refused, the version has failed."""
    order = BuildOrder(
        org_id=version.org_id,
        version_id=version.id,
        slug=version.slug,
        version=version.version,
        recipe=version.recipe,
        apt=version.apt,
        run=version.run,
    )
    try:
        await note(platform, await platform.hosts.port(version.host_id).build(order))
    except HostUnavailable:
        raise
    except RunToolsError as error:
        await _finish(platform, version.id, "failed", {"error": str(error)})
        raise


async def watch(platform: Platform, version: Version) -> None:
    """Follow one build to its end, noting how far it is, at most once a second."""
    if version.id in platform.asking:
        return
    with platform.about(version.id):
        host = platform.hosts.port(version.host_id)
        noted = 0.0
        log = cast("AsyncGenerator[BuildLine, None]", host.build_log(version.id, 0))
        async with aclosing(log):
            async for line in log:
                if platform.clock.monotonic() - noted >= _NOTE_SECONDS:
                    noted = platform.clock.monotonic()
                    values = {"progress": line.progress, "step": line.step}
                    await platform.db.write(store.built, version.id, values)
        await ended(platform, version)


async def note(platform: Platform, built: Built) -> None:
    """Write down how a build stands."""
    values = {
        "progress": built.progress,
        "step": built.step,
        "size_bytes": built.size_bytes,
        "error": built.error,
    }
    if built.state == "building":
        await platform.db.write(store.built, built.version_id, values)
    else:
        await _finish(platform, built.version_id, built.state, values)


async def ended(platform: Platform, version: Version) -> Version:
    """How one stands whose log has ended: built, or not, or deleted meanwhile."""
    try:
        await note(platform, await platform.hosts.port(version.host_id).built(version.id))
    except NotFound:
        if not (await _again(platform, version)).goes:
            raise
    return await _again(platform, version)


async def _finish(
    platform: Platform, version_id: str, state: str, values: dict[str, object]
) -> None:
    ended = {"state": state, "finished_at": platform.clock.now()}
    await platform.db.write(store.built, version_id, values | ended)


async def _again(platform: Platform, version: Version) -> Version:
    return await platform.db.read(store.get, version.id) or version


async def pick(call: Call, slug: str, number: int | None = None, *, own: bool = False) -> Version:
    """The version of that number; without one, the newest; with ``own``, of the org's own alone.

    Raises:
        NotFound: there is none.
    """
    for version in await versions(call, slug, own=own):
        if number is None or version.version == number:
            return version
    raise _no_such(slug, number)


async def versions(call: Call, slug: str, *, own: bool = False) -> list[Version]:
    """Every version of a template, newest first: the org's own, else (but for ``own``) the platform's.

    Raises:
        NotFound: there is no such template.
    """
    found: list[Version] = []
    if is_name(slug):
        look = store.of_slug if own else store.usable
        found = await call.platform.db.read(look, call.org, slug)
    if not found:
        raise _no_such(slug)
    return found


def _no_such(slug: str, number: int | None = None) -> NotFound:
    if number is not None:
        return NotFound(
            f"no version {number} of template {slug!r}",
            hint=f"GET /v1/templates/{slug}/versions lists them",
        )
    return NotFound(f"no template {slug[:80]!r}", hint="GET /v1/templates lists those there are")


async def newest(call: Call) -> list[Version]:
    """The newest version of every template."""
    return await call.platform.db.read(store.newest, call.org)


async def drop(call: Call, slug: str, number: int | None) -> list[Version]:
    """Delete a version, or all of them, the newest first; none is deleted when one is in use.

    One that is being built is built no more. What another request deletes at this moment is left to that.
    Where the host alone knows why one stays, that one stays and those after it; those before it are gone.

    Raises:
        NotFound: there is none, or another request deletes all that were meant.
        TemplateInUse: one is in use.
    """
    platform = call.platform

    async def marked() -> list[Version]:
        found = (
            [await pick(call, slug, number, own=True)]
            if number
            else await versions(call, slug, own=True)
        )
        since = platform.clock.now() - timedelta(hours=platform.settings.recover_hours)
        marked = await platform.db.write(_mark, call.who, found, since, call.op)
        if not marked:
            raise _no_such(slug, number)
        return marked

    chosen = await call.once(store.dropped_by, marked)
    reach("api.template.dropping")
    with ExitStack() as asking:
        for version in chosen:  # also those whose turn is to come: they may stay
            asking.enter_context(platform.about(version.id))
        for version in chosen:
            if version.state == "dropped":
                continue
            try:
                await ask_drop(platform, version, chosen)
            except TemplateInUse as refusal:
                raise rules.as_told(refusal, call.who, version) from refusal
    return chosen


def _mark(
    conn: Transaction, who: Caller, found: list[Version], since: datetime, op: str
) -> list[Version]:
    """Those that the act deletes now."""
    # First the mark, then the count: a create that comes after it sees the mark.
    marked = [now for one in found if (now := store.begin_drop(conn, one.id, op)) is not None]
    for version in marked:
        living = sandboxes.users_of(conn, version.id, since)
        kept = snapshots.users_of(conn, version.id)
        if living or kept:
            raise rules.in_use(who, version, living, kept)
    return marked


async def ask_drop(platform: Platform, version: Version, act: Sequence[Version] = ()) -> None:
    """Ask the host to remove what is written down as dropping.

    Refused, it stays, and so does all of an ``act`` that is not gone yet.
    """
    with platform.about(version.id):
        try:
            await platform.hosts.port(version.host_id).drop_template(version.id)
        except NotFound:
            pass  # gone already: a repeat
        except HostUnavailable:
            raise
        except RunToolsError:
            await platform.db.write(store.keep, act or (version,))
            raise
    await platform.db.write(store.change, version.id, {"state": "dropped"})
