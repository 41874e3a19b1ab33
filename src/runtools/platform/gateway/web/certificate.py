"""The certificate that dev URLs are served with.

One that takes its place in its files is served from the next connection on: they are renewed every few
weeks, and no connection that is open is to end for that.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from pathlib import Path
from typing import Final

from runtools.errors import InvalidRequest

log = logging.getLogger(__name__)

_AGAIN_SECONDS: Final = 5.0

_Stamp = tuple[tuple[int, int, int] | None, ...]


class Certificate:
    """What connections are encrypted with.

    Args:
        certificate: its file, with the whole chain.
        key: the file of its key; empty: the same.

    Raises:
        InvalidRequest: certificate or key are none, or cannot be read.
    """

    def __init__(self, certificate: str, key: str = "") -> None:
        self._certificate = Path(certificate)
        self._key = Path(key or certificate)
        self._stamp = self._look()
        self._context = self._load()
        self._tried = self._stamp  # in vain, lately
        self._not_before = 0.0  # it is tried again

    def context(self) -> ssl.SSLContext:
        """How a connection that comes now is encrypted.

        While its files are being replaced they may not belong together: then the one before is served on.
        """
        stamp, now = self._look(), asyncio.get_running_loop().time()
        if stamp != self._stamp and (stamp != self._tried or now >= self._not_before):
            try:
                self._context = self._load()
            except InvalidRequest as exc:
                # Who may read them is settled after they are written, perhaps: that changes no stamp.
                self._tried, self._not_before = stamp, now + _AGAIN_SECONDS
                log.warning("the certificate from before is served on: %s", exc)
            else:
                self._stamp = stamp
                log.info("%s has changed, and is served from now on", self._certificate)
        return self._context

    def _look(self) -> _Stamp:
        """What tells that a file is another one; None: there is none."""
        found: list[tuple[int, int, int] | None] = []
        for file in (self._certificate, self._key):
            try:
                seen = file.stat()
            except OSError:
                found.append(None)
            else:
                found.append((seen.st_ino, seen.st_mtime_ns, seen.st_size))
        return tuple(found)

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(self._certificate, self._key, password=_none)
        except OSError as exc:  # of TLS, too
            raise InvalidRequest(
                f"setting gateway_tls_cert: {self._certificate} is no certificate with its key: {exc}",
                hint="a PEM file of the whole chain, and one of its key without a password "
                f"(gateway_tls_key, if it is another), which the gateway, user {os.geteuid()}, can read",
            ) from exc
        return context


def _none() -> str:
    """The password of a key: nobody is there to be asked for one."""
    return ""
