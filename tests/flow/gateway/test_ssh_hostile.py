"""Clients and sandboxes of the SSH gateway that do what OpenSSH does not."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import asyncssh
import pytest
import pytest_asyncio
from asyncssh.constants import (
    MSG_CHANNEL_WINDOW_ADJUST,
    MSG_GLOBAL_REQUEST,
    MSG_KEXINIT,
    MSG_USERAUTH_REQUEST,
)
from asyncssh.packet import Boolean, String, UInt32

from runtools.errors import Unavailable
from runtools.platform.core.ports.doorway import PasswordShown
from runtools.platform.gateway.ssh import door, packets, requests, server
from runtools.platform.gateway.ssh.guesses import Guesses
from runtools.platform.gateway.ssh.strangers import Strangers
from runtools.testing.api_world import holds
from runtools.testing.clock import ManualClock
from runtools.testing.ssh_world import PASSWORD, SANDBOX, SshWorld, ssh_world, sshd_program

pytestmark = [
    pytest.mark.skipif(
        sshd_program() is None or os.geteuid() != 0, reason="needs openssh-server, and root for it"
    ),
    pytest.mark.asyncio(loop_scope="module"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SshWorld]:
    """A gateway for all tests here."""
    async with ssh_world(tmp_path_factory.mktemp("ssh"), per_source=500) as made:
        yield made


@pytest.fixture(autouse=True)
def fresh(world: SshWorld) -> None:
    """Nobody has done anything yet."""
    clock = world.house.clock
    world.house.sources = Guesses(clock, free=1000, longest=1)
    world.house.passwords = Guesses(clock, free=1000, longest=1)
    world.house.strangers = Strangers(clock, most_of_source=100)


class Client(asyncssh.SSHClient):
    """Remembers how it ended."""

    def __init__(self) -> None:
        self.over: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.over.done():
            self.over.set_result(exc)


class Hasty(Client):
    """Begins a hundred logins before it has heard of the first."""

    def __init__(self, method: bytes, about: bytes) -> None:
        super().__init__()
        self._says = (String(SANDBOX), String("ssh-connection"), String(method), about)

    def connection_made(self, conn: Any) -> None:
        self._connection = conn

    async def public_key_auth_requested(self) -> None:
        for _ in range(100):
            self._connection.send_packet(MSG_USERAUTH_REQUEST, *self._says)
        await asyncio.Event().wait()


async def connected(world: SshWorld, **options: Any) -> tuple[Any, Client]:
    """A connection of somebody who may come in, unless it is told otherwise."""
    said: dict[str, Any] = {"client_keys": [str(world.key)], "username": SANDBOX} | options
    connection, client = await asyncssh.create_connection(
        Client, "127.0.0.1", world.port, known_hosts=None, config=None, agent_path=None, **said
    )
    return connection, client


@contextlib.asynccontextmanager
async def inside(world: SshWorld) -> AsyncIterator[tuple[Any, Client]]:
    """A connection that is in, and is left with the block."""
    connection, client = await connected(world)
    try:
        yield connection, client
    finally:
        connection.abort()
        await connection.wait_closed()
        await holds(lambda: not world.house.inside)


async def ended(client: Client) -> str:
    """With what sentence a connection was ended."""
    async with asyncio.timeout(30):
        return str(await client.over)


def only_door(world: SshWorld) -> Any:
    """The gateway's side of the only connection that is in."""
    [one] = world.house.inside
    return one


def ask(connection: Any, name: str, *about: bytes) -> None:
    """A global request, whatever goes on."""
    connection.send_packet(MSG_GLOBAL_REQUEST, String(name), Boolean(True), *about)


def hold_exchange(connection: Any) -> None:
    """Ask for new keys, and leave it at that."""
    process = connection.process_packet

    def processed(kind: int, number: int, packet: Any) -> Any:
        return True if kind == MSG_KEXINIT else process(kind, number, packet)

    connection.process_packet = processed
    connection._send_kexinit()
    connection._kex_complete = True  # it sends on as if nothing were


class TestExchangesOfKeys:
    async def test_one_that_is_held_open_piles_nothing_up(self, world: SshWorld) -> None:
        """The sandbox talks as fast as it can and may send two gigabytes; it is not read."""
        async with inside(world) as (connection, _):
            process = await connection.create_process("yes", encoding=None)
            await process.stdout.readexactly(1000)
            there = only_door(world)
            [channel], [mine] = there._channels, connection._channels.values()
            more = 2**31 - 2**22
            mine._recv_window += more
            connection.send_packet(MSG_CHANNEL_WINDOW_ADJUST, UInt32(channel.number), UInt32(more))
            hold_exchange(connection)
            [stream] = world.house.streams
            # What had been sent before is taken, so that is no reason any more to read nothing.
            await holds(lambda: there._connection._kex is not None and not there._wire.waiting())
            assert (stream._there.is_closing(), stream._there.is_reading()) == (False, False)
            kept = there._connection._deferred_packets
            assert sum(len(arg) for _, args in kept for arg in args) <= packets.MOST_KEPT

    async def test_one_that_ends_lets_all_go_on(self, world: SshWorld) -> None:
        async with inside(world) as (connection, _):
            process = await connection.create_process("yes", encoding=None)
            await process.stdout.readexactly(1000)
            for _ in range(3):
                connection._send_kexinit()
                connection._kexinit_sent = True
                await holds(lambda: connection._kex_complete)
                await process.stdout.readexactly(3_000_000)

    async def test_both_sides_at_once(self, world: SshWorld) -> None:
        """Each is over only when the gateway has read on, whatever waits for the other."""
        async with inside(world) as (connection, _):
            process = await connection.create_process("cat")
            process.stdin.write("before\n")
            assert await process.stdout.readline() == "before\n"
            there = only_door(world)
            sides = (there._connection, there._inside)
            for one in sides:
                one._rekey_bytes_sent = one._rekey_bytes
                one.send_packet(MSG_CHANNEL_WINDOW_ADJUST, UInt32(0), UInt32(0))  # begins it first
            assert [one._kex_complete for one in sides] == [False, False]
            process.stdin.write("after\n")
            async with asyncio.timeout(30):
                assert await process.stdout.readline() == "after\n"
            await holds(lambda: all(one._kex_complete for one in sides))

    async def test_requests_during_one_are_bounded(
        self, world: SshWorld, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(packets, "MOST_KEPT", 50_000)
        async with inside(world) as (connection, client):
            hold_exchange(connection)
            for _ in range(packets.MOST_KEPT // 200):
                ask(connection, "keepalive@openssh.com")
            assert "too much waits for an exchange of keys" in await ended(client)

    async def test_who_has_not_logged_in_exchanges_once(self, world: SshWorld) -> None:
        class Again(Client):
            async def public_key_auth_requested(self) -> None:
                self.connection._send_kexinit()
                self.connection._kexinit_sent = True
                await asyncio.Event().wait()

            def connection_made(self, conn: Any) -> None:
                self.connection = conn

        with pytest.raises(asyncssh.DisconnectError, match="log in before you exchange keys again"):
            await asyncssh.create_connection(
                Again,
                "127.0.0.1",
                world.port,
                username=SANDBOX,
                known_hosts=None,
                config=None,
                agent_path=None,
                client_keys=None,
            )

    async def test_costly_ones_are_not_offered(self, world: SshWorld) -> None:
        code, _, err = await world.run(
            world.ssh("-o", "KexAlgorithms=diffie-hellman-group18-sha512", "--", "true")
        )
        assert (code, "no matching key exchange method" in err) == (255, True)


class TestSilence:
    async def test_who_takes_little_is_there_and_who_takes_nothing_is_not(
        self, world: SshWorld, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The question waits behind what a slow line has not taken; no answer comes in time."""
        async with inside(world) as (_, client):
            there = only_door(world)
            waits = 1_000_000
            monkeypatch.setattr(there._wire, "waiting", lambda: waits)

            def due() -> None:
                there._connection._cancel_keepalive_timer()
                there._connection._keepalive_timer_callback()

            for _ in range(3 * server.KEEPALIVE_MOST):
                waits -= 1000
                due()
            for _ in range(server.KEEPALIVE_MOST - 1):
                due()
            assert there._connection._transport is not None
            due()
            assert there._connection._transport is None
            await ended(client)

    async def test_who_may_not_be_asked_is_watched_by_the_kernel(self, world: SshWorld) -> None:
        async with inside(world):
            sock = only_door(world)._wire.get_extra_info("socket")
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60


class TestRequests:
    async def test_they_are_answered_in_their_order(self, world: SshWorld) -> None:
        """Also while the sandbox wakes, and a port that nobody listens on is no reason to end."""
        world.reach.hold = asyncio.Event()
        async with inside(world) as (connection, _):
            listen = (b"tcpip-forward", String("127.0.0.1"), UInt32(0))
            nobody = (b"cancel-tcpip-forward", String("127.0.0.1"), UInt32(1))
            alive = (b"keepalive@openssh.com",)
            asked = [
                asyncio.ensure_future(connection._make_global_request(*request))
                for request in (listen, alive, nobody, (b"nonsense",), listen, alive)
            ]
            await asyncio.sleep(0)
            world.reach.hold.set()
            world.reach.hold = None
            async with asyncio.timeout(20):
                answers = await asyncio.gather(*asked)
            assert [kind == 81 for kind, _ in answers] == [True, True, False, False, True, True]
            ports = {answers[n][1].get_uint32() for n in (0, 4)}
            assert len(ports) == 2

    async def test_who_wants_no_more_sessions_gets_none(self, world: SshWorld) -> None:
        async with inside(world) as (connection, _):
            async with connection.create_process("cat") as first:
                await connection._make_global_request(b"no-more-sessions@openssh.com")
                with pytest.raises(asyncssh.ChannelOpenError, match="no more"):
                    await connection.run("true")
                first.stdin.write_eof()  # those that it has go on
                assert (await first.wait()).exit_status == 0
            _, writer = await connection.open_connection("127.0.0.1", world.port)  # no session
            writer.close()

    async def test_those_that_wait_are_bounded(self, world: SshWorld) -> None:
        world.reach.hold = asyncio.Event()
        try:
            async with inside(world) as (connection, client):
                ask(connection, "tcpip-forward", String("127.0.0.1"), UInt32(0))
                for _ in range(requests.MOST_WAITING):
                    ask(connection, "keepalive@openssh.com")
                assert "too many requests wait" in await ended(client)
        finally:
            world.reach.hold.set()
            world.reach.hold = None

    async def test_ports_come_and_go_without_an_end(self, world: SshWorld) -> None:
        async with inside(world) as (connection, _):
            for _ in range(80):
                listener = await connection.forward_remote_port("127.0.0.1", 0, "127.0.0.1", 9)
                listener.close()
                await listener.wait_closed()


class TestChannelsBack:
    async def test_they_are_counted_with_all_others_and_counted_off(
        self, world: SshWorld, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(door, "MOST_CHANNELS", 3)
        arrived: list[asyncio.StreamWriter] = []

        async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            arrived.append(writer)
            writer.write(b"hello\n")

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server, inside(world) as (connection, _):
            listener = await connection.forward_remote_port("127.0.0.1", 0, "127.0.0.1", port)
            place = ("127.0.0.1", listener.get_port())
            came = [await asyncio.open_connection(*place) for _ in range(3)]
            for reader, _ in came:
                assert await reader.readline() == b"hello\n"
            reader, fourth = await asyncio.open_connection(*place)
            assert await reader.read() == b""
            fourth.close()
            with pytest.raises(asyncssh.ChannelOpenError, match="too many channels"):
                await connection.run("true")
            for _, writer in came:
                writer.close()
            for writer in arrived:
                writer.close()
            await holds(lambda: not only_door(world)._channels)
            assert (await connection.run("true")).exit_status == 0

    async def test_a_sandbox_is_given_no_other(self, world: SshWorld) -> None:
        """Whatever it asks for: the agent, the screen, a session, or nothing that there is."""
        async with inside(world) as (connection, _):
            await connection.run("true")
            there = only_door(world)
            refused: list[int] = []
            there._inside.send_channel_open_failure = lambda number, *_: refused.append(number)
            for number, kind in enumerate(("auth-agent@openssh.com", "x11", "session", "nonsense")):
                asks = String(kind) + UInt32(number) + UInt32(1) + UInt32(1)
                there._led_back(there._inside, asks)
            assert refused == [0, 1, 2, 3]


class TestGuesses:
    async def test_those_at_once_are_no_more_than_may_be_tried(self, world: SshWorld) -> None:
        world.house.passwords = Guesses(ManualClock(), free=3, longest=10)
        asked = await _guess(world, 20)
        assert asked == ["wrong"] * 3

    async def test_the_same_by_address(self, world: SshWorld) -> None:
        world.house.sources = Guesses(ManualClock(), free=3, longest=10)
        asked = await _guess(world, 20)
        assert asked == ["wrong"] * 3

    async def test_who_does_not_wait_for_the_answer_has_tried(
        self, world: SshWorld, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A login that is begun takes the one before back, but not what it has cost."""
        asked = 0

        async def opens(_shown: object) -> bool:
            nonlocal asked
            asked += 1
            await asyncio.sleep(3600)
            return False

        monkeypatch.setattr(world.doorway, "key_opens", opens)
        monkeypatch.setattr(world.doorway, "password_opens", opens)
        key = asyncssh.generate_private_key("ssh-ed25519")
        for method, about, most in (
            (b"publickey", Boolean(False) + String(key.algorithm) + String(key.public_data),
             door.MOST_KEYS),
            (b"password", Boolean(False) + String("wrong"), door.MOST_PASSWORDS),
        ):  # fmt: skip
            asked = 0
            with pytest.raises(asyncssh.DisconnectError, match="too many"):
                await asyncssh.create_connection(
                    partial(Hasty, method, about),
                    "127.0.0.1",
                    world.port,
                    username=SANDBOX,
                    known_hosts=None,
                    config=None,
                    agent_path=None,
                    client_keys=None,
                )
            assert asked <= most

    async def test_names_that_no_sandbox_has_count_too(self, world: SshWorld) -> None:
        """They are what most tries of strangers are made with."""
        world.house.sources = Guesses(ManualClock(), free=2, longest=10)
        for _ in range(2):
            with pytest.raises(asyncssh.Error):
                await connected(world, username="root", client_keys=None, password="toor")
            await holds(lambda: not len(world.house.places))
        assert world.house.refusal("127.0.0.1") is not None

    async def test_who_only_looks_whether_somebody_listens_is_no_guesser(
        self, world: SshWorld
    ) -> None:
        """A balancer's looks would shut everybody out who comes through it; to begin and leave counts."""
        world.house.sources = Guesses(world.house.clock, free=2, longest=10)
        for _ in range(10):
            _, writer = await _arrives(world, "127.0.0.1")
            writer.close()
            await holds(lambda: not len(world.house.places))
        assert len(world.house.sources) == 0
        with pytest.raises(asyncssh.PermissionDenied):
            await connected(world, client_keys=None)
        await holds(lambda: not len(world.house.places))
        assert len(world.house.sources) == 1

    async def test_a_right_password_costs_nothing(self, world: SshWorld) -> None:
        world.house.passwords = Guesses(ManualClock(), free=1, longest=10)
        world.house.sources = Guesses(ManualClock(), free=1, longest=10)
        for _ in range(3):
            connection, _ = await connected(world, client_keys=None, password=PASSWORD)
            connection.abort()
            await connection.wait_closed()
        assert len(world.house.passwords) == len(world.house.sources) == 0

    async def test_nor_does_it_where_others_have_failed_before(self, world: SshWorld) -> None:
        clock = ManualClock()
        world.house.passwords = Guesses(clock, free=2, longest=10)
        world.house.sources = Guesses(clock, free=2, longest=10)
        for _ in range(3):
            world.house.passwords.failed(SANDBOX)
            world.house.sources.failed("127.0.0.1")
        assert world.house.refusal("127.0.0.1") is not None
        clock.advance(2)
        for options in ({"client_keys": None, "password": PASSWORD}, {}) * 3:
            connection, _ = await connected(world, **options)  # type: ignore[arg-type]
            connection.abort()
            await connection.wait_closed()
            assert world.house.refusal("127.0.0.1") is None

    async def test_a_platform_that_is_silent_puts_nobody_off(self, world: SshWorld) -> None:
        world.doorway.failure = Unavailable("the api is away")
        try:
            for options in ({}, {"client_keys": None, "password": PASSWORD}):
                with pytest.raises(asyncssh.DisconnectError, match="does not answer at the moment"):
                    await connected(world, **options)
        finally:
            world.doorway.failure = None
        await holds(lambda: not len(world.house.places))
        assert len(world.house.passwords) == len(world.house.sources) == 0


class TestStrangers:
    async def test_addresses_that_are_full_keep_nobody_out(self, world: SshWorld) -> None:
        world.house.strangers = Strangers(world.house.clock, most=6, most_of_source=3)
        held = []
        for source in ("127.0.0.2", "127.0.0.3"):
            for _ in range(3):
                held.append(await _arrives(world, source))
        async with inside(world) as (connection, _):
            assert (await connection.run("echo in")).stdout == "in\n"
            reader, _ = held[0]
            async with asyncio.timeout(20):
                assert b"others wait to log in" in await reader.read()
            _, one = await _arrives(world, "127.0.0.4")  # in the room that was made, and left
            one.close()
        for _, writer in held:
            writer.close()

    async def test_one_address_cannot_hold_all(self, world: SshWorld) -> None:
        world.house.strangers = Strangers(ManualClock(), most=6, most_of_source=2)
        held = [await _arrives(world, "127.0.0.2") for _ in range(2)]
        reader, third = await asyncio.open_connection(
            "127.0.0.1", world.port, local_addr=("127.0.0.2", 0)
        )
        assert b"too many from your address have not logged in yet" in await reader.read()
        for _, writer in (*held, (reader, third)):
            writer.close()


async def _arrives(
    world: SshWorld, source: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Somebody who says nothing."""
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port, local_addr=(source, 0))
    assert (await reader.readline()).startswith(b"SSH-2.0-")
    return reader, writer


async def _guess(world: SshWorld, times: int) -> list[str]:
    """Wrong passwords, each over a connection of its own, all at once; those that were asked about."""
    asked: list[str] = []
    doorway = world.doorway
    everybody = asyncio.Event()

    async def opens(shown: PasswordShown) -> bool:
        asked.append(shown.password)
        await everybody.wait()
        return False

    doorway.password_opens = opens  # type: ignore[method-assign]
    try:
        tries = [
            asyncio.create_task(connected(world, client_keys=None, password="wrong"))
            for _ in range(times)
        ]
        await holds(lambda: len(asked) >= 3)
        everybody.set()
        results = await asyncio.gather(*tries, return_exceptions=True)
    finally:
        del doorway.password_opens  # type: ignore[method-assign]
    assert all(isinstance(one, asyncssh.Error | OSError) for one in results), results
    await holds(lambda: not len(world.house.places))
    return asked
