"""Finding the machine's own mirror in what people write into apt's files."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtools.platform.host.templates.mirrors import (
    Source,
    archive_lines,
    machine_sources,
    parse_deb822,
    parse_one_line,
)

DEBIAN = """\
# what the installer wrote
deb [arch=amd64 signed-by=/usr/share/keyrings/x.gpg] http://mirror.example/debian/ bookworm main non-free
deb-src http://mirror.example/debian bookworm main
deb http://security.example/debian-security bookworm-security main # security
deb http://mirror.example/debian bookworm-updates main
"""

UBUNTU = """\
Types: deb deb-src
URIs: http://mirror.example/ubuntu/
Suites: noble noble-updates
 noble-backports
Components: main universe
Signed-By: /usr/share/keyrings/ubuntu-archive-keyring.gpg

# a comment of its own

Enabled: no
Types: deb
URIs: http://old.example/ubuntu
Suites: jammy
Components: main
"""


class TestParse:
    def test_one_line(self) -> None:
        first, *rest = parse_one_line(DEBIAN)
        assert first == Source("http://mirror.example/debian", "bookworm", ("main", "non-free"))
        assert [source.suite for source in rest] == ["bookworm-security", "bookworm-updates"]

    def test_deb822(self) -> None:
        found = list(parse_deb822(UBUNTU))
        assert [source.suite for source in found] == ["noble", "noble-updates", "noble-backports"]
        assert found[0] == Source("http://mirror.example/ubuntu", "noble", ("main", "universe"))

    @pytest.mark.parametrize("text", ["", "deb", "deb http://x", "\n\n\n", ":", "Types deb"])
    def test_nonsense_is_nothing(self, text: str) -> None:
        assert list(parse_one_line(text)) == []
        assert list(parse_deb822(text)) == []

    def test_all_files_of_a_machine(self, tmp_path: Path) -> None:
        (tmp_path / "sources.list.d").mkdir()
        (tmp_path / "sources.list").write_text(DEBIAN)
        (tmp_path / "sources.list.d/u.sources").write_text(UBUNTU)
        (tmp_path / "sources.list.d/off.list.save").write_text("deb http://no.example/x y main")
        assert len(machine_sources(tmp_path)) == 6

    def test_a_machine_without_apt(self, tmp_path: Path) -> None:
        assert machine_sources(tmp_path) == []


class TestArchiveLines:
    def test_same_distribution_takes_the_machines_mirror(self) -> None:
        sources = list(parse_one_line(DEBIAN))
        assert archive_lines("debian", "trixie", ("main",), sources=sources) == [
            "deb http://mirror.example/debian trixie main",
            "deb http://mirror.example/debian trixie-updates main",
            "deb http://security.example/debian-security trixie-security main",
        ]

    def test_other_distribution_is_left_to_the_bootstrapper(self) -> None:
        sources = list(parse_one_line(DEBIAN))
        assert archive_lines("ubuntu", "noble", ("main",), sources=sources) == []

    def test_ubuntu_has_security_in_its_archive(self) -> None:
        lines = archive_lines(
            "ubuntu", "noble", ("main", "universe"), sources=list(parse_deb822(UBUNTU))
        )
        assert lines[-1] == "deb http://mirror.example/ubuntu noble-security main universe"

    def test_the_setting_wins(self) -> None:
        lines = archive_lines(
            "debian",
            "trixie",
            ("main",),
            mirror="http://own.example/deb/",
            sources=list(parse_one_line(DEBIAN)),
        )
        assert lines[0] == "deb http://own.example/deb trixie main"

    def test_foreign_archives_are_not_mistaken_for_the_main_one(self) -> None:
        sources = [Source("http://vendor.example/debian-tools", "stable", ("main",))]
        assert archive_lines("debian", "trixie", ("main",), sources=sources) == []
