"""What every host must do with durable processes and terminals."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import ValidationError

from runtools.errors import (
    FileMissing,
    HistoryChanged,
    IdempotencyMismatch,
    InputClosed,
    InputFull,
    InvalidRequest,
    NotFound,
    ProcessEnded,
    SandboxStopped,
    TooLarge,
)
from runtools.platform.core.ids import new_id
from runtools.platform.core.ports.host import Child
from runtools.sdk.shapes.processes import (
    MAX_INPUT_BYTES,
    OutputEnd,
    OutputPiece,
    Process,
    ProcessRequest,
    Stream,
    TerminalSize,
)
from runtools.testing.contracts.host_rig import ACTOR, HostRig, close

TERM = 15
INT = 2


async def start(hosts: HostRig, box: str, command: str | list[str], **more: Any) -> Process:
    """A process that was just started."""
    request = ProcessRequest(command=command, process_id=new_id("prc"), **more)
    return await hosts.host.start_process(box, request)


async def ended(hosts: HostRig, box: str, process: Process) -> Process:
    """The process once it has ended."""
    async with asyncio.timeout(hosts.patience):
        seen = await hosts.host.wait_process(box, process.id, int(hosts.patience * 1000))
    assert seen.state == "ended", seen
    return seen


async def output(hosts: HostRig, box: str, process: Process, stream: Stream = "output") -> bytes:
    """All that is kept of a stream."""
    return (await hosts.host.read_output(box, process.id, stream, 0, 1 << 20)).data


async def pieces(
    hosts: HostRig, box: str, process: Process, start: int = 0, stream: Stream = "output"
) -> tuple[bytes, OutputEnd]:
    """All that a follower gets until the end, checked for holes."""
    got, at = b"", start
    async with asyncio.timeout(hosts.patience):
        async for item in hosts.host.follow_output(box, process.id, stream, start):
            if isinstance(item, OutputEnd):
                assert item.offset == at
                return got, item
            assert item.offset == at + item.dropped
            at = item.offset + len(item.data)
            got += item.data
    raise AssertionError("the stream has no end")


async def until(
    hosts: HostRig, follower: AsyncIterator[OutputPiece | OutputEnd], wanted: bytes
) -> bytes:
    """What a follower gets until something is in it."""
    got = b""
    async with asyncio.timeout(hosts.patience):
        async for item in follower:
            assert isinstance(item, OutputPiece), (got, item)
            got += item.data
            if wanted in got:
                return got
    raise AssertionError(got)


class HostProcessesContract:
    """Durable processes."""

    async def test_a_process_runs_by_itself_and_all_of_it_can_be_read(self, hosts: HostRig) -> None:
        box = await hosts.running()
        process = await start(hosts, box, "echo out; echo err >&2; sleep 0.1; exit 3")
        assert (process.state, process.exit_code, process.ended_at) == ("running", None, None)
        assert process.pid is not None
        seen = await ended(hosts, box, process)
        assert (seen.exit_code, seen.signal, seen.pid, seen.input_open) == (3, None, None, False)
        assert seen.ended_at is not None
        assert await output(hosts, box, process, "stdout") == b"out\n"
        assert await output(hosts, box, process, "stderr") == b"err\n"
        assert sorted(await output(hosts, box, process)) == sorted(b"out\nerr\n")
        assert (seen.output.kept_from, seen.output.end) == (0, 8)
        assert (seen.stdout.end, seen.stderr.end) == (4, 4)
        assert seen == await hosts.host.get_process(box, process.id)
        assert [p.id for p in await hosts.host.list_processes(box)] == [process.id]

    async def test_words_env_and_folder_arrive(self, hosts: HostRig) -> None:
        box = await hosts.running()
        process = await start(
            hosts, box, ["sh", "-c", 'echo "$A|$GREETING|$(basename $PWD)|$1"', "-", "a b"],
            env={"A": "b"},
        )  # fmt: skip
        assert (await ended(hosts, box, process)).exit_code == 0
        assert await output(hosts, box, process) == b"b|hello|workspace|a b\n"

    async def test_a_repeat_is_answered_and_nothing_runs_twice(self, hosts: HostRig) -> None:
        box = await hosts.running()
        request = ProcessRequest(command="echo x >> n; cat n", process_id=new_id("prc"))
        first = await hosts.host.start_process(box, request)
        await ended(hosts, box, first)
        again = await hosts.host.start_process(box, request)
        assert (again.state, again.started_at) == ("ended", first.started_at)
        assert await output(hosts, box, first) == b"x\n"
        other = request.model_copy(update={"command": "true"})
        with pytest.raises(IdempotencyMismatch):
            await hosts.host.start_process(box, other)

    async def test_what_cannot_be_started_leaves_nothing(self, hosts: HostRig) -> None:
        box = await hosts.running()
        with pytest.raises(FileMissing):
            await start(hosts, box, ["/no/such/program"])
        with pytest.raises(FileMissing):
            await start(hosts, box, "true", cwd="/no/such/folder")
        assert await hosts.host.list_processes(box) == []

    async def test_ids_of_nobody(self, hosts: HostRig) -> None:
        box, host, op = await hosts.running(), hosts.host, hosts.op
        process = await start(hosts, box, "true")
        await ended(hosts, box, process)
        other = await hosts.running()
        for where, who in ((box, "prc_nobody"), (other, process.id)):
            with pytest.raises(NotFound):
                await host.get_process(where, who)
            with pytest.raises(NotFound):
                await host.wait_process(where, who, 1000)
            with pytest.raises(NotFound):
                await host.read_output(where, who, "output", 0, 10)
            with pytest.raises(NotFound):
                await anext(host.follow_output(where, who, "output", 0))
            with pytest.raises(NotFound):
                await host.send_input(where, who, op(), b"x")
            with pytest.raises(NotFound):
                await host.signal_process(where, who, op(), TERM)
            with pytest.raises(NotFound):
                await host.close_input(where, who, op())
            with pytest.raises(NotFound):
                await host.resize_terminal(where, who, op(), TerminalSize())

    async def test_offsets(self, hosts: HostRig) -> None:
        box, host = await hosts.running(), hosts.host
        process = await start(hosts, box, "printf 0123456789")
        await ended(hosts, box, process)
        piece = await host.read_output(box, process.id, "output", 3, 4)
        assert (piece.offset, piece.data, piece.dropped) == (3, b"3456", 0)
        piece = await host.read_output(box, process.id, "output", 10, 4)
        assert (piece.offset, piece.data) == (10, b"")
        with pytest.raises(InvalidRequest) as refused:
            await host.read_output(box, process.id, "output", 11, 4)
        assert refused.value.details["end"] == 10
        with pytest.raises(InvalidRequest):
            await anext(host.follow_output(box, process.id, "output", 11))
        with pytest.raises(InvalidRequest):
            await host.read_output(box, process.id, "output", 0, (1 << 20) + 1)
        got, end = await pieces(hosts, box, process, 8)
        assert (got, end.process.exit_code) == (b"89", 0)

    async def test_what_is_not_kept_is_stated(self, hosts: HostRig) -> None:
        box, host = await hosts.running(), hosts.host
        process = await start(
            hosts, box, "for i in $(seq 10000 19999); do echo $i; done", keep_output_bytes=8192
        )
        seen = await ended(hosts, box, process)
        assert seen.output.end == 60_000
        assert 60_000 - 8192 <= seen.output.kept_from < 60_000
        piece = await host.read_output(box, process.id, "output", 6, 1 << 20)
        assert piece.offset == seen.output.kept_from == piece.dropped + 6
        whole = b"".join(b"%d\n" % i for i in range(10_000, 20_000))
        assert piece.data == whole[piece.offset :]
        got, _ = await pieces(hosts, box, process)
        assert got == piece.data

    async def test_a_follower_sees_it_as_it_comes(self, hosts: HostRig) -> None:
        box, host = await hosts.running(), hosts.host
        process = await start(hosts, box, "while read line; do echo got $line; done; echo over")
        follower = host.follow_output(box, process.id, "output", 0)
        assert await host.send_input(box, process.id, hosts.op(), b"one\n") == 4
        assert await until(hosts, follower, b"got one\n") == b"got one\n"
        assert await host.send_input(box, process.id, hosts.op(), b"two\n") == 8
        assert await until(hosts, follower, b"got two\n") == b"got two\n"
        closed = await host.close_input(box, process.id, hosts.op())
        assert not closed.input_open
        assert await until(hosts, follower, b"over\n") == b"over\n"
        end = await anext(follower)
        assert isinstance(end, OutputEnd)
        assert (end.offset, end.process.state, end.process.exit_code) == (21, "ended", 0)
        await close(follower)

    async def test_twenty_followers_and_one_that_never_reads(self, hosts: HostRig) -> None:
        box, host = await hosts.running(), hosts.host
        process = await start(hosts, box, "read go; for i in $(seq 1000 2999); do echo $i; done")
        idle = host.follow_output(box, process.id, "output", 0)
        pending = asyncio.ensure_future(anext(idle))
        followers = [asyncio.create_task(pieces(hosts, box, process)) for _ in range(20)]
        await host.send_input(box, process.id, hosts.op(), b"\n")
        whole = b"".join(b"%d\n" % i for i in range(1000, 3000))
        for got, _ in await asyncio.gather(*followers):
            assert got == whole
        await pending
        await close(idle)

    async def test_half_characters_are_bytes(self, hosts: HostRig) -> None:
        box, host = await hosts.running(), hosts.host
        process = await start(hosts, box, "cat")
        follower = host.follow_output(box, process.id, "output", 0)
        await host.send_input(box, process.id, hosts.op(), "é".encode()[:1])
        first = await anext(follower)
        assert isinstance(first, OutputPiece)
        assert first.data == b"\xc3"
        await host.send_input(box, process.id, hosts.op(), "é".encode()[1:])
        second = await anext(follower)
        assert isinstance(second, OutputPiece)
        assert second.data == b"\xa9"
        await close(follower)

    async def test_acts_are_done_once(self, hosts: HostRig) -> None:
        box, host = await hosts.running(), hosts.host
        process = await start(hosts, box, "cat")
        op = hosts.op()
        assert await host.send_input(box, process.id, op, b"once\n") == 5
        assert await host.send_input(box, process.id, op, b"once\n") == 5
        closing = hosts.op()
        await host.close_input(box, process.id, closing)
        await ended(hosts, box, process)
        assert not (await host.close_input(box, process.id, closing)).input_open
        assert await host.send_input(box, process.id, op, b"once\n") == 5
        assert await output(hosts, box, process) == b"once\n"

    async def test_input_that_nobody_reads_is_refused_whole(self, hosts: HostRig) -> None:
        box, host = await hosts.running(), hosts.host
        process = await start(hosts, box, "until [ -e go ]; do sleep 0.05; done; wc -c")
        taken = 0
        full = b"x" * MAX_INPUT_BYTES
        try:
            for _ in range(64):
                taken = await host.send_input(box, process.id, hosts.op(), full)
            pytest.fail("4 MiB were taken that nobody read")
        except InputFull:
            assert taken % MAX_INPUT_BYTES == 0
        with pytest.raises(TooLarge):
            await host.send_input(box, process.id, hosts.op(), b"x" * (MAX_INPUT_BYTES + 1))
        await hosts.sh(box, "touch go")
        await host.close_input(box, process.id, hosts.op())
        await ended(hosts, box, process)
        assert int(await output(hosts, box, process)) == taken

    async def test_input_to_what_takes_none(self, hosts: HostRig) -> None:
        box, host = await hosts.running(), hosts.host
        process = await start(hosts, box, "cat; sleep 1000", keep_input=False)
        assert not process.input_open
        with pytest.raises(InputClosed):
            await host.send_input(box, process.id, hosts.op(), b"x")
        assert not (await host.close_input(box, process.id, hosts.op())).input_open
        await host.signal_process(box, process.id, hosts.op(), TERM)
        seen = await ended(hosts, box, process)
        assert (seen.exit_code, seen.signal) == (None, TERM)
        for send in (
            host.send_input(box, process.id, hosts.op(), b"x"),
            host.close_input(box, process.id, hosts.op()),
            host.signal_process(box, process.id, hosts.op(), TERM),
            host.resize_terminal(box, process.id, hosts.op(), TerminalSize()),
        ):
            with pytest.raises(ProcessEnded):
                await send

    async def test_a_signal_reaches_all_of_it(self, hosts: HostRig) -> None:
        box, host = await hosts.running(), hosts.host
        # A time that nobody else sleeps for: a fake's processes are this machine's own.
        process = await start(hosts, box, "sleep 1009 & sleep 1009; echo never")
        await host.signal_process(box, process.id, hosts.op(), 9)
        assert (await ended(hosts, box, process)).signal == 9
        gone = "while pgrep -fx 'sleep 1009' >/dev/null; do sleep 0.02; done; echo none"
        assert await hosts.sh(box, gone) == "none"
        with pytest.raises(InvalidRequest):
            await host.signal_process(box, (await start(hosts, box, "cat")).id, hosts.op(), 65)

    async def test_it_is_ended_begun_or_not(self, hosts: HostRig) -> None:
        box, host = await hosts.running(), hosts.host
        process = await start(hosts, box, "sleep 1000")
        for _ in range(2):
            await host.end_process(box, process.id)
            assert (await host.get_process(box, process.id)).signal == 9
        request = ProcessRequest(command="true", process_id=new_id("prc"))
        assert request.process_id is not None
        await host.end_process(box, request.process_id)
        with pytest.raises(ProcessEnded):
            await host.start_process(box, request)
        await hosts.destroy(box)
        with pytest.raises(SandboxStopped):
            await host.end_process(box, process.id)

    async def test_waiting_ends_with_its_time(self, hosts: HostRig) -> None:
        box, host = await hosts.running(), hosts.host
        process = await start(hosts, box, "sleep 1000")
        assert (await host.wait_process(box, process.id, 50)).state == "running"

    async def test_what_it_leaves_behind_does_not_keep_it_from_ending(self, hosts: HostRig) -> None:
        box = await hosts.running()
        process = await start(hosts, box, "sleep 1000 & echo over")
        assert (await ended(hosts, box, process)).exit_code == 0
        got, _ = await pieces(hosts, box, process)
        assert got == b"over\n"

    async def test_an_ended_sandbox_has_none(self, hosts: HostRig) -> None:
        box = await hosts.running()
        process = await start(hosts, box, "sleep 1000")
        await hosts.destroy(box)
        with pytest.raises(SandboxStopped):
            await hosts.host.get_process(box, process.id)

    async def test_a_fork_has_the_history(self, hosts: HostRig) -> None:
        box = await hosts.running()
        process = await start(hosts, box, "echo before")
        await ended(hosts, box, process)
        child = hosts.child()
        await hosts.host.fork(box, hosts.op(), ACTOR, [Child(sandbox_id=child)])
        assert await output(hosts, child, process) == b"before\n"
        seen = await hosts.host.get_process(child, process.id)
        assert (seen.state, seen.exit_code) == ("ended", 0)

    async def test_looking_at_processes_wakes_nothing(self, hosts: HostRig) -> None:
        box, host = await hosts.running(), hosts.host
        over = await start(hosts, box, "echo over")
        await ended(hosts, box, over)
        lasting = await start(hosts, box, "echo begun; exec sleep 1000")
        follower = host.follow_output(box, lasting.id, "output", 0)
        assert await until(hosts, follower, b"begun\n") == b"begun\n"
        await close(follower)
        before = [(one.id, one.state, one.output.end) for one in await host.list_processes(box)]
        await hosts.pause(box)
        after = [(one.id, one.state, one.output.end) for one in await host.list_processes(box)]
        assert after == before
        seen = await host.get_process(box, over.id)
        assert (seen.state, seen.exit_code, seen.output.end) == ("ended", 0, 5)
        assert (await host.read_output(box, lasting.id, "output", 6, 100)).data == b""
        with pytest.raises(NotFound):
            await host.get_process(box, "prc_none")
        assert await hosts.state(box) == "paused"
        assert (await host.read_output(box, over.id, "output", 0, 100)).data == b"over\n"
        assert await hosts.state(box) == "running"

    async def test_a_pause_is_waited_out(self, hosts: HostRig) -> None:
        box, host = await hosts.running(), hosts.host
        process = await start(hosts, box, "echo before; read go; echo after")
        follower = host.follow_output(box, process.id, "output", 0)
        assert await until(hosts, follower, b"before\n") == b"before\n"
        await hosts.pause(box)
        pending = asyncio.ensure_future(anext(follower))
        waiting = asyncio.ensure_future(host.wait_process(box, process.id, 30_000))
        assert (await host.wait_process(box, process.id, 10)).state == "running"
        assert await hosts.state(box) == "paused"
        assert not pending.done()
        await host.send_input(box, process.id, hosts.op(), b"go\n")
        assert await hosts.state(box) == "running"
        async with asyncio.timeout(hosts.patience):
            item = await pending
        assert isinstance(item, OutputPiece)
        assert (item.offset, item.data) == (7, b"after\n")
        assert (await waiting).exit_code == 0
        end = await anext(follower)
        assert isinstance(end, OutputEnd)
        await close(follower)

    async def test_an_offset_of_another_history_is_refused(self, hosts: HostRig) -> None:
        box, host = await hosts.running(), hosts.host
        process = await start(hosts, box, "echo before; exec sleep 1000")
        follower = host.follow_output(box, process.id, "output", 0)
        assert await until(hosts, follower, b"before\n") == b"before\n"
        await close(follower)
        old = (await host.get_process(box, process.id)).history
        assert (await host.read_output(box, process.id, "output", 0, 100, old)).data == b"before\n"
        kept = await hosts.snapshot(box)
        assert (await host.get_process(box, process.id)).history == old
        follower = host.follow_output(box, process.id, "output", 7, old)
        pending = asyncio.ensure_future(anext(follower))
        await host.rollback(box, hosts.op(), ACTOR, kept)
        async with asyncio.timeout(hosts.patience):
            with pytest.raises(HistoryChanged):
                await pending
        now = (await host.get_process(box, process.id)).history
        assert {one.history for one in await host.list_processes(box)} == {now} != {old}
        with pytest.raises(HistoryChanged) as told:
            await host.read_output(box, process.id, "output", 7, 100, old)
        assert told.value.details == {"history": now}
        with pytest.raises(HistoryChanged):
            await anext(host.follow_output(box, process.id, "output", 7, old))
        assert (await host.read_output(box, process.id, "output", 0, 7, now)).data == b"before\n"


class HostTerminalsContract:
    """Processes in a terminal."""

    async def test_a_terminal_echoes_and_has_a_size(self, hosts: HostRig) -> None:
        box, host = await hosts.running(), hosts.host
        size = TerminalSize(rows=33, columns=111)
        process = await start(hosts, box, "stty size; read go; stty size", terminal=size)
        assert process.terminal == size
        follower = host.follow_output(box, process.id, "output", 0)
        await until(hosts, follower, b"33 111\r\n")
        bigger = TerminalSize(rows=50, columns=200)
        resized = await host.resize_terminal(box, process.id, hosts.op(), bigger)
        assert resized.terminal == bigger
        await host.send_input(box, process.id, hosts.op(), b"go\n")
        assert b"go\r\n" in await until(hosts, follower, b"50 200\r\n")
        await close(follower)
        seen = await ended(hosts, box, process)
        assert (seen.exit_code, seen.stderr.end) == (0, 0)
        assert seen.stdout == seen.output

    async def test_its_keys_reach_the_foreground(self, hosts: HostRig) -> None:
        box, host = await hosts.running(), hosts.host
        process = await start(
            hosts, box, ["bash", "--norc", "-i"], terminal=TerminalSize(), env={"PS1": "ready>"}
        )
        follower = host.follow_output(box, process.id, "output", 0)
        # Said by the child itself: from then on it is what the terminal's keys reach.
        line = b"sh -c 'echo be\"\"gun; exec sleep 1000'\n"
        await until(hosts, follower, b"ready>")
        await host.send_input(box, process.id, hosts.op(), line)
        await until(hosts, follower, b"begun\r\n")
        await host.signal_process(box, process.id, hosts.op(), INT)
        await until(hosts, follower, b"ready>")
        await host.send_input(box, process.id, hosts.op(), line)
        await until(hosts, follower, b"begun\r\n")
        await host.send_input(box, process.id, hosts.op(), b"\x03")
        await until(hosts, follower, b"ready>")
        await host.close_input(box, process.id, hosts.op())
        await close(follower)
        seen = await ended(hosts, box, process)
        assert seen.exit_code is not None

    async def test_a_terminal_has_a_size_and_a_pipe_has_none(self, hosts: HostRig) -> None:
        box, host = await hosts.running(), hosts.host
        with pytest.raises(ValidationError):
            TerminalSize(rows=0, columns=0)
        process = await start(hosts, box, "sleep 1000")
        with pytest.raises(InvalidRequest):
            await host.resize_terminal(box, process.id, hosts.op(), TerminalSize())
