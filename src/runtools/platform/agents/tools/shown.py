"""What servers of tools say, as a model is shown it: within bounds, and data all the same. Pure."""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass
from typing import Any

from runtools.sdk import pictures
from runtools.sdk.shapes.definitions import McpServer
from runtools.workbench.cut import cut
from runtools.workbench.tool import Image, Result

_FOREIGN = r"[^a-zA-Z0-9_-]"
_MAX_NAME = 64  # what providers take
_MOST_CHARACTERS = 30_000
_MOST_DESCRIPTION = 2000
_MOST_SCHEMA = 64 * 1024
_MOST_PICTURES = 8 * 1024 * 1024  # in base64, of one result: an event has room for no more
_MOST_PARTS = 1000
_MOST_WORDS = 160


@dataclass(frozen=True, slots=True)
class ServerTool:
    """One tool of a server, as the model is told of it.

    Attributes:
        again: whether it may be called a second time without harm.
    """

    server: McpServer
    tool: str
    name: str
    description: str
    schema: dict[str, Any]
    again: bool


def told(server: McpServer, tool: Any) -> ServerTool | None:
    """A tool that a server has listed; None: it is described at such length that it is left out."""
    if len(json.dumps(tool.input_schema)) > _MOST_SCHEMA:
        return None
    name = re.sub(_FOREIGN, "_", f"{prefix(server.name)}{tool.name}")[:_MAX_NAME]
    hints = tool.annotations
    again = hints is not None and bool(hints.read_only_hint or hints.idempotent_hint)
    description = (tool.description or tool.name)[:_MOST_DESCRIPTION]
    return ServerTool(server, tool.name, name, description, dict(tool.input_schema), again)


def prefix(server: str) -> str:
    """How the names of a server's tools begin."""
    return re.sub(_FOREIGN, "_", f"{server}__")


def result(given: Any) -> Result:
    """What a call has given back."""
    texts: list[str] = []
    images: list[Image] = []
    room = _MOST_PICTURES
    for part in given.content[:_MOST_PARTS]:
        kind = getattr(part, "type", "")
        if kind == "image" and len(part.data) <= room:
            found = _picture(part.data)
            if isinstance(found, Image):
                room -= len(part.data)
                images.append(found)
            else:
                texts.append(found)
        else:
            texts.append(_text(part, kind))
    if not texts and not images and given.structured_content is not None:
        texts.append(json.dumps(given.structured_content, ensure_ascii=False))
    if len(given.content) > _MOST_PARTS:
        texts.append(f"[{len(given.content) - _MOST_PARTS} more parts that are not shown]")
    text = cut("\n".join(texts), _MOST_CHARACTERS, "the rest is not kept")
    return Result(text or "[nothing]", bool(given.is_error), tuple(images))


def why(error: BaseException) -> str:
    """The innermost of what went wrong, in a line: groups of errors say little themselves.

    What a server says of itself stands in quotes: it goes to the model, and is no word of ours.
    """
    while isinstance(error, BaseExceptionGroup) and error.exceptions:
        error = error.exceptions[0]
    words = " ".join(str(error).split())
    if not words:
        return type(error).__name__
    return repr(words if len(words) <= _MOST_WORDS else f"{words[:_MOST_WORDS]}…")


def _text(part: Any, kind: str) -> str:
    if kind == "text":
        return str(part.text)
    if kind == "resource" and hasattr(part.resource, "text"):
        return f"{part.resource.uri}:\n{part.resource.text}"
    if kind == "resource_link":
        return f"[{part.name}: {part.uri}]"
    return f"[{kind} that cannot be shown]"


def _picture(text: str) -> Image | str:
    """A picture by what it is, not by what the server calls it; words, where it is none."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return "[a picture that is no base64]"
    wrong = pictures.fault(data)
    if wrong is not None:
        return f"[a picture that cannot be shown: it {wrong}]"
    return Image(str(pictures.kind_of(data)), data)
