from __future__ import annotations

import asyncio
import base64
import io
import os
import signal
import tarfile
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import pytest

from runtools import errors
from runtools.platform.host.guest.client import GuestClient
from runtools.platform.host.guest.patience import Patience
from runtools.sdk.shapes.inside import ExecRequest
from runtools.sdk.shapes.processes import OutputPiece, ProcessRequest

from .conftest import HURRIED, Agent, until


async def chunks(parts: Iterable[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def collect(stream: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in stream])


def run(command: str | list[str], **fields: object) -> ExecRequest:
    return ExecRequest.model_validate({"command": command, "cwd": "/"} | fields)


class TestExec:
    async def test_a_result_is_whole(self, guest: GuestClient) -> None:
        ran = await guest.exec(run("echo out; echo err >&2; exit 3", process_id="p1"))
        assert (ran.process_id, ran.stdout, ran.stderr) == ("p1", "out\n", "err\n")
        assert (ran.exit_code, ran.signal, ran.encoding) == (3, None, "utf-8")
        assert not ran.timed_out
        assert not ran.truncated
        assert ran.duration_ms > 0

    async def test_an_id_is_made_where_none_is_given(self, guest: GuestClient) -> None:
        assert (await guest.exec(run("true"))).process_id.startswith("prc_")

    async def test_bytes_that_are_no_text_come_as_base64(self, guest: GuestClient) -> None:
        ran = await guest.exec(run(r"printf '\377'; echo fine >&2"))
        assert ran.encoding == "base64"
        assert base64.b64decode(ran.stdout) == b"\xff"
        assert base64.b64decode(ran.stderr) == b"fine\n"

    async def test_stdin(self, guest: GuestClient) -> None:
        assert (await guest.exec(run("cat", stdin="ä"))).stdout == "ä"
        data = os.urandom(100_000)
        encoded = base64.b64encode(data).decode()
        ran = await guest.exec(run("cat", stdin=encoded, stdin_encoding="base64"))
        assert base64.b64decode(ran.stdout) == data
        with pytest.raises(errors.InvalidRequest):
            await guest.exec(run("cat", stdin="?", stdin_encoding="base64"))

    async def test_env_of_the_caller_goes_below_the_requests(self, guest: GuestClient) -> None:
        ran = await guest.exec(run("echo $A $B", env={"A": "1"}), env={"A": "2", "B": "3"})
        assert ran.stdout == "1 3\n"

    async def test_a_timeout(self, guest: GuestClient) -> None:
        ran = await guest.exec(run("sleep 81", timeout_ms=200))
        assert (ran.timed_out, ran.exit_code, ran.signal) == (True, None, signal.SIGKILL)

    async def test_a_bound_on_output(self, guest: GuestClient) -> None:
        ran = await guest.exec(run("seq 1000", max_output_bytes=4))
        assert (ran.stdout, ran.truncated) == ("1\n2\n", True)

    async def test_a_large_output(self, guest: GuestClient) -> None:
        ran = await guest.exec(run("head -c 6000000 /dev/zero | tr '\\0' x"))
        assert (len(ran.stdout), ran.truncated) == (6_000_000, False)

    @pytest.mark.parametrize(
        ("request_", "kind"),
        [
            (run(["no-such-program"]), errors.FileMissing),
            (run("true", cwd="/missing"), errors.FileMissing),
            (run("true", cwd="nowhere"), errors.InvalidPath),
            (run("true", user="nobody-of-that-name"), errors.InvalidRequest),
            (run("true", env={"A": "x" * (3 << 20)}), errors.TooLarge),
            (run("true", env={"A": "x" * (9 << 20)}), errors.TooLarge),
        ],
    )
    async def test_refusals_are_typed(
        self, guest: GuestClient, request_: ExecRequest, kind: type[Exception]
    ) -> None:
        with pytest.raises(kind):
            await guest.exec(request_)
        assert (await guest.exec(run("echo fine"))).stdout == "fine\n"

    async def test_a_repeat_is_not_run_again(self, agent: Agent, guest: GuestClient) -> None:
        line = "echo once >> $HOME/log; cat $HOME/log"
        first = await guest.exec(run(line, process_id="p"))
        assert await guest.exec(run(line, process_id="p")) == first
        other = agent.client()
        assert await other.exec(run(line, process_id="p")) == first
        await other.close()
        with pytest.raises(errors.IdempotencyMismatch):
            await guest.exec(run("another", process_id="p"))

    async def test_many_at_once(self, guest: GuestClient) -> None:
        ran = await asyncio.gather(*(guest.exec(run(f"echo {n}")) for n in range(30)))
        assert [r.stdout for r in ran] == [f"{n}\n" for n in range(30)]

    async def test_connections_are_used_again(self, agent: Agent, guest: GuestClient) -> None:
        for _ in range(10):
            await guest.exec(run("true"))
        assert agent.connects == 1


class TestInterruption:
    async def test_an_agent_that_was_restarted_between_is_not_noticed(
        self, agent: Agent, guest: GuestClient
    ) -> None:
        await guest.exec(run("true"))
        agent.kill()
        agent.start()
        assert (await guest.exec(run("echo again"))).stdout == "again\n"

    async def test_a_command_whose_agent_died_ends_as_unknown(
        self, agent: Agent, guest: GuestClient
    ) -> None:
        line = "echo $$ > $HOME/pid; sleep 82; true"
        task = asyncio.create_task(guest.exec(run(line, process_id="p")))
        pid = agent.root / "root/pid"
        await until(lambda: pid.exists() and bool(pid.read_text()))
        # Without a control group only its number, noted a moment after its start, tells whether it runs.
        journal = agent.state / "journal"
        await until(lambda: any(b'"pid"' in one.read_bytes() for one in journal.iterdir()))
        agent.kill()
        agent.start()
        with pytest.raises(errors.OutcomeUnknown) as caught:
            await task
        assert caught.value.details["running"] is True
        os.kill(int(pid.read_text()), signal.SIGKILL)

    async def test_a_cut_connection_is_not_the_end_of_a_command(
        self, agent: Agent, guest: GuestClient
    ) -> None:
        line = "echo x >> $HOME/runs; until [ -e $HOME/go ]; do sleep 0.01; done; echo done"
        task = asyncio.create_task(guest.exec(run(line, process_id="p")))
        await until((agent.root / "root/runs").exists)
        for channel in guest._pool._used:
            channel._writer.transport.abort()
        await until(lambda: agent.connects == 2)
        (agent.root / "root/go").touch()
        assert (await task).stdout == "done\n"
        assert (agent.root / "root/runs").read_text() == "x\n"

    async def test_cancelling_closes_the_connection_and_only_it(
        self, agent: Agent, guest: GuestClient
    ) -> None:
        task = asyncio.create_task(guest.exec(run("sleep 1.2; touch $HOME/ended")))
        await until(lambda: bool(guest._pool._used))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not guest._pool._used
        assert not guest._pool._idle
        assert (await guest.exec(run("echo fine"))).stdout == "fine\n"

    async def test_one_that_stays_away_is_an_answer(self, agent: Agent) -> None:
        client = agent.client(patience=HURRIED)
        await client.exec(run("true"))
        agent.kill()
        try:
            with pytest.raises(errors.GuestUnreachable):
                await client.exec(run("true", timeout_ms=60_000))
            with pytest.raises(errors.GuestUnreachable):
                await client.hello()
        finally:
            agent.start()
            await client.close()

    async def test_a_closed_client_answers_at_once(self, guest: GuestClient, agent: Agent) -> None:
        task = asyncio.create_task(guest.exec(run("sleep 83", timeout_ms=3000)))
        await until(lambda: bool(guest._pool._used))
        await guest.close()
        with pytest.raises(errors.GuestUnreachable):
            await task
        with pytest.raises(errors.GuestUnreachable):
            await guest.stats()

    async def test_a_wrong_token_is_the_agents_trouble_not_the_users(self, agent: Agent) -> None:
        client = agent.client(token="wrong")
        with pytest.raises(errors.GuestMisbehaved, match="token"):
            await client.hello()
        await client.close()


class TestMachine:
    async def test_hello_tells_features(self, guest: GuestClient) -> None:
        assert (await guest.hello())["kill"] == "session"

    async def test_stats_and_activity(self, guest: GuestClient) -> None:
        stats = await guest.stats()
        assert 0 < stats.memory_used_bytes < stats.memory_total_bytes
        before = await guest.activity()
        await guest.exec(run("head -c 5000 /dev/zero"))
        after = await guest.activity()
        assert after.output_bytes == before.output_bytes + 5000
        assert after.running_execs == 0
        assert after.cpu_total_seconds > before.cpu_total_seconds

    async def test_quiesce_leaves_no_connection(self, agent: Agent, guest: GuestClient) -> None:
        await asyncio.gather(*(guest.stats() for _ in range(3)))
        await guest.quiesce()
        assert not guest._pool._idle
        await guest.stats()

    async def test_grow_where_there_is_no_disk(self, guest: GuestClient) -> None:
        with pytest.raises(errors.FileMissing):
            await guest.grow_filesystem()


class TestFiles:
    async def test_write_read_append(self, guest: GuestClient) -> None:
        data = os.urandom(5 << 20)
        parts = [data[i : i + 700_000] for i in range(0, len(data), 700_000)]
        entry = await guest.write("o1", "/d/f", chunks(parts), 0o640)
        assert (entry.path, entry.size, entry.mode, entry.kind) == ("/d/f", 5 << 20, 0o640, "file")
        body, stream = await guest.read("/d/f")
        assert (body.start, body.end, body.entry.size) == (0, 5 << 20, 5 << 20)
        assert await collect(stream) == data
        await guest.write("o2", "/d/f", chunks([b"end"]), how="append")
        _, stream = await guest.read("/d/f", 5 << 20)
        assert await collect(stream) == b"end"

    async def test_a_reader_that_stops_early_costs_its_connection_only(
        self, agent: Agent, guest: GuestClient
    ) -> None:
        with (agent.root / "f").open("wb") as file:
            file.truncate(1 << 30)
        _, stream = await guest.read("/f")
        await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]
        assert not guest._pool._used
        _, stream = await guest.read("/f", 0, 10)
        assert await collect(stream) == bytes(10)
        _, stream = await guest.read("/f")
        await stream.aclose()  # type: ignore[attr-defined]
        assert not guest._pool._used

    async def test_a_slow_reader_holds_the_guest_back(self, agent: Agent) -> None:
        with (agent.root / "f").open("wb") as file:
            file.truncate(256 << 20)
        client = agent.client(patience=Patience())
        _, stream = await client.read("/f")
        size = len(await anext(stream))
        (channel,) = client._pool._used
        reader = channel._reader
        await until(lambda: reader._paused)
        channel._stall = HURRIED.stall
        await asyncio.sleep(
            2 * HURRIED.stall
        )  # beyond the patience with it: the time is not the guest's
        assert len(reader._buffer) < 4 << 20
        size += len(await anext(stream))  # which lies here: how busy the machine is does not matter
        channel._stall = Patience().stall
        assert size + len(await collect(stream)) == 256 << 20
        await client.close()

    async def test_acts(self, guest: GuestClient) -> None:
        assert (await guest.mkdir("o1", "/a/b", 0o755)).kind == "directory"
        await guest.write("o2", "/a/f", chunks([b"x"]))
        assert (await guest.copy("o3", "/a/f", "/a/g", False)).path == "/a/g"
        assert (await guest.move("o4", "/a/g", "/a/h", False)).path == "/a/h"
        assert (await guest.chmod("o5", "/a/h", 0o600)).mode == 0o600
        listing = await guest.list("/a", 2)
        assert [e.path for e in listing.entries] == ["/a/b", "/a/f", "/a/h"]
        with pytest.raises(errors.FileIsDirectory):
            await guest.remove("o6", "/a", False)
        await guest.remove("o7", "/a", True)
        with pytest.raises(errors.FileMissing):
            await guest.stat("/a")

    @pytest.mark.parametrize("path", ["relative", "/a/../b", "/a\0b"])
    async def test_bad_paths(self, guest: GuestClient, path: str) -> None:
        with pytest.raises(errors.InvalidPath):
            await guest.write("o", path, chunks([b"x"]))

    async def test_an_error_before_the_body_takes_none_of_it(self, guest: GuestClient) -> None:
        taken = []

        async def body() -> AsyncIterator[bytes]:
            taken.append(1)
            yield b"x"

        with pytest.raises(errors.FileIsDirectory):
            await guest.write("o", "/etc", body())
        assert not taken

    async def test_a_repeat_takes_no_body(self, guest: GuestClient) -> None:
        first = await guest.write("o", "/f", chunks([b"one"]), how="append")
        assert await guest.write("o", "/f", chunks([b"one"]), how="append") == first

    async def test_a_body_that_fails_changes_nothing(
        self, agent: Agent, guest: GuestClient
    ) -> None:
        (agent.root / "f").write_text("old")

        async def body() -> AsyncIterator[bytes]:
            yield b"new"
            raise errors.TooLarge("the caller's own trouble")

        with pytest.raises(errors.TooLarge):
            await guest.write("o", "/f", body())
        assert not guest._pool._used
        await until(lambda: len(list(agent.root.iterdir())) == 4)
        assert (agent.root / "f").read_text() == "old"
        assert (await guest.write("o", "/f", chunks([b"new"]))).size == 3

    async def test_an_agent_that_dies_while_it_is_written_to(
        self, agent: Agent, guest: GuestClient
    ) -> None:
        (agent.root / "f").write_text("old")

        async def body() -> AsyncIterator[bytes]:
            for _ in range(4):
                yield bytes(1 << 20)
            agent.kill()
            agent.start()
            yield bytes(1 << 20)

        with pytest.raises(errors.OutcomeUnknown):
            await guest.write("o", "/f", body())
        assert (agent.root / "f").read_text() == "old"

    async def test_folders_as_archives(self, agent: Agent, guest: GuestClient) -> None:
        (agent.root / "d").mkdir()
        (agent.root / "d/f").write_bytes(os.urandom(1 << 20))
        archive = await collect(await guest.download("/d"))
        listing = await guest.upload("o", "/copy", chunks([archive]))
        assert [e.path for e in listing.entries] == ["/copy/d", "/copy/d/f"]
        assert (agent.root / "copy/d/f").read_bytes() == (agent.root / "d/f").read_bytes()

    async def test_an_error_within_a_body_stops_the_sender(
        self, agent: Agent, guest: GuestClient
    ) -> None:
        sent = 0

        async def endless() -> AsyncIterator[bytes]:
            nonlocal sent
            file = io.BytesIO()
            with tarfile.open(fileobj=file, mode="w") as archive:
                archive.addfile(tarfile.TarInfo("/absolute"))
            yield file.getvalue()
            while True:
                sent += 1
                yield bytes(1 << 16)
                await asyncio.sleep(0)

        with pytest.raises(errors.InvalidPath):
            await guest.upload("o", "/to", endless())
        assert (await guest.stats()).processes > 0
        assert agent.connects == 1  # it was in step all along


class TestFollow:
    async def test_a_silent_process_is_followed_as_long_as_its_agent_answers(
        self, agent: Agent, tmp_path: Path
    ) -> None:
        asked = 0
        client = agent.client(patience=Patience(quiet=0.05))
        line = f"until [ -e {tmp_path}/go ]; do sleep 0.05; done; echo gone"
        await client.processes.start(ProcessRequest(process_id="a", command=line, cwd="/"))
        ask = client.processes._ask

        async def counted(request: Any, *given: Any) -> Any:
            nonlocal asked
            asked += request == {"do": "ping"}
            return await ask(request, *given)

        client.processes._ask = counted
        pieces = client.processes.follow("a", "output", 0)
        first = asyncio.ensure_future(anext(pieces))
        await until(lambda: asked > 2)
        (tmp_path / "go").touch()
        piece = await first
        assert isinstance(piece, OutputPiece)
        assert piece.data == b"gone\n"
        await pieces.aclose()
        await client.close()


class TestPatience:
    def test_is_long_enough_for_an_emulated_machine(self) -> None:
        assert Patience().hello >= 30
