"""Where the platform is and with which key to speak to it: the SDK's only reader of the environment.

The address comes from the argument, else ``RUNTOOLS_API_URL``, else ``client.json`` where ``RUNTOOLS_HOME``
is set, else (of commands in a folder of a project) its `api_url`, else the platform that somebody last
logged in to, else ``client.json``, else the default. The key comes from the argument, else
``RUNTOOLS_API_KEY``, else what `runtools login` kept for that address, else ``client.json``.

``client.json`` lies in ``RUNTOOLS_HOME`` (default /var/lib/runtools); the first `runtools up` writes it:
``{"apiUrl": "http://127.0.0.1:7700", "apiKey": "rt_live_…", "installId": "k3x9q2"}``. Logins lie in
``runtools/logins.json`` of ``XDG_CONFIG_HOME`` (default ``~/.config``):
``{"current": URL, "logins": {URL: key or session}}``.

What was kept for one address is never sent to another. A folder may be anybody's: to an address that it
alone names goes what was kept for that address, and never ``RUNTOOLS_API_KEY``, which does not say whose it
is.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from runtools.errors import InvalidRequest, Unauthenticated

DEFAULT_URL = "http://127.0.0.1:7700"
DEFAULT_HOME = "/var/lib/runtools"

FolderSays = Callable[[], str | None]
"""The address that a project's folder names, if any. It is read only where it counts."""


def _no_folder() -> None:
    """There is no folder, or it says nothing."""


@dataclass(frozen=True, slots=True)
class Settings:
    """One platform's address and the caller's key, which no repr shows, and where that came from.

    ``install_id`` is the platform's that the key belongs to, where that is known.
    """

    url: str
    api_key: str = field(repr=False)
    source: str = ""
    install_id: str | None = None


@dataclass(frozen=True, slots=True)
class Logins:
    """What `runtools login` has kept: a key or session for each address, and the current address."""

    current: str | None = None
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class _Kept:
    """What ``client.json`` holds; ``trouble`` says why it holds nothing."""

    file: Path
    url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    install_id: str | None = None
    trouble: str | None = None


def resolve(
    api_key: str | None = None,
    url: str | None = None,
    environ: Mapping[str, str] | None = None,
    folder: FolderSays = _no_folder,
) -> Settings:
    """The settings in force.

    Raises:
        InvalidRequest: the address or the key is malformed, or ``client.json`` is.
        Unauthenticated: no key is to be found; the hint says where it may be put.
    """
    env = os.environ if environ is None else environ
    chosen = address(url, env, folder)
    if api_key:
        return Settings(chosen, _checked_key(api_key), "an argument")
    key = env.get("RUNTOOLS_API_KEY")
    if key and chosen == address(url, env):
        return Settings(chosen, _checked_key(key), "RUNTOOLS_API_KEY")
    if kept := logins(env).secrets.get(chosen):
        return Settings(chosen, _checked_key(kept), "runtools login")
    if key:
        raise Unauthenticated(
            f"only the project's folder says {chosen}, and RUNTOOLS_API_KEY is sent to no such address",
            hint=f"sign in there: runtools login --url {chosen}, or set RUNTOOLS_API_URL beside the key",
        )
    found = _kept(home(env) / "client.json")
    key = _checked_key(_kept_key(found, chosen))
    return Settings(chosen, key, str(found.file), found.install_id)


def address(
    url: str | None = None,
    environ: Mapping[str, str] | None = None,
    folder: FolderSays = _no_folder,
) -> str:
    """The platform's address in force.

    Raises:
        InvalidRequest: it is malformed, or a file that says it is.
    """
    env = os.environ if environ is None else environ
    if said := url or env.get("RUNTOOLS_API_URL"):
        return _checked_url(said)
    file = home(env) / "client.json"
    if env.get("RUNTOOLS_HOME"):
        found = _kept(file).url or folder()
    else:
        found = folder() or logins(env).current or _kept(file).url
    return _checked_url(found or DEFAULT_URL)


def logins_file(environ: Mapping[str, str] | None = None) -> Path | None:
    """Where logins are kept; None: this process has no home."""
    env = os.environ if environ is None else environ
    folder = env.get("XDG_CONFIG_HOME") or (f"{env['HOME']}/.config" if env.get("HOME") else None)
    return None if folder is None else Path(folder) / "runtools" / "logins.json"


def ssh_folder(environ: Mapping[str, str] | None = None) -> Path | None:
    """Where the command line keeps its key for SSH; None: this process has no home."""
    file = logins_file(environ)
    return None if file is None else file.with_name("ssh")


def logins(environ: Mapping[str, str] | None = None) -> Logins:
    """What `runtools login` has kept.

    Raises:
        InvalidRequest: the file is malformed, or may not be read: another identity is no way out.
    """
    file = logins_file(environ)
    if file is None:
        return Logins()
    try:
        body = json.loads(file.read_text())
        current, kept = body["current"], body["logins"]
        if not all(isinstance(text, str) for text in (current or "", *kept, *kept.values())):
            raise TypeError("a login is no text")
    except (FileNotFoundError, NotADirectoryError):
        return Logins()
    except PermissionError:
        raise InvalidRequest(
            f"{file} may not be read by this user",
            hint="give the key and the address by RUNTOOLS_API_KEY and RUNTOOLS_API_URL",
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise InvalidRequest(
            f"{file} is not what `runtools login` writes: {exc}", hint="remove it, and log in again"
        ) from None
    return Logins(current, kept)


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
        url, key = _text(body, "apiUrl"), _text(body, "apiKey")
        # A file of an earlier version says nothing of it.
        return _Kept(file, url, key, _text(body, "installId") if "installId" in body else None)
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
            f"no API key for {url}: none was given, RUNTOOLS_API_KEY is not set and {kept.trouble}",
            hint=f"sign in there: runtools login --url {url}; on the machine itself the first `runtools up`"
            " makes a key",
        )
    if _checked_url(kept.url) != url:
        raise Unauthenticated(
            f"no API key for {url}: the one in {kept.file} belongs to {kept.url}",
            hint=f"sign in there: runtools login --url {url}, or set RUNTOOLS_API_KEY",
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
