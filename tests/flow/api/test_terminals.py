"""Terminals over WebSockets: viewers, reconnects, tickets, and those who do not read."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
from tests.flow.api.test_processes import nobody_knows
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from runtools.platform.api.processes import terminal, tickets
from runtools.platform.kit import websocket
from runtools.testing.api_world import World, client, holds

ORIGIN = "https://app.example.org"


class Viewer:
    """One connection to a terminal."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.data = b""
        self.told: list[dict[str, Any]] = []

    async def step(self) -> None:
        async with asyncio.timeout(60):
            message = await self.connection.recv()
        if isinstance(message, bytes):
            self.data += message
        else:
            self.told.append(json.loads(message))

    async def until(self, wanted: bytes) -> bytes:
        while wanted not in self.data:
            await self.step()
        return self.data

    async def hears(self, kind: str) -> dict[str, Any]:
        while not (found := [one for one in self.told if one["type"] == kind]):
            await self.step()
        self.told.remove(found[0])
        return found[0]

    async def say(self, **message: Any) -> None:
        await self.connection.send(json.dumps(message))

    async def closed(self) -> int:
        """The code it closes with."""
        while True:
            try:
                await self.step()
            except ConnectionClosed as end:
                return -1 if end.rcvd is None else int(end.rcvd.code)


class Desk:
    """A process in a terminal, and opening views of it."""

    def __init__(self, world: World, sandbox: str, process: dict[str, Any]) -> None:
        self.world = world
        self.sandbox = sandbox
        self.id = process["id"]
        self.path = f"/v1/sandboxes/{sandbox}/processes/{self.id}/terminal"

    @asynccontextmanager
    async def open(
        self, query: str = "", *, key: str | None = "", path: str = "", **options: Any
    ) -> AsyncIterator[Viewer]:
        url = self.world.url.replace("http", "ws") + (path or self.path) + query
        if key is not None:
            named = f"Bearer {key or self.world.key}"
            options["additional_headers"] = {"Authorization": named}
        async with connect(url, proxy=None, compression=None, **options) as connection:
            yield Viewer(connection)

    def deaf(self, key: str) -> socket.socket:
        """A viewer that never reads, as a bare socket."""
        host, _, port = self.world.url.removeprefix("http://").partition(":")
        made = socket.create_connection((host, int(port)))
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        made.sendall(
            f"GET {self.path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            f"Authorization: Bearer {key}\r\n\r\n".encode()
        )
        return made

    async def refused(self, status: int, code: str, query: str = "", **options: Any) -> None:
        with pytest.raises(InvalidStatus) as caught:
            async with self.open(query, **options):
                pass
        response = caught.value.response
        assert response.status_code == status, response.body
        assert json.loads(response.body or b"")["error"]["code"] == code

    async def ticket(self, origin: str = ORIGIN) -> dict[str, Any]:
        answer = await self.world.http.post(f"{self.path}-ticket", json={"origin": origin})
        assert answer.status_code == 201, answer.text
        data: dict[str, Any] = answer.json()["data"]
        return data


async def desk(world: World, command: str | list[str], **body: Any) -> Desk:
    made = await world.create()
    answer = await world.http.post(
        f"/v1/sandboxes/{made['id']}/processes", json={"command": command, **body}
    )
    assert answer.status_code == 201, answer.text
    return Desk(world, made["id"], answer.json()["data"])


@pytest_asyncio.fixture
async def shell(world: World) -> AsyncIterator[Desk]:
    made = await desk(world, ["bash", "--norc", "-i"], terminal={}, env={"PS1": "ready>"})
    yield made
    await world.http.delete(f"/v1/sandboxes/{made.sandbox}")


class TestViewing:
    async def test_keys_sizes_and_the_end(self, shell: Desk) -> None:
        async with shell.open() as viewer:
            start = await viewer.hears("start")
            assert (start["offset"], start["dropped"]) == (0, 0)
            assert start["process"]["id"] == shell.id
            await viewer.until(b"ready>")
            await viewer.say(type="resize", rows=33, columns=111)
            await viewer.connection.send(b"stty size\n")
            await viewer.until(b"33 111\r\n")
            await viewer.connection.send(b"exit 7\n")
            end = await viewer.hears("end")
            assert (end["process"]["exitCode"], end["offset"]) == (7, len(viewer.data))
            assert await viewer.closed() == 1000
            assert [one["message"] for one in viewer.told if one["type"] == "taken"][:2] == [0, 1]

    async def test_several_see_the_same(self, shell: Desk) -> None:
        async with shell.open() as one, shell.open() as two:
            await one.until(b"ready>")
            await one.connection.send(b"echo $((6*7))\n")
            await two.until(b"42\r\n")
            await two.connection.send(b"exit\n")
            await one.hears("end")
            await two.hears("end")
            assert one.data == two.data

    async def test_half_a_character_is_two_bytes(self, world: World) -> None:
        half = await desk(world, "stty raw -echo; echo up; cat", terminal={})
        async with half.open() as viewer:
            await viewer.until(b"up")
            before = len(viewer.data)
            first, second = "é".encode()[:1], "é".encode()[1:]
            await viewer.connection.send(first)
            await viewer.until(first)
            await viewer.connection.send(second)
            await viewer.until("é".encode())
            assert viewer.data[before:].endswith("é".encode())

    async def test_signals_and_the_end_of_input(self, world: World) -> None:
        piped = await desk(world, "trap 'echo hup' HUP; echo up; cat; echo over")
        async with piped.open() as viewer:
            await viewer.until(b"up\n")
            await viewer.say(type="close-input")
            await viewer.until(b"over\n")
            await viewer.hears("end")

    async def test_an_offset_goes_on_and_what_is_gone_is_told(self, world: World) -> None:
        long = await desk(world, "seq 10000 19999; read x", keepOutputBytes=8192)
        async with long.open() as viewer:
            await viewer.until(b"19999\n")
        async with long.open(f"?offset={60_000 - 6}") as viewer:
            assert (await viewer.hears("start"))["offset"] == 59_994
            assert await viewer.until(b"19999\n") == b"19999\n"
        async with long.open("?offset=6") as viewer:
            start = await viewer.hears("start")
            assert start["offset"] == start["dropped"] + 6 > 40_000
            assert len(await viewer.until(b"19999\n")) == 60_000 - start["offset"]
        await long.refused(400, "invalid_request", "?offset=60001")

    async def test_a_pause_is_waited_out_and_input_wakes(self, shell: Desk) -> None:
        async with shell.open() as viewer:
            await viewer.until(b"ready>")
            await shell.world.http.post(f"/v1/sandboxes/{shell.sandbox}/pause")
            await viewer.connection.send(b"echo $((6*7))\n")
            await viewer.until(b"42\r\n")
            await shell.world.becomes(shell.sandbox, state="running")

    async def test_one_that_could_not_tell_before_its_pause_is_opened(
        self, shell: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with shell.open() as viewer:
            history = (await viewer.hears("start"))["process"]["history"]
            await viewer.until(b"ready>")
        await shell.world.http.post(f"/v1/sandboxes/{shell.sandbox}/pause")
        nobody_knows(shell.world, monkeypatch, history)
        assert (await shell.ticket())["path"] == shell.path
        async with shell.open(f"?history={history}") as viewer:
            start = await viewer.hears("start")
            assert (start["offset"], start["dropped"], start["process"]) == (0, 0, None)
            assert (await shell.world.get(shell.sandbox))["state"] == "paused"
            await viewer.connection.send(b"echo $((6*7))\n")
            await viewer.until(b"42\r\n")
            await shell.world.becomes(shell.sandbox, state="running")

    async def test_an_ended_sandbox_is_told(self, shell: Desk) -> None:
        async with shell.open() as viewer:
            await viewer.until(b"ready>")
            await shell.world.http.delete(f"/v1/sandboxes/{shell.sandbox}")
            # Its processes end with it: the one or the other is seen first.
            assert await viewer.closed() in {1000, 4409}

    async def test_a_host_that_goes_away_is_told(self, shell: Desk) -> None:
        async with shell.open() as viewer:
            await viewer.until(b"ready>")
            shell.world.host.unavailable = True
            await viewer.connection.send(b"x")
            assert (await viewer.hears("error"))["error"]["code"] == "host_unavailable"
            assert await viewer.closed() == 4503
            shell.world.host.unavailable = False

    async def test_after_a_rollback_an_old_offset_is_refused(self, shell: Desk) -> None:
        async with shell.open() as viewer:
            old = (await viewer.hears("start"))["process"]["history"]
            await viewer.until(b"ready>")
            url, http = f"/v1/sandboxes/{shell.sandbox}", shell.world.http
            assert (await http.post(f"{url}/snapshots", json={"name": "kept"})).status_code == 201
            assert (await http.post(f"{url}/rollback", json={"to": "kept"})).status_code == 200
            assert (await viewer.hears("error"))["error"]["code"] == "history_changed"
            assert await viewer.closed() == 4409
        await shell.refused(409, "history_changed", f"?offset=3&history={old}")


class TestLeaving:
    async def test_what_was_typed_before_is_typed(self, shell: Desk) -> None:
        """More messages than wait for their turn, and nobody left who hears that they were taken."""
        async with shell.open() as viewer:
            for n in range(40):
                await viewer.connection.send(b"line %d\n" % n)
        async with shell.open() as again:
            await again.until(b"line 39")
        assert again.data.count(b"line ") >= 40


class TestComingBack:
    async def test_what_was_sent_again_is_done_once(self, shell: Desk) -> None:
        name = "viewer-of-this-test"
        async with shell.open(f"?viewer={name}") as viewer:
            await viewer.until(b"ready>")
            await viewer.connection.send(b"echo on''ce\n")
            await viewer.until(b"once\r\n")
            seen = len(viewer.data)
        # It has seen no answer to its message 0, and sends it again.
        async with shell.open(f"?viewer={name}&message=0&offset={seen}") as viewer:
            await viewer.connection.send(b"echo on''ce\n")
            await viewer.connection.send(b"echo tw''ice\n")
            await viewer.until(b"twice\r\n")
            assert b"once\r\n" not in viewer.data
            assert (await viewer.hears("taken"))["message"] == 0

    async def test_it_goes_on_by_number(self, shell: Desk) -> None:
        name = "viewer-of-this-test"
        async with shell.open(f"?viewer={name}") as viewer:
            await viewer.connection.send(b"echo on''e\n")
            await viewer.until(b"one\r\n")
        async with shell.open(f"?viewer={name}&message=1") as viewer:
            await viewer.connection.send(b"echo on''e\n")
            assert (await viewer.hears("taken"))["message"] == 1
            while viewer.data.count(b"one\r\n") < 2:
                await viewer.step()


class TestRefusals:
    @pytest.mark.parametrize(
        "message",
        [
            {"type": "resize", "rows": 0, "columns": 0},
            {"type": "resize", "rows": 24, "columns": 10_000},
            {"type": "signal", "signal": 99},
            {"type": "dance"},
            {},
            [1],
        ],
    )
    async def test_of_control(self, shell: Desk, message: Any) -> None:
        async with shell.open() as viewer:
            await viewer.connection.send(json.dumps(message))
            refused = await viewer.hears("refused")
            assert (refused["message"], refused["error"]["code"]) == (0, "invalid_request")
            await viewer.connection.send(b"echo go''od\n")
            await viewer.until(b"good\r\n")

    async def test_no_json_at_all(self, shell: Desk) -> None:
        async with shell.open() as viewer:
            await viewer.connection.send("not json")
            assert (await viewer.hears("refused"))["error"]["code"] == "invalid_request"

    async def test_what_has_no_terminal_has_no_size(self, world: World) -> None:
        piped = await desk(world, "cat")
        async with piped.open() as viewer:
            await viewer.say(type="resize", rows=24, columns=80)
            assert (await viewer.hears("refused"))["error"]["code"] == "invalid_request"

    async def test_input_to_what_takes_none(self, world: World) -> None:
        deaf = await desk(world, "sleep 60", keepInput=False)
        async with deaf.open() as viewer:
            await viewer.connection.send(b"x")
            assert (await viewer.hears("refused"))["error"]["code"] == "input_closed"

    async def test_a_process_that_does_not_read(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(terminal, "_FULL_SECONDS", 0.1)
        busy = await desk(world, "until [ -e go ]; do sleep 0.02; done; wc -c")
        async with busy.open() as viewer:
            for _ in range(40):
                await viewer.connection.send(bytes(32_768))
            refused = await viewer.hears("refused")
            assert refused["error"]["code"] == "input_full"
            while not any(one.get("message") == 39 for one in viewer.told):
                await viewer.step()
            taken = sum(one["type"] == "taken" for one in viewer.told)
            exec_ = {"command": "touch go"}
            await world.http.post(f"/v1/sandboxes/{busy.sandbox}/exec", json=exec_)
            await viewer.say(type="close-input")
            await viewer.hears("end")
            assert int(viewer.data) == taken * 32_768

    async def test_of_a_long_message_a_part_may_be_taken_and_that_is_said(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(terminal, "_FULL_SECONDS", 0.1)
        busy = await desk(world, "until [ -e go ]; do sleep 0.02; done; wc -c")
        size = 114_688  # one piece of 64 KiB, and one that is shorter
        async with busy.open() as viewer:
            for _ in range(6):
                await viewer.connection.send(bytes(size))
            while not any(one.get("message") == 5 for one in viewer.told):
                await viewer.step()
            exec_ = {"command": "touch go"}
            await world.http.post(f"/v1/sandboxes/{busy.sandbox}/exec", json=exec_)
            await viewer.say(type="close-input")
            await viewer.hears("end")
        refused = [one["bytes"] for one in viewer.told if one["type"] == "refused"]
        taken = sum(one["type"] == "taken" for one in viewer.told) - 1  # the end of input
        assert set(refused) == {0, 65_536}
        assert int(viewer.data) == taken * size + sum(refused)

    async def test_a_message_beyond_the_bound(self, shell: Desk) -> None:
        async with shell.open() as viewer:
            await viewer.connection.send(bytes(websocket.MAX_MESSAGE_BYTES + 1))
            assert await viewer.closed() == 1009

    @pytest.mark.parametrize("query", ["?offset=-1", "?offset=x", "?viewer=a/b", "?x=1"])
    async def test_of_the_address(self, shell: Desk, query: str) -> None:
        await shell.refused(400, "invalid_request", query)

    async def test_nobody_there(self, shell: Desk) -> None:
        nobody = shell.path.replace(shell.id, "prc_nobody")
        await shell.refused(404, "not_found", path=nobody)
        nowhere = shell.path.replace(shell.sandbox, "sandbox-000000000000")
        await shell.refused(404, "not_found", path=nowhere)


class TestRevoked:
    """Whoever finds a key keeps nothing open by it, in whatever state what was opened is."""

    @pytest_asyncio.fixture
    async def made(self, world: World) -> dict[str, Any]:
        answer = await world.http.post("/v1/api-keys", json={"name": "x"})
        made: dict[str, Any] = answer.json()["data"]
        return made

    @pytest.fixture
    def over(self, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
        """Set when a viewer has been served to its end."""
        over, serve = asyncio.Event(), terminal.serve

        async def served(*args: Any) -> None:
            try:
                await serve(*args)
            finally:
                over.set()

        monkeypatch.setattr(terminal, "serve", served)
        return over

    async def test_who_does_not_read_types_nothing_any_more(
        self,
        world: World,
        made: dict[str, Any],
        over: asyncio.Event,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        told, fail = asyncio.Event(), websocket.fail

        async def failed(*args: Any) -> None:
            told.set()
            await fail(*args)

        monkeypatch.setattr(websocket, "fail", failed)
        flood = await desk(
            world,
            "head -c 12M /dev/zero; while read x; do echo $x >> typed; done",
            keepOutputBytes=1 << 30,
        )
        with flood.deaf(made["key"]) as deaf:
            await asyncio.to_thread(deaf.recv, 1)  # it is let in
            deaf.sendall(_typed(b"before\n"))
            await holds(lambda: _says(flood, "before\n"))
            await world.http.delete(f"/v1/api-keys/{made['id']}")
            for n in range(20):
                deaf.sendall(_typed(b"after %d\n" % n))
            async with asyncio.timeout(60):
                await told.wait()  # while there is nobody who takes it
        async with asyncio.timeout(60):
            await over.wait()
        assert await _says(flood, "before\n")

    async def test_for_who_has_left_nothing_more_is_done(
        self,
        world: World,
        made: dict[str, Any],
        over: asyncio.Event,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(terminal, "_LEFT_SECONDS", 600.0)
        given: list[object] = []

        async def held(*_: object) -> None:
            given.append(_)
            await asyncio.Event().wait()

        monkeypatch.setattr(world.host, "send_input", held)
        reader = await desk(world, "cat")
        async with reader.open(key=made["key"]) as viewer:
            for n in range(5):
                await viewer.connection.send(b"line %d\n" % n)
            await holds(lambda: len(given) == 1)
        await holds(lambda: len(given) == 2)  # the same again, for who has left
        assert not over.is_set()
        await world.http.delete(f"/v1/api-keys/{made['id']}")
        async with asyncio.timeout(60):
            await over.wait()
        assert len(given) == 2


def _typed(data: bytes) -> bytes:
    """The frame of a short binary message."""
    return bytes((0x82, 0x80 | len(data))) + bytes(4) + data


async def _says(desk: Desk, wanted: str) -> bool:
    """Whether that is what the process has written into the file `typed`."""
    exec_ = {"command": "cat typed"}
    answer = await desk.world.http.post(f"/v1/sandboxes/{desk.sandbox}/exec", json=exec_)
    said: str = answer.json()["data"]["stdout"]
    return said == wanted


class TestAudit:
    async def test_who_opened_it_is_told_before_anything_is_shown(self, shell: Desk) -> None:
        async with shell.open() as viewer:
            await viewer.hears("start")
            path = "/v1/audit?action=processes.terminal"
            (line,) = (await shell.world.http.get(path)).json()["data"]
        me = (await shell.world.http.get("/v1/me")).json()["data"]
        assert (line["actor"], line["status"]) == (me["keyId"], 101)
        assert line["resource"] == f"{shell.sandbox}/{shell.id}"


class TestWhoMay:
    async def test_no_key_and_a_wrong_one(self, shell: Desk) -> None:
        await shell.refused(401, "unauthenticated", key=None)
        await shell.refused(401, "unauthenticated", key="rt_live_wrong")

    async def test_whom_it_refuses_is_no_error_of_ours(
        self, shell: Desk, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Strangers would fill the log with it."""
        with caplog.at_level(logging.WARNING):
            await shell.refused(401, "unauthenticated", key="rt_live_wrong")
            await shell.refused(400, "invalid_request", "?x=1")
        assert caplog.messages == []

    async def test_another_org(self, shell: Desk) -> None:
        async with await shell.world.stranger() as other:
            theirs = other.headers["authorization"].removeprefix("Bearer ")
            await shell.refused(404, "not_found", key=theirs)

    async def test_a_key_from_a_page(self, shell: Desk) -> None:
        await shell.refused(403, "forbidden", origin=ORIGIN)

    async def test_a_revoked_key_ends_it(self, shell: Desk) -> None:
        made = (await shell.world.http.post("/v1/api-keys", json={"name": "x"})).json()["data"]
        async with shell.open(key=made["key"]) as viewer:
            await viewer.until(b"ready>")
            await shell.world.http.delete(f"/v1/api-keys/{made['id']}")
            assert await viewer.closed() == 4401

    async def test_a_ticket_opens_once(self, shell: Desk) -> None:
        made = await shell.ticket()
        offered = [made["protocol"], f"runtools.ticket.{made['ticket']}"]
        async with shell.open(key=None, origin=ORIGIN, subprotocols=offered) as viewer:
            assert viewer.connection.subprotocol == made["protocol"]
            await viewer.until(b"ready>")
        await shell.refused(401, "unauthenticated", key=None, origin=ORIGIN, subprotocols=offered)

    async def test_a_ticket_says_that_it_is_good_for_30_seconds(self, shell: Desk) -> None:
        before = datetime.now(UTC)
        over = datetime.fromisoformat((await shell.ticket())["expiresAt"])
        # The API tells milliseconds, rounded down.
        assert before < over <= datetime.now(UTC) + timedelta(seconds=30)
        assert over - before > timedelta(seconds=29)

    @pytest.mark.parametrize("origin", [None, "https://evil.example.org", "null"])
    async def test_from_another_origin_it_is_no_good(self, shell: Desk, origin: str | None) -> None:
        offered = [f"runtools.ticket.{(await shell.ticket())['ticket']}"]
        await shell.refused(403, "forbidden", key=None, origin=origin, subprotocols=offered)
        # And it is used up by that.
        await shell.refused(401, "unauthenticated", key=None, origin=ORIGIN, subprotocols=offered)

    async def test_nor_for_another_terminal(self, shell: Desk) -> None:
        other = await desk(shell.world, "cat")
        offered = [f"runtools.ticket.{(await shell.ticket())['ticket']}"]
        await other.refused(401, "unauthenticated", key=None, origin=ORIGIN, subprotocols=offered)

    async def test_nor_too_late(self, shell: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tickets, "LASTS", timedelta(0))
        offered = [f"runtools.ticket.{(await shell.ticket())['ticket']}"]
        await shell.refused(401, "unauthenticated", key=None, origin=ORIGIN, subprotocols=offered)

    async def test_nor_when_its_key_is_revoked(self, shell: Desk) -> None:
        made = (await shell.world.http.post("/v1/api-keys", json={"name": "x"})).json()["data"]
        async with client(shell.world.url, made["key"]) as other:
            answer = await other.post(f"{shell.path}-ticket", json={"origin": ORIGIN})
        await shell.world.http.delete(f"/v1/api-keys/{made['id']}")
        offered = [f"runtools.ticket.{answer.json()['data']['ticket']}"]
        await shell.refused(401, "unauthenticated", key=None, origin=ORIGIN, subprotocols=offered)

    async def test_a_ticket_opens_on_every_database(self, any_world: World) -> None:
        made = await desk(any_world, "echo here; sleep 60")
        ticket = await made.ticket()
        both = [ticket["protocol"], f"runtools.ticket.{ticket['ticket']}"]
        async with made.open(
            key=None, path=ticket["path"], origin=ORIGIN, subprotocols=both
        ) as viewer:
            await viewer.until(b"here")


class TestWhoDoesNotRead:
    async def test_one_holds_up_nobody_and_is_cut(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(websocket, "SILENT_SECONDS", 1.0)
        flood = await desk(world, "head -c 30M /dev/zero; read x", keepOutputBytes=1 << 30)
        deaf = flood.deaf(world.key)
        seen = 0
        async with flood.open(max_size=None) as viewer:
            async with asyncio.timeout(60):
                while seen < 30 << 20:
                    message = await viewer.connection.recv()
                    seen += len(message) if isinstance(message, bytes) else 0
        assert seen == 30 << 20
        await holds(lambda: self._is_cut(deaf))
        deaf.close()

    def _is_cut(self, deaf: socket.socket) -> bool:
        """Whether the connection is gone over there: what is sent is answered by a reset."""
        try:
            deaf.send(b"\x8a\x80\0\0\0\0", socket.MSG_NOSIGNAL)  # a pong that nobody asked for
        except OSError:
            return True
        return False
