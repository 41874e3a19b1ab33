"""What dev URLs are called: ``{port}-{sandboxId}`` below a domain of their own."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from runtools.guest.protocol import PORT as AGENT_PORT

SSH_PORT = 22
LINK = "runtools-link"
"""The parameter of an address that opens it."""
_LABEL = re.compile(r"([1-9][0-9]{0,4})-(sandbox-[a-z0-9]{12})")
_USUAL = {"http": 80, "https": 443}


def is_open(port: int) -> bool:
    """Whether a port may have a URL: any but SSH's and the guest agent's."""
    return 0 < port < 1 << 16 and port not in (SSH_PORT, AGENT_PORT)


@dataclass(frozen=True, slots=True)
class DevUrls:
    """The names below one base address, e.g. ``https://sandboxes.example.com``.

    Attributes:
        scheme: ``http`` or ``https``, as browsers see it.
        domain: what follows the label.
        port: where browsers connect to.
    """

    scheme: str
    domain: str
    port: int

    @classmethod
    def of(cls, base: str) -> DevUrls:
        """Those below an address that the settings have checked."""
        parts = urlsplit(base)
        assert parts.hostname is not None  # noqa: S101 - see above
        return cls(parts.scheme, parts.hostname, parts.port or _USUAL[parts.scheme])

    @property
    def authority(self) -> str:
        """What follows the label and its dot."""
        return self.domain if self.port == _USUAL[self.scheme] else f"{self.domain}:{self.port}"

    def url(self, sandbox_id: str, port: int) -> str:
        """The address of a port."""
        return f"{self.scheme}://{port}-{sandbox_id}.{self.authority}"

    def place(self, host: str) -> tuple[str, int] | None:
        """The sandbox and port that a ``Host`` names; None: neither is named by it.

        The port that it was connected to is not looked at: a proxy before the gateway has another.
        """
        name, _, number = host.lower().partition(":")
        label, dot, domain = name.partition(".")
        found = _LABEL.fullmatch(label)
        if (
            found is None
            or not dot
            or domain != self.domain
            or (number and not (number.isascii() and number.isdigit()))
        ):
            return None
        port = int(found[1])
        return (found[2], port) if is_open(port) else None

    @property
    def keeps_secure_cookies(self) -> bool:
        """Whether browsers keep cookies there that are marked as secure."""
        return self.scheme == "https" or self.domain.endswith(".localhost")
