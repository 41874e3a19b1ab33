"""What every host must do inside a sandbox: commands, files, stats."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from runtools.errors import (
    EditUnfit,
    FileAlreadyExists,
    FileForbidden,
    FileIsDirectory,
    FileMissing,
    FileNotDirectory,
    InvalidPath,
    ProcessEnded,
    RunToolsError,
)
from runtools.platform.core.ids import new_id
from runtools.sdk.shapes.inside import ExecRequest
from runtools.testing.contracts.host_rig import HostRig, chunks, close, files_of, joined, tar_of

MB = 2**20


class HostExecContract:
    """Commands."""

    async def test_a_command_and_all_that_it_says(self, hosts: HostRig) -> None:
        box = await hosts.running()
        result = await hosts.exec(box, "echo out; echo err >&2; exit 3")
        assert (result.stdout, result.stderr) == ("out\n", "err\n")
        assert (result.exit_code, result.signal, result.encoding) == (3, None, "utf-8")
        assert (result.timed_out, result.truncated) == (False, False)
        assert result.duration_ms > 0

    async def test_arguments_arrive_unchanged(self, hosts: HostRig) -> None:
        words = ["printf", "%s|", "a b", "$HOME", "é", ""]
        result = await hosts.exec(await hosts.running(), words)
        assert result.stdout == "a b|$HOME|é||"

    async def test_stdin_env_and_folder(self, hosts: HostRig) -> None:
        box = await hosts.running()
        await hosts.sh(box, "mkdir -p d")
        result = await hosts.exec(
            box, "cat; echo $A; basename $PWD", stdin="in ", env={"A": "b"}, cwd="/workspace/d"
        )
        assert result.stdout == "in b\nd\n"

    async def test_bytes_that_are_no_text(self, hosts: HostRig) -> None:
        result = await hosts.exec(await hosts.running(), "printf '\\377\\376'")
        assert (result.encoding, result.stdout) == ("base64", "//4=")

    async def test_a_signal_is_told_as_one(self, hosts: HostRig) -> None:
        result = await hosts.exec(await hosts.running(), "kill -9 $$")
        assert (result.exit_code, result.signal) == (None, 9)

    @pytest.mark.parametrize(
        ("program", "wrong"),
        [
            ("no-such-program", FileMissing),
            ("/no/such/program", FileMissing),
            ("./plain", FileForbidden),
        ],
    )
    async def test_a_program_that_cannot_be_run_is_refused_by_name(
        self, hosts: HostRig, program: str, wrong: type[RunToolsError]
    ) -> None:
        box = await hosts.running()
        await hosts.sh(box, "echo true > plain")
        with pytest.raises(wrong) as caught:
            await hosts.exec(box, [program])
        assert caught.value.details["program"] == program
        # What is wrong with the folder is told apart from that.
        with pytest.raises(FileMissing) as missing:
            await hosts.exec(box, ["true"], cwd="/workspace/none")
        assert "program" not in missing.value.details

    async def test_a_timeout_kills_it(self, hosts: HostRig) -> None:
        box = await hosts.running()
        result = await hosts.exec(box, "echo begun; sleep 1000", timeout_ms=500)
        assert result.timed_out
        assert result.stdout == "begun\n"
        assert (result.exit_code, result.signal) == (None, 9)

    async def test_output_beyond_the_bound_is_stated(self, hosts: HostRig) -> None:
        result = await hosts.exec(
            await hosts.running(), "head -c 100000 /dev/zero | tr '\\0' x", max_output_bytes=1000
        )
        assert result.truncated
        assert len(result.stdout) <= 1000

    async def test_a_command_is_run_once(self, hosts: HostRig) -> None:
        box = await hosts.running()
        request = ExecRequest(command="echo x >> n; wc -l < n", process_id=new_id("prc"))
        first = await hosts.host.exec(box, request)
        assert (await hosts.host.exec(box, request)).stdout == first.stdout == "1\n"

    async def test_a_running_command_is_told_a_signal(self, hosts: HostRig) -> None:
        box = await hosts.running()
        name = new_id("prc")
        line = "echo begun; touch begun; sleep 1000"
        running = asyncio.create_task(
            hosts.host.exec(box, ExecRequest(command=line, process_id=name))
        )
        await hosts.sh(box, "until [ -e begun ]; do sleep 0.02; done")
        await hosts.host.signal_exec(box, name, hosts.op(), 15)
        result = await running
        assert (result.signal, result.timed_out, result.stdout) == (15, False, "begun\n")
        with pytest.raises(ProcessEnded):
            await hosts.host.signal_exec(box, name, hosts.op(), 9)

    async def test_one_that_was_signalled_before_it_came_is_not_begun(self, hosts: HostRig) -> None:
        box, name = await hosts.running(), new_id("prc")
        await hosts.host.signal_exec(box, name, hosts.op(), 2)
        with pytest.raises(ProcessEnded):
            await hosts.host.exec(box, ExecRequest(command="touch begun", process_id=name))
        assert await hosts.sh(box, "ls") == ""

    async def test_it_wakes_a_paused_sandbox(self, hosts: HostRig) -> None:
        box = await hosts.paused()
        assert await hosts.sh(box, "echo awake") == "awake"
        assert await hosts.state(box) == "running"

    async def test_stats_and_console_do_not_wake_it(self, hosts: HostRig) -> None:
        box = await hosts.running()
        stats = await hosts.host.stats(box)
        assert stats.memory_total_bytes > 0
        await hosts.pause(box)
        assert (await hosts.host.stats(box)).memory_total_bytes == stats.memory_total_bytes
        await hosts.host.console(box, 5)
        assert await hosts.state(box) == "paused"

    async def test_the_history_wakes_nothing_and_states_a_pause(self, hosts: HostRig) -> None:
        box = await hosts.paused()
        hour = await hosts.host.stats_history(box)
        assert (hour.until - hour.since).total_seconds() == 3600
        assert hour.gaps[-1].reason == "paused"
        assert hour.gaps[-1].until == hour.until
        assert await hosts.state(box) == "paused"

    async def test_many_at_once(self, hosts: HostRig) -> None:
        box = await hosts.running()
        said = await asyncio.gather(*(hosts.sh(box, f"echo {n}") for n in range(12)))
        assert said == [str(n) for n in range(12)]


class HostFilesContract:
    """Files."""

    async def test_what_is_written_is_read(self, hosts: HostRig) -> None:
        box, data = await hosts.running(), bytes(range(256)) * 8192
        entry = await hosts.host.write(
            box,
            hosts.op(),
            "/workspace/deep/er/x",
            chunks(data[:MB], b"", data[MB:]),
            0o640,
            "replace",
        )
        assert (entry.path, entry.kind, entry.size) == ("/workspace/deep/er/x", "file", len(data))
        assert entry.mode == 0o640
        assert await hosts.get(box, "/workspace/deep/er/x") == data

    async def test_a_part_of_a_file(self, hosts: HostRig) -> None:
        box = await hosts.running()
        await hosts.put(box, "/workspace/x", b"0123456789")
        body, bytes_ = await hosts.host.read(box, "/workspace/x", 2, 5)
        assert await joined(bytes_) == b"234"
        assert (body.start, body.end, body.entry.size) == (2, 5, 10)
        assert await hosts.get(box, "/workspace/x", 8) == b"89"

    async def test_a_file_is_replaced_or_appended_to(self, hosts: HostRig) -> None:
        box = await hosts.running()
        await hosts.put(box, "/workspace/x", b"one")
        await hosts.put(box, "/workspace/x", b"two")
        await hosts.host.write(box, hosts.op(), "/workspace/x", chunks(b" three"), None, "append")
        assert await hosts.get(box, "/workspace/x") == b"two three"

    async def test_an_append_is_done_once(self, hosts: HostRig) -> None:
        box, op = await hosts.running(), hosts.op()
        for _ in range(2):
            await hosts.host.write(box, op, "/workspace/x", chunks(b"once"), None, "append")
        assert await hosts.get(box, "/workspace/x") == b"once"

    async def test_an_empty_file(self, hosts: HostRig) -> None:
        box = await hosts.running()
        await hosts.put(box, "/workspace/x", b"")
        assert await hosts.get(box, "/workspace/x") == b""

    async def test_a_write_that_breaks_off_changes_nothing(self, hosts: HostRig) -> None:
        box = await hosts.running()
        await hosts.put(box, "/workspace/x", b"old")

        with pytest.raises(OSError, match="unplugged"):
            await hosts.host.write(box, hosts.op(), "/workspace/x", _broken(), None, "replace")
        assert await hosts.get(box, "/workspace/x") == b"old"

    async def test_a_reader_that_goes_away_is_no_harm(self, hosts: HostRig) -> None:
        box = await hosts.running()
        await hosts.sh(box, "head -c 20000000 /dev/zero > x")
        _, body = await hosts.host.read(box, "/workspace/x", 0, None)
        await anext(body)
        await close(body)
        assert await hosts.sh(box, "echo on") == "on"

    async def test_a_listing(self, hosts: HostRig) -> None:
        box = await hosts.running()
        await hosts.sh(box, "mkdir -p a/b; echo 1 > a/b/c; ln -s a l")
        flat = await hosts.host.list(box, "/workspace", 1)
        assert [(e.path, e.kind) for e in flat.entries] == [
            ("/workspace/a", "directory"),
            ("/workspace/l", "symlink"),
        ]
        assert flat.entries[1].target == "a"
        deep = await hosts.host.list(box, "/workspace", 3)
        assert "/workspace/a/b/c" in [e.path for e in deep.entries]

    async def test_folders_are_made_moved_copied_and_removed(self, hosts: HostRig) -> None:
        box, host = await hosts.running(), hosts.host
        made = await host.mkdir(box, hosts.op(), "/workspace/a/b", 0o750)
        assert (made.kind, made.mode) == ("directory", 0o750)
        await hosts.put(box, "/workspace/a/b/x", b"1")
        await host.copy(box, hosts.op(), "/workspace/a", "/workspace/c", overwrite=False)
        await host.move(box, hosts.op(), "/workspace/c/b/x", "/workspace/y", overwrite=False)
        assert await hosts.get(box, "/workspace/y") == b"1"
        assert await hosts.get(box, "/workspace/a/b/x") == b"1"
        changed = await host.chmod(box, hosts.op(), "/workspace/y", 0o600)
        assert changed.mode == 0o600
        with pytest.raises(FileIsDirectory):
            await host.remove(box, hosts.op(), "/workspace/a", recursive=False)
        await host.remove(box, hosts.op(), "/workspace/a", recursive=True)
        with pytest.raises(FileMissing):
            await host.stat(box, "/workspace/a")

    async def test_an_exact_text_is_replaced_as_often_as_was_said(self, hosts: HostRig) -> None:
        box, host, path = await hosts.running(), hosts.host, "/workspace/x"
        await hosts.put(box, path, "one é\ntwo\none\n".encode())
        await host.chmod(box, hosts.op(), path, 0o640)
        for text, occurrences, count, lines in (
            ("three", 1, 0, ""),
            ("three", 0, 0, ""),
            ("one", 1, 2, "1, 3"),
            ("two", 2, 1, "2"),
        ):
            with pytest.raises(EditUnfit) as unfit:
                await host.edit(box, hosts.op(), path, text, "x", occurrences)
            assert unfit.value.details == {"count": count, "lines": lines}
        op = hosts.op()
        entry = await host.edit(box, op, path, "one é\n", "", 1)
        assert (entry.size, entry.mode) == (8, 0o640)
        assert await host.edit(box, op, path, "one é\n", "", 1) == entry
        assert await hosts.get(box, path) == b"two\none\n"
        await host.edit(box, hosts.op(), path, "o", "oo", 0)
        assert await hosts.get(box, path) == b"twoo\noone\n"
        with pytest.raises(FileMissing):
            await host.edit(box, hosts.op(), "/workspace/none/x", "a", "b", 1)
        with pytest.raises(FileMissing):
            await host.stat(box, "/workspace/none")

    async def test_nothing_is_overwritten_unasked(self, hosts: HostRig) -> None:
        box = await hosts.running()
        await hosts.put(box, "/workspace/x", b"x")
        await hosts.put(box, "/workspace/y", b"y")
        for act in (hosts.host.move, hosts.host.copy):
            with pytest.raises(FileAlreadyExists):
                await act(box, hosts.op(), "/workspace/x", "/workspace/y", overwrite=False)
        await hosts.host.copy(box, hosts.op(), "/workspace/x", "/workspace/y", overwrite=True)
        assert await hosts.get(box, "/workspace/y") == b"x"

    async def test_what_cannot_be_is_refused_by_name(self, hosts: HostRig) -> None:
        box = await hosts.running()
        await hosts.put(box, "/workspace/x", b"x")
        with pytest.raises(FileMissing):
            await hosts.get(box, "/workspace/none")
        with pytest.raises(FileIsDirectory):
            await hosts.get(box, "/workspace")
        with pytest.raises(FileNotDirectory):
            await hosts.host.list(box, "/workspace/x", 1)

    @pytest.mark.parametrize("path", ["relative", "/a/../etc", "/nul\0", "/" + "x" * 5000])
    async def test_a_bad_path_is_refused(self, hosts: HostRig, path: str) -> None:
        box = await hosts.running()
        with pytest.raises(InvalidPath):
            await hosts.host.stat(box, path)

    async def test_a_folder_travels_as_a_stream(self, hosts: HostRig) -> None:
        box = await hosts.running()
        archive = tar_of({"d/one": b"1", "d/two": b"2" * MB})
        listing = await hosts.host.upload(
            box, hosts.op(), "/workspace", chunks(archive[:700], archive[700:])
        )
        assert "/workspace/d/one" in [entry.path for entry in listing.entries]
        stream = await hosts.host.download(box, "/workspace/d")
        assert files_of(await joined(stream)) == {"d/one": b"1", "d/two": b"2" * MB}

    async def test_a_file_wakes_a_paused_sandbox(self, hosts: HostRig) -> None:
        box = await hosts.running()
        await hosts.put(box, "/workspace/x", b"kept")
        await hosts.pause(box)
        assert await hosts.get(box, "/workspace/x") == b"kept"


async def _broken() -> AsyncIterator[bytes]:
    yield b"new"
    raise OSError("unplugged")
