"""The walk: what one org finds when it asks for everything that another one has.

For each route with a record in its path the stranger asks for the owner's record and for one that nobody
has, in every mixture with its own. Both answers must be alike to the byte, nothing of the owner's may
change, and then the owner's own request must be granted, so that no refusal was for another reason. A route
whose records `records` does not know how to make is a fault.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from runtools.testing.api_world import holds
from runtools.testing.tenancy import rows
from runtools.testing.tenancy.answers import ID, Answer, ask
from runtools.testing.tenancy.operations import Operation, Params
from runtools.testing.tenancy.org import Org
from runtools.testing.tenancy.outside import MEASURED, NOT_OF_AN_ORG, OF_A_PERSON, WHOLE_MACHINE
from runtools.testing.tenancy.records import CHOSEN, PLACES
from runtools.testing.tenancy.references import NESTED, NO_REFERENCES, OTHERWISE, REFERENCES
from runtools.testing.tenancy.scenes import MAKES_BY_NAME, SCENES, Scene

_REFERS = re.compile(
    r"(?:Id|Ids|Ref|Refs|Slug|Slugs)$"
    r"|^(?:agent|project|sandbox|secret|snapshot|sshKey|template|thread|tool|webhook)(?:e?s)?$"
)


@dataclass
class Walk:
    """Two orgs, and the faults found so far."""

    owner: Org
    stranger: Org
    faults: list[str] = field(default_factory=list)
    _known: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    _looks: dict[str, tuple[Params, dict[str, Any]]] = field(default_factory=dict)
    _answered: list[tuple[str, str, int]] = field(default_factory=list)

    async def all(self, operations: Sequence[Operation]) -> list[str]:
        """Walk over everything; the faults."""
        self.faults += uncovered(operations)
        free = {*NOT_OF_AN_ORG, *OF_A_PERSON}
        known = [one for one in operations if one.name not in free and _is_known(one)]
        for operation in known:
            if operation.name in WHOLE_MACHINE:
                continue
            if operation.params:
                await self.record(operation)
            elif operation.mutates:
                await self.creation(operation)
            await self.references(operation)
        await self.silence(known)
        for name, key, status in self._answered:
            await self._written(name, key, status)
        return self.faults

    # --- records in the path ---

    async def record(self, operation: Operation) -> None:
        """The stranger asks for what is the owner's, alone and mixed with its own."""
        theirs = await self._records(self.owner, operation, fresh=operation.mutates)
        mine = await self._records(self.stranger, operation, fresh=False)
        first = {name: refs[0] for name, refs in theirs.items()}
        sent = await _sent(self.owner, operation, first)
        before = await self._owned()
        for names in _mixtures(operation.params):
            for refs in _callings(theirs, names):
                own = {name: mine[name][0] for name in operation.params if name not in names}
                missing = not names <= _chosen(operation)
                await self._alike(
                    operation, sent, own | refs, own | _nobodys(refs), missing=missing
                )
        self._unchanged(operation, before, await self._owned(before))
        await self._granted(operation, sent, first)

    async def _alike(
        self,
        operation: Operation,
        sent: Mapping[str, Any],
        refs: Params,
        nobodys: Params,
        key: str | None = None,
        missing: bool = True,
    ) -> None:
        asked = await ask(self.stranger, operation, refs, _keyed(sent, key))
        blank = await ask(self.stranger, operation, nobodys, sent)
        one, other = asked.without(refs.values()), blank.without(nobodys.values())
        if operation.name in MAKES_BY_NAME:
            if (one.status, one.outline) != (other.status, other.outline):
                self.faults.append(f"{operation.name}: {asked} for a name of theirs, else {blank}")
        elif one != other:
            self.faults.append(f"{operation.name}: theirs is {asked}, nobody's is {blank}")
        elif missing and one.status != 404:
            self.faults.append(f"{operation.name}: {asked}, and no 404")

    async def _granted(self, operation: Operation, sent: Mapping[str, Any], refs: Params) -> None:
        """The owner's own request works, and a stranger who sends the same key learns nothing of it."""
        key = f"walk-{self.owner.fresh()}" if operation.mutates else None
        answer = await ask(self.owner, operation, refs, _keyed(sent, key))
        granted = SCENES.get(operation.name, Scene()).granted
        if answer.status not in (101, 200, 201, 202, granted):
            self.faults.append(
                f"{operation.name}: its owner is refused ({answer}); what does it need? say it in SCENES"
            )
        if key is not None:
            self._answered.append((operation.name, key, answer.status))
            before = await self._owned()
            await self._alike(operation, sent, refs, _nobodys(refs), key)
            self._unchanged(operation, before, await self._owned(before))

    async def refused(self, operations: Sequence[Operation]) -> list[str]:
        """A key that may use none of the routes gets one answer, whatever there is; the faults."""
        for operation in operations:
            if not _is_known(operation):
                continue
            theirs = await self._records(self.owner, operation, fresh=operation.mutates)
            refs = {name: calls[0] for name, calls in theirs.items()}
            sent = await _sent(self.owner, operation, refs)
            before = await self._owned()
            asked = (await ask(self.stranger, operation, refs, sent)).without(refs.values())
            blank = _nobodys(refs)
            other = (await ask(self.stranger, operation, blank, sent)).without(blank.values())
            if asked != other or asked.status != 403:
                self.faults.append(f"{operation.name}: {asked}, of nobody's {other}")
            self._unchanged(operation, before, await self._owned(before))
        return self.faults

    # --- repeats ---

    async def repeated(
        self, operations: Sequence[Operation], otherwise: Mapping[str, str], anew: Mapping[str, str]
    ) -> list[str]:
        """The owner asks again with the same key, for an answer that nobody kept; the faults.

        Nothing is done twice, and what is answered is what was answered first.

        Args:
            otherwise: operations of which a repeat is answered otherwise, and why.
            anew: those of which a repeat makes something anew, in the place of the first, and why.
        """
        for operation in filter(_is_known, operations):
            theirs = await self._records(self.owner, operation, fresh=True)
            refs = {name: calls[0] for name, calls in theirs.items()}
            sent = _keyed(await _sent(self.owner, operation, refs), f"again-{self.owner.fresh()}")
            first = await ask(self.owner, operation, refs, sent)
            before = await self._owned()
            second = await ask(self.owner, operation, refs, sent)
            changed = rows.difference(before, await self._owned())
            if changed and operation.name not in anew:
                self.faults.append(f"{operation.name}: a repeat did {changed}")
            same = (first.status, first.data) == (second.status, second.data)
            if not same and operation.name not in {**otherwise, **anew}:
                self.faults.append(f"{operation.name}: first {first}, then {second}")
        return self.faults

    # --- the audit log ---

    async def told(
        self,
        operations: Sequence[Operation],
        ends: Callable[[], AbstractContextManager[None]],
        silent: Mapping[str, str],
        nameless: Mapping[str, str],
    ) -> list[str]:
        """The owner asks a platform that ends before it answers; the faults.

        Whatever was changed by then has its line in the audit log, which names it.

        Args:
            ends: while it lasts, the platform gives no answer to what it has done.
            silent: operations that change no record, and what they do.
            nameless: those that are done to no one thing.
        """
        db = self.owner.world.platform.db
        for operation in filter(_is_known, operations):
            theirs = await self._records(self.owner, operation, fresh=True)
            refs = {name: calls[0] for name, calls in theirs.items()}
            name = f"told-{self.owner.fresh()}"
            sent = await _sent(self.owner, operation, refs)
            sent["headers"] = {"X-Request-Id": name}
            before = await self._owned()
            with ends():
                answer = await ask(self.owner, operation, refs, sent)
            changed = sorted(rows.difference(before, await self._owned()))
            lines = await db.read(rows.told, name)
            if answer.status != 500:
                self.faults.append(f"{operation.name}: {answer}, and it was to end")
            if changed and len(lines) != 1:
                self.faults.append(
                    f"{operation.name}: it changed {changed}, and is told as {lines}"
                )
            if not lines and operation.name not in silent:
                self.faults.append(f"{operation.name}: no line, and no reason why it needs none")
            named = all(resource is not None for _, _, resource, _ in lines)
            if lines and named is (operation.name in nameless):
                self.faults.append(f"{operation.name}: {lines} names the wrong thing, or none")
        return self.faults

    async def _written(self, name: str, key: str, status: int) -> None:
        """A call of the owner's that was answered has one line in its audit log, which says how."""

        async def lines() -> list[int | None]:
            found = await self.owner.world.platform.db.read(rows.told, key)
            return [answer for org_id, _, _, answer in found if org_id == self.owner.id]

        with suppress(AssertionError):
            await holds(lines)
        if (found := await lines()) != [status]:
            self.faults.append(f"{name}: it was answered {status}, and is told as {found}")

    # --- records that come to be ---

    async def creation(self, operation: Operation) -> None:
        """Both make the like, under the same idempotency key: each gets its own."""
        key = f"walk-{self.owner.fresh()}"
        sent = _keyed(await _sent(self.owner, operation, {}), key)
        theirs = await ask(self.owner, operation, {}, sent)
        self._answered.append((operation.name, key, theirs.status))
        before = await self._owned()
        mine = await ask(self.stranger, operation, {}, sent)
        self._unchanged(operation, before, await self._owned(before))
        if theirs.status not in (200, 201, 202):
            self.faults.append(f"{operation.name}: refused ({theirs}); see SCENES")
        if (theirs.status, theirs.outline) != (mine.status, mine.outline):
            self.faults.append(f"{operation.name}: {theirs} for the first, {mine} for the second")
        if shared := set(ID.findall(theirs.body)) & set(ID.findall(mine.body)):
            self.faults.append(f"{operation.name}: both are told of {sorted(shared)}")

    # --- what the stranger sees of its own ---

    async def silence(self, operations: Sequence[Operation]) -> None:
        """Nothing that the stranger can read changes, whatever the owner makes and ends."""
        looks = [
            one
            for one in operations
            if one.method == "GET"
            and not one.streams
            and one.name not in {**WHOLE_MACHINE, **MEASURED}
        ]
        for one in looks:
            refs = await self._own(one)
            self._looks[one.name] = refs, await _sent(self.stranger, one, refs)
        await self._written_down()
        before = {one.name: await self._look(one) for one in looks}
        for operation in operations:
            if operation.method == "DELETE" and operation.params:
                made = await self._records(self.owner, operation, fresh=True)
                refs = {name: calls[0] for name, calls in made.items()}
                await ask(self.owner, operation, refs, await _sent(self.owner, operation, refs))
        for one in looks:
            if (after := await self._look(one)) != before[one.name]:
                self.faults.append(
                    f"{one.name}: what the owner did shows: {before[one.name]}, then {after}"
                )

    async def _look(self, operation: Operation) -> Answer:
        refs, sent = self._looks[operation.name]
        return await ask(self.stranger, operation, refs, sent)

    async def _own(self, operation: Operation) -> Params:
        made = await self._records(self.stranger, operation, fresh=False)
        return {name: calls[0] for name, calls in made.items()}

    async def _written_down(self) -> None:
        """Wait for the stranger's audit log: lines of what went on inside sandboxes come together."""
        box = (await self.stranger.ask("POST", "/v1/sandboxes", json={}))["id"]
        await self.stranger.ask("POST", f"/v1/sandboxes/{box}/exec", json={"command": "true"})
        path = f"/v1/audit?action=inside.exec&resource={box}"

        async def told() -> bool:
            return bool(await self.stranger.ask("GET", path))

        await holds(told)

    # --- records named elsewhere ---

    async def references(self, operation: Operation) -> None:
        """Fields of the query and the body that name a record of the owner's."""
        other = OTHERWISE.get(operation.name, frozenset())
        named = {name: REFERENCES[name] for name in operation.fields & set(REFERENCES)}
        named |= {way: NESTED[way] for way in operation.nested & set(NESTED)}
        for way in sorted(set(named) - other):
            reference, name = named[way], way.partition("[")[0]
            own = await self._records(self.stranger, operation, fresh=operation.mutates)
            refs = {param: calls[0] for param, calls in own.items()}
            theirs = await self._records(self.owner, operation, fresh=False)
            params = {param: calls[0] for param, calls in theirs.items()}
            sent = await _sent(self.stranger, operation, refs)
            for ref in await reference.make(self.owner, params):
                before = await self._owned()
                for_theirs = _with(operation, sent, name, reference.wraps(ref))
                for_nobodys = _with(operation, sent, name, reference.wraps(nobodys(ref)))
                asked = (await ask(self.stranger, operation, refs, for_theirs)).without([ref])
                blank = await ask(self.stranger, operation, refs, for_nobodys)
                blank = blank.without([nobodys(ref)])
                if name != "cursor" and asked != blank:
                    self.faults.append(f"{operation.name}: {way} of theirs {asked}, else {blank}")
                if self.owner.word in asked.body and operation.name != "GET /v1/audit":
                    self.faults.append(f"{operation.name}: {way} shows theirs: {asked}")
                self._unchanged(operation, before, await self._owned(before))

    # --- means ---

    async def _records(
        self, org: Org, operation: Operation, *, fresh: bool
    ) -> dict[str, list[str]]:
        """What each name in the path stands for, in an org."""
        found: dict[str, list[str]] = {}
        for name, place in operation.prefixes().items():
            first = {known: refs[0] for known, refs in found.items()}
            kept = (org.id, place)
            if fresh or kept not in self._known:
                made = await PLACES[place](org, first)
                if fresh:
                    found[name] = made
                    continue
                self._known[kept] = made
            found[name] = self._known[kept]
        return found

    async def _owned(self, before: rows.Rows | None = None) -> rows.Rows:
        """Everything that the owner has, once nothing moves by itself; what is as before does not."""
        db = self.owner.world.platform.db

        async def built() -> bool:
            return not await db.read(rows.builds, self.owner.id)

        await holds(built)
        await self.owner.world.heard()
        while (after := await db.read(rows.of_org, self.owner.id)) != before:
            before = after
        return after

    def _unchanged(self, operation: Operation, before: rows.Rows, after: rows.Rows) -> None:
        if changed := rows.difference(before, after):
            self.faults.append(f"{operation.name}: a stranger changed {changed}")


def uncovered(operations: Sequence[Operation]) -> list[str]:
    """What the walk cannot do, because nobody says how."""
    found = []
    for operation in operations:
        if operation.name in {*WHOLE_MACHINE, *OF_A_PERSON}:
            continue
        found += [
            f"{operation.name}: PLACES does not say how a record of {place} is made"
            for place in operation.prefixes().values()
            if place not in PLACES
        ]
        found += [
            f"{operation.name}: {name} looks like a reference; say in REFERENCES what it names"
            for name in sorted(operation.fields)
            if (_REFERS.search(name) or name in operation.lists)
            and name not in {**REFERENCES, **NO_REFERENCES}
        ]
        found += [
            f"{operation.name}: {way} looks like a reference; say in NESTED what it names"
            for way in sorted(operation.nested)
            if _REFERS.search(way.rpartition(".")[2]) and way not in {**NESTED, **NO_REFERENCES}
        ]
    return found


def _is_known(operation: Operation) -> bool:
    return all(place in PLACES for place in operation.prefixes().values())


def nobodys(ref: str) -> str:
    """A reference of the same look that nobody has."""
    head, tail = ref[:-6], ref[-6:]
    return head + "".join(_next(letter) for letter in tail)


def _next(letter: str) -> str:
    for first, last in ("az", "AZ", "09"):
        if first <= letter <= last:
            return first if letter == last else chr(ord(letter) + 1)
    return letter


def _nobodys(refs: Params) -> Params:
    return {name: nobodys(ref) for name, ref in refs.items()}


def _chosen(operation: Operation) -> frozenset[str]:
    """Names in the path that stand for no record."""
    return frozenset(
        name
        for name, place in operation.prefixes().items()
        if place in CHOSEN or f"{operation.method} {place}" in CHOSEN
    )


def _mixtures(names: Sequence[str]) -> list[frozenset[str]]:
    """Every choice of names that are the owner's; at least one is."""
    return [
        frozenset(chosen)
        for count in range(1, len(names) + 1)
        for chosen in itertools.combinations(names, count)
    ]


def _callings(records: Mapping[str, Sequence[str]], among: Iterable[str]) -> list[Params]:
    """By whatever each of them can be called."""
    names = sorted(among)
    choices = itertools.product(*(records[name] for name in names))
    return [dict(zip(names, chosen, strict=True)) for chosen in choices]


async def _sent(org: Org, operation: Operation, refs: Params) -> dict[str, Any]:
    """What goes with a request of the owner's, after what must have happened."""
    scene = SCENES.get(operation.name, Scene())
    if scene.ready is not None:
        await scene.ready(org, refs)
    sent: dict[str, Any] = {"query": scene.query}
    body = await scene.body(org, refs) if callable(scene.body) else scene.body
    if isinstance(body, bytes):
        sent["content"] = body
    elif body is not None or operation.example is not None:
        sent["json"] = operation.example if body is None else body
    return sent


def _with(operation: Operation, sent: Mapping[str, Any], name: str, value: Any) -> dict[str, Any]:
    if name in operation.queries:
        return {**sent, "query": f"{sent['query']}&{name}={quote(str(value))}".strip("&")}
    return {**sent, "json": {**(sent.get("json") or {}), name: value}}


def _keyed(sent: Mapping[str, Any], key: str | None) -> dict[str, Any]:
    headers = {} if key is None else {"Idempotency-Key": key, "X-Request-Id": key}
    return {**sent, "headers": headers}
