"""Which hosts there are, and the port to each."""

from __future__ import annotations

from collections.abc import Mapping

from runtools.errors import HostUnavailable
from runtools.platform.core.ports.host import Host


class Hosts:
    """The hosts of this platform by id. Boot fills it; records name a host by this id."""

    def __init__(self, hosts: Mapping[str, Host]) -> None:
        self._hosts = dict(hosts)

    @property
    def ids(self) -> tuple[str, ...]:
        """Every host's id, the first enrolled first."""
        return tuple(self._hosts)

    @property
    def first(self) -> str:
        """Where new templates are built. With several hosts this becomes a choice."""
        return next(iter(self._hosts))

    def port(self, host_id: str) -> Host:
        """The host of that id.

        Raises:
            HostUnavailable: a record names a host that this platform does not have.
        """
        try:
            return self._hosts[host_id]
        except KeyError:
            raise HostUnavailable(
                f"host {host_id} is not part of this platform any more",
                hint="start it again, or destroy what ran on it",
            ) from None
