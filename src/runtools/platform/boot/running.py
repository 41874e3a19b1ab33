"""Which machines of a home run now: the kernel says who is there, the home's folders whose they are."""

from __future__ import annotations

from runtools.platform.boot import uids
from runtools.platform.host.drivers.qemu.ending import users_of
from runtools.platform.host.drivers.qemu.place import owner
from runtools.platform.host.engine.places import Places
from runtools.platform.kit.config import Settings

LEFT = 3
"""What `up` and `host --pause-all` end with where machines run on, which they name."""


def machines(settings: Settings) -> list[str]:
    """The sandboxes of which something runs, whatever is written of them; of others the user's number."""
    first = uids.kept(settings)
    alive = users_of([range(first, first + uids.SIZE)]) if first is not None else set()
    places = Places(settings.host_home)
    if not alive or not places.sandboxes.is_dir():
        return [f"user {uid}" for uid in sorted(alive)]
    owners = {
        owner(places.life(folder.name, number)): folder.name
        for folder in places.sandboxes.iterdir()
        for number in places.lives(folder.name)
    }
    return sorted(owners.get(uid, f"user {uid}") for uid in alive)
