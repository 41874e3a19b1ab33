"""What `runtools login` keeps: one secret for each platform, and which platform is the current one."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from runtools.errors import InvalidRequest
from runtools.sdk import settings


def keep(url: str, secret: str) -> Path:
    """Keep it for that platform, which is the current one from now on."""
    file = _file()
    known = settings.logins()
    _write(file, url, {**known.secrets, url: secret})
    return file


def forget(url: str) -> None:
    """Keep nothing of that platform any longer."""
    known = settings.logins()
    rest = {place: secret for place, secret in known.secrets.items() if place != url}
    current = known.current if known.current in rest else next(iter(rest), None)
    _write(_file(), current, rest)


def _file() -> Path:
    file = settings.logins_file()
    if file is None:
        raise InvalidRequest(
            "there is no place for logins: neither XDG_CONFIG_HOME nor HOME is set"
        )
    return file


def _write(file: Path, current: str | None, secrets: dict[str, str]) -> None:
    """At once and whole, readable by its owner alone."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    body = json.dumps({"current": current, "logins": secrets}, indent=2)
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=".logins-")  # 0600
    with os.fdopen(handle, "w") as fresh:
        fresh.write(body)
    Path(name).replace(file)
