"""Pause and resume, again and again, with a fork now and then: every byte must be what it was.

The guest is at work while it is paused: a turn of its keeper (change some memory and files, then read all
of it) is begun before the pause and answered after the resume. What was saved is read right after the
pause and again before the resume.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from runtools.errors import RunToolsError
from runtools.platform.core.ids import new_id, new_sandbox_id
from runtools.platform.core.ports.host import Child, CreateOrder, Guest, Host, Sizes
from runtools.platform.host.drivers.qemu.saving import COPIED_ONCE
from runtools.platform.host.engine.places import Places
from runtools.sdk.shapes.inside import ExecRequest
from runtools.testing.integrity import keeper, saved
from runtools.testing.integrity.known import Known, Mismatch

ACTOR = "key_integrity"
CLOCK_SECONDS = 0.5
_FOLDER = "/var/lib/keeper"
_MEMORY_MB = 256
_FILES = 8
# Of a machine of which so little is in use that its memory is copied once (decision 0052).
_SMALL_MB, _SMALL_FILES = 16, 2
_FILE_MB = 4
_FORKS = 0.15
_EXEC_MS = 300_000
_CLOCK_TRIES = 3
_CLOCK_MOST_TRIES = 10
_LONGEST_RUN = 3.0  # seconds between the order and the pause
_LONGEST_PAUSE = 2.0


@dataclass
class Kept:
    """A sandbox, and what its keeper must hold once it answers."""

    id: str
    known: Known


class Cycles:
    """One sandbox that is paused and resumed, and its children.

    Args:
        host: runs real machines below ``home``.
        template: a version that is ready.
        seed: rules all that chance decides.
    """

    def __init__(
        self,
        host: Host,
        home: Path,
        template: str,
        sizes: Sizes,
        seed: int,
        tell: Callable[[str], None],
    ) -> None:
        self._host = host
        self._places = Places(home / "host")
        self._template = template
        self._sizes = sizes
        self._seed = seed
        self._tell = tell
        self._box: Kept | None = None
        self._small: Kept | None = None
        self.worst_clock = 0.0
        self.forks = 0
        self.small_forks = 0
        self.small_mb = 0  # in use at most in the one that was forked so
        self.read_bytes = 0

    async def begin(self) -> None:
        """A sandbox with a keeper in it, and one whose keeper holds little."""
        self._box = await self._born(f"{self._seed}", _MEMORY_MB, _FILES)
        self._small = await self._born(f"{self._seed}/small", _SMALL_MB, _SMALL_FILES)
        # Its memory is its own from then on, as it is of most that are forked.
        await self._resume(self._small, await self._pause(self._small))

    async def _born(self, salt: str, memory_mb: int, files: int) -> Kept:
        box = new_sandbox_id()
        await self._host.create(self._order(box))
        await self._sh(box, f"mkdir -p {_FOLDER} && cat > {_FOLDER}/keeper.py", keeper_source())
        line = f"setsid python3 {_FOLDER}/keeper.py {_FOLDER} >{_FOLDER}/log 2>&1 </dev/null &"
        await self._sh(box, f"{line} until [ -p {_FOLDER}/answer ]; do sleep 0.1; done")
        known = Known.fresh(salt, memory_mb=memory_mb, files=files, file_mb=_FILE_MB)
        await self._say(box, json.dumps(known.order()))
        kept = Kept(box, known)
        await self._meet(kept)
        return kept

    async def cycle(self, number: int) -> None:
        """A turn, a pause in the middle of it, a resume, and all that must be so.

        Raises:
            Mismatch: something is not as it was.
        """
        assert self._box is not None
        box, chance = self._box, random.Random(f"{self._seed}/{number}")
        how = chance.choice(("running", "paused")) if chance.random() < _FORKS else ""
        began = time.monotonic()
        await self._turn(box, f"{self._seed}/{number}/{box.id}")
        await asyncio.sleep(chance.uniform(0, _LONGEST_RUN))
        child = await self._fork(box) if how == "running" else None
        before = await self._pause(box)
        await asyncio.sleep(chance.uniform(0, _LONGEST_PAUSE))
        child = await self._fork(box) if how == "paused" else child
        error = await self._resume(box, before)
        await self._meet(box)
        if child is not None:
            await self._child(child, number)
            await self._fork_small(number)
        self._tell(
            f"clock off by at most {error * 1000:.0f} ms, {saved.data_bytes(before) >> 20} MB saved"
            + (f", forked while {how}" if how else "")
            + f", {time.monotonic() - began:.1f} s"
        )

    async def end(self) -> None:
        """Destroy them."""
        for box in (self._box, self._small):
            if box is not None:
                await self._host.destroy(box.id, new_id("opn"), ACTOR)

    async def keep_for_a_look(self) -> None:
        """After a failure: what the memory is now goes to the disk."""
        if self._box is not None:
            with contextlib.suppress(RunToolsError):
                await self._host.pause(self._box.id, new_id("opn"), ACTOR)

    @property
    def sandbox(self) -> str:
        """The sandbox that goes through the cycles; empty before there is one."""
        return self._box.id if self._box else ""

    # --- steps ---

    async def _turn(self, box: Kept, salt: str) -> None:
        """Order a turn; its answer is fetched later."""
        box.known, order = box.known.turn(salt)
        await self._say(box.id, json.dumps(order))

    async def _meet(self, box: Kept) -> None:
        """Fetch the answer to the last turn, and compare it with what must be."""
        said = json.loads(await self._sh(box.id, f"cat {_FOLDER}/answer"))
        box.known = box.known.met(said)

    async def _pause(self, box: Kept) -> saved.Digests:
        seen = await self._host.pause(box.id, new_id("opn"), ACTOR)
        if seen.state != "paused":
            raise Mismatch("a pause did not pause", state=seen.state)
        found = await self._saved(box)
        # What is compared later is the memory itself, and not a file without it.
        if (saved_mb := saved.data_bytes(found, saved.MEMORY) >> 20) < len(box.known.memory):
            raise Mismatch("less was saved than the keeper holds", megabytes=saved_mb)
        return found

    async def _resume(self, box: Kept, before: saved.Digests) -> float:
        """Look at what was saved once more, let it run, and look at its clock."""
        saved.compare(before, await self._saved(box))
        await self._host.resume(box.id, new_id("opn"), ACTOR)
        return await self._clock(box)

    async def _saved(self, box: Kept) -> saved.Digests:
        *_, life = self._places.lives(box.id)
        found = await asyncio.to_thread(saved.digests, self._places.life(box.id, life))
        self.read_bytes += saved.data_bytes(found)
        return found

    async def _fork(self, box: Kept) -> Kept:
        """A child, which goes on with the same turn as its parent."""
        child = Child(sandbox_id=new_sandbox_id())
        await self._host.fork(box.id, new_id("opn"), ACTOR, [child])
        self.forks += 1
        return Kept(child.sandbox_id, box.known)

    async def _fork_small(self, number: int) -> None:
        """Both of it and its child have what it had."""
        assert self._small is not None
        await self._turn(self._small, f"{self._seed}/{number}/{self._small.id}")
        child = await self._fork(self._small)
        self._check_small(self._small)
        await self._meet(self._small)
        await self._child(child, number)

    def _check_small(self, box: Kept) -> None:
        """Its memory was copied once: what it has in use becomes no less, so it was no more at the fork."""
        *_, life = self._places.lives(box.id)
        in_use = saved.memory_in_use(self._places.life(box.id, life))
        if not len(box.known.memory) * saved.BLOCK <= in_use <= COPIED_ONCE:
            raise Mismatch(
                "the machine with little memory in use is none",
                sandbox=box.id,
                in_use_mb=in_use >> 20,
                at_most_mb=COPIED_ONCE >> 20,
            )
        self.small_forks += 1
        self.small_mb = max(self.small_mb, in_use >> 20)

    async def _child(self, child: Kept, number: int) -> None:
        """A child has what its parent had, then bytes of its own, and can do all the same."""
        await self._clock(child)
        await self._meet(child)
        await self._turn(child, f"{self._seed}/{number}/{child.id}")
        await self._resume(child, await self._pause(child))
        await self._meet(child)
        await self._host.destroy(child.id, new_id("opn"), ACTOR)

    async def _clock(self, box: Kept) -> float:
        """By how much the guest's clock is wrong at most: the time that asking takes is in it.

        The first command after a resume is slow, so it is asked a few times, and the least bound holds.
        """
        bounds: list[float] = []
        while len(bounds) < _CLOCK_TRIES or (
            min(bounds) >= CLOCK_SECONDS and len(bounds) < _CLOCK_MOST_TRIES
        ):
            before = time.time()
            guest = float(await self._sh(box.id, "date +%s.%N"))
            after = time.time()
            bounds.append(max(abs(guest - before), abs(guest - after)))
        if min(bounds) >= CLOCK_SECONDS:
            raise Mismatch("the clock is wrong", sandbox=box.id, at_most_seconds=bounds)
        self.worst_clock = max(self.worst_clock, min(bounds))
        return min(bounds)

    async def _say(self, box: str, line: str) -> None:
        await self._sh(box, f"cat > {_FOLDER}/order", line)

    async def _sh(self, box: str, line: str, stdin: str | None = None) -> str:
        request = ExecRequest(
            command=line, stdin=stdin, process_id=new_id("prc"), timeout_ms=_EXEC_MS
        )
        done = await self._host.exec(box, request)
        if done.exit_code != 0:
            raise Mismatch("a command in the guest failed", line=line, stderr=done.stderr[-2000:])
        return done.stdout

    def _order(self, box: str) -> CreateOrder:
        return CreateOrder(
            op=new_id("opn"),
            sandbox_id=box,
            actor=ACTOR,
            template_version_id=self._template,
            sizes=self._sizes,
            guest=Guest(),
            internet=False,
            idle_timeout_seconds=0,
            max_lifetime_seconds=None,
            require_isolation=None,
            queue=True,
        )


def keeper_source() -> str:
    """The program that runs in the guest."""
    return Path(keeper.__file__).read_text()
