"""Where packages come from: the mirror that this machine's own apt uses, or the one in the settings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

APT = Path("/etc/apt")


@dataclass(frozen=True, slots=True)
class Source:
    """One archive that apt knows: an address and a suite in it."""

    uri: str
    suite: str
    components: tuple[str, ...]


def parse_one_line(text: str) -> Iterator[Source]:
    """The binary sources of a file in the one-line form: ``deb [options] uri suite component…``."""
    for line in text.splitlines():
        words = re.sub(r"\[[^]]*\]", " ", line.partition("#")[0]).split()
        if len(words) >= 3 and words[0] == "deb":
            yield Source(words[1].rstrip("/"), words[2], tuple(words[3:]))


def parse_deb822(text: str) -> Iterator[Source]:
    """The enabled binary sources of a file in the paragraph form."""
    for paragraph in re.split(r"\n\s*\n", text):
        fields = _fields(paragraph)
        if "deb" not in fields.get("types", "").split() or fields.get("enabled") == "no":
            continue
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                components = tuple(fields.get("components", "").split())
                yield Source(uri.rstrip("/"), suite, components)


def machine_sources(apt: Path = APT) -> list[Source]:
    """All that this machine's apt is told to use."""
    found: list[Source] = []
    for file in [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*"))]:
        if file.suffix == ".list" and file.is_file():
            found += parse_one_line(file.read_text(errors="replace"))
        elif file.suffix == ".sources" and file.is_file():
            found += parse_deb822(file.read_text(errors="replace"))
    return found


def archive_lines(
    distribution: str,
    suite: str,
    components: tuple[str, ...],
    *,
    mirror: str = "",
    sources: list[Source],
) -> list[str]:
    """The sources of a new system, in the one-line form; none where nothing is known.

    The archive is ``mirror``, else the one in which this machine's apt finds its own main suite, when
    that is the same distribution's. Security updates come from where this machine gets its own, or, as
    Ubuntu has it, from the archive itself.
    """
    main = mirror.rstrip("/") or _main_archive(distribution, sources)
    if not main:
        return []
    parts = " ".join(components)
    lines = [f"deb {main} {suite} {parts}", f"deb {main} {suite}-updates {parts}"]
    security = _security_archive(distribution, sources)
    if security:
        lines.append(f"deb {security} {suite}-security {parts}")
    elif distribution == "ubuntu":
        lines.append(f"deb {main} {suite}-security {parts}")
    return lines


def _main_archive(distribution: str, sources: list[Source]) -> str:
    """The archive of a plain suite whose address ends in the distribution's name, as archives' do."""
    for source in sources:
        if "main" in source.components and "-" not in source.suite and _ends(source, distribution):
            return source.uri
    return ""


def _security_archive(distribution: str, sources: list[Source]) -> str:
    for source in sources:
        if source.suite.endswith("-security") and distribution in source.uri.rpartition("/")[2]:
            return source.uri
    return ""


def _ends(source: Source, distribution: str) -> bool:
    return source.uri.rpartition("/")[2] == distribution


def _fields(paragraph: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    name = ""
    for line in paragraph.splitlines():
        if line.startswith("#"):
            continue
        if line[:1] in (" ", "\t"):
            fields[name] = f"{fields.get(name, '')} {line.strip()}"
        elif ":" in line:
            name, _, value = line.partition(":")
            name = name.strip().lower()
            fields[name] = value.strip()
    return fields
