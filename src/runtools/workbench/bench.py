"""A place to work at: one sandbox, and what the calls of one conversation share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from runtools.sdk.sandbox import AsyncSandbox
from runtools.sdk.shapes.inside import WORKSPACE

MAX_CHARACTERS = 30_000


@dataclass(frozen=True, slots=True)
class Bench:
    """One conversation's place in a sandbox.

    Attributes:
        sandbox: where the work is done.
        conversation: lower-case letters, digits and hyphens; calls of the same one share folder and
            environment of their shell.
        max_characters: how much of a result a model is shown.
        on_output: told what a command writes, as it comes.
        act: what the call is known by: made again under the same name it goes on where it was or is
            answered, and is not done twice. A command that is left goes on then; `shell.stop` ends it.
        begun: whether the call may have been made before.
        sees: whether whoever calls can look at pictures.
    """

    sandbox: AsyncSandbox
    conversation: str
    max_characters: int = MAX_CHARACTERS
    on_output: Callable[[bytes], None] | None = None
    act: str | None = None
    begun: bool = False
    sees: bool = False

    def key(self, part: str) -> str | None:
        """The idempotency key of a part of the call."""
        return None if self.act is None else f"{self.act}.{part}"

    def file(self, name: str) -> str:
        """Where the conversation keeps something in its sandbox."""
        return f"/tmp/.workbench/{self.conversation}/{name}"  # noqa: S108 - a folder of the sandbox


def absolute(path: str) -> str:
    """A path as the file interface takes it: a relative one lies below /workspace."""
    return path if path.startswith("/") else f"{WORKSPACE}/{path}"
