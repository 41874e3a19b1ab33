"""`bash`: a shell that keeps its place, and commands that may be left running."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from typing import Any
from unittest.mock import AsyncMock

import pytest
from tests.flow.workbench.conftest import Call

from runtools.errors import SandboxPaused
from runtools.sdk.processes import AsyncProcesses
from runtools.workbench.bench import Bench
from runtools.workbench.toolset import TOOLS

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_both_streams_and_the_exit_code(call: Call) -> None:
    result = await call("bash", command="echo out; echo err >&2; exit 3")
    assert sorted(result.text.splitlines()) == ["[exit code 3]", "err", "out"]
    assert not result.failed


async def test_a_signal_is_told_as_one(call: Call) -> None:
    assert (await call("bash", command="kill -KILL $$")).text == "[ended by signal 9]"


class TestState:
    async def test_it_begins_in_the_workspace(self, call: Call) -> None:
        assert (await call("bash", command="cd /workspace && pwd")).text.startswith("/workspace")

    async def test_folder_and_exported_variables_are_kept(self, call: Call) -> None:
        await call("bash", command="mkdir -p '/workspace/a b' && cd '/workspace/a b'")
        await call("bash", command="export NAME=$'two\nlines \"x\"' HIDDEN=1; unset HIDDEN")
        result = await call("bash", command='pwd; printf "%s" "$NAME"; echo "[$HIDDEN]"')
        assert result.text == '/workspace/a b\ntwo\nlines "x"[]\n[exit code 0]'

    async def test_what_a_command_lets_go_of_stays_gone(self, call: Call) -> None:
        """Also of what every process in the sandbox begins with."""
        assert "root" in (await call("bash", command='echo "$HOME"')).text
        await call("bash", command="unset HOME; export -n LANG; export AFTER=1")
        look = 'echo "[${HOME-none}][${LANG-none}][$AFTER]"'
        for _ in range(2):
            assert (await call("bash", command=look)).text == "[none][none][1]\n[exit code 0]"
        await call("bash", command="export HOME=/home LANG=C; IFS=xyz; set -eu; false")
        said = await call("bash", command='echo "$HOME $LANG"; export HOME=/root')
        assert said.text == "/home C\n[exit code 0]"

    async def test_also_where_the_command_exits_or_is_wrong(self, call: Call) -> None:
        await call("bash", command="cd /usr; exit 4")
        assert (await call("bash", command="pwd")).text.startswith("/usr\n")
        assert "[exit code" in (await call("bash", command="if then")).text
        assert (await call("bash", command="pwd; cd /workspace")).text.startswith("/usr\n")

    async def test_a_folder_that_is_gone_does_not_stop_it(self, call: Call) -> None:
        await call("bash", command="mkdir /workspace/gone && cd /workspace/gone")
        await call("bash", command="rmdir /workspace/gone")
        assert "[exit code 0]" in (await call("bash", command="true")).text
        await call("bash", command="cd /workspace")

    async def test_two_conversations_have_shells_of_their_own(
        self, bench: Bench, call: Call
    ) -> None:
        await call("bash", command="cd /usr; export MINE=1")
        other = replace(bench, conversation="another")
        said = await TOOLS["bash"].call(other, {"command": 'pwd; echo "[$MINE]"'})
        assert said.text == "/workspace\n[]\n[exit code 0]"
        await call("bash", command="cd /workspace")

    async def test_what_was_left_running_takes_nobody_back(self, call: Call) -> None:
        left = "cd /usr; export LATE=1; echo up; read -r < /workspace/let-go"
        await call("bash", command="cd /workspace; mkfifo let-go; export EARLY=1")
        said = await call("bash", command=left, background=True)
        process_id = said.text.split()[1]
        await call("bash", command="cd /etc")
        await call("bash", command="echo > /workspace/let-go; rm /workspace/let-go")
        ended = await call("bash", process_id=process_id, timeout_seconds=60)
        assert ended.text.endswith("[exit code 0]")
        result = await call("bash", command='pwd; echo "$EARLY[$LATE]"; cd /workspace')
        assert result.text == "/etc\n1[]\n[exit code 0]"

    async def test_of_two_at_once_the_first_to_end_leaves_what_it_did(self, call: Call) -> None:
        await call("bash", command="cd /workspace; mkfifo both; export WHO=nobody")
        slow = call("bash", command="export WHO=slow; echo up > both; read -r < both; rm both")
        fast = call("bash", command="read -r < both; export WHO=fast")
        slowly = asyncio.ensure_future(slow)
        await fast
        await call("bash", command="export MORE=1; echo on > both")
        await slowly
        assert (await call("bash", command='echo "$WHO$MORE"')).text == "fast1\n[exit code 0]"

    async def test_one_that_changes_nothing_takes_nothing_from_one_beside_it(
        self, call: Call
    ) -> None:
        for before in ("mkfifo idle", "mkfifo idle; export WHO=me"):
            await call("bash", command=f"cd /workspace; {before}")
            fifo = "/workspace/idle"
            slow = call("bash", command=f"cd /etc; echo up > {fifo}; read -r < {fifo}; rm {fifo}")
            slowly = asyncio.ensure_future(slow)
            await call("bash", command=f"read -r < {fifo}")
            await call("bash", command=f"echo on > {fifo}")
            await slowly
            assert (await call("bash", command="pwd")).text == "/etc\n[exit code 0]"

    async def test_one_that_ends_in_the_same_moment_takes_nothing_back(self, call: Call) -> None:
        """It has begun to look at what it leaves while another leaves something."""
        wait = "while [ ! -e /workspace/{} ]; do sleep 0.02; done"
        held = f'compgen() {{ builtin compgen "$@"; touch /workspace/ends; {wait.format("go")}; }}'
        for more in ("", "; export LATE=1"):
            await call("bash", command="cd /workspace")
            ending = asyncio.ensure_future(call("bash", command=held + more))
            await call("bash", command=f"{wait.format('ends')}; cd /etc")
            await call("bash", command="touch /workspace/go")
            await ending
            result = await call("bash", command='pwd; echo "[$LATE]"; rm /workspace/{go,ends}')
            assert result.text == "/etc\n[]\n[exit code 0]"

    async def test_read_only_variables_do_not_break_the_next_one(self, call: Call) -> None:
        await call("bash", command="declare -rx FIXED=1; export OTHER=2")
        assert (await call("bash", command="echo $OTHER")).text == "2\n[exit code 0]"


class TestOutput:
    async def test_what_is_cut_is_stated_and_can_be_read(self, call: Call) -> None:
        result = await call("bash", command="seq 1 5000")
        begin, said, end = re.split(r"\n(\[\d+ characters .*\])\n", result.text)
        assert begin.startswith("1\n2\n")
        assert end.endswith("5000\n[exit code 0]")
        process_id = re.search(r"process_id '([^']+)'", said)
        assert process_id is not None
        rest = await call("bash", process_id=process_id[1], offset=9000)
        assert "\n2023\n2024\n" in rest.text
        assert "\n2000\n" not in rest.text

    async def test_bytes_that_are_no_text_do_not_break_it(self, call: Call) -> None:
        assert "[exit code 0]" in (await call("bash", command=r"printf '\xff\xfe\0'")).text

    async def test_it_comes_as_it_is_written(self, bench: Bench) -> None:
        pieces: list[bytes] = []
        first = asyncio.Event()

        def take(piece: bytes) -> None:
            pieces.append(piece)
            first.set()

        live = replace(bench, on_output=take)
        command = "echo one; while [ ! -e /workspace/go ]; do sleep 0.02; done; echo two"
        running = asyncio.create_task(TOOLS["bash"].call(live, {"command": command}))
        async with asyncio.timeout(30):
            await first.wait()
        assert not running.done()
        await bench.sandbox.files.write("/workspace/go", "")
        assert (await running).text == "one\ntwo\n[exit code 0]"
        assert b"".join(pieces) == b"one\ntwo\n"


class TestTime:
    async def test_a_command_that_takes_too_long_is_killed_with_all_it_started(
        self, call: Call
    ) -> None:
        result = await call(
            "bash", command="(sleep 71 & sleep 71 & echo begun; wait)", timeout_seconds=1
        )
        assert "begun" in result.text
        assert "[killed after 1 s" in result.text
        left = await call("bash", command="ps -eo args | grep -c '[s]leep 71'")
        assert left.text.startswith("0\n")

    async def test_one_left_running_is_come_back_to_and_stopped(self, call: Call) -> None:
        begun = await call("bash", command="echo up; sleep 300", background=True)
        process_id = begun.text.split()[1]
        seen = await call("bash", process_id=process_id, timeout_seconds=1)
        assert "still running" in seen.text
        stopped = await call("bash", process_id=process_id, stop=True)
        assert stopped.text == "up\n[ended by signal 9]"

    @pytest.mark.parametrize("stop", [False, True])
    async def test_who_comes_back_to_what_nobody_knows_wakes_it(
        self, bench: Bench, call: Call, monkeypatch: pytest.MonkeyPatch, stop: bool
    ) -> None:
        line = "echo up; exec sleep 300" if stop else "echo up"
        process_id = (await call("bash", command=line, background=True)).text.split()[1]
        found = await bench.sandbox.processes.get(process_id)
        async with asyncio.timeout(30):
            while not (await found.refresh()).view.output.end:
                await asyncio.sleep(0.02)
        await bench.sandbox.pause()

        async def unknown(*_: Any) -> None:
            raise SandboxPaused("it is paused, and nobody knows")

        with monkeypatch.context() as patched:
            patched.setattr(found._transport, "call", unknown)
            lost = await bench.sandbox.processes.get(process_id)
        with monkeypatch.context() as patched:
            patched.setattr(AsyncProcesses, "get", AsyncMock(return_value=lost))
            seen = await call("bash", process_id=process_id, stop=stop)
        assert seen.text == ("up\n[ended by signal 9]" if stop else "up\n[exit code 0]")
        assert (await bench.sandbox.refresh()).state == "running"

    async def test_who_is_cancelled_ends_its_command(self, bench: Bench, call: Call) -> None:
        running = asyncio.create_task(TOOLS["bash"].call(bench, {"command": "echo $$; sleep 72"}))
        seen = False
        async with asyncio.timeout(30):
            while not seen:
                seen = any(
                    process.state == "running" for process in await bench.sandbox.processes.list()
                )
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        async with asyncio.timeout(30):
            while any(p.state == "running" for p in await bench.sandbox.processes.list()):
                await asyncio.sleep(0.02)


class TestBadInput:
    @pytest.mark.parametrize(
        "given",
        [{}, {"command": ""}, {"command": "x", "process_id": "y"}, {"command": "x", "stop": True},
         {"command": "x", "timeout_seconds": 0}, {"command": 1}, {"command": "x", "more": 1}],
    )  # fmt: skip
    async def test_it_is_told_to_the_model(self, call: Call, given: dict[str, object]) -> None:
        result = await call("bash", **given)
        assert result.failed
        assert result.text.startswith("invalid parameters: ")

    async def test_a_process_that_is_not_there(self, call: Call) -> None:
        result = await call("bash", process_id="nobody")
        assert result.failed
        assert "no process 'nobody'" in result.text
