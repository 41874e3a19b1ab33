"""The desktop of a template: packages that its distribution has not, an ordinary user, our own files.

As with all that is done to a root here: before the first line of a stranger's script has run in it.
"""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from urllib.parse import urlsplit

from runtools.platform.host.templates.buildlog import BuildLog
from runtools.platform.host.templates.chroot import run_inside
from runtools.platform.host.templates.laying import lay, link
from runtools.platform.host.templates.recipes import Archive, Recipe
from runtools.platform.kit import process

USER = "desktop"
_UID = "1000"
_PROGRAMS = "usr/lib/runtools-desktop"
_RUN = ("environment", "session", "up", "rehearse", "windows")
_CLIENT = "usr/share/novnc"
_UNITS = ("display", "desktop-bus", "desktop", "desktop-web", "desktop-up")
_KASMVNC = "/run/kasmvnc.deb"
_INSTALL = ("apt-get", "install", "-y", "-q", "--no-install-recommends")


async def add_foreign(root: Path, recipe: Recipe, kasmvnc: str, work: Path, log: BuildLog) -> None:
    """Install what does not come from the distribution.

    Args:
        kasmvnc: the address or the file of KasmVNC's package, from the settings.
        work: scratch space.

    Raises:
        ValueError: that is no such package.
    """
    for archive in recipe.archives:
        await _add_archive(root, archive, log)
    if recipe.vnc == "kasmvnc":
        package = await _kasmvnc(kasmvnc, work, log)
        await run_inside(root, [*_INSTALL, _KASMVNC], log.line, shown={package: _KASMVNC})


async def _add_archive(root: Path, archive: Archive, log: BuildLog) -> None:
    log.line(f"from {archive.uri} {archive.suite}")
    key = f"etc/apt/keyrings/{archive.name}.asc"
    source = f"etc/apt/sources.list.d/{archive.name}.list"
    (root / key).parent.mkdir(parents=True, exist_ok=True)
    (root / key).write_bytes(
        resources.files(__package__).joinpath("keys", archive.key).read_bytes()
    )
    parts = " ".join(archive.components)
    (root / source).write_text(f"deb [signed-by=/{key}] {archive.uri} {archive.suite} {parts}\n")
    # What is taken from there is taken from nowhere else, whatever the distribution calls the same.
    pinned = "".join(
        f"Package: {name}\nPin: origin {urlsplit(archive.uri).hostname}\nPin-Priority: 1000\n\n"
        for name in archive.packages
    )
    (root / f"etc/apt/preferences.d/{archive.name}").write_text(pinned)
    only = [
        f"Dir::Etc::sourcelist=/{source}",
        "Dir::Etc::sourceparts=-",
        "APT::Get::List-Cleanup=0",
    ]
    update = ["apt-get", "update", "-q", *(word for one in only for word in ("-o", one))]
    await run_inside(root, update, log.line)
    await run_inside(root, [*_INSTALL, *archive.packages], log.line)


async def _kasmvnc(place: str, work: Path, log: BuildLog) -> Path:
    """The package, here; fetched where the settings name an address."""
    if not place:
        raise ValueError("the setting kasmvnc names no package")
    package = Path(place)
    if re.match(r"https?://", place):  # it is installed as root, and nothing signs it
        if place.startswith("http://"):
            raise ValueError("KasmVNC's package comes by https:// alone, or from a file")
        package = work / "kasmvnc.deb"
        await process.run(
            ["curl", "-fsSL", "--proto", "=https", "--max-time", "900", "-o", package, place]
        )
    found = await process.run(["dpkg-deb", "--field", package, "Package", "Version"])
    said = found.stdout.decode(errors="replace")
    if "Package: kasmvncserver" not in said.splitlines():
        raise ValueError(f"{place} is no package of KasmVNC")
    log.line(" ".join(said.split()))
    return package


async def set_up(root: Path, recipe: Recipe, log: BuildLog) -> None:
    """The desktop's user, its configuration and its services."""
    files = resources.files(__package__)
    await run_inside(
        root,
        ["useradd", "--create-home", "--uid", _UID, "--user-group", "--shell", "/bin/bash", USER],
        log.line,
    )
    with resources.as_file(files.joinpath("desktop_skeleton")) as skeleton:
        lay(skeleton, root)
    units = [f"runtools-{name}.service" for name in _UNITS]
    folder = root / "etc/systemd/system"
    if recipe.vnc == "kasmvnc":  # which serves its page itself
        with resources.as_file(files.joinpath("kasmvnc_skeleton")) as skeleton:
            lay(skeleton, root)
        units.remove("runtools-desktop-web.service")
        (folder / "runtools-desktop-web.service").unlink()
    else:
        web = root / _PROGRAMS / "web"
        for entry in sorted((root / _CLIENT).iterdir()):
            if entry.name != "index.html":
                link(web / entry.name, f"/{_CLIENT}/{entry.name}")
    for unit in units:
        link(folder / "multi-user.target.wants" / unit, f"../{unit}")
    for name in _RUN[1:]:
        (root / _PROGRAMS / name).chmod(0o755)
    # The browser reads its policies below a folder of its own name.
    link(root / "etc/firefox-esr/policies", "../firefox/policies")
    link(root / "home" / USER / "workspace", "/workspace")
    await run_inside(root, ["glib-compile-schemas", "/usr/share/glib-2.0/schemas"], log.line)
    await run_inside(root, ["chown", "-hR", f"{USER}:{USER}", f"/home/{USER}"], log.line)
    await run_inside(root, ["chown", f"{USER}:{USER}", "/workspace"], log.line)
