"""The project folder: where it is, and what its ``[tool.runtools]`` says."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path

from pydantic import Field, ValidationError

from runtools.errors import InvalidRequest, NotFound
from runtools.project import misfits
from runtools.sdk.settings import address
from runtools.sdk.shapes.base import Request
from runtools.sdk.shapes.definitions import Kind
from runtools.sdk.shapes.sandboxes import Name

CONFIG = "pyproject.toml"
PLURALS: dict[Kind, str] = {"tool": "tools", "sandbox": "sandboxes", "agent": "agents"}
_HINT = "`runtools init` makes a project that deploys as it stands"


class Folders(Request):
    """Where each kind of definition lies, below the project's root."""

    tools: str = "tools"
    sandboxes: str = "sandboxes"
    agents: str = "agents"


class Settings(Request):
    """``[tool.runtools]`` of a project; keys as they are written there."""

    org: str | None = None
    project: Name | None = None
    api_url: str | None = None
    folders: Folders = Field(default_factory=Folders)


class Folder:
    """A project's root and settings."""

    def __init__(self, root: Path, settings: Settings) -> None:
        self.root = root
        self.settings = settings

    def of(self, kind: Kind) -> Path:
        """Where the definitions of a kind lie; it may be missing."""
        return self.root / str(getattr(self.settings.folders, PLURALS[kind]))


def find(start: Path, *, past_closed: bool = False) -> Folder:
    """The project that a folder lies in: itself or the nearest one above with ``[tool.runtools]``.

    Args:
        past_closed: a file that may not be read is passed by; else it is an error, as it may be meant.

    Raises:
        NotFound: there is none.
        InvalidRequest: its settings are malformed.
    """
    start = start.resolve()
    for root in (start, *start.parents):
        table = settings_table(root / CONFIG, past_closed=past_closed)
        if table is not None:
            return Folder(root, _settings(root, table))
    raise NotFound(f"{start} is in no project: no {CONFIG} has [tool.runtools]", hint=_HINT)


def definition_files(top: Path) -> Iterator[Path]:
    """A kind's files in a fixed order; what begins with an underscore or a dot is a helper."""
    for file in sorted(top.rglob("*.py")):
        if not any(part.startswith(("_", ".")) for part in file.relative_to(top).parts):
            yield file


def settings_table(file: Path, *, past_closed: bool = False) -> object:
    """A ``pyproject.toml``'s ``[tool.runtools]``; None where it has none, or is not there.

    Raises:
        InvalidRequest: it cannot be read, or is no TOML.
    """
    try:
        there = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        if past_closed:
            return None
        raise InvalidRequest(f"{file} cannot be read: {exc}") from None
    if b"runtools" not in there:
        return None  # it is another's, whatever is wrong with it
    try:
        return tomllib.loads(there.decode()).get("tool", {}).get("runtools")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, AttributeError) as exc:
        raise InvalidRequest(f"{file} is no TOML: {exc}") from None


def _settings(root: Path, table: object) -> Settings:
    file = root / CONFIG
    try:
        settings = Settings.model_validate(table, by_alias=False, by_name=True)
    except ValidationError as exc:
        first = exc.errors()[0]
        field = ".".join(("tool.runtools", *map(str, first["loc"])))
        raise InvalidRequest(f"{file}: {field}: {misfits.words(first)}") from None
    if settings.api_url is not None:
        try:
            address(settings.api_url, {})
        except InvalidRequest as exc:
            said = f"{file}: tool.runtools.api_url: {exc.message}"
            raise InvalidRequest(said, hint=exc.hint) from None
    for field, name in settings.folders.model_dump(by_alias=False).items():
        lies_within = (root / name).resolve().is_relative_to(root) and name.strip("./")
        if not lies_within or ".." in Path(name).parts:
            raise InvalidRequest(
                f"{file}: tool.runtools.folders.{field}: {name!r} is no folder of the project"
            )
    return settings
