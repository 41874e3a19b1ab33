"""Templates: building versions, following their builds, listing and deleting them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import timedelta
from typing import cast

from runtools.errors import (
    Conflict,
    HostUnavailable,
    NotFound,
    RunToolsError,
    TemplateInUse,
)
from runtools.platform.api.calls import Call
from runtools.platform.api.platform import Platform
from runtools.platform.api.sandboxes import snapshots
from runtools.platform.api.sandboxes import store as sandboxes
from runtools.platform.api.templates import rules, store
from runtools.platform.api.templates.store import Version
from runtools.platform.core.ids import is_name, new_id
from runtools.platform.core.ports.host import BuildOrder, Built
from runtools.platform.kit.crash import crash_point
from runtools.sdk.shapes.templates import BuildLine, TemplateBuild

_NOTE_SECONDS = 1.0


async def build(call: Call, slug: str, wanted: TemplateBuild) -> Version:
    """Begin the next version of a template; returns as soon as the host has taken it up."""
    platform = call.platform
    rules.check_slug(slug)
    recipe = rules.recipe_of(slug, wanted)
    rules.check_packages(wanted.apt)
    async with platform.db.write() as conn:
        version = await store.by_op(conn, call.org, call.op)
        if version is None:
            version = Version(
                id=new_id("tpl"),
                org_id=call.org,
                host_id=platform.hosts.first,
                slug=slug,
                version=await store.next_number(conn, call.org, slug),
                recipe=recipe,
                apt=wanted.apt,
                run=wanted.run,
                op=call.op,
                created_at=platform.clock.now(),
            )
            await store.add(conn, version)
    crash_point("api.build.written")
    await ask(platform, version)
    platform.spawn(watch(platform, version), f"build {version.id}")
    return await _again(platform, version)


async def ask(platform: Platform, version: Version) -> None:
    """Ask the host to build what is written down; refused, the version has failed."""
    order = BuildOrder(
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
    platform.asking.add(version.id)
    try:
        host = platform.hosts.port(version.host_id)
        noted = 0.0
        log = cast("AsyncGenerator[BuildLine, None]", host.build_log(version.id, 0))
        async with aclosing(log):
            async for line in log:
                if platform.clock.monotonic() - noted >= _NOTE_SECONDS:
                    noted = platform.clock.monotonic()
                    async with platform.db.write() as conn:
                        values = {"progress": line.progress, "step": line.step}
                        await store.change(conn, version.id, values)
        await note(platform, await host.built(version.id))
    finally:
        platform.asking.discard(version.id)


async def note(platform: Platform, built: Built) -> None:
    """Write down how a build stands."""
    values = {
        "progress": built.progress,
        "step": built.step,
        "size_bytes": built.size_bytes,
        "error": built.error,
    }
    if built.state == "building":
        async with platform.db.write() as conn:
            await store.change(conn, built.version_id, values)
    else:
        await _finish(platform, built.version_id, built.state, values)


async def _finish(
    platform: Platform, version_id: str, state: str, values: dict[str, object]
) -> None:
    ended = {"state": state, "finished_at": platform.clock.now()}
    async with platform.db.write() as conn:
        await store.change(conn, version_id, values | ended)


async def _again(platform: Platform, version: Version) -> Version:
    async with platform.db.read() as conn:
        return await store.get(conn, version.id) or version


async def pick(call: Call, slug: str, number: int | None = None) -> Version:
    """The version of that number; without one, the newest.

    Raises:
        NotFound: there is none.
    """
    for version in await versions(call, slug):
        if number is None or version.version == number:
            return version
    raise NotFound(
        f"no version {number} of template {slug!r}",
        hint=f"GET /v1/templates/{slug}/versions lists them",
    )


async def versions(call: Call, slug: str) -> list[Version]:
    """Every version of a template, newest first.

    Raises:
        NotFound: there is no such template.
    """
    found: list[Version] = []
    if is_name(slug):
        async with call.platform.db.read() as conn:
            found = await store.of_slug(conn, call.org, slug)
    if not found:
        raise NotFound(f"no template {slug[:80]!r}", hint="GET /v1/templates lists those there are")
    return found


async def newest(call: Call) -> list[Version]:
    """The newest version of every template."""
    async with call.platform.db.read() as conn:
        return await store.newest(conn, call.org)


async def drop(call: Call, slug: str, number: int | None) -> list[Version]:
    """Delete a version, or all of them; none is deleted when one is in use."""
    platform = call.platform
    chosen = [await pick(call, slug, number)] if number else await versions(call, slug)
    since = platform.clock.now() - timedelta(hours=platform.settings.recover_hours)
    async with platform.db.write() as conn:
        for version in chosen:
            # First the mark, then the count: a create that comes after it sees the mark.
            await store.change(conn, version.id, {"state": "dropping"})
            if version.state == "building":
                raise Conflict(
                    f"{slug}@{version.version} is being built",
                    hint=f"runtools template logs {slug} shows how far it is",
                )
            living = await sandboxes.users_of(conn, version.id, since)
            kept = await snapshots.users_of(conn, version.id)
            if living or kept:
                raise TemplateInUse(
                    f"{slug}@{version.version} is used by {living} sandboxes and {kept} snapshots",
                    hint="destroy them first; ended sandboxes count while they can be recovered",
                    details={"sandboxes": living, "snapshots": kept, "version": version.version},
                )
    crash_point("api.template.dropping")
    for version in chosen:
        await ask_drop(platform, version)
    return chosen


async def ask_drop(platform: Platform, version: Version) -> None:
    """Ask the host to remove what is written down as dropping."""
    try:
        await platform.hosts.port(version.host_id).drop_template(version.id)
    except NotFound:
        pass  # gone already: a repeat
    except HostUnavailable:
        raise
    except RunToolsError:
        state = "ready" if version.error is None else "failed"
        async with platform.db.write() as conn:
            await store.change(conn, version.id, {"state": state})
        raise
    async with platform.db.write() as conn:
        await store.change(conn, version.id, {"state": "dropped"})
