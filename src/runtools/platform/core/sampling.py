"""What a model does not take together of how answers are chosen: its provider refuses each request. Pure.

It is Anthropic's own: while it thinks Claude is asked at its usual temperature, and from Claude Opus 4.1 on
it is told one of temperature and ``top_p``. Of others what a model does not take is left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

_LEAST_TOP_P = 0.95
_USUAL = 1.0
_TAKES_BOTH = re.compile(r"claude-3|claude-(opus|sonnet)-4(-0|[-@]\d{8})?$")


class Clash(NamedTuple):
    """Two settings that a model does not take together, or one that it never takes so."""

    fields: tuple[str, ...]
    why: str
    hint: str


def clash(provider: str, api_id: str, said: Mapping[str, object]) -> Clash | None:
    """What of a model's settings its provider would refuse; None: nothing that is known.

    Args:
        said: the settings by the names of an agent's definition; what nobody has said is None or missing.
    """
    if provider != "anthropic":
        return None
    temperature, top_p = said.get("temperature"), said.get("top_p")
    if isinstance(temperature, int | float) and temperature > _USUAL:
        why = f"{api_id} takes a temperature from 0 to 1, and not {temperature:g}"
        return Clash(("temperature",), why, "say at most 1")
    if said.get("thinking") not in (None, False):
        found = _of_thoughts(api_id, said)
        if found is not None:
            return found
    if temperature is not None and top_p is not None and not _TAKES_BOTH.match(api_id):
        why = f"{api_id} takes temperature or top_p, and not both"
        return Clash(("temperature", "top_p"), why, "leave one of them out")
    return None


def _of_thoughts(api_id: str, said: Mapping[str, object]) -> Clash | None:
    temperature, top_p, top_k = (said.get(name) for name in ("temperature", "top_p", "top_k"))
    if temperature is not None and temperature != _USUAL:
        why = f"{api_id} takes no temperature but 1 while it thinks, and thinking is on"
        return Clash(
            ("temperature", "thinking"), why, "leave temperature out, or set thinking to false"
        )
    if top_k is not None:
        why = f"{api_id} takes no top_k while it thinks, and thinking is on"
        return Clash(("top_k", "thinking"), why, "leave top_k out, or set thinking to false")
    if isinstance(top_p, int | float) and top_p < _LEAST_TOP_P:
        why = f"{api_id} takes a top_p from {_LEAST_TOP_P} to 1 while it thinks, and thinking is on"
        return Clash(("top_p", "thinking"), why, "leave top_p out, or set thinking to false")
    return None
