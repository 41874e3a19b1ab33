"""Templates: what sandboxes are made from."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from runtools.errors import BuildFailed
from runtools.sdk import wire
from runtools.sdk.shapes.templates import BuildLine, Template
from runtools.sdk.transport import AsyncTransport


class AsyncTemplates:
    """Templates and their builds: ``rt.templates``. A build makes a new immutable version."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def build(
        self,
        slug: str,
        *,
        recipe: str | None = None,
        apt: Sequence[str] = (),
        run: str | None = None,
        wait: bool = True,
        on_line: Callable[[BuildLine], None] | None = None,
        idempotency_key: str | None = None,
    ) -> Template:
        """Build a template's next version; returns it when it is ready.

        Args:
            slug: a known recipe (``base-debian``) or a name of your own.
            recipe: what a template of your own starts from.
            apt: packages to add.
            run: a shell script, run as root at the end.
            wait: False: return at once, still building.
            on_line: called with each line of the log.
            idempotency_key: a repeat with the same key is answered, not done again.

        Raises:
            BuildFailed: the message is the build's own; `logs` has all of it.
            InvalidRequest: an unknown recipe, a malformed name.
        """
        body = {"recipe": recipe, "apt": list(apt) or None, "run": run}
        path = f"/templates/{wire.segment(slug)}/builds"
        answer = await self._transport.call(
            "POST", path, body=body, key=idempotency_key, seconds=wire.ACT_SECONDS
        )
        begun = wire.shape(Template, answer.data)
        return await self.wait(begun.slug, begun.version, on_line=on_line) if wait else begun

    async def wait(
        self, slug: str, version: int, *, on_line: Callable[[BuildLine], None] | None = None
    ) -> Template:
        """Wait for the end of a version's build; returns it when it is ready.

        Args:
            slug, version: as `build` returned them.
            on_line: called with each line of the log, from its first on.

        Raises:
            BuildFailed: it was not built; the message is the build's own.
        """
        built: Template | None = None
        async with aclosing(self._log(slug, version)) as log:
            async for event in log:
                if isinstance(event, Template):
                    built = event
                elif on_line is not None:
                    on_line(event)
        if built is None or built.state != "ready":
            raise _not_built(slug, version, built)
        return built

    async def list(self) -> Sequence[Template]:
        """The newest version of every template."""
        return wire.shapes(Template, (await self._transport.call("GET", "/templates")).data)

    async def get(self, slug: str) -> Template:
        """The newest version of a template."""
        path = f"/templates/{wire.segment(slug)}"
        return wire.shape(Template, (await self._transport.call("GET", path)).data)

    async def versions(self, slug: str) -> Sequence[Template]:
        """Every version of a template that is still there."""
        path = f"/templates/{wire.segment(slug)}/versions"
        return wire.shapes(Template, (await self._transport.call("GET", path)).data)

    async def logs(self, slug: str, version: int | None = None) -> AsyncGenerator[BuildLine, None]:
        """A build's log, line by line, until the build has ended; default: the newest one's."""
        async with aclosing(self._log(slug, version)) as log:
            async for event in log:
                if isinstance(event, BuildLine):
                    yield event

    async def _log(
        self, slug: str, version: int | None
    ) -> AsyncGenerator[BuildLine | Template, None]:
        path = f"/templates/{wire.segment(slug)}/logs"
        async with aclosing(self._transport.follow(path, query=[("version", version)])) as events:
            async for event in events:
                if event.name == "end":
                    yield wire.parsed(Template, event.data)
                    return
                if event.name == "line":
                    yield wire.parsed(BuildLine, event.data)

    async def delete(self, slug: str, version: int | None = None) -> Sequence[Template]:
        """Delete a template, or one version of it; returns the versions that are gone.

        One that is being built is built no more: it comes back as ``failed``, its step ``deleted``.

        Raises:
            TemplateInUse: sandboxes or snapshots still stand on it.
        """
        path = f"/templates/{wire.segment(slug)}"
        answer = await self._transport.call(
            "DELETE", path, query=[("version", version)], seconds=wire.ACT_SECONDS
        )
        return wire.shapes(Template, answer.data)


def _not_built(slug: str, version: int, built: Template | None) -> BuildFailed:
    why = "its log ended without a word" if built is None else built.error or built.step
    kept = built is None or built.step != "deleted"
    hint = f"runtools template logs {slug} --version {version} shows the whole build"
    return BuildFailed(f"{slug}@{version} was not built: {why}", hint=hint if kept else None)
