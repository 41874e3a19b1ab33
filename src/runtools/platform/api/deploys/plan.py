"""What a deploy would change: the project's definitions against what stands. Pure.

What happens to a standing sandbox when a field changes is said here, once: in place, or by another sandbox.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from runtools.sdk.shapes.definitions import Definition, Kind, kind_of, to_wire
from runtools.sdk.shapes.deploys import Action, Change, FieldChange

# The order of a deploy: what others stand on first; it is taken down the other way round.
ORDER: tuple[Kind, ...] = ("tool", "sandbox", "agent")

# What a standing sandbox can be given as it stands. Every other field it was made from: another value
# makes another sandbox, without the old one's data.
IN_PLACE = frozenset(
    {
        "name",
        "tags",
        "internet",
        "egress",
        "idleTimeoutSeconds",
        "maxLifetimeSeconds",
        "devUrls",
    }
)
# Their values are nobody's business but the sandbox's.
_PRIVATE = frozenset({"env"})


@dataclass(frozen=True, slots=True)
class Stood:
    """What stands in a project under a kind and slug.

    Attributes:
        says: its definition on the wire, with what was changed since by other ways.
        gone: a sandbox that has ended: the slug is free, and nothing is lost.
    """

    id: str
    kind: Kind
    slug: str
    version: int
    says: Mapping[str, Any] = field(repr=False)
    sandbox_id: str | None = None
    gone: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """A change with what is needed to carry it out."""

    change: Change
    wanted: Definition | None
    stood: Stood | None


def steps(
    wanted: Iterable[Definition],
    standing: Iterable[Stood],
    *,
    only: frozenset[Kind] = frozenset(ORDER),
    prune: bool = False,
) -> list[Step]:
    """The changes in the order in which they are carried out; empty when nothing changes.

    Args:
        wanted: what the project defines.
        standing: what stands in the project now.
        only: kinds that are looked at.
        prune: also delete what stands and is defined no more.
    """
    new = {(kind, one.slug): one for one in wanted if (kind := kind_of(one)) in only}
    old = {(one.kind, one.slug): one for one in standing if one.kind in only}
    made = [
        step
        for key in sorted(new, key=lambda key: (ORDER.index(key[0]), key[1]))
        if (step := _step(key, old.get(key), new[key])) is not None
    ]
    if not prune:
        return made
    gone = sorted(old.keys() - new.keys(), key=lambda key: (-ORDER.index(key[0]), key[1]))
    return made + [
        Step(Change(action="delete", kind=key[0], slug=key[1], fields=[]), None, old[key])
        for key in gone
    ]


def digest(project: str, steps: Sequence[Step]) -> str:
    """What stands for a plan: another one where anything of it, or what it stands on, is another."""
    told = [
        (
            step.change.model_dump(mode="json"),
            None if step.wanted is None else to_wire(step.wanted),
            None
            if step.stood is None
            else (step.stood.id, step.stood.version, step.stood.sandbox_id),
        )
        for step in steps
    ]
    return hashlib.sha256(json.dumps([project, told], sort_keys=True).encode()).hexdigest()


def _step(key: tuple[Kind, str], old: Stood | None, wanted: Definition) -> Step | None:
    kind, slug = key
    new = to_wire(wanted)
    there = old is not None and not old.gone
    before = old.says if old is not None and there else {}
    changed = [name for name in new if not there or before.get(name) != new[name]]
    if not changed:
        return None
    action: Action = "update" if there else "create"
    if there and kind == "sandbox" and not IN_PLACE.issuperset(changed):
        action = "replace"
    fields = [_field(name, before.get(name), new[name]) for name in changed]
    change = Change(action=action, kind=kind, slug=slug, fields=fields)
    return Step(change, wanted, old)


def _field(name: str, old: Any, new: Any) -> FieldChange:
    if name in _PRIVATE:
        return FieldChange(field=name, old=sorted(old or ()), new=sorted(new), private=True)
    if name == "source":
        old, new = _told(old), _told(new)
    return FieldChange(field=name, old=old, new=new)


def _told(source: Mapping[str, Any] | None) -> Any:
    """Code by its digest: a plan is for reading."""
    if source is None:
        return None
    return {"digest": source["digest"], "files": sorted(source["files"])}
