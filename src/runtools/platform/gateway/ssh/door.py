"""One connection of a client: who it is, and what it asks for once it is in."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from typing import Any

import asyncssh
from asyncssh.constants import (
    DISC_BY_APPLICATION,
    DISC_NO_MORE_AUTH_METHODS_AVAILABLE,
    DISC_TOO_MANY_CONNECTIONS,
    OPEN_RESOURCE_SHORTAGE,
)
from asyncssh.packet import String, UInt32

from runtools.errors import RunToolsError, Unavailable
from runtools.platform.core.ids import is_sandbox_id
from runtools.platform.core.ports.doorway import Entering, KeyShown, PasswordShown, Visit
from runtools.platform.gateway.ssh import upstream
from runtools.platform.gateway.ssh.channels import SESSION, Inner, Outer, refused
from runtools.platform.gateway.ssh.house import House
from runtools.platform.gateway.ssh.wires import ClientWire
from runtools.platform.kit import rates

log = logging.getLogger(__name__)

MOST_KEYS, MOST_PASSWORDS = 10, 6  # that one connection may try
MOST_CHANNELS, MOST_LISTENERS = 256, 64
_MOST_PASSWORD = 1024
_GRACE_SECONDS = 2.0
_KNOWN_SECONDS, _ASK_SECONDS = 2.0, 0.25
_SILENT = "the platform does not answer at the moment; try again"


class Door(asyncssh.SSHServer):
    """What asyncssh asks about one connection."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._connection: Any = None
        self._wire: ClientWire | None = None
        self._source = self._network = ""
        self._keys = self._passwords = 0
        self._shown: Visit | None = None
        self.visit: Visit | None = None
        self._has_room = self._ending = False
        self._entering: asyncio.Task[asyncssh.SSHClientConnection] | None = None
        self._channels: set[Outer] = set()
        self._listeners = 0
        self._gone = asyncio.Event()

    # --- who it is ---

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        """Somebody is there."""
        self._connection = conn
        self._wire = conn.get_extra_info("wire")
        self._source = str(conn.get_extra_info("peername")[0])
        self._network = rates.source(self._source)

    def public_key_auth_supported(self) -> bool:
        """Keys are."""
        return True

    def password_auth_supported(self) -> bool:
        """Passwords are, for every name: whether there is one is told to nobody."""
        return True

    async def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        """Whether a key opens. Asked before its owner has proven to have it, and again after."""
        shown = KeyShown(sandbox_id=username[:64], fingerprint=key.get_fingerprint())
        self._shown = None
        if is_sandbox_id(username) and await self._opens(self._house.doorway.key_opens(shown)):
            self._shown = Visit(sandbox_id=username, fingerprint=shown.fingerprint)
            return True
        self._keys += 1
        self._enough(
            self._keys >= MOST_KEYS, "too many keys were tried; name the right one: ssh -i"
        )
        return False

    async def validate_password(self, username: str, password: str) -> bool:
        """Whether a password opens."""
        self._shown = None
        name, passwords = username[:64], self._house.passwords
        may_try = is_sandbox_id(username) and len(password) <= _MOST_PASSWORD
        if may_try and not passwords.wait(name):
            shown = PasswordShown(sandbox_id=name, password=password, source=self._source[:64])
            async with self._house.checking:
                opens = await self._opens(self._house.doorway.password_opens(shown))
            if opens:
                self._shown = Visit(sandbox_id=name)
                return True
            passwords.failed(name)
            self._house.sources.failed(self._network)
        # While nobody may try, nothing is learnt and nothing counted: else anybody could keep it so.
        self._passwords += 1
        self._enough(self._passwords >= MOST_PASSWORDS, "too many wrong passwords")
        return False

    async def _opens(self, asking: Awaitable[bool]) -> bool:
        try:
            return await asking
        except Unavailable as error:
            log.warning("cannot ask whom to let in: %s", error)
            self._passwords = self._keys = 0
            self._leave(DISC_BY_APPLICATION, _SILENT)
            return False

    def _enough(self, is_enough: bool, sentence: str) -> None:
        if is_enough:
            self._leave(DISC_NO_MORE_AUTH_METHODS_AVAILABLE, sentence)

    def auth_completed(self) -> None:
        """It is who it says: let it in."""
        visit = self._shown
        if visit is None or visit.sandbox_id != self._connection.get_extra_info("username"):
            self._leave(DISC_BY_APPLICATION, "that login cannot be told from another one")
            return
        self._has_room = self._house.rooms.take(visit.sandbox_id)
        if not self._has_room:
            self._leave(DISC_TOO_MANY_CONNECTIONS, f"too many are logged in at {visit.sandbox_id}")
            return
        self.visit = visit
        self._house.inside.add(self)
        self._entering = self._house.spawn(self._enter(visit), f"entering {visit.sandbox_id}")

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self._gone.set()
        self._house.inside.discard(self)
        if self.visit is None and not self._passwords:  # who came and tried nothing, too
            self._house.sources.failed(self._network)
        if self._has_room and self.visit is not None:
            self._house.rooms.leave(self.visit.sandbox_id)
        if self._entering is not None:
            self._entering.cancel()
            if self._inside is not None:
                self._inside.close()

    # --- into the sandbox ---

    async def _enter(self, visit: Visit) -> asyncssh.SSHClientConnection:
        """Log in there for it; who cannot be let in is told why and sent away."""
        house, keys = self._house, self._house.keys
        who = visit.fingerprint or "password"
        try:
            entry = await house.doorway.enter(
                Entering(visit=visit, source=self._source[:64], authority=keys.authority_line)
            )
            assert self._wire is not None  # noqa: S101 - it came by one
            return await upstream.connect(
                house.reach, keys, visit.sandbox_id, entry.host_keys, who, self._wire, self._lost
            )
        except RunToolsError as error:
            self._leave(DISC_BY_APPLICATION, str(error))
            raise refused(str(error)) from error

    @property
    def _inside(self) -> asyncssh.SSHClientConnection | None:
        task = self._entering
        if task is None or not task.done() or task.cancelled() or task.exception() is not None:
            return None
        return task.result()

    async def _upstream(self) -> asyncssh.SSHClientConnection:
        assert self._entering is not None  # noqa: S101 - nothing is asked for before the login
        return await asyncio.shield(self._entering)

    def _lost(self) -> None:
        """The sandbox's end of it is gone."""
        if not self._gone.is_set() and not self._ending and self.visit is not None:
            self._house.spawn(self._say_why(self.visit), f"asking why {self.visit.sandbox_id} left")

    async def _say_why(self, visit: Visit) -> None:
        """A machine that ends takes its connections along a moment before its end is known."""
        clock = self._house.clock
        until = clock.monotonic() + _KNOWN_SECONDS
        sentence = None
        try:
            while sentence is None and clock.monotonic() < until and not self._gone.is_set():
                for over in await self._house.doorway.ended([visit]):
                    sentence = over.because
                if sentence is None:
                    await clock.sleep(_ASK_SECONDS)
        except RunToolsError as error:
            log.warning("cannot ask why %s left: %s", visit.sandbox_id, error)
        self.end(sentence or f"the connection into {visit.sandbox_id} broke off")

    def end(self, sentence: str) -> None:
        """Say why, and end."""
        if not self._ending:
            self._ending = True
            self._house.spawn(self._end(sentence), "ending a visit")

    async def _end(self, sentence: str) -> None:
        said = [channel.say_and_close(sentence) for channel in list(self._channels)]
        if any(said):
            try:
                async with asyncio.timeout(_GRACE_SECONDS):
                    await self._gone.wait()
            except TimeoutError:
                pass
        self._leave(DISC_BY_APPLICATION, sentence)

    def _leave(self, code: int, sentence: str) -> None:
        if not self._gone.is_set():
            self._connection.disconnect(code, sentence, "en")

    # --- what it asks for ---

    def session_requested(self) -> Any:
        """A shell, a command, sftp."""
        return self._channel(SESSION, b"")

    def connection_requested(
        self, dest_host: str, dest_port: int, orig_host: str, orig_port: int
    ) -> Any:
        """A connection to a port that the sandbox reaches (``-L``, ``-D``)."""
        about = String(dest_host) + UInt32(dest_port) + String(orig_host) + UInt32(orig_port)
        return self._channel(b"direct-tcpip", about)

    def unix_connection_requested(self, dest_path: str) -> Any:
        """A connection to a socket in its file system."""
        return self._channel(
            b"direct-streamlocal@openssh.com", String(dest_path) + String("") + UInt32(0)
        )

    async def server_requested(self, listen_host: str, listen_port: int) -> Any:
        """A port of the sandbox that leads to the client (``-R``)."""
        made: list[asyncssh.SSHListener] = []

        async def arrived(orig_host: str, orig_port: int) -> asyncssh.SSHForwarder:
            port = made[0].get_port() if made else listen_port
            _, peer = await self._connection.create_connection(
                asyncssh.SSHForwarder, listen_host, port, orig_host, orig_port
            )
            return asyncssh.SSHForwarder(peer)

        return await self._listener(
            lambda inside: inside.create_server(arrived, listen_host, listen_port), made
        )

    async def unix_server_requested(self, listen_path: str) -> Any:
        """A socket of the sandbox that leads to the client."""

        async def arrived() -> asyncssh.SSHForwarder:
            _, peer = await self._connection.create_unix_connection(
                asyncssh.SSHForwarder, listen_path
            )
            return asyncssh.SSHForwarder(peer)

        return await self._listener(
            lambda inside: inside.create_unix_server(arrived, listen_path), []
        )

    async def _listener(self, listen: Any, made: list[asyncssh.SSHListener]) -> Any:
        if self._listeners >= MOST_LISTENERS:
            return False
        self._listeners += 1
        try:
            made.append(await listen(await self._upstream()))
        except asyncssh.Error as error:
            log.info("a port could not be listened on: %s", error)
            return False
        return made[0]

    def _channel(self, kind: bytes, about: bytes) -> tuple[Outer, None]:
        if len(self._channels) >= MOST_CHANNELS or self._ending:
            raise refused("too many channels are open", OPEN_RESOURCE_SHORTAGE)
        channel = Outer(self._connection, kind, about, self._begin, self._channels.discard)
        self._channels.add(channel)
        return channel, None

    def _begin(self, channel: Outer) -> None:
        inside = self._inside
        if inside is not None:
            self._open(channel, inside)
        else:
            self._house.spawn(self._open_later(channel), "opening a channel")

    async def _open_later(self, channel: Outer) -> None:
        try:
            self._open(channel, await self._upstream())
        except asyncssh.ChannelOpenError as error:
            if not self._gone.is_set():
                channel.refuse(error.reason)

    def _open(self, channel: Outer, inside: asyncssh.SSHClientConnection) -> None:
        try:
            Inner(inside).open(channel)
        except asyncssh.ChannelOpenError as error:
            channel.refuse(error.reason)
