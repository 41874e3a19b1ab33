"""Whether a saved state can still be restored here, and whether isolation is what was required."""

from __future__ import annotations

from collections.abc import Mapping

from runtools.errors import IsolationUnavailable, SnapshotUnfit
from runtools.platform.core.ports.driver import Machine
from runtools.platform.host.engine.engine import Engine
from runtools.sdk.shapes.sandboxes import Isolation

_HINT = "it was saved with other software; go back to that, or start anew"


def check_fit(
    what: str, saved: Mapping[str, str], engine: Engine, machine: Machine, hint: str = _HINT
) -> None:
    """Refuse by name before anything is restored.

    Raises:
        SnapshotUnfit: VMM, CPU model, kernel or another thing is not what it was saved with.
    """
    now = engine.driver.fingerprint(machine)
    differs = {
        key: {"saved": saved.get(key), "now": now.get(key)}
        for key in sorted({*saved, *now})
        if saved.get(key) != now.get(key)
    }
    if differs:
        raise SnapshotUnfit(
            f"{what} does not fit any more: {', '.join(differs)} changed",
            hint=hint,
            details={"differs": differs},
        )


def is_strict(engine: Engine) -> bool:
    """Whether the operator has nothing run without hardware isolation."""
    return engine.settings.require_isolation == "hardware"


def check_isolation(engine: Engine, required: Isolation | None) -> None:
    """Refuse what must not run under the isolation that is to be had.

    Raises:
        IsolationUnavailable: hardware isolation is required and this host emulates.
    """
    operator, have = is_strict(engine), engine.capabilities.isolation
    if (required == "hardware" or operator) and have != "hardware":
        who = "the setting require_isolation" if operator else "the request"
        raise IsolationUnavailable(
            f"{who} requires hardware isolation, and this host gives {have}",
            hint=f"runtools doctor says why: {engine.capabilities.reason}",
            details={"required": "hardware", "available": have},
        )
