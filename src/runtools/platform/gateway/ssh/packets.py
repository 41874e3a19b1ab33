"""What an SSH connection of asyncssh sends and takes, looked at before it does.

Some packets are taken in asyncssh's place. And while keys are exchanged, a connection may send nothing
else and keeps what there is to be sent: for as long as the other side likes, and as much as there is. So
nothing is read that would have to be sent there, and what answers the other side itself has a bound; so has
what comes while that side exchanges keys, too, and has to be read for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from asyncssh import DisconnectError
from asyncssh.constants import MSG_IGNORE, MSG_KEX_LAST, MSG_KEXINIT, MSG_NEWKEYS
from asyncssh.packet import PacketDecodeError, SSHPacket

from runtools.platform.gateway.ssh.wires import EXCHANGE, Wire

# Bytes that may wait for an exchange of keys to end: what is on its way when both sides begin one at once
# is no misbehaviour, and a channel of OpenSSH alone may send two megabytes.
MOST_KEPT = 4 * 1024 * 1024
_EACH = 256  # what a packet takes beside its own bytes, or nearly

# Is given what comes after the kind, and what has asyncssh go on with it later; whether it was taken.
Taker = Callable[[bytes, Callable[[], object]], bool]


class Packets:
    """Stands before a connection's `send_packet` and `process_packet`.

    Args:
        wire: its transport.
        takers: who is asked first, by the kind of a packet that came.
        end: ends the connection, with a sentence.
    """

    def __init__(
        self,
        connection: Any,
        wire: Wire,
        takers: Mapping[int, Taker],
        end: Callable[[str], None],
    ) -> None:
        self._wire = wire
        self._takers = takers
        self._end = end
        self._exchanging = self._is_over = False
        self._kept = 0
        self._send, self._process = connection.send_packet, connection.process_packet
        connection.send_packet, connection.process_packet = self.send, self.process

    def send(self, kind: int, *args: bytes, handler: Any = None) -> None:
        """Send, or keep for later."""
        if kind == MSG_IGNORE or self._is_over:
            return  # asyncssh sends one before each packet, for the sake of ciphers that we do not offer
        if kind == MSG_KEXINIT:
            self._exchanging = True
            self._wire.block(EXCHANGE)
        elif self._exchanging and kind > MSG_KEX_LAST:
            self._kept += _EACH + sum(map(len, args))
            if self._kept > MOST_KEPT:
                self._end("too much waits for an exchange of keys to end")
                self._is_over = True
                return
        self._send(kind, *args, handler=handler)
        if kind == MSG_NEWKEYS:
            self._exchanging, self._kept = False, 0
            self._wire.unblock(EXCHANGE)

    def process(self, kind: int, number: int, packet: SSHPacket) -> Any:
        """Take it, or have asyncssh do so."""
        taker = self._takers.get(kind)
        if taker is None:
            return self._process(kind, number, packet)

        def go_on() -> None:
            try:
                self._process(kind, number, packet)
            except (PacketDecodeError, DisconnectError) as error:
                self._end(f"that request cannot be read: {error}")

        return taker(packet.get_full_payload()[1:], go_on) or self._process(kind, number, packet)
