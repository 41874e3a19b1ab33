"""Names of what belongs to one installation, so that each reclaims only its own. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from runtools.platform.core.ports.driver import Slot

TAP = "tap0"
UPLINK = "out"  # the namespace's end of the cable to the host


@dataclass(frozen=True, slots=True)
class Names:
    """Names by install id."""

    install_id: str

    @property
    def table(self) -> str:
        """The firewall table of the host."""
        return f"runtools_{self.install_id}"

    @property
    def veths(self) -> str:
        """All of the host's ends of cables, as nftables matches interface names."""
        return f"rt{self.install_id}*"

    def namespace(self, index: int) -> str:
        """The namespace of a slot."""
        return f"rt-{self.install_id}-{index}"

    def veth(self, index: int) -> str:
        """The host's end of a slot's cable."""
        return f"rt{self.install_id}{index}"

    def slot(self, index: int) -> Slot:
        """The slot of that number."""
        return Slot(namespace=self.namespace(index), tap=TAP, index=index)

    def index_of(self, name: str) -> int | None:
        """The number in the name of a namespace or a cable of ours; None for any other name."""
        match = re.fullmatch(rf"rt(?:-{self.install_id}-|{self.install_id})(\d+)", name)
        return int(match[1]) if match else None
