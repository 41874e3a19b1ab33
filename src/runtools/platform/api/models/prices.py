"""What models cost, by the price list of genai-prices (the copy that it ships; nothing is fetched)."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from functools import lru_cache

from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import TieredPrices

from runtools.platform.core.models import PRICED_AS, Model
from runtools.sdk.shapes.models import ModelPrice


def price(model: Model, now: datetime) -> ModelPrice | None:
    """US dollars for a million tokens of a short request; None where the list has none."""
    return _price(model.provider, model.api_id, now.replace(minute=0, second=0, microsecond=0))


@lru_cache(maxsize=512)  # the list is long, and some prices go by the hour of the day
def _price(provider: str, api_id: str, now: datetime) -> ModelPrice | None:
    try:
        _, listed = get_snapshot().find_provider_model(
            api_id, None, PRICED_AS.get(provider, provider), None
        )
    except LookupError:
        return None
    prices = listed.get_prices(now)
    into, out = _base(prices.input_mtok), _base(prices.output_mtok)
    return None if into is None or out is None else ModelPrice(input=into, output=out)


def _base(price: Decimal | TieredPrices | None) -> Decimal | None:
    return price.base if isinstance(price, TieredPrices) else price
