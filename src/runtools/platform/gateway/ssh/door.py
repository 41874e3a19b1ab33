"""One connection of a client: who it is, and what it asks for once it is in."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import asyncssh
from asyncssh.constants import (
    DISC_BY_APPLICATION,
    DISC_NO_MORE_AUTH_METHODS_AVAILABLE,
    DISC_PROTOCOL_ERROR,
    DISC_TOO_MANY_CONNECTIONS,
    MSG_CHANNEL_OPEN,
    MSG_GLOBAL_REQUEST,
    MSG_KEXINIT,
    MSG_REQUEST_FAILURE,
    MSG_REQUEST_SUCCESS,
    MSG_USERAUTH_REQUEST,
    OPEN_ADMINISTRATIVELY_PROHIBITED,
    OPEN_RESOURCE_SHORTAGE,
)
from asyncssh.packet import SSHPacket, String, UInt32

from runtools.errors import RunToolsError, Unavailable
from runtools.platform.core.ids import is_sandbox_id
from runtools.platform.core.ports.doorway import Entering, KeyShown, PasswordShown, Visit
from runtools.platform.gateway.ssh import upstream
from runtools.platform.gateway.ssh.channels import SESSION, Asker, Giver, refused
from runtools.platform.gateway.ssh.house import House
from runtools.platform.gateway.ssh.packets import Packets, Taker
from runtools.platform.gateway.ssh.requests import Requests
from runtools.platform.gateway.ssh.strangers import PATIENCE_SECONDS
from runtools.platform.gateway.ssh.wires import ClientWire, SandboxWire
from runtools.platform.kit import rates

log = logging.getLogger(__name__)

MOST_KEYS, MOST_PASSWORDS, MOST_TRIES = 10, 6, 64  # of one connection, the last ones of any kind
MOST_CHANNELS = 256
_MOST_PASSWORD = 1024
_GRACE_SECONDS = 2.0
_KNOWN_SECONDS, _ASK_SECONDS = 2.0, 0.25
_LEADING_BACK = (b"forwarded-tcpip", b"forwarded-streamlocal@openssh.com")
_AGENT = b"auth-agent@openssh.com"
_SILENT = "the platform does not answer at the moment; try again"
_FAILED = "the platform failed to let you in; its log says why"


class Door(asyncssh.SSHServer):
    """What asyncssh asks about one connection."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._connection: Any = None
        self._wire: ClientWire  # from here on: once somebody is there
        self._requests: Requests
        self._source = self._network = ""
        self._keys = self._passwords = self._tries = self._exchanges = 0
        self._is_blamed = True  # for having come without logging in ...
        self._is_judged = False  # ... unless its passwords were looked at one by one
        self._came_at = house.clock.monotonic()
        self._shown: Visit | None = None
        self.visit: Visit | None = None
        self._has_room = self._ending = self._is_limited = False
        self._stream: SandboxWire | None = None
        self._entering: asyncio.Task[asyncssh.SSHClientConnection] | None = None
        self._channels: set[Asker] = set()
        self._gone = asyncio.Event()
        self._taken = 0

    # --- who it is ---

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        """Somebody is there."""
        self._connection = conn
        self._wire = conn.get_extra_info("wire")
        self._source = self._wire.source
        self._network = rates.source(self._source)
        self._requests = Requests(conn, self._misbehaved)
        takers: dict[int, Taker] = {
            MSG_KEXINIT: self._keys_exchanged,
            MSG_USERAUTH_REQUEST: self._tried,
            MSG_GLOBAL_REQUEST: self._requests.came,
        }
        Packets(conn, self._wire, takers, self._misbehaved)
        # asyncssh hears nothing but answers, and has no other place to tell it more.
        self._ask = self._connection._keepalive_timer_callback  # noqa: SLF001
        self._connection._keepalive_timer_callback = self._ask_whether_there  # noqa: SLF001

    def _ask_whether_there(self) -> None:
        """The question waits behind all else that is to be sent: who takes some of that is there."""
        taken = self._wire.taken()
        if self._wire.waiting() and taken > self._taken:
            self._connection._keepalive_count = 0  # noqa: SLF001 - as an answer does
        self._taken = taken
        self._ask()

    def _keys_exchanged(self, _payload: bytes, _go_on: object) -> bool:
        """Who has not logged in has no reason to have the same work done again and again."""
        self._exchanges += 1
        return self._enough(
            self._exchanges > 1 and self._is_blamed, "log in before you exchange keys again"
        )

    def _tried(self, _payload: bytes, _go_on: object) -> bool:
        """Whatever is tried, and however its answer is waited for, is counted."""
        self._tries += 1
        return self._enough(self._tries > MOST_TRIES, "too many logins were tried")

    def public_key_auth_supported(self) -> bool:
        """Keys are."""
        return True

    def password_auth_supported(self) -> bool:
        """Passwords are, for every name: whether there is one is told to nobody."""
        return True

    async def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        """Whether a key opens. Asked before its owner has proven to have it, and again after."""
        self._shown = None
        self._keys += 1  # before it is asked: who does not wait for the answer has tried it, too
        if self._enough(
            self._keys > MOST_KEYS, "too many keys were tried; name the right one: ssh -i"
        ):
            return False
        shown = KeyShown(sandbox_id=username[:64], fingerprint=key.get_fingerprint())
        if not is_sandbox_id(username) or not await self._opens(
            self._house.doorway.key_opens(shown)
        ):
            return False
        self._keys -= 1
        self._shown = Visit(sandbox_id=username, fingerprint=shown.fingerprint)
        return True

    async def validate_password(self, username: str, password: str) -> bool:
        """Whether a password opens."""
        self._shown = None
        self._passwords += 1
        if self._enough(self._passwords > MOST_PASSWORDS, "too many wrong passwords"):
            return False
        if not is_sandbox_id(username) or len(password) > _MOST_PASSWORD:
            return False
        shown = PasswordShown(sandbox_id=username, password=password, source=self._source[:64])
        async with self._house.checking:
            opens = await self._fits(shown)
        if opens:
            self._shown = Visit(sandbox_id=username)
        return opens

    async def _fits(self, shown: PasswordShown) -> bool:
        """Ask, where one may try. It counts as wrong until it is known to be right, and then not at all.

        While nobody may try, nothing is learnt and nothing counted: else anybody could keep it so.
        """
        sources, passwords = self._house.sources, self._house.passwords
        self._is_judged = True
        if refusal := self._house.refusal(self._network):
            self._enough(True, refusal)
            return False
        if passwords.wait(shown.sandbox_id):
            return False
        with passwords.trying(shown.sandbox_id) as one, sources.trying(self._network) as other:
            opens = await self._opens(self._house.doorway.password_opens(shown))
            one.is_failure = other.is_failure = self._is_blamed and not opens
        return opens

    async def _opens(self, asking: Awaitable[bool]) -> bool:
        try:
            return await asking
        except Unavailable as error:
            log.warning("cannot ask whom to let in: %s", error)
            self._is_blamed = False
            self._leave(DISC_BY_APPLICATION, _SILENT)
            return False

    def _enough(self, is_enough: bool, sentence: str) -> bool:
        if is_enough:
            self._leave(DISC_NO_MORE_AUTH_METHODS_AVAILABLE, sentence)
        return is_enough

    def auth_completed(self) -> None:
        """It is who it says: let it in."""
        visit = self._shown
        if visit is None or visit.sandbox_id != self._connection.get_extra_info("username"):
            self._leave(DISC_BY_APPLICATION, "that login cannot be told from another one")
            return
        self._is_blamed = False
        self._house.strangers.leave(self._wire)
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
        if self._is_blamed and not self._is_judged and not self._only_looked:
            self._house.sources.failed(self._network)
        if self._has_room and self.visit is not None:
            self._house.rooms.leave(self.visit.sandbox_id)
        if self._entering is not None:
            self._entering.cancel()
            if self._inside is not None:
                self._inside.abort()  # without a word: it might wake who sleeps

    @property
    def _only_looked(self) -> bool:
        """It has left at once and without a word: a balancer, say, that looks whether somebody listens."""
        here = self._house.clock.monotonic() - self._came_at
        return not self._exchanges and here < PATIENCE_SECONDS

    # --- into the sandbox ---

    async def _enter(self, visit: Visit) -> asyncssh.SSHClientConnection:
        """Log in there for it; who cannot be let in is told why and sent away."""
        house, keys = self._house, self._house.keys
        who = visit.fingerprint or "password"
        try:
            entry = await house.doorway.enter(
                Entering(visit=visit, source=self._source[:64], authority=keys.authority_line)
            )
            self._is_limited = not entry.wakes
            inside = await upstream.connect(
                house.reach,
                keys,
                visit.sandbox_id,
                entry.host_keys,
                who,
                self._wire,
                house.streams,
                agents=house.agents,
                wakes=entry.wakes,
                made=self._watch,
                lost=self._lost,
            )
        except RunToolsError as error:
            self._leave(DISC_BY_APPLICATION, str(error))
            raise refused(str(error)) from error
        except Exception as error:
            # Whatever it was: else the client would wait for its channels for ever.
            log.exception("cannot let somebody into %s", visit.sandbox_id)
            self._leave(DISC_BY_APPLICATION, _FAILED)
            raise refused(_FAILED) from error
        self._requests.entered(inside)
        return inside

    def _watch(self, inside: asyncssh.SSHClientConnection, wire: SandboxWire) -> None:
        takers: dict[int, Taker] = {
            MSG_CHANNEL_OPEN: lambda payload, _: self._led_back(inside, payload),
            MSG_REQUEST_SUCCESS: partial(self._answered, MSG_REQUEST_SUCCESS),
            MSG_REQUEST_FAILURE: partial(self._answered, MSG_REQUEST_FAILURE),
        }
        Packets(inside, wire, takers, self.end)
        self._stream = wire
        if self._is_limited:
            self.limit()

    def limit(self) -> None:
        """What is said to the sandbox from now on has the api wake it."""
        self._is_limited = True
        if self._stream is not None and self.visit is not None:
            self._stream.limit(partial(self._house.waking.waken, self.visit), self.end)

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
                for over in (await self._house.doorway.ended([visit])).over:
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

    def _misbehaved(self, sentence: str) -> None:
        self._leave(DISC_PROTOCOL_ERROR, sentence)

    def _leave(self, code: int, sentence: str) -> None:
        if not self._gone.is_set():
            self._connection.disconnect(code, sentence, "en")

    # --- what it asks for ---

    def session_requested(self) -> Any:
        """A shell, a command, sftp."""
        if self._requests.bars_sessions:
            raise refused("it wanted no more of them", OPEN_ADMINISTRATIVELY_PROHIBITED)
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

    def _led_back(self, inside: Any, payload: bytes) -> bool:
        """The sandbox asks for a channel to the client: for who came to a port of ``-R``, or the agent."""
        packet = SSHPacket(payload)
        kind = packet.get_string()
        number, window, most = packet.get_uint32(), packet.get_uint32(), packet.get_uint32()
        if not most:
            return False  # asyncssh ends who sends that
        try:
            if kind not in _LEADING_BACK and not (kind == _AGENT and self._house.agents):
                raise refused("that is not forwarded", OPEN_ADMINISTRATIVELY_PROHIBITED)
            about = packet.get_remaining_payload()
            channel = self._counted(
                inside, kind, about, lambda asker: self._open(asker, self._connection)
            )
        except asyncssh.ChannelOpenError as error:
            inside.send_channel_open_failure(number, error.code, error.reason, error.lang)
        else:
            channel.process_open(number, window, most, None)
        return True

    def _answered(self, kind: int, payload: bytes, _go_on: object) -> bool:
        return self._requests.answered(kind, payload)

    def _channel(self, kind: bytes, about: bytes) -> tuple[Asker, None]:
        return self._counted(self._connection, kind, about, self._begin), None

    def _counted(
        self, connection: Any, kind: bytes, about: bytes, begin: Callable[[Asker], None]
    ) -> Asker:
        if len(self._channels) >= MOST_CHANNELS or self._ending:
            raise refused("too many channels are open", OPEN_RESOURCE_SHORTAGE)
        channel = Asker(connection, kind, about, begin, self._channels.discard)
        self._channels.add(channel)
        return channel

    def _begin(self, channel: Asker) -> None:
        inside = self._inside
        if inside is not None:
            self._open(channel, inside)
        else:
            self._house.spawn(self._open_later(channel), "opening a channel")

    async def _open_later(self, channel: Asker) -> None:
        try:
            self._open(channel, await self._upstream())
        except asyncssh.ChannelOpenError as error:
            if not self._gone.is_set():
                channel.refuse(error.reason)

    def _open(self, channel: Asker, connection: Any) -> None:
        try:
            Giver(connection).open(channel)
        except asyncssh.ChannelOpenError as error:
            channel.refuse(error.reason)
