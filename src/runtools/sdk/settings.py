"""Where the platform is and with which key to speak to it: the SDK's only reader of the environment.

The key comes from the argument, else ``RUNTOOLS_API_KEY``, else ``client.json``; the address from
the argument, else ``RUNTOOLS_API_URL``, else ``client.json``, else the default. ``client.json`` lies
in ``RUNTOOLS_HOME`` (default /var/lib/runtools); the first `runtools up` writes it:
``{"apiUrl": "http://127.0.0.1:7700", "apiKey": "rt_live_…"}``.

A key that was kept for one address is never sent to another.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from runtools.errors import InvalidRequest, Unauthenticated

DEFAULT_URL = "http://127.0.0.1:7700"
DEFAULT_HOME = "/var/lib/runtools"


@dataclass(frozen=True, slots=True)
class Settings:
    """One platform's address and the caller's key, which no repr shows."""

    url: str
    api_key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Kept:
    """What ``client.json`` holds; ``trouble`` says why it holds nothing."""

    file: Path
    url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    trouble: str | None = None


def resolve(
    api_key: str | None = None,
    url: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """The settings in force.

    Raises:
        InvalidRequest: the address or the key is malformed, or ``client.json`` is.
        Unauthenticated: no key is to be found; the hint says where it may be put.
    """
    env = os.environ if environ is None else environ
    key = api_key or env.get("RUNTOOLS_API_KEY") or None
    address = url or env.get("RUNTOOLS_API_URL") or None
    if key is None or address is None:
        kept = _kept(Path(env.get("RUNTOOLS_HOME") or DEFAULT_HOME) / "client.json")
        chosen = _checked_url(address or kept.url or DEFAULT_URL)
        return Settings(chosen, _checked_key(key or _kept_key(kept, chosen)))
    return Settings(_checked_url(address), _checked_key(key))


def home(environ: Mapping[str, str] | None = None) -> Path:
    """The home of the platform that commands on this machine act on."""
    env = os.environ if environ is None else environ
    return Path(env.get("RUNTOOLS_HOME") or DEFAULT_HOME)


def terminal_kind(environ: Mapping[str, str] | None = None) -> str:
    """What programs in a terminal of this process may expect of it: TERM."""
    env = os.environ if environ is None else environ
    return env.get("TERM") or "xterm-256color"


def platform_environment(environ: Mapping[str, str] | None = None) -> list[str]:
    """The names of the platform's own settings that are set: what `sudo` must let through."""
    env = os.environ if environ is None else environ
    mine = {"RUNTOOLS_API_KEY", "RUNTOOLS_API_URL"}
    return sorted(name for name in env if name.startswith("RUNTOOLS_") and name not in mine)


def _kept(file: Path) -> _Kept:
    try:
        text = file.read_text()
    except (FileNotFoundError, NotADirectoryError):
        return _Kept(file, trouble=f"{file} does not exist")
    except PermissionError:
        return _Kept(file, trouble=f"{file} may not be read by this user")
    try:
        body = json.loads(text)
        return _Kept(file, url=_text(body, "apiUrl"), api_key=_text(body, "apiKey"))
    except ValueError as exc:
        raise InvalidRequest(
            f"{file} is not what `runtools up` writes: {exc}",
            hint="restore it, or set RUNTOOLS_API_KEY and RUNTOOLS_API_URL",
        ) from None


def _text(body: object, name: str) -> str | None:
    value = body.get(name) if isinstance(body, dict) else None
    if not isinstance(value, str):
        raise ValueError(f"{name!r} is missing")  # noqa: TRY004 - a malformed file, not a wrong call
    return value


def _kept_key(kept: _Kept, url: str) -> str:
    if kept.api_key is None or kept.url is None:
        raise Unauthenticated(
            f"no API key: none was given, RUNTOOLS_API_KEY is not set and {kept.trouble}",
            hint="`runtools up` makes one at its first start; RUNTOOLS_HOME says where it looks",
        )
    if _checked_url(kept.url) != url:
        raise Unauthenticated(
            f"no API key for {url}: the one in {kept.file} belongs to {kept.url}",
            hint="set RUNTOOLS_API_KEY to a key of that platform",
        )
    return kept.api_key


def _checked_url(url: str) -> str:
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError as exc:
        raise InvalidRequest(f"{url!r} is not an address: {exc}") from None
    if not _is_plain(parts):
        raise InvalidRequest(
            f"{url!r} is not an address of a platform", hint=f"it looks like {DEFAULT_URL}"
        )
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}{f':{port}' if port else ''}{parts.path.rstrip('/')}"


def _is_plain(parts: SplitResult) -> bool:
    extras = parts.username or parts.password or parts.query or parts.fragment
    return parts.scheme in ("http", "https") and bool(parts.hostname) and not extras


def _checked_key(key: str) -> str:
    key = key.strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise InvalidRequest("the API key is malformed", hint="it looks like rt_live_ and letters")
    return key
