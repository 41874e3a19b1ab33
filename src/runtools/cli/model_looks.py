"""How models and endpoints look to people."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import RenderableType
from rich.text import Text

from runtools.cli.tables import table
from runtools.cli.words import harmless_name
from runtools.sdk.shapes.models import EndpointModel, Model, ModelEndpoint, ModelPrice

_KEYS = {
    "secret": ("secret", "green"),
    "environment": ("environment", "green"),
    "not_needed": ("needs none", "green"),
    "missing": ("missing", "bright_black"),
}


def models(found: Sequence[Model]) -> RenderableType:
    """The catalogue, a line each."""
    if not found:
        return Text("no model has a key; runtools secret set ANTHROPIC_API_KEY, for one")
    made = table("MODEL", "PROVIDER", "CONTEXT", "IN $", "OUT $", "KEY", right=_RIGHT)
    for one in found:
        into, out = _prices(one.price)
        made.add_row(one.alias, one.provider, _tokens(one.context_window), into, out, _key(one.key))
    return made


_RIGHT = ("CONTEXT", "IN $", "OUT $")


def endpoints(found: Sequence[ModelEndpoint]) -> RenderableType:
    """Endpoints, a line each."""
    if not found:
        return Text(
            "no endpoints; runtools endpoint create SLUG URL adds one", style="bright_black"
        )
    made = table("SLUG", "URL", "CONTEXT", "SECRET", "KEY")
    for one in found:
        made.add_row(
            one.slug, one.url, _tokens(one.context_window), one.secret or "-", _key(one.key)
        )
    return made


def names(found: Sequence[EndpointModel]) -> RenderableType:
    """What an endpoint has."""
    return Text("\n".join(harmless_name(one.name) for one in found) or "it has no models")


def _key(source: str) -> Text:
    word, style = _KEYS[source]
    return Text(word, style=style)


def _tokens(count: int | None) -> str:
    if count is None:
        return "-"
    return f"{count / 1e6:g} M" if count >= 1_000_000 else f"{count / 1000:.0f} k"


def _prices(price: ModelPrice | None) -> tuple[str, str]:
    return ("-", "-") if price is None else (f"{price.input:.2f}", f"{price.output:.2f}")
