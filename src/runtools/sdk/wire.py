"""What both clients do alike with requests and answers; nothing here waits or sends.

Every mutating call carries an idempotency key made once per call, so a repeat is answered by the
platform and never done twice. That is why `patience` may look at the error alone.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from pydantic import BaseModel, ValidationError

from runtools.errors import (
    DeadlineExceeded,
    InvalidRequest,
    RateLimited,
    RunToolsError,
    TooLarge,
    Unavailable,
    VersionMismatch,
    from_wire,
)
from runtools.version import __version__

S = TypeVar("S", bound=BaseModel)
Query = Sequence[tuple[str, object]]

USER_AGENT = f"runtools-python/{__version__}"
CALL_SECONDS = 60.0  # what an ordinary call may take
ACT_SECONDS = 600.0  # what an act on a sandbox may take, queueing included
MAX_STDIN_BYTES = 7 * 1024 * 1024  # of a command; it travels as base64 in a bounded request
_PLAIN_STDIN = 65_536  # longer text goes as bytes: escapes in JSON could make it six times as long
SIGNAL_SECONDS = 30.0  # to a command: it is needed now, and may be sent again
WAKE_SECONDS = 240.0  # what creating or waking a sandbox may add to a call inside it


class BrokenOff(Unavailable):
    """Only a part of an answer came. Under the same code as others: it may be asked for again."""


class Silence(DeadlineExceeded):
    """The platform took a request and said nothing in its time. Not repeated: it is busy with it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A successful response: its ``data``, and where the next page begins."""

    data: Any
    next_cursor: str | None
    request_id: str | None


def new_key() -> str:
    """A fresh idempotency key."""
    return f"sdk-{secrets.token_hex(16)}"


def new_process_id() -> str:
    """A fresh name of a command, under which a repeat is answered instead of run again."""
    return f"prc_{secrets.token_hex(10)}"


def segment(ref: str) -> str:
    """An id or a name as one segment of a path."""
    if not ref or "/" in ref:
        raise InvalidRequest(f"{ref!r} is neither an id nor a name")
    return quote(ref, safe="")


def target(path: str, query: Query | None) -> str:
    """A path with those of the query's values that are set."""
    pairs = [(name, _plain(value)) for name, value in query or () if value is not None]
    return f"{path}?{urlencode(pairs)}" if pairs else path


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def payload(body: Mapping[str, Any]) -> bytes:
    """The JSON of a request, without the fields that are None.

    Raises:
        InvalidRequest: something in it is not Unicode text.
    """
    given = {name: value for name, value in body.items() if value is not None}
    return _utf8(json.dumps(given, ensure_ascii=False, separators=(",", ":")))


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as exc:
        raise InvalidRequest(
            f"text that is not Unicode cannot be sent: {exc.object[exc.start : exc.end]!r}",
            hint="send bytes as a file",
        ) from None


def answer(status: int, body: bytes) -> Answer:
    """What a successful response says.

    Raises:
        VersionMismatch: it is not what a platform says.
    """
    if status == 204 or not body:
        return Answer(None, None, None)
    try:
        parsed = json.loads(body)
        meta = parsed["meta"]
        return Answer(parsed["data"], meta.get("nextCursor"), meta.get("requestId"))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise _foreign(status, body) from None


def error(status: int, body: bytes, retry_after: str | None = None) -> RunToolsError:
    """The error that a failed response stands for; ``retry_after`` is its header of that name."""
    try:
        return from_wire(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError, AttributeError):
        if status == 429:
            told = retry_after or ""
            seconds = int(told) if told.isdecimal() and len(told) < 9 else 1
            return RateLimited(
                "a proxy before the platform holds requests up",
                details={"retryAfterSeconds": seconds},
            )
        if status in (502, 503, 504):
            return Unavailable(f"a proxy before the platform answered {status}")
        if status >= 500:
            return RunToolsError(f"the platform failed ({status})", hint="its log has the details")
        return _foreign(status, body)


def _foreign(status: int, body: bytes) -> VersionMismatch:
    start = body[:80].decode(errors="replace")
    return VersionMismatch(
        f"the answer ({status}) is not one of a RunTools platform that SDK {__version__} knows: "
        f"{start!r}",
        hint="check the address, and that SDK and platform are of one version (GET /healthz)",
    )


def shape(kind: type[S], data: object) -> S:
    """Data as the shape it should have.

    Raises:
        VersionMismatch: it has another one.
    """
    try:
        return kind.model_validate(data)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise VersionMismatch(
            f"the platform's {kind.__name__} is not the one SDK {__version__} knows: "
            f"{where or 'it'}: {first['msg']}",
            hint="install SDK and platform of one version (GET /healthz says the platform's)",
        ) from None


def shapes(kind: type[S], data: object) -> list[S]:
    """A list of such data."""
    return [shape(kind, item) for item in items(data)]


def items(data: object) -> list[Any]:
    """A list of anything."""
    if not isinstance(data, list):
        raise VersionMismatch("the platform sent something else where a list should be")
    return data


def unreachable(url: str, trouble: str) -> Unavailable:
    """The error of a platform that does not answer."""
    return Unavailable(
        f"no platform answers at {url}: {trouble}",
        hint="is it running? `runtools status` tells, `runtools up` starts it",
    )


def broke_off(url: str, trouble: str) -> BrokenOff:
    """The error of an answer of which only a part came."""
    return BrokenOff(
        f"{url} broke off in the middle of its answer: {trouble}",
        hint="what had come is not the whole. Where it came out of a sandbox, `runtools sandbox why` tells "
        "whether that was paused or has ended; then ask again",
    )


def stdin(given: str | bytes | None) -> dict[str, str]:
    """The fields of a command's request that carry what it reads.

    Raises:
        TooLarge: it does not fit into a request.
        InvalidRequest: it is text, but not Unicode.
    """
    if given is None or (isinstance(given, str) and len(given) <= _PLAIN_STDIN):
        return {} if given is None else {"stdin": given}
    data = _utf8(given) if isinstance(given, str) else given
    if len(data) > MAX_STDIN_BYTES:
        raise TooLarge(
            f"stdin has more than the {MAX_STDIN_BYTES} bytes that a command is given",
            hint="write it to a file in the sandbox (files.upload, `runtools sandbox cp`) and have "
            "the command read that: 'program < /workspace/input'",
            details={"field": "stdin", "limitBytes": MAX_STDIN_BYTES},
        )
    return {"stdin": base64.b64encode(data).decode(), "stdinEncoding": "base64"}


def refused(fields: Mapping[str, str]) -> InvalidRequest:
    """An argument that the SDK itself refuses."""
    name, why = next(iter(fields.items()))
    return InvalidRequest(f"{name}: {why}", details={"fields": dict(fields)})


def count(value: str | None, name: str) -> int:
    """The number in a header of an answer.

    Raises:
        VersionMismatch: there is none.
    """
    if value is None or not (value.isascii() and value.isdigit()):
        raise VersionMismatch(f"the platform's {name} is {value!r}, no number")
    return int(value)


def header(value: str) -> bytes:
    """A value that may stand in a header."""
    if not value or not value.isascii() or not value.isprintable() or len(value) > 255:
        raise InvalidRequest(f"{value[:80]!r} may not be sent as a key: 1 to 255 ASCII letters")
    return value.encode()


def parsed(kind: type[S], text: str) -> S:
    """The shape in an event's text."""
    try:
        return shape(kind, json.loads(text))
    except ValueError:
        raise VersionMismatch(f"the platform sent an event that is no {kind.__name__}") from None


def texts(data: object) -> list[str]:
    """A list of lines."""
    if not isinstance(data, list) or not all(isinstance(line, str) for line in data):
        raise VersionMismatch("the platform sent no list of lines")
    return data
