"""Durable processes on real machines, over the API: no byte of output is lost or doubled by any trouble."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import secrets
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from tests.vm.conftest import KILL_AGENT

from runtools.platform.api.hosts.remote import RemoteHost
from runtools.sdk.settings import resolve
from runtools.sdk.sync.sandbox import Sandbox
from runtools.testing.real_platform import Platform, eventually

pytestmark = pytest.mark.vm

COUNTER = "i=0; while [ ! -e $STOP ]; do i=$((i+1)); echo $i; sleep 0.02; done; echo end >&2"


class Held:
    """A durable process of a sandbox."""

    def __init__(self, sandbox: Sandbox, id_: str) -> None:
        self.id = id_
        self._transport = sandbox._transport
        self._path = f"/sandboxes/{sandbox.id}/processes/{id_}"

    @classmethod
    def start(cls, sandbox: Sandbox, command: str | list[str], **fields: Any) -> Held:
        body = {"command": command, **fields}
        path = f"/sandboxes/{sandbox.id}/processes"
        return cls(sandbox, sandbox._transport.call("POST", path, body=body).data["id"])

    def look(self, wait_ms: int = 0) -> dict[str, Any]:
        shape = self._transport.call("GET", self._path, query=[("waitMs", wait_ms)]).data
        assert isinstance(shape, dict)
        return shape

    def ended(self) -> dict[str, Any]:
        shape = self.look(60_000)
        assert shape["state"] == "ended"
        return shape

    def output(self, **query: Any) -> bytes:
        answer = self._request("GET", "output", params=query)
        assert int(answer.headers["X-Output-Offset"]) == query.get("offset", 0)
        return answer.content

    def post(self, act: str, **sent: Any) -> dict[str, Any]:
        data = self._request("POST", act, **sent).json()["data"]
        assert isinstance(data, dict)
        return data

    def _request(self, method: str, what: str, **sent: Any) -> httpx.Response:
        settings = resolve()
        url = f"{settings.url}/v1{self._path}/{what}"
        headers = {
            "Authorization": f"Bearer {settings.api_key}",
            "Idempotency-Key": secrets.token_hex(16),
        }
        return httpx.request(method, url, headers=headers, timeout=60, **sent).raise_for_status()


class Follower:
    """Follows a process's output from a thread, through whatever happens."""

    def __init__(self, process: Held) -> None:
        self.data = b""
        self.end: dict[str, Any] | None = None
        self.trouble: BaseException | None = None
        self._events = process._transport.follow(f"{process._path}/follow")
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            for event in self._events:
                item = json.loads(event.data)
                assert item["offset"] == len(self.data), "a byte came twice, or never"
                if event.name == "end":
                    self.end = item["process"]
                    return
                assert not item["dropped"]
                self.data += base64.b64decode(item["data"])
        except BaseException as exc:  # noqa: BLE001 - the test's own thread raises it
            self.trouble = exc

    def goes_on(self) -> None:
        """Wait until more has come than there is now."""
        more = len(self.data) + 20
        eventually(lambda: len(self.data) > more or self.trouble)
        assert self.trouble is None

    def result(self) -> tuple[bytes, dict[str, Any]]:
        self._thread.join(60)
        assert self.trouble is None
        assert self.end is not None
        return self.data, self.end


def counted(data: bytes) -> bool:
    """Whether it is what the counter printed, whole."""
    numbers, _, rest = data.partition(b"end\n")
    lines = numbers.split()
    return (
        not rest
        and b"\n".join(lines) + b"\n" == numbers
        and [*map(int, lines)] == [*range(1, len(lines) + 1)]
    )


@pytest.fixture(scope="module", autouse=True)
def sleepers(platform: Platform) -> Iterator[tuple[Sandbox, Follower, Sandbox]]:
    """Two that are to fall asleep when idle: one with a silent process, followed, one where it prints."""
    create = platform.rt.sandboxes.create
    with create(idle_timeout_seconds=5) as silent, create(idle_timeout_seconds=5) as printing:
        Held.start(printing, "while sleep 1; do echo here; done", processId="it")
        process = Held.start(silent, "sleep 1000", processId="it")
        yield silent, Follower(process), printing


@pytest.fixture(scope="module")
def box(platform: Platform) -> Iterator[Sandbox]:
    """The sandbox of most tests."""
    with platform.rt.sandboxes.create() as sandbox:
        yield sandbox


def test_streams_offsets_input_and_the_exit_code(box):
    process = Held.start(box, "cat; echo no >&2; exit 7", env={"A": "b"})
    process.post("input", content=b"one\ntwo\n")
    eventually(lambda: process.output() == b"one\ntwo\n")
    process.post("input/close")
    end = process.ended()
    assert (end["exitCode"], end["signal"]) == (7, None)
    assert process.output() == b"one\ntwo\nno\n"
    assert process.output(offset=4, limit=5) == b"two\nn"
    assert process.output(stream="stdout") == b"one\ntwo\n"
    assert process.output(stream="stderr", offset=1) == b"o\n"


def test_a_signal_ends_all_that_it_started(box):
    process = Held.start(box, "sleep 1000 & echo $!; sleep 1000")
    eventually(process.output)
    process.post("signal", json={"signal": "TERM"})
    assert process.ended()["signal"] == 15
    assert box.exec(f"kill -0 {process.output().decode()}").exit_code != 0


def test_a_terminal_has_a_size_that_changes(box):
    process = Held.start(box, "tty; stty size; read x; stty size", terminal={"rows": 10})
    eventually(lambda: b"10 80\r\n" in process.output())
    process.post("resize", json={"rows": 33, "columns": 99})
    process.post("input", content=b"\n")
    assert process.ended()["exitCode"] == 0
    assert process.output().startswith(b"/dev/pts/")
    assert process.output().endswith(b"33 99\r\n")


def test_a_child_has_the_history_and_goes_on_by_itself(box):
    process = Held.start(box, COUNTER, env={"STOP": "stop-fork"})
    eventually(lambda: len(process.output()) > 50)
    [child] = box.fork()
    with child:
        copy = Held(child, process.id)
        mine = Follower(copy)
        mine.goes_on()
        child.exec("touch stop-fork")
        data, end = mine.result()
        assert counted(data)
        assert end["state"] == "ended"
        assert process.look()["state"] == "running"
        before = len(process.output())
        eventually(lambda: len(process.output()) > before)
        shared = min(len(data) - len(b"end\n"), before)
        assert process.output()[:shared] == data[:shared]
    process.post("signal", json={"signal": "KILL"})
    assert process.ended()["signal"] == 9


def test_what_was_to_end_in_a_saved_state_ends_in_what_is_made_of_it(box):
    """It runs in the memory that the snapshot and the fork have."""
    process = Held.start(box, "sleep 1000")
    box.pause()
    box.processes.end(process.id)
    box.snapshot("owed")
    [child] = box.fork()
    with child:
        assert Held(child, process.id).ended()["signal"] == 9
    box.resume()
    assert process.ended()["signal"] == 9
    box.rollback("owed")
    assert process.ended()["signal"] == 9
    box.delete_snapshot("owed")


def test_changes_of_files_of_both_layers_are_seen(platform, box):
    wanted = {
        ("create", "/etc/mine"),
        ("create", "/etc/mine/a"),
        ("change", "/etc/issue"),
        ("move", "/etc/apt/b"),
        ("delete", "/etc/debian_version"),
    }
    acts = "mkdir mine; sleep .2; >mine/a; echo >>issue; mv mine/a apt/b; rm debian_version"

    async def watch() -> None:
        async with RemoteHost(platform.home / "run" / "host.sock") as host:
            changes = host.watch(box.id, "/etc", True, None)
            async with contextlib.aclosing(changes), asyncio.timeout(30):
                assert (await anext(changes)).kind == "armed"
                await asyncio.to_thread(box.exec, acts, cwd="/etc")
                async for change in changes:
                    wanted.discard((change.kind, change.path))
                    if not wanted:
                        return

    asyncio.run(watch())


def test_who_follows_keeps_no_sandbox_awake_and_output_does(sleepers):
    silent, follower, printing = sleepers
    eventually(lambda: silent.refresh().state == "paused")
    process = Held(silent, "it")
    assert process.look()["state"] == "running"
    assert silent.refresh().state == "paused"
    assert printing.refresh().state == "running"
    process.post("signal", json={"signal": "TERM"})  # wakes it
    assert follower.result()[1]["signal"] == 15


@pytest.mark.parametrize("trouble", ["pause", "agent", "host", "api"])
def test_a_follower_gets_every_byte_once_through(
    trouble: str, box: Sandbox, killed: Callable[[str], None]
) -> None:
    stop = f"/tmp/stop-{trouble}"
    process = Held.start(box, COUNTER, env={"STOP": stop})
    follower = Follower(process)
    follower.goes_on()
    if trouble == "pause":
        box.pause()
        box.resume()
    elif trouble == "agent":
        Held.start(box, KILL_AGENT).ended()
    else:
        killed(trouble)
    follower.goes_on()
    box.exec(f"touch {stop}")
    data, end = follower.result()
    assert counted(data)
    assert data.endswith(b"\nend\n")
    assert (end["exitCode"], end["output"]["end"]) == (0, len(data))
