"""What a deploy would change: the project's definitions against what is deployed. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from runtools.sdk.shapes.base import Shape
from runtools.sdk.shapes.definitions import Definition, Kind, kind_of, to_wire

Action = Literal["create", "update", "replace", "delete"]

# The order of a deploy: what others stand on first; it is taken down the other way round.
ORDER: tuple[Kind, ...] = ("tool", "sandbox", "agent")

# A standing sandbox was made from these: another value makes another sandbox, without the old one's data.
_MADE_FROM = frozenset({"template", "setup"})
# Their values are nobody's business but the sandbox's.
_PRIVATE = frozenset({"env"})


class FieldChange(Shape):
    """One field that changes. Private values are not shown: both are None."""

    field: str
    old: Any = None
    new: Any = None


class Change(Shape):
    """One thing that a deploy does."""

    action: Action
    kind: Kind
    slug: str
    fields: list[FieldChange]

    @property
    def loses_data(self) -> bool:
        """Whether a sandbox's disk goes with it."""
        return self.kind == "sandbox" and self.action in ("replace", "delete")


def plan(
    wanted: Iterable[Definition],
    deployed: Iterable[Definition],
    *,
    only: frozenset[Kind] = frozenset(ORDER),
    prune: bool = False,
) -> list[Change]:
    """The changes in the order in which they are carried out; empty when nothing changes.

    Args:
        wanted: what the project defines.
        deployed: what stands in the project now.
        only: kinds that are looked at.
        prune: also delete what stands and is defined no more.
    """
    new, old = _by_name(wanted, only), _by_name(deployed, only)
    made = [
        change
        for key in sorted(new, key=lambda key: (ORDER.index(key[0]), key[1]))
        if (change := _change(key, old.get(key), new[key])) is not None
    ]
    if not prune:
        return made
    gone = sorted(old.keys() - new.keys(), key=lambda key: (-ORDER.index(key[0]), key[1]))
    return made + [Change(action="delete", kind=kind, slug=slug, fields=[]) for kind, slug in gone]


def _by_name(
    definitions: Iterable[Definition], only: frozenset[Kind]
) -> dict[tuple[Kind, str], dict[str, Any]]:
    return {(kind, one.slug): to_wire(one) for one in definitions if (kind := kind_of(one)) in only}


def _change(
    key: tuple[Kind, str], old: Mapping[str, Any] | None, new: Mapping[str, Any]
) -> Change | None:
    kind, slug = key
    before = old or {}
    changed = [field for field in new if old is None or before.get(field) != new[field]]
    if not changed:
        return None
    action: Action = "create" if old is None else "update"
    if old is not None and kind == "sandbox" and _MADE_FROM.intersection(changed):
        action = "replace"
    fields = [_field(field, before.get(field), new[field]) for field in changed]
    return Change(action=action, kind=kind, slug=slug, fields=fields)


def _field(field: str, old: Any, new: Any) -> FieldChange:
    return (
        FieldChange(field=field)
        if field in _PRIVATE
        else FieldChange(field=field, old=old, new=new)
    )
