"""What a request took, and what it cost by the price list of genai-prices."""

from __future__ import annotations

from genai_prices import Usage, calc_price
from pydantic_ai.usage import RequestUsage

from runtools.platform.core.models import OFFLINE, PRICED_AS, PROVIDERS
from runtools.platform.core.ports.worker import ModelAccess
from runtools.sdk.shapes.runs import RunUsage


def usage_of(access: ModelAccess, used: RequestUsage) -> RunUsage:
    """The tokens of one request with their price; null where it is not known."""
    return RunUsage(
        input_tokens=used.input_tokens,
        output_tokens=used.output_tokens,
        cache_read_tokens=used.cache_read_tokens,
        cache_write_tokens=used.cache_write_tokens,
        reasoning_tokens=used.output_reasoning_tokens,
        requests=1,
        cost_usd=_cost(access, used),
    )


def _cost(access: ModelAccess, used: RequestUsage) -> str | None:
    if access.provider == OFFLINE:
        return "0"
    if access.provider not in PROVIDERS:
        return None  # an endpoint of the org: what it costs nobody has said
    usage = Usage(
        input_tokens=used.input_tokens,
        output_tokens=used.output_tokens,
        cache_read_tokens=used.cache_read_tokens,
        cache_write_tokens=used.cache_write_tokens,
    )
    provider = PRICED_AS.get(access.provider, access.provider)
    try:
        price = calc_price(usage, model_ref=access.api_id, provider_id=provider)
    except (LookupError, ValueError):
        return None
    return format(price.total_price.normalize(), "f")
