"""What a user may ask of a sandbox: names, paths, environments, keys, sizes. Pure."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping

from runtools.errors import InvalidPath, InvalidRequest, NotFound, TooLarge
from runtools.platform.core.egress import BadRule, policy
from runtools.platform.core.ids import is_name
from runtools.platform.kit.crypto import MAX_PASSWORD_BYTES
from runtools.platform.kit.http import wrong_field
from runtools.sdk.shapes.egress import EgressRules
from runtools.sdk.shapes.inside import ExecRequest
from runtools.sdk.shapes.processes import ProcessRequest
from runtools.sdk.shapes.sandboxes import MAX_ENV_BYTES, SandboxCreate

MAX_PATH_BYTES = 4096
MAX_PART_BYTES = 255
MAX_COMMAND_BYTES = 1_048_576

_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}\$?|[0-9]{1,9}")
_PROCESS = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_TEMPLATE = re.compile(
    r"(?P<slug>[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)(?:@(?P<version>[1-9]\d{0,8}))?"
)


def check_create(wanted: SandboxCreate) -> None:
    """Refuse what the types alone let through.

    Raises:
        InvalidRequest, TooLarge: with the field that is wrong.
    """
    check_name(wanted.name)
    check_tags(wanted.tags)
    check_env(wanted.env)
    if both := sorted(set(wanted.secrets) & set(wanted.env)):
        raise wrong_field("secrets", f"{', '.join(both)} is in env too")
    if wanted.password is not None:
        check_password(wanted.password)


def egress(wanted: EgressRules, prefix: str = "") -> EgressRules:
    """The rules in their plain form.

    Raises:
        InvalidRequest: an entry means nothing; the field says which.
    """
    try:
        found = policy(True, wanted.allow, wanted.deny)
    except BadRule as bad:
        raise wrong_field(f"{prefix}{bad.list_name}.{bad.index}", bad.problem) from None
    return EgressRules(allow=list(found.allow), deny=list(found.deny))


def check_name(name: str | None, field: str = "name") -> None:
    """A name must not look like a sandbox id, or one could stand for another."""
    if name is not None and not is_name(name):
        raise wrong_field(
            field,
            "must be 1 to 63 lower-case letters, digits and inner hyphens, and not of an id's form",
        )


def check_tags(tags: Mapping[str, str] | None, field: str = "tags") -> None:
    """Tags are plain text with a key."""
    for key, value in (tags or {}).items():
        if not key or ":" in key:
            raise wrong_field(field, f"key {key[:40]!r} is empty or holds a colon")
        if "\0" in key or "\0" in value:
            raise wrong_field(field, f"{key[:40]!r} holds a NUL")


def check_env(env: Mapping[str, str], field: str = "env") -> None:
    """An environment that a process can be given."""
    size = sum(len(name) + len(value.encode()) + 2 for name, value in env.items())
    if size > MAX_ENV_BYTES:
        raise TooLarge(
            f"{field} is {size} bytes, more than {MAX_ENV_BYTES}",
            hint="put large values into a file of the sandbox",
            details={"field": field, "bytes": size, "limitBytes": MAX_ENV_BYTES},
        )
    for name, value in env.items():
        if "\0" in value:
            raise wrong_field(field, f"the value of {name} holds a NUL")


def check_password(password: str) -> None:
    """A password that a login can take as it is."""
    if not password.isprintable():
        raise wrong_field("password", "holds characters that cannot be typed")
    if len(password.encode()) > MAX_PASSWORD_BYTES:
        raise wrong_field("password", f"is longer than {MAX_PASSWORD_BYTES} bytes")


def template_ref(text: str) -> tuple[str, int | None]:
    """Slug and version of ``slug`` or ``slug@version``."""
    match = _TEMPLATE.fullmatch(text)
    if match is None:
        raise wrong_field("template", "must be a slug, or slug@version, e.g. base-debian@3")
    version = match["version"]
    return match["slug"], None if version is None else int(version)


def child_names(stem: str | None, count: int) -> list[str | None]:
    """The names of a fork's children: the name itself for one, name-1, name-2 … for several."""
    if stem is None:
        return [None] * count
    names = [stem] if count == 1 else [f"{stem}-{n}" for n in range(1, count + 1)]
    for name in names:
        check_name(name)
    return list(names)


def check_command(request: ExecRequest | ProcessRequest) -> None:
    """Refuse a command that no process could be given."""
    words = [request.command] if isinstance(request.command, str) else request.command
    if any("\0" in word for word in words):
        raise wrong_field("command", "holds a NUL")
    if not words[0]:
        raise wrong_field("command", "names no program")
    size = sum(len(word.encode()) + 1 for word in words)
    if size > MAX_COMMAND_BYTES:
        raise TooLarge(
            f"the command is {size} bytes, more than {MAX_COMMAND_BYTES}",
            hint="put a long script into a file and run that",
            details={"field": "command", "bytes": size, "limitBytes": MAX_COMMAND_BYTES},
        )
    check_env(request.env)
    check_path(request.cwd, field="cwd")
    if _USER.fullmatch(request.user) is None:
        raise wrong_field("user", "not a user name or id")


def check_exec(request: ExecRequest) -> None:
    """Refuse a command that no process could be given, and input that is not what it says."""
    check_command(request)
    if request.stdin is not None and request.stdin_encoding == "base64":
        try:
            base64.b64decode(request.stdin, validate=True)
        except (binascii.Error, ValueError):
            raise wrong_field("stdin", "not base64, which stdinEncoding says it is") from None


def check_process_id(process_id: str) -> str:
    """An id that a command or process can have.

    Raises:
        NotFound: none can have it.
    """
    if _PROCESS.fullmatch(process_id) is None:
        raise NotFound(
            f"no process {process_id[:80]!r}", hint="GET …/processes lists those there are"
        )
    return process_id


def check_path(path: str, *, field: str = "path") -> str:
    """A path inside a sandbox: absolute, without NUL or ``..``.

    Raises:
        InvalidPath: with what is wrong with it.
    """
    problem = _path_problem(path)
    if problem is not None:
        raise InvalidPath(
            f"{field}: {problem}",
            hint="paths are absolute, e.g. /workspace/notes.txt",
            details={"fields": [{"field": field, "problem": problem, "type": "path"}]},
        )
    return path


def _path_problem(path: str) -> str | None:
    if "\0" in path:
        return "holds a NUL"
    if not path.startswith("/"):
        return "is not absolute"
    try:
        raw = path.encode()
    except UnicodeEncodeError:
        return "is not UTF-8"
    parts = raw.split(b"/")
    if b".." in parts:
        return "holds .."
    if len(raw) > MAX_PATH_BYTES:
        return f"is longer than {MAX_PATH_BYTES} bytes"
    if any(len(part) > MAX_PART_BYTES for part in parts):
        return f"holds a part longer than {MAX_PART_BYTES} bytes"
    return None


def tag_filter(texts: Iterable[str]) -> list[tuple[str, str]]:
    """``key:value`` texts as pairs; the value may hold further colons."""
    pairs = []
    for text in texts:
        key, colon, value = text.partition(":")
        if not key or not colon or "\0" in text or len(text) > 513:
            raise wrong_field("tag", "must be key:value")
        pairs.append((key, value))
    return pairs


def octal_mode(text: str | None) -> int | None:
    """Permission bits as people write them, e.g. 644 or 0755."""
    if text is None:
        return None
    if re.fullmatch(r"[0-7]{1,5}", text) is None or int(text, 8) > 0o7777:
        raise wrong_field("mode", "must be octal permission bits, e.g. 644")
    return int(text, 8)


def check_range(start: int, end: int | None) -> None:
    """A range of bytes that is not upside down."""
    if end is not None and end < start:
        raise InvalidRequest(
            f"end: {end} lies before start {start}",
            details={"fields": [{"field": "end", "problem": "before start", "type": "range"}]},
        )
