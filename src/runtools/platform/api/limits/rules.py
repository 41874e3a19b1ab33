"""Whether what is asked for fits under an org's limits, and how the refusal reads. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic.alias_generators import to_camel

from runtools.errors import QuotaExceeded
from runtools.platform.api.sandboxes.tables import Record
from runtools.platform.kit.config import Settings
from runtools.sdk.shapes.limits import Amounts

NANO_A_CENT = 10_000_000

# How each is called in a refusal, and what makes room.
_WORDS = {
    "sandboxes": ("running sandboxes", "pause or destroy some"),
    "vcpus": ("vCPUs of running sandboxes", "pause or destroy some"),
    "memory_mb": ("MB of memory of running sandboxes", "pause or destroy some"),
    "disk_mb": ("MB of disk", "destroy some sandboxes, or make smaller ones"),
    "snapshots": ("snapshots", "delete some"),
}


def standard(settings: Settings) -> Amounts:
    """What an org may have of which nothing else is said."""
    return Amounts(
        sandboxes=settings.limit_sandboxes,
        vcpus=settings.limit_vcpus,
        memory_mb=settings.limit_memory_mb,
        disk_mb=settings.limit_disk_mb,
        snapshots=settings.limit_snapshots,
        agent_tokens=settings.limit_agent_tokens,
        agent_cents=settings.limit_agent_cents,
    )


def taken(records: Sequence[Record]) -> Amounts:
    """What sandboxes take when they run."""
    return Amounts(
        sandboxes=len(records),
        vcpus=sum(record.vcpus for record in records),
        memory_mb=sum(record.memory_mb for record in records),
        disk_mb=sum(record.disk_mb for record in records),
    )


def exceeded(limits: Amounts, tokens: int, nano_usd: int) -> str | None:
    """Which budget of the month an org has used up, in words; None: it has some left."""
    if limits.agent_tokens and tokens >= limits.agent_tokens:
        most = f"{limits.agent_tokens} tokens of models in a month"
        return f"the org may take {most}, and it has taken {tokens}"
    if limits.agent_cents and nano_usd >= limits.agent_cents * NANO_A_CENT:
        most = f"{limits.agent_cents} cents on models in a month"
        return f"the org may spend {most}, and it has spent {nano_usd // NANO_A_CENT}"
    return None


def check(limits: Amounts, used: Amounts, asked: Amounts) -> None:
    """Refuse what goes beyond a limit.

    What takes nothing of something is not held up by its limit, though that be exceeded already.

    Raises:
        QuotaExceeded: it names the limit, what is used and what was asked.
    """
    for name, (what, room) in _WORDS.items():
        most, has, more = (getattr(amounts, name) for amounts in (limits, used, asked))
        if most and more and has + more > most:
            raise QuotaExceeded(
                f"the org may have {most} {what}; it has {has}, and {more} more were asked for",
                hint=f"{room}, or ask the operator for more: runtools org limits shows them",
                details={"limit": to_camel(name), "max": most, "used": has, "asked": more},
            )
