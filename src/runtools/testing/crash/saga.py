"""Random acts on a host that is killed again and again, and what must hold after each start."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

from runtools.errors import HostUnavailable, SandboxStopped, Unavailable
from runtools.platform.core.ids import new_id, new_sandbox_id
from runtools.platform.core.ports.host import Child, CreateOrder, Guest, Observed, Sizes
from runtools.sdk.shapes.inside import ExecRequest
from runtools.testing.crash import look
from runtools.testing.crash.house import House
from runtools.testing.crash.model import Act, Box, Kind, Model

ACTOR = "key_saga"
_ACTORS = 3
_MAKES_MORE = {"create", "fork"}
# How often each is done, where it can be.
_WEIGHTS: dict[Kind, int] = {
    "line": 4,
    "pause": 4,
    "resume": 2,
    "snapshot": 2,
    "rollback": 1,
    "fork": 2,
    "destroy": 2,
    "create": 3,
}
_MARK = "setsid sleep 1000000 >/dev/null 2>&1 </dev/null & echo $!"


class Saga:
    """A host, what is known of it, and the chance that rules both.

    Args:
        house: the host; it has a template version ``template`` that is ready.
        driver: what it runs machines with.
        most: sandboxes at once.
        longest: seconds after which the host is killed at the latest.
    """

    def __init__(
        self,
        house: House,
        driver: look.Driver,
        template: str,
        sizes: Sizes,
        chance: random.Random,
        *,
        most: int = 5,
        longest: float = 0.5,
    ) -> None:
        self.house = house
        self.model = Model(memory_survives=driver != "local")
        self.acts = 0
        self.driver = driver
        self._template = template
        self._sizes = sizes
        self._chance = chance
        self._most = most
        self._longest = longest
        self._twice = False
        self._busy: set[str] = set()
        self._cut: list[Act] = []
        self._follower = look.Follower(house.host)

    async def play(self, rounds: int, told: Callable[[int], None] = lambda _: None) -> None:
        """So many rounds, and the end: everything destroyed, nothing left."""
        async with self.begun():
            for n in range(rounds):
                await self._round()
                told(n + 1)
            await self.end()

    @contextlib.asynccontextmanager
    async def begun(self, crash_at: str = "") -> AsyncIterator[None]:
        """The host runs and is followed while the body runs."""
        await self.house.start(crash_at)
        async with self._follower.running():
            yield

    async def end(self) -> None:
        """Destroy everything, and see that nothing is left."""
        boxes = [b for b in self.model.boxes.values() if b.state != "stopped" or b.keeps_disk]
        await asyncio.gather(*(self.do(Act("destroy", box.id, new_id("opn"))) for box in boxes))
        await self.hold()

    async def _round(self) -> None:
        self._cut = []
        acting = asyncio.gather(*(self._keep_acting() for _ in range(_ACTORS)))
        await asyncio.sleep(self._chance.uniform(0, self._longest))
        await self.house.kill()
        await acting
        self._twice = self._chance.random() < 0.2
        if self._twice:  # now and then in the middle of a recovery
            await self.house.begin()
            await asyncio.sleep(self._chance.uniform(0, self._longest / 3))
            await self.house.kill()
        await self.house.start()
        for act in self._cut:
            await self.repeat(act)
        await self.hold()

    # --- acting ---

    async def _keep_acting(self) -> None:
        while (act := self._choose()) is not None:
            try:
                await self.do(act)
            except HostUnavailable:
                self._cut.append(act)
                return
            finally:
                self._busy.discard(act.box)

    def _choose(self) -> Act | None:
        """An act on a sandbox that nobody else acts on, or a create."""
        free = [box for box in self.model.living() if box.id not in self._busy]
        room = len(self.model.living()) + len(self._busy) < self._most
        box = self._chance.choice(free) if free else None
        possible = [kind for kind in _WEIGHTS if self._possible(kind, box, room=room)]
        if not possible:
            return None
        weights = [_WEIGHTS[kind] for kind in possible]
        kind = self._chance.choices(possible, weights)[0]
        act = self._act(kind, box)
        self._busy.add(act.box)
        return act

    def _possible(self, kind: Kind, box: Box | None, *, room: bool) -> bool:
        if kind in _MAKES_MORE and not room:
            return False
        if box is None or kind == "create":
            return kind == "create"
        if kind == "rollback":
            return bool(box.snapshots)
        if kind == "destroy":
            return len(self.model.living()) > 2
        return kind != {"running": "resume", "paused": "pause"}[box.state]

    def _act(self, kind: Kind, box: Box | None) -> Act:
        op = new_id("opn")
        if kind == "create" or box is None:
            return Act("create", new_sandbox_id(), op)
        if box.inside.process is None and kind == "line":
            kind = "mark"
        things: tuple[str, ...] = ()
        if kind == "snapshot":
            things = (new_id("snp"),)
        elif kind == "rollback":
            things = (self._chance.choice(sorted(box.snapshots)),)
        elif kind == "fork":
            things = tuple(new_sandbox_id() for _ in range(self._chance.choice((1, 2))))
        return Act(kind, box.id, op, things)

    async def do(self, act: Act) -> Any:
        """Do it, and learn from its answer."""
        answer = await self._ask(act)
        self.acts += 1
        if act.kind == "fork":
            for child in answer.children:
                self.model.born(act.box, child.sandbox_id, lives=child.state == "running")
        self.model.done(act, answer if isinstance(answer, str) else "")
        return answer

    async def repeat(self, act: Act) -> None:
        """Ask again for what was cut off: twice, and both answers are one."""
        try:
            first = await self.do(act)
        except (Unavailable, SandboxStopped) as exc:
            if not self._may_fail(act) or isinstance(exc, HostUnavailable):
                raise
            await self._came_to_nothing(act)
        else:
            assert await self._ask(act) == first, f"{act} was answered in two ways"

    def _may_fail(self, act: Act) -> bool:
        """A fork's children are given up at a restart; a create is after the second one."""
        return act.kind == "fork" or (act.kind == "create" and self._twice)

    async def _came_to_nothing(self, act: Act) -> None:
        """What was given up is said again the same way, and nothing of it runs."""
        with contextlib.suppress(Unavailable, SandboxStopped):
            await self._ask(act)
            raise AssertionError(f"{act} failed, and its repeat did not")
        made = act.things if act.kind == "fork" else (act.box,)
        known = {f.name for f in (self.house.home / "host" / "sandboxes").iterdir()}
        for box in known.intersection(made):
            seen = await self.house.host.settled(box, look.SETTLE_SECONDS)
            assert seen.state == "stopped", f"{act} failed, and it made {seen}"
            self.model.boxes[box] = Box(box, "stopped")

    async def _ask(self, act: Act) -> Any:
        host = self.house.host
        match act.kind:
            case "create":
                return await host.create(self._order(act))
            case "mark":
                return await self._sh(act.box, _MARK, act.op)
            case "line":
                return await self._sh(act.box, f"echo {act.op} >> /root/log", act.op)
            case "pause":
                return await host.pause(act.box, act.op, ACTOR)
            case "resume":
                return await host.resume(act.box, act.op, ACTOR)
            case "snapshot":
                return await host.snapshot(act.box, act.op, ACTOR, act.things[0])
            case "rollback":
                return await host.rollback(act.box, act.op, ACTOR, act.things[0])
            case "fork":
                children = [Child(sandbox_id=child) for child in act.things]
                return await host.fork(act.box, act.op, ACTOR, children)
            case "destroy":
                return await host.destroy(act.box, act.op, ACTOR)

    def _order(self, act: Act) -> CreateOrder:
        return CreateOrder(
            op=act.op,
            sandbox_id=act.box,
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

    async def _sh(self, box: str, line: str, process_id: str) -> str:
        request = ExecRequest(command=line, process_id=process_id)
        result = await self.house.host.exec(box, request)
        assert result.exit_code == 0, result
        return result.stdout.strip()

    # --- what must hold ---

    async def hold(self) -> None:
        for box in self.model.boxes.values():
            seen: Observed = await self.house.host.settled(box.id, look.SETTLE_SECONDS)
            assert (seen.state, seen.operation) == (box.state, None), f"{seen}, wanted {box}"
            await self._follower.agrees(seen)
        await look.processes_fit(self.house.home, self.driver, self.model)
        await look.folders_fit(self.house.home, self.model)
        running = [box for box in self.model.living() if box.state == "running"]
        await asyncio.gather(*(self._inside(box) for box in running))

    async def _inside(self, box: Box) -> None:
        pid = box.inside.process or "1"
        line = f"kill -0 {pid} || echo dead; cat /root/log 2>/dev/null; true"
        said = await self._sh(box.id, line, new_id("prc"))
        assert sorted(said.split()) == sorted(box.inside.lines), f"{said!r}, wanted {box}"
