"""From how a model is reached to a model of pydantic-ai. A provider's code is loaded at its first use.

Retries are the loop's alone: a client that tries again by itself would hide what it does. xAI, DeepSeek,
Groq and endpoints of the org are spoken to in OpenAI's protocol.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from runtools.errors import InvalidRequest
from runtools.platform.agents.models import quickened
from runtools.platform.core.models import OFFLINE
from runtools.platform.core.ports.worker import ModelAccess

if TYPE_CHECKING:
    import httpx2
    from pydantic_ai.models import Model, ModelRequestParameters

_BASES = {
    "deepseek": "https://api.deepseek.com",
    "groq": "https://api.groq.com/openai/v1",
    "xai": "https://api.x.ai/v1",
}
_ANTHROPIC_VERSION = "2023-06-01"
"""Of Anthropic's API. From 2026-10-21 on it refuses what says a temperature, top_p or top_k, also of models
that take them; and which one a client speaks by itself depends on what was installed (decision 0055)."""
_NO_KEY = "none"  # what a server is sent that asks for no key

Http = Callable[[], "httpx2.AsyncClient"]


class Models:
    """Builds models over one HTTP client."""

    def __init__(self, http: Http) -> None:
        self._http = http
        self._client: httpx2.AsyncClient | None = None

    @property
    def client(self) -> httpx2.AsyncClient:
        """The client; made when a model is first asked that is not here."""
        if self._client is None:
            self._client = self._http()
        return self._client

    def build(self, access: ModelAccess) -> Model:
        """The model.

        Raises:
            InvalidRequest: there is no key for it, or nobody knows its provider.
        """
        if access.provider == OFFLINE:
            from runtools.platform.agents.models.demo import demo  # noqa: PLC0415

            return demo()
        make = _PROVIDERS.get(access.provider)
        if make is None and access.base_url is None:
            raise InvalidRequest(f"there is no provider or endpoint {access.provider!r} any more")
        if access.api_key is None and access.base_url is None:
            raise InvalidRequest(
                f"there is no key for {access.provider}",
                hint="runtools models says which secret it is looked for in",
            )
        return _remembering((make or _openai_chat)(access, self.client))

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()


def _remembering(model: Model) -> Model:
    """The model, which fits the tools of a run to its provider once, and not for every answer anew."""
    fit = model.customize_request_parameters
    last: tuple[ModelRequestParameters, ModelRequestParameters] | None = None

    def fitted(model_request_parameters: ModelRequestParameters) -> ModelRequestParameters:
        nonlocal last
        if last is None or last[0] != model_request_parameters:
            last = model_request_parameters, fit(model_request_parameters)
        return last[1]

    model.customize_request_parameters = fitted  # type: ignore[method-assign]
    return model


def _anthropic(access: ModelAccess, http: Any) -> Model:
    from anthropic import AsyncAnthropic  # noqa: PLC0415
    from pydantic_ai.models.anthropic import AnthropicModel  # noqa: PLC0415
    from pydantic_ai.providers.anthropic import AnthropicProvider  # noqa: PLC0415

    api = AsyncAnthropic(
        api_key=access.api_key or _NO_KEY,
        auth_token=None,
        base_url=access.base_url or "https://api.anthropic.com",
        max_retries=0,
        default_headers={"anthropic-version": _ANTHROPIC_VERSION},
        http_client=http,
    )
    _hand_over(api.beta.messages, "messages", "tools")
    return AnthropicModel(access.api_id, provider=AnthropicProvider(anthropic_client=api))


def _openai_client(access: ModelAccess, http: Any) -> Any:
    from openai import AsyncOpenAI  # noqa: PLC0415

    base = access.base_url or _BASES.get(access.provider, "https://api.openai.com/v1")
    api = AsyncOpenAI(
        api_key=access.api_key or _NO_KEY,
        base_url=base,
        organization="",
        project="",
        max_retries=0,
        http_client=http,
    )
    _hand_over(api.responses, "input", "tools")
    quickened.write_at_once(api)
    quickened.check_pieces(api)
    return api


def _hand_over(resource: Any, needed: str, *names: str) -> None:
    """Give a client the conversation (``needed``), the tools and the like as they go over the wire.

    Given as arguments it would walk through every field of them to see whether one has another name there:
    20 ms for a conversation of sixty answers, and none has.
    """
    create = resource.create

    async def handed_over(**given: Any) -> Any:
        own = {
            name: given[name]
            for name in (needed, *names)
            if isinstance(given.get(name), list | dict | str)
        }
        body = {**(given.get("extra_body") or {}), **own}
        rest = {name: one for name, one in given.items() if name not in own}
        return await create(**{needed: []} | rest | {"extra_body": body})

    resource.create = handed_over


def _openai(access: ModelAccess, http: Any) -> Model:
    from pydantic_ai.models.openai import OpenAIResponsesModel  # noqa: PLC0415
    from pydantic_ai.providers.openai import OpenAIProvider  # noqa: PLC0415

    provider = OpenAIProvider(openai_client=_openai_client(access, http))
    return OpenAIResponsesModel(access.api_id, provider=provider)


def _openai_chat(access: ModelAccess, http: Any) -> Model:
    from pydantic_ai.models.openai import OpenAIChatModel  # noqa: PLC0415
    from pydantic_ai.providers.openai import OpenAIProvider  # noqa: PLC0415

    provider = OpenAIProvider(openai_client=_openai_client(access, http))
    return quickened.remembering(OpenAIChatModel(access.api_id, provider=provider))


def _deepseek(access: ModelAccess, http: Any) -> Model:
    from pydantic_ai.models.openai import OpenAIChatModel  # noqa: PLC0415
    from pydantic_ai.providers.deepseek import DeepSeekProvider  # noqa: PLC0415

    provider = DeepSeekProvider(openai_client=_openai_client(access, http))
    return quickened.remembering(OpenAIChatModel(access.api_id, provider=provider))


def _google(access: ModelAccess, http: Any) -> Model:
    from pydantic_ai.models.google import GoogleModel  # noqa: PLC0415
    from pydantic_ai.providers.google import GoogleProvider  # noqa: PLC0415

    provider = GoogleProvider(
        api_key=access.api_key or _NO_KEY, base_url=access.base_url, http_client=http
    )
    return GoogleModel(access.api_id, provider=provider)


def _mistral(access: ModelAccess, http: Any) -> Model:
    from pydantic_ai.models.mistral import MistralModel  # noqa: PLC0415
    from pydantic_ai.providers.mistral import MistralProvider  # noqa: PLC0415

    provider = MistralProvider(
        api_key=access.api_key or _NO_KEY, base_url=access.base_url, http_client=http
    )
    return MistralModel(access.api_id, provider=provider)


_PROVIDERS: dict[str, Callable[[ModelAccess, Any], Model]] = {
    "anthropic": _anthropic,
    "openai": _openai,
    "google": _google,
    "mistral": _mistral,
    "deepseek": _deepseek,
    "groq": _openai_chat,
    "xai": _openai_chat,
}
