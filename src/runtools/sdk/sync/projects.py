# Generated from sdk/projects.py by scripts/generate_sync.py: edit that, then run it.
"""Projects of the org."""

from __future__ import annotations

from collections.abc import Sequence

from runtools.sdk import wire
from runtools.sdk.shapes.projects import Project
from runtools.sdk.sync.transport import Transport

_PAGE = 100


class Projects:
    """Projects: ``rt.projects``. They sort an org's things and allow or forbid nothing."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(self, name: str, *, color: str | None = None) -> Project:
        """Make a project.

        Args:
            name: unique in the org; lower-case letters, digits, dashes.
            color: for those who draw it, e.g. ``#3366cc``.

        Raises:
            NameTaken: there is one of that name.
        """
        body = {"name": name, "color": color}
        return wire.shape(Project, (self._transport.call("POST", "/projects", body=body)).data)

    def list(self) -> list[Project]:
        """The org's projects, the default one first, with how much lies in each."""
        pages = self._transport.pages("/projects", [], _PAGE)
        return [wire.shape(Project, item) for item in pages]

    def get(self, ref: str) -> Project:
        """The project of that id or name."""
        answer = self._transport.call("GET", f"/projects/{wire.segment(ref)}")
        return wire.shape(Project, answer.data)

    def change(self, ref: str, *, name: str | None = None, color: str | None = None) -> Project:
        """Give a project another name or colour; what is left out stays."""
        path = f"/projects/{wire.segment(ref)}"
        answer = self._transport.call("PATCH", path, body={"name": name, "color": color})
        return wire.shape(Project, answer.data)

    def delete(self, ref: str, *, move_to: str | None = None) -> None:
        """Delete a project.

        Args:
            ref: its id or name.
            move_to: the project that its things go to; without one it must be empty.

        Raises:
            ProjectInUse: it is not empty.
            Conflict: it is the org's default one.
        """
        path = f"/projects/{wire.segment(ref)}"
        self._transport.call("DELETE", path, query=[("moveTo", move_to)])

    def move(
        self,
        ref: str,
        *,
        sandboxes: Sequence[str] = (),
        agents: Sequence[str] = (),
        api_keys: Sequence[str] = (),
        ssh_keys: Sequence[str] = (),
    ) -> Project:
        """Put things into a project: all that are named, or none.

        Args:
            ref: the project's id or name.
            sandboxes: ids or names.
            agents: ids or slugs; what they name must stand in that project.
            api_keys: ids.
            ssh_keys: ids or labels.

        Raises:
            NotFound: something is not there; nothing was moved.
        """
        body = {
            "sandboxes": list(sandboxes),
            "agents": list(agents),
            "apiKeys": list(api_keys),
            "sshKeys": list(ssh_keys),
        }
        path = f"/projects/{wire.segment(ref)}/move"
        return wire.shape(Project, (self._transport.call("POST", path, body=body)).data)
