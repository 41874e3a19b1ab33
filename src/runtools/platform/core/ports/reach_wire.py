"""The head of a stream into a sandbox, on its way from the gateway to the host: where to, and the answer.

Each is JSON with its length (4 bytes, big-endian) before it; after a good answer the bytes are the
stream's own.
"""

from __future__ import annotations

import struct
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from runtools.errors import InvalidRequest, RunToolsError, Unavailable, from_wire

LENGTH: Final = struct.Struct(">I")
MAX_ASK: Final = 512
MAX_ANSWER: Final = 64 << 10


class Ask(BaseModel):
    """A sandbox and one of its ports, and whether what is said on the stream later may wake it."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    sandbox_id: Annotated[str, Field(max_length=64)]
    port: Annotated[int, Field(ge=1, le=65535)]
    wakes: bool = True


class _Answer(BaseModel):
    """Nothing, or why not."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    error: dict[str, Any] | None = None


def frame(payload: bytes) -> bytes:
    """A payload with its length."""
    return LENGTH.pack(len(payload)) + payload


def pack_ask(sandbox_id: str, port: int, *, wakes: bool = True) -> bytes:
    """A question.

    Raises:
        InvalidRequest: there is no such port or id.
    """
    try:
        ask = Ask(sandbox_id=sandbox_id, port=port, wakes=wakes)
    except ValidationError as exc:
        raise InvalidRequest(f"port {port} of {sandbox_id[:64]!r} cannot be reached") from exc
    return frame(ask.model_dump_json().encode())


def parse_ask(payload: bytes) -> Ask:
    """What is asked for.

    Raises:
        InvalidRequest: it is no question.
    """
    try:
        return Ask.model_validate_json(payload)
    except ValidationError as exc:
        raise InvalidRequest("this is no sandbox and port") from exc


def pack_answer(error: RunToolsError | None = None) -> bytes:
    """A good answer, or the error."""
    said = _Answer(error=None if error is None else error.to_wire())
    return frame(said.model_dump_json().encode()[:MAX_ANSWER])


def check_answer(payload: bytes) -> None:
    """Nothing, if it is a good one.

    Raises:
        RunToolsError: what it says.
    """
    try:
        said = _Answer.model_validate_json(payload)
    except ValidationError as exc:
        raise Unavailable("the host's answer is none") from exc
    if said.error is not None:
        raise from_wire(said.error)
