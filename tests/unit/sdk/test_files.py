from __future__ import annotations

import asyncio
import io
import json
import os
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from runtools import AsyncRunTools, RunTools
from runtools.errors import (
    Conflict,
    FileMissing,
    HistoryChanged,
    HostUnavailable,
    InvalidRequest,
    SandboxPaused,
    SandboxStopped,
    TooLarge,
    Unavailable,
)
from runtools.sdk import files as files_module
from runtools.sdk import shapes
from runtools.sdk.concurrency import async_consume
from runtools.sdk.sync import files as sync_files_module
from runtools.sdk.sync.sandbox import Sandbox
from runtools.testing.scripted_api import KEY, NOW, Failure, ScriptedApi

BIG = os.urandom(3_000_000)
LATER = datetime.now(UTC) + timedelta(hours=1)


@pytest.fixture
def sandbox(api: ScriptedApi, rt: RunTools) -> Sandbox:
    return rt.sandboxes.get(api.add(name="web").id)


def told(seq: int, state: str, operation: str | None = None, **more: Any) -> shapes.LedgerEntry:
    """A line of the ledger."""
    line = {"seq": seq, "at": NOW, "sandbox_id": "sandbox-000000000000", "state": state}
    who = {"cause": "request", "actor": "key_1", "detail": {}}
    return shapes.LedgerEntry.model_validate({**line, "operation": operation, **who, **more})


class TestReadAndWrite:
    @pytest.mark.parametrize(
        "data", ["héllo", b"h\xc3\xa9llo", io.BytesIO(b"h\xc3\xa9llo"), [b"h\xc3", b"\xa9llo"]]
    )
    def test_text_bytes_files_and_chunks(self, sandbox: Sandbox, data: object) -> None:
        entry = sandbox.files.write("/workspace/a.txt", data, mode=0o750)  # type: ignore[arg-type]
        assert (entry.size, entry.mode) == (6, 0o750)
        assert sandbox.files.read_text("/workspace/a.txt") == "héllo"

    def test_large_ones_come_back_whole(self, sandbox: Sandbox) -> None:
        sandbox.files.write("/workspace/big", BIG)
        assert sandbox.files.read("/workspace/big") == BIG
        assert sandbox.files.read("/workspace/big", start=5, end=9) == BIG[5:9]

    def test_append(self, sandbox: Sandbox) -> None:
        sandbox.files.append("/workspace/log", "one\n")
        sandbox.files.append("/workspace/log", "two\n")
        assert sandbox.files.read_text("/workspace/log") == "one\ntwo\n"

    def test_an_open_file_is_sent_from_where_it_stands(self, sandbox: Sandbox) -> None:
        file = io.BytesIO(b"head tail")
        file.seek(5)
        sandbox.files.write("/workspace/a", file)
        assert sandbox.files.read("/workspace/a") == b"tail"

    def test_a_lost_answer_writes_once(self, api: ScriptedApi, sandbox: Sandbox) -> None:
        api.failures.append(Failure(cut=True, path="/files"))
        sandbox.files.append("/workspace/log", io.BytesIO(b"once"))
        assert sandbox.files.read("/workspace/log") == b"once"

    def test_what_cannot_be_read_again_is_sent_once(
        self, api: ScriptedApi, sandbox: Sandbox
    ) -> None:
        api.failures.append(Failure(503, path="/files"))
        with pytest.raises(Unavailable):
            sandbox.files.write("/workspace/a", iter([b"x"]))
        assert len([seen for seen in api.seen if seen.method == "PUT"]) == 1

    def test_a_text_file_is_refused(self, sandbox: Sandbox) -> None:
        with pytest.raises(InvalidRequest, match="open for text"):
            sandbox.files.write("/workspace/a", io.StringIO("x"))  # type: ignore[arg-type]

    def test_a_file_that_is_not_there(self, sandbox: Sandbox) -> None:
        with pytest.raises(FileMissing, match="/nowhere"):
            sandbox.files.read("/nowhere")

    def test_reading_is_bounded(self, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
        sandbox.files.write("/workspace/big", BIG)
        monkeypatch.setattr(sync_files_module, "MAX_READ_BYTES", 1000)
        with pytest.raises(TooLarge, match="1000"):
            sandbox.files.read("/workspace/big")

    def test_odd_names_arrive(self, api: ScriptedApi, sandbox: Sandbox) -> None:
        path = "/workspace/ä &?#+%20=\n.txt"
        sandbox.files.write(path, "x")
        assert ("path", path) in api.seen[-1].query


class TestTransfer:
    def test_a_file_there_and_back(self, sandbox: Sandbox, tmp_path: Path) -> None:
        source = tmp_path / "a.bin"
        source.write_bytes(BIG)
        source.chmod(0o755)
        told: list[int] = []
        done = sandbox.files.upload(source, "/workspace/b.bin", on_progress=told.append)
        assert (done.size_bytes, told[-1]) == (len(BIG), len(BIG))
        back = sandbox.files.download(
            "/workspace/b.bin", tmp_path / "c.bin", on_progress=told.append
        )
        assert (tmp_path / "c.bin").read_bytes() == BIG
        assert (tmp_path / "c.bin").stat().st_mode & 0o777 == 0o755
        assert (back.size_bytes, told[-1]) == (len(BIG), len(BIG))

    def test_a_folder_there_and_back(self, sandbox: Sandbox, tmp_path: Path) -> None:
        source = tmp_path / "app"
        (source / "sub/empty").mkdir(parents=True)
        (source / "sub/ü.txt").write_text("x")
        (source / "big").write_bytes(BIG)
        (source / "link").symlink_to("sub/ü.txt")
        sent = sandbox.files.upload(source, "/workspace/app")
        assert (sent.entries, sent.size_bytes, sent.skipped) == (5, len(BIG) + 1, [])
        done = sandbox.files.download("/workspace/app", tmp_path / "back")
        assert done.size_bytes == len(BIG) + 1
        assert (tmp_path / "back/sub/ü.txt").read_text() == "x"
        assert (tmp_path / "back/link").readlink() == Path("sub/ü.txt")
        assert (tmp_path / "back/sub/empty").is_dir()
        assert (tmp_path / "back/big").read_bytes() == BIG

    async def test_likewise_in_the_async_client(
        self, api: ScriptedApi, art: AsyncRunTools, tmp_path: Path
    ) -> None:
        (tmp_path / "app").mkdir()
        (tmp_path / "app/big").write_bytes(BIG)
        sandbox = await art.sandboxes.get(api.add().id)
        await sandbox.files.upload(tmp_path / "app", "/workspace/app")
        await sandbox.files.download("/workspace/app", tmp_path / "back")
        assert (tmp_path / "back/big").read_bytes() == BIG
        await sandbox.files.download("/workspace/app/big", tmp_path / "one")
        assert (tmp_path / "one").read_bytes() == BIG

    def test_a_target_that_ends_in_a_slash_is_a_folder(
        self, sandbox: Sandbox, tmp_path: Path
    ) -> None:
        (tmp_path / "a").write_text("x")
        sandbox.files.upload(tmp_path / "a", "/workspace/in/")
        assert sandbox.files.read("/workspace/in/a") == b"x"
        sandbox.files.download("/workspace/in/a", f"{tmp_path}/out/")
        assert (tmp_path / "out/a").read_text() == "x"
        sandbox.files.download("/workspace/in", f"{tmp_path}/out/")
        assert (tmp_path / "out/in/a").read_text() == "x"

    def test_open_files(self, sandbox: Sandbox) -> None:
        sandbox.files.upload(io.BytesIO(b"x"), "/workspace/a")
        out = io.BytesIO()
        sandbox.files.download("/workspace/a", out)
        assert out.getvalue() == b"x"

    def test_a_download_that_breaks_leaves_nothing(
        self, api: ScriptedApi, sandbox: Sandbox, tmp_path: Path
    ) -> None:
        sandbox.files.write("/workspace/a", "new")
        (tmp_path / "a").write_text("old")
        api.failures.append(Failure(cut=True, path="/files"))
        with pytest.raises(Unavailable, match="broke off in the middle of its answer") as told:
            sandbox.files.download("/workspace/a", tmp_path / "a")
        assert "sandbox why" in (told.value.hint or "")
        assert (tmp_path / "a").read_text() == "old"
        assert {found.name for found in tmp_path.iterdir()} == {"a", "inside"}

    def test_one_that_breaks_says_what_became_of_the_sandbox(
        self, api: ScriptedApi, sandbox: Sandbox
    ) -> None:
        sandbox.files.write("/workspace/a", "new")
        why = [told(1, "running"), told(2, "paused", cause="disk_low")]
        why += [told(3, "paused", "resuming"), told(4, "paused", "snapshotting"), told(5, "paused")]
        api.fixed[f"GET /v1/sandboxes/{sandbox.id}/why"] = why
        ended = shapes.Ending(cause="vmm_exit", reason="it ran out of memory")
        for changes, error, words in (
            ({"state": "running"}, Unavailable, "broke off in the middle of its answer"),
            (
                {"state": "paused"},
                SandboxPaused,
                r"paused in the middle of this, at .*\(disk_low\)",
            ),
            ({"state": "stopped", "ending": ended}, SandboxStopped, "it ran out of memory"),
        ):
            api.failures.append(Failure(cut=True, path="/files"))
            api.sandboxes[sandbox.id] = sandbox.view.model_copy(update=changes)
            with pytest.raises(error, match=words):
                sandbox.files.read("/workspace/a")

    def test_one_that_breaks_while_the_sandbox_goes_on_says_what_it_went_through(
        self, api: ScriptedApi, sandbox: Sandbox
    ) -> None:
        sandbox.files.write("/workspace/a", "new")
        path = f"/v1/sandboxes/{sandbox.id}/why"
        back = told(3, "running", "rolling_back", at=LATER)
        for entries, error, words in (
            (
                [told(3, "paused", at=LATER, cause="idle")],
                SandboxPaused,
                r"\(idle\); it runs again",
            ),
            (
                [told(3, "paused", at=LATER, cause="idle"), told(4, "paused", "queued", at=LATER)],
                SandboxPaused,
                r"\(idle\); it runs again",
            ),
            ([back], HistoryChanged, "back to a snapshot"),
            ([back, told(4, "running", at=LATER)], HistoryChanged, "back to a snapshot"),
            (
                [back, told(4, "running", at=LATER, detail={"failed": "x"})],
                Unavailable,
                "broke off",
            ),
        ):
            api.fixed[f"GET {path}"] = [told(1, "paused"), told(2, "running"), *entries]
            api.failures.append(Failure(cut=True, path="/files"))
            with pytest.raises(error, match=words):
                sandbox.files.read("/workspace/a")

    def test_one_that_breaks_with_its_file_or_host_says_that(
        self, api: ScriptedApi, sandbox: Sandbox
    ) -> None:
        sandbox.files.write("/workspace/a", "new")
        api.fixed[f"GET /v1/sandboxes/{sandbox.id}/why"] = []
        api.failures.append(Failure(cut=True, path="/files"))
        inside = api.folder / "workspace/a"
        with pytest.raises(Conflict, match="it has 1 bytes now, and had 3"):
            sandbox.files.download(
                "/workspace/a", io.BytesIO(), on_progress=lambda _: inside.write_text("x")
            )
        api.failures.append(Failure(cut=True, path="/files"))
        gone = json.dumps({"error": HostUnavailable("the host is gone").to_wire()}).encode()
        with RunTools(KEY, api.url, retry_seconds=0) as hasty:
            files = hasty.sandboxes.get(sandbox.id).files
            api.failures.append(Failure(503, gone, path="/files/stat"))
            with pytest.raises(Unavailable, match=r"broke off in .*; since then: the host is gone"):
                files.read("/workspace/a")

    def test_downloads_are_bounded(self, sandbox: Sandbox, tmp_path: Path) -> None:
        sandbox.files.write("/workspace/big", BIG)
        with pytest.raises(TooLarge, match="1000"):
            sandbox.files.download("/workspace/big", tmp_path / "big", max_bytes=1000)
        assert not (tmp_path / "big").exists()

    def test_a_source_that_is_not_there(self, sandbox: Sandbox, tmp_path: Path) -> None:
        with pytest.raises(InvalidRequest, match="No such file"):
            sandbox.files.upload(tmp_path / "none", "/workspace/x")

    def test_a_target_that_cannot_be(self, sandbox: Sandbox, tmp_path: Path) -> None:
        sandbox.files.write("/workspace/a", "x")
        (tmp_path / "file").touch()
        with pytest.raises(InvalidRequest, match=r"file"):
            sandbox.files.download("/workspace/a", tmp_path / "file/below")


class TestConsume:
    async def test_cancelling_ends_the_consumer_first(self) -> None:
        ended: list[str] = []

        async def endless() -> AsyncIterator[bytes]:
            yield b"x"
            await asyncio.Event().wait()

        def consumer(chunks: Iterator[bytes]) -> None:
            try:
                for _ in chunks:
                    ended.append("chunk")
            finally:
                ended.append("ended")

        task = asyncio.create_task(async_consume(endless(), consumer))
        while not ended:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended == ["chunk", "ended"]

    async def test_an_error_of_the_stream_reaches_the_consumer(self) -> None:
        async def broken() -> AsyncIterator[bytes]:
            yield b"x"
            raise Unavailable("gone")

        with pytest.raises(Unavailable, match="gone"):
            await async_consume(broken(), b"".join)


def test_both_clients_bound_reading_alike() -> None:
    assert files_module.MAX_READ_BYTES == sync_files_module.MAX_READ_BYTES
