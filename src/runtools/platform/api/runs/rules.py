"""What may be asked of runs, what they may spend, and how sums are added up. Pure."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from runtools.platform.core.models import Choice
from runtools.platform.core.sampling import clash
from runtools.platform.kit import http
from runtools.sdk import pictures
from runtools.sdk.shapes.definitions import AgentDefinition
from runtools.sdk.shapes.runs import Budget, RunConfig, RunImage, RunRequest

NANO = 1_000_000_000
_TITLE = 80
_MAX_DIGITS = 40
_REFERENCES = frozenset({"$ref", "$dynamicRef", "$recursiveRef"})


def check(wanted: RunRequest) -> None:
    """Refuse what the shape alone does not.

    Raises:
        InvalidRequest: an image that models cannot be shown, or a schema of no object.
    """
    if wanted.messages is not None and wanted.images:
        raise http.wrong_field("images", "with messages, each has its own")
    check_images(wanted.images, "images")
    for n, message in enumerate(wanted.messages or ()):
        check_images(message.images, f"messages.{n}.images")
    schema = wanted.output_schema
    if schema is not None and schema.get("type") != "object":
        raise http.wrong_field("outputSchema", 'it must say "type": "object"')
    if schema is not None and not _is_whole(schema):
        raise http.wrong_field("outputSchema", "its references must lie in itself: #/$defs/…")


def _is_whole(schema: Any) -> bool:
    """Whether nothing that a schema refers to lies elsewhere: no file, and no address."""
    waiting = [schema]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += value
        elif isinstance(value, dict):
            for name, one in value.items():
                if name in _REFERENCES and isinstance(one, str) and not one.startswith("#"):
                    return False
                waiting.append(one)
    return True


def check_images(images: Sequence[RunImage], field: str) -> None:
    """Refuse what is no picture: providers would refuse the thread with it, from then on."""
    for n, image in enumerate(images):
        try:
            data = base64.b64decode(image.data, validate=True)
        except (binascii.Error, ValueError):
            raise http.wrong_field(f"{field}.{n}.data", "is no base64") from None
        if (wrong := pictures.fault(data)) is not None:
            raise http.wrong_field(f"{field}.{n}.data", wrong)
        if (kind := pictures.kind_of(data)) != image.media_type:
            raise http.wrong_field(f"{field}.{n}.mediaType", f"the data is {kind}")


def check_sampling(chosen: Choice, agent: AgentDefinition, config: Mapping[str, object]) -> None:
    """Refuse settings of agent and run that the model's provider would refuse.

    Args:
        config: what the run says, which goes before what the agent says.

    Raises:
        InvalidRequest: the field is the run's, where it says one of them.
    """
    said = {**agent.model_dump(by_alias=False), **config}
    found = clash(chosen.provider, chosen.api_id, said)
    if found is not None:
        own = [name for name in found.fields if name in config]
        field = f"config.{RunConfig.model_fields[own[0]].alias}" if own else "agentSlug"
        raise http.wrong_field(field, found.why, hint=found.hint)


def title_of(text: str) -> str | None:
    """What a thread is called at first: how its first message begins."""
    words = " ".join("".join(c if c.isprintable() else " " for c in text[:1000]).split())
    return (words if len(words) <= _TITLE else f"{words[: _TITLE - 1].rstrip()}…") or None


def month(at: datetime) -> str:
    """The month in which budgets count: ``2026-11``."""
    return at.astimezone(UTC).strftime("%Y-%m")


def budget(
    agent: AgentDefinition, config: RunConfig, tokens: int | None, usd: Decimal | None
) -> dict[str, float]:
    """What a run may spend: the least that agent and run say.

    Args:
        agent, config: what they say; what the run says of rounds goes before what the agent says.
        tokens: how many the org would let it take in all, None: as many as it likes.
        usd: how much the org would let it cost in all.
    """
    said: dict[str, list[float]] = {name: [] for name in Budget.model_fields}
    said["max_iterations"].append(config.max_iterations or agent.max_iterations)
    for name in ("max_total_tokens", "max_cost_usd", "max_seconds"):
        said[name] += [
            value for source in (agent, config) if (value := getattr(source, name)) is not None
        ]
    if tokens is not None:
        said["max_total_tokens"].append(tokens)
    if usd is not None:
        said["max_cost_usd"].append(float(usd))
    return {name: min(values) for name, values in said.items() if values}


def config_over(base: Mapping[str, object], over: RunConfig) -> dict[str, object]:
    """The config of a run that continues another."""
    return {**base, **over.model_dump(mode="json", exclude_none=True, by_alias=False)}


def usd(text: str | None) -> Decimal:
    """An amount of money; nothing where it is not known.

    Raises:
        InvalidRequest: it is none.
    """
    if text is None:
        return Decimal(0)
    try:
        amount = Decimal(text[:_MAX_DIGITS])
    except InvalidOperation:
        raise http.wrong_field("costUsd", "is no decimal number") from None
    if not amount.is_finite() or not 0 <= amount < NANO:
        raise http.wrong_field("costUsd", "is no amount of money")
    return amount
