from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path
from typing import Any, cast

import pytest

from runtools.guest.archive import Packer
from runtools.guest.conn import Conn
from runtools.guest.paths import Root
from runtools.guest.protocol import BYTES, HEADER

from .conftest import Agent, Talk


def packed(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for info, data in members:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def _is(data: bytes) -> bool:
    return HEADER.unpack(data[: HEADER.size])[1] == BYTES


def member(name: str, data: bytes = b"", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def upload(talk: Talk, data: bytes, path: str = "/to", name: str = "u") -> Any:
    said = talk.ask({"do": "upload", "id": name, "path": path})
    if "go" not in said:
        return said
    talk.send_body(data)
    return talk.answer()


class TestDownload:
    def test_a_folder_comes_back_as_it_was(self, agent: Agent, talk: Talk, tmp_path: Path) -> None:
        tree = agent.root / "workspace/d"
        (tree / "empty").mkdir(parents=True)
        (tree / "big").write_bytes(os.urandom(3 << 20))
        (tree / "run").write_text("x")
        (tree / "run").chmod(0o755)
        os.utime(tree / "run", (1, 1_500_000_000))
        (tree / "link").symlink_to("run")
        os.link(tree / "run", tree / "hard")
        os.mkfifo(tree / "pipe")
        (tree / ("n" * 200)).touch()
        talk.do("download", path="/workspace/d")
        with tarfile.open(fileobj=io.BytesIO(talk.body())) as archive:
            archive.extraction_filter = lambda info, _: info  # older Pythons know no filters
            archive.extractall(tmp_path / "out")
        got = tmp_path / "out/d"
        assert sorted(p.name for p in got.iterdir()) == sorted(
            ["empty", "big", "run", "link", "hard", "n" * 200]
        )
        assert (got / "big").read_bytes() == (tree / "big").read_bytes()
        assert (got / "link").readlink() == Path("run")
        assert (got / "hard").samefile(got / "run")
        found = (got / "run").stat()
        assert (found.st_mode & 0o777, found.st_mtime) == (0o755, 1_500_000_000)

    def test_a_single_file(self, agent: Agent, talk: Talk) -> None:
        (agent.root / "workspace/f").write_text("content")
        talk.do("download", path="/workspace/f")
        with tarfile.open(fileobj=io.BytesIO(talk.body())) as archive:
            assert archive.getnames() == ["f"]

    @pytest.mark.parametrize("path", ["/proc/cpuinfo", "/sys/class/net/lo/mtu"])
    def test_the_kernels_files_are_whole(self, path: str) -> None:
        sent: list[bytes] = []

        class Collects:
            def send(self, data: bytes) -> None:
                sent.append(data)

        Packer(Root("/"), path).send(cast(Conn, Collects()))
        pieces = [data[HEADER.size :] for data in sent if _is(data)]
        with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as archive:
            file = archive.extractfile(archive.getmembers()[0])
            assert file is not None
            assert file.read() == Path(path).read_bytes()

    def test_a_folder_deeper_than_pythons_stack(self, agent: Agent, talk: Talk) -> None:
        deep = os.open(agent.root / "workspace", os.O_RDONLY)
        for _ in range(1200):
            os.mkdir("d", dir_fd=deep)
            below = os.open("d", os.O_RDONLY, dir_fd=deep)
            os.close(deep)
            deep = below
        os.close(deep)
        talk.do("download", path="/workspace/d")
        data = talk.body()
        # All folders, each with a header; a name beyond 100 bytes takes further blocks.
        assert data.count(b"ustar") >= 1200
        assert b"d/" * 1199 + b"d" in data
        # Too deep for shutil, which cleans up after the tests.
        subprocess.run(["/bin/rm", "-rf", agent.root / "workspace/d"], check=True)

    def test_what_is_missing(self, talk: Talk) -> None:
        assert talk.fail("download", path="/missing") == "file_missing"


class TestUpload:
    def test_makes_what_the_archive_holds(self, agent: Agent, talk: Talk) -> None:
        data = os.urandom(2 << 20)
        told = upload(
            talk,
            packed(
                member("d", type=tarfile.DIRTYPE, mode=0o750),
                member("d/f", data, mode=0o640, mtime=1_500_000_000),
                member("without/parent", b"x"),
                member("d/l", type=tarfile.SYMTYPE, linkname="f"),
                member("d/h", type=tarfile.LNKTYPE, linkname="d/f"),
            ),
        )["ok"]
        to = agent.root / "to"
        assert [e["path"] for e in told["entries"]] == [
            "/to/d",
            "/to/d/f",
            "/to/without/parent",
            "/to/d/l",
            "/to/d/h",
        ]
        assert told["truncated"] is False
        assert (to / "d/f").read_bytes() == (to / "d/h").read_bytes() == data
        assert ((to / "d").stat().st_mode & 0o777, (to / "d/f").stat().st_mode & 0o777) == (
            0o750,
            0o640,
        )
        assert (to / "d/f").stat().st_mtime == 1_500_000_000

    def test_replaces_files(self, agent: Agent, talk: Talk) -> None:
        (agent.root / "to").mkdir()
        (agent.root / "to/f").symlink_to(agent.root / "etc")
        upload(talk, packed(member("f", b"new")))
        assert (agent.root / "to/f").read_text() == "new"

    @pytest.mark.parametrize(
        "bad",
        [
            member("/absolute", b"x"),
            member("../out", b"x"),
            member("a/../../out", b"x"),
            member("dev", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
            member("dev", type=tarfile.BLKTYPE, devmajor=8),
            member("pipe", type=tarfile.FIFOTYPE),
            member("l", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
            member("l", type=tarfile.SYMTYPE, linkname="../../etc"),
            member("d/l", type=tarfile.SYMTYPE, linkname="../../etc"),
            member("h", type=tarfile.LNKTYPE, linkname="/etc/passwd"),
            member("h", type=tarfile.LNKTYPE, linkname="../etc"),
        ],
        ids=lambda m: f"{m[0].name}-{m[0].type.decode()}-{m[0].linkname}",
    )
    def test_refuses_what_leads_out(
        self, agent: Agent, talk: Talk, bad: tuple[tarfile.TarInfo, bytes]
    ) -> None:
        said = upload(talk, packed(member("before", b"x"), bad, member("after", b"x")))
        assert said["error"]["code"] == "invalid_path"
        assert [p.name for p in (agent.root / "to").rglob("*") if not p.is_dir()] == ["before"]
        assert not (agent.root / "out").exists()
        assert talk.do("ping") == {}

    @pytest.mark.parametrize("deep", ["link/f", "link/d/f"])
    def test_refuses_a_way_through_a_link_that_was_there(
        self, agent: Agent, talk: Talk, deep: str
    ) -> None:
        (agent.root / "to").mkdir()
        (agent.root / "to/link").symlink_to(agent.root / "etc")
        assert upload(talk, packed(member(deep, b"x")))["error"]["code"] == "invalid_path"
        assert list((agent.root / "etc").iterdir()) == []

    def test_refuses_a_chain_of_links(self, agent: Agent, talk: Talk) -> None:
        chain = packed(
            member("d/e", type=tarfile.DIRTYPE, mode=0o755),
            member("d/e/up", type=tarfile.SYMTYPE, linkname=".."),
            member("d/e/up/up", type=tarfile.SYMTYPE, linkname="../.."),
        )
        assert upload(talk, chain)["error"]["code"] == "invalid_path"

    @pytest.mark.parametrize(
        "data", [b"", b"nonsense" * 1000, packed(member("f", b"x" * 9999))[:3000]]
    )
    def test_what_is_no_archive(self, talk: Talk, data: bytes) -> None:
        assert upload(talk, data)["error"]["code"] == "invalid_request"
        assert talk.do("ping") == {}

    def test_onto_a_file(self, agent: Agent, talk: Talk) -> None:
        (agent.root / "to").touch()
        assert upload(talk, packed(member("f")))["error"]["code"] == "file_not_directory"

    def test_a_directory_in_the_way(self, agent: Agent, talk: Talk) -> None:
        (agent.root / "to/f").mkdir(parents=True)
        assert upload(talk, packed(member("f")))["error"]["code"] == "file_is_directory"

    def test_a_repeat_is_answered_without_a_body(self, agent: Agent, talk: Talk) -> None:
        data = packed(member("f", b"x"))
        first = upload(talk, data)
        (agent.root / "to/f").unlink()
        assert upload(talk, data) == first
        assert not (agent.root / "to/f").exists()
