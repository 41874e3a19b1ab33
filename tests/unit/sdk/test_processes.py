"""Durable processes through the SDK: what is sent, and how output is taken up again."""

from __future__ import annotations

import base64
import inspect
import json
from typing import Any

import pytest

from runtools import AsyncRunTools, RunTools
from runtools.cli.sandbox.processes import show_output
from runtools.errors import DeadlineExceeded, InputFull, SandboxPaused, VersionMismatch
from runtools.sdk import shapes
from runtools.sdk.sync.processes import Process, Processes
from runtools.testing.scripted_api import KEY, Failure, ScriptedApi

SPAN = {"keptFrom": 0, "end": 0}
RUNNING: dict[str, Any] = {
    "id": "prc_1",
    "command": ["cat"],
    "cwd": "/workspace",
    "user": "root",
    "pid": 7,
    "terminal": None,
    "state": "running",
    "exitCode": None,
    "signal": None,
    "inputOpen": True,
    "startedAt": "2026-01-01T00:00:00Z",
    "endedAt": None,
    "output": SPAN,
    "stdout": SPAN,
    "stderr": SPAN,
}
ENDED = RUNNING | {"state": "ended", "exitCode": 3, "pid": None, "endedAt": "2026-01-01T00:00:09Z"}
UNKNOWN = SandboxPaused("it is paused, and nobody knows", details={"history": "4"})
ASLEEP = Failure(status=409, body=json.dumps({"error": UNKNOWN.to_wire()}).encode())


def path(sandbox_id: str, rest: str = "/prc_1") -> str:
    return f"/v1/sandboxes/{sandbox_id}/processes{rest}"


def event(name: str, after: int, **data: Any) -> bytes:
    return f"id: {after}\nevent: {name}\ndata: {json.dumps(data)}\n\n".encode()


def piece(offset: int, data: bytes, dropped: int = 0) -> bytes:
    text = base64.b64encode(data).decode()
    return event("output", offset + len(data), offset=offset, data=text, dropped=dropped)


def end(offset: int) -> bytes:
    return event("end", offset, offset=offset, process=ENDED)


@pytest.fixture
def box(api: ScriptedApi) -> str:
    return api.add().id


@pytest.fixture
def process(api: ScriptedApi, rt: RunTools, box: str) -> Process:
    api.fixed[f"GET {path(box)}"] = RUNNING
    return rt.sandboxes.get(box).processes.get("prc_1")


class TestStart:
    def test_every_field_of_the_request_is_an_argument(self) -> None:
        parameters = inspect.signature(Processes.start).parameters
        for name, field in shapes.ProcessRequest.model_fields.items():
            assert name in parameters
            if name not in ("command", "env"):
                assert parameters[name].default == field.default, name

    def test_what_is_given_is_sent(self, api: ScriptedApi, rt: RunTools, box: str) -> None:
        api.fixed[f"POST {path(box, '')}"] = RUNNING
        started = rt.sandboxes.get(box).processes.start(
            ("a", "b c"),
            env={"A": "ü"},
            cwd="/",
            user="agent",
            terminal=shapes.TerminalSize(rows=5, columns=6),
            keep_input=False,
            keep_output_bytes=4096,
            process_id="mine",
        )
        assert (started.id, started.state) == ("prc_1", "running")
        assert json.loads(api.seen[-1].body) == {
            "command": ["a", "b c"],
            "processId": "mine",
            "env": {"A": "ü"},
            "cwd": "/",
            "user": "agent",
            "terminal": {"rows": 5, "columns": 6},
            "keepInput": False,
            "keepOutputBytes": 4096,
        }

    def test_a_lost_answer_does_not_start_it_twice(
        self, api: ScriptedApi, rt: RunTools, box: str
    ) -> None:
        api.fixed[f"POST {path(box, '')}"] = RUNNING
        api.failures.append(Failure(cut=True, path="/processes"))
        rt.sandboxes.get(box).processes.start("true")
        sent = [json.loads(one.body)["processId"] for one in api.seen if one.method == "POST"]
        assert len(sent) == 2
        assert len(set(sent)) == 1

    def test_one_of_which_nobody_knows_how_it_stands_can_be_worked_with(
        self, api: ScriptedApi, rt: RunTools, box: str
    ) -> None:
        sandbox = rt.sandboxes.get(box)
        api.failures.append(ASLEEP)
        process = sandbox.processes.get("prc_1")
        assert (repr(process), process.history) == ("<Process prc_1 unknown>", "4")
        for look in (lambda: process.view, lambda: process.state):
            with pytest.raises(SandboxPaused, match="nobody knows"):
                look()
        api.fixed[f"POST {path(box, '/prc_1/signal')}"] = RUNNING
        assert process.kill().state == "running"
        assert json.loads(api.seen[-1].body) == {"signal": "KILL"}

    def test_list(self, api: ScriptedApi, rt: RunTools, box: str) -> None:
        api.fixed[f"GET {path(box, '')}"] = [RUNNING, ENDED]
        assert [one.state for one in rt.sandboxes.get(box).processes.list()] == ["running", "ended"]


class TestWait:
    def test_for_its_end(self, api: ScriptedApi, process: Process, box: str) -> None:
        api.fixed[f"GET {path(box)}"] = ENDED
        assert process.wait().exit_code == 3
        assert process.state == "ended"
        assert api.seen[-1].query == [("waitMs", "30000")]

    def test_over_a_pause_of_which_nobody_knows_how_it_stands(
        self, api: ScriptedApi, process: Process, box: str
    ) -> None:
        api.failures.extend((ASLEEP, ASLEEP))
        api.fixed[f"GET {path(box)}"] = ENDED
        assert process.wait().exit_code == 3
        assert [one.query for one in api.seen[-3:]] == [[("waitMs", "30000")]] * 3
        api.failures.append(ASLEEP)
        with pytest.raises(SandboxPaused):
            process.wait(timeout=0)

    def test_no_longer_than_asked(self, process: Process) -> None:
        with pytest.raises(DeadlineExceeded, match="prc_1 still runs"):
            process.wait(timeout=0)


class TestFollow:
    def follow(self, api: ScriptedApi, box: str, *bodies: bytes) -> None:
        api.streams[path(box, "/prc_1/follow")] = list(bodies)

    def test_a_connection_that_breaks_goes_on_at_the_right_byte(
        self, api: ScriptedApi, process: Process, box: str
    ) -> None:
        self.follow(
            api, box, piece(5, b"one\xff"), b"", piece(9, b"two")[:-9], piece(9, b"2") + end(10)
        )
        assert b"".join(process.follow(5, "stdout")) == b"one\xff2"
        assert process.view.exit_code == 3
        asked = [one for one in api.seen if one.path.endswith("/follow")]
        assert [one.headers.get("last-event-id") for one in asked] == [None, "9", "9", "9"]
        assert all(one.query == [("stream", "stdout"), ("offset", "5")] for one in asked)

    def test_what_is_missing_is_told(self, api: ScriptedApi, process: Process, box: str) -> None:
        self.follow(api, box, piece(0, b"a") + piece(9, b"b", dropped=8) + end(10))
        told: list[int] = []
        assert list(process.follow(on_dropped=told.append)) == [b"a", b"b"]
        assert told == [8]

    def test_an_offset_is_one_of_the_history_that_was_read(
        self, api: ScriptedApi, process: Process, box: str
    ) -> None:
        api.fixed[f"GET {path(box)}"] = RUNNING | {"history": "1"}
        self.follow(api, box, piece(0, b"a") + end(1), end(1), end(1))
        assert list(process.follow()) == [b"a"]
        api.fixed[f"GET {path(box)}"] = RUNNING | {"history": "2"}  # it was rolled back
        process.refresh()
        assert list(process.follow(1)) == []
        assert list(process.follow(1, history="2")) == []
        asked = [one for one in api.seen if one.path.endswith("/follow")]
        assert [dict(one.query)["history"] for one in asked] == ["1", "1", "2"]

    def test_where_nobody_knows_how_it_stands_its_history_is_known(
        self, api: ScriptedApi, process: Process, box: str
    ) -> None:
        api.failures.append(ASLEEP)
        self.follow(api, box, piece(0, b"a") + end(1))
        assert list(process.follow()) == [b"a"]
        assert dict(api.seen[-1].query)["history"] == process.history == "4"

    async def test_async_too(self, api: ScriptedApi, art: AsyncRunTools, box: str) -> None:
        api.fixed[f"GET {path(box)}"] = RUNNING
        self.follow(api, box, piece(0, b"a"), piece(1, b"b") + end(2))
        followed = await (await art.sandboxes.get(box)).processes.get("prc_1")
        assert [data async for data in followed.follow()] == [b"a", b"b"]


class TestInput:
    def test_it_goes_in_pieces_each_once(
        self, api: ScriptedApi, process: Process, box: str
    ) -> None:
        api.fixed[f"POST {path(box, '/prc_1/input')}"] = {"taken": 70_000}
        api.failures.append(Failure(cut=True, path="/input"))
        assert process.send_input("ü" * 35_000) == 70_000
        sent = [one for one in api.seen if one.path.endswith("/input")]
        assert [len(one.body) for one in sent] == [65_536, 65_536, 4464]
        keys = [one.headers["idempotency-key"] for one in sent]
        assert keys[0] == keys[1] != keys[2]
        assert sent[0].headers["content-type"] == "application/octet-stream"

    def test_a_process_that_reads_late_is_waited_for(
        self, api: ScriptedApi, process: Process, box: str
    ) -> None:
        api.fixed[f"POST {path(box, '/prc_1/input')}"] = {"taken": 2}
        full = json.dumps({"error": InputFull("it does not read").to_wire()}).encode()
        api.failures.append(Failure(InputFull.status, full, path="/input"))
        assert process.send_input(b"hi") == 2

    def test_but_not_for_ever(self, api: ScriptedApi, process: Process) -> None:
        full = json.dumps({"error": InputFull("it does not read").to_wire()}).encode()
        api.failures.append(Failure(InputFull.status, full, path="/input"))
        with pytest.raises(InputFull) as caught:
            process.send_input(b"hi", patience=0)
        assert caught.value.details["sentBytes"] == 0


class TestActs:
    def test_what_is_sent(self, api: ScriptedApi, process: Process, box: str) -> None:
        for act in ("signal", "resize", "input/close"):
            api.fixed[f"POST {path(box, f'/prc_1/{act}')}"] = ENDED
        assert process.signal("HUP") is process
        assert process.state == "ended"
        process.kill()
        process.resize(3, 4)
        process.close_input()
        bodies = [json.loads(one.body or b"null") for one in api.seen if one.method == "POST"]
        assert bodies == [{"signal": "HUP"}, {"signal": "KILL"}, {"rows": 3, "columns": 4}, None]

    def test_output_without_its_offset_is_no_platform_of_ours(
        self, api: ScriptedApi, process: Process, box: str
    ) -> None:
        api.streams[path(box, "/prc_1/output")] = [b"data"]
        with pytest.raises(VersionMismatch, match="X-Output-Offset"):
            process.output()


class TestHoles:
    """Output of which bytes are missing in front, in the middle and at the end."""

    @pytest.fixture
    def holed(self, api: ScriptedApi, process: Process, box: str) -> Process:
        seen = ENDED | {"output": {"keptFrom": 10, "end": 320}}
        api.fixed[f"GET {path(box)}"] = seen
        api.kept[path(box, "/prc_1/output")] = [
            (10, b"A" * 100),
            (150, b"C" * 70),
            (300, b"E" * 20),
        ]
        return process

    def test_what_is_there_is_given_and_each_hole_is_told(self, holed: Process) -> None:
        holes: list[int] = []
        given = holed.output(on_dropped=holes.append)
        assert given == b"A" * 100 + b"C" * 70 + b"E" * 20
        assert holes == [10, 40, 80]

    def test_from_within_one(self, holed: Process) -> None:
        assert holed.output(120) == b"C" * 70 + b"E" * 20
        assert holed.output(310) == b"E" * 10
        assert holed.output(320) == b""

    @pytest.mark.usefixtures("holed")
    def test_the_command_line_says_how_many(
        self,
        api: ScriptedApi,
        box: str,
        monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setenv("RUNTOOLS_API_URL", api.url)
        monkeypatch.setenv("RUNTOOLS_API_KEY", KEY)
        show_output(box, "prc_1", (0, None), follow=False, stream="output")
        said = capfd.readouterr()
        assert said.out == "A" * 100 + "C" * 70 + "E" * 20
        assert "130 bytes" in said.err
