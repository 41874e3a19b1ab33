"""Which models there are: by what name, from which provider, and what they can do. Pure.

A model is named by an alias of the catalogue (``claude-sonnet-4``), by ``provider:id`` with an id that the
provider knows, or by ``slug:id`` of an endpoint that the org has added. The ids, windows and abilities are
those that providers publish; no test of ours has spoken to a provider (``docs/models.md`` says so too).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from runtools.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class Provider:
    """Who answers for models.

    Attributes:
        slug: the word before the colon.
        name: what people call it.
        key: the secret, or variable of the environment, that holds its API key; None: it needs none.
    """

    slug: str
    name: str
    key: str | None


@dataclass(frozen=True, slots=True)
class Model:
    """One entry of the catalogue.

    Attributes:
        alias: what an agent's definition says.
        name: what people call it.
        provider: the slug of who answers for it.
        api_id: what the provider calls it.
        context_window: tokens that it can take in; None: not published.
        images: whether it sees pictures.
        thinking: whether it can think before it answers.
        max_output: tokens of an answer to ask for where nobody says how many; None: what is given to one
            that says none is enough.
    """

    alias: str
    name: str
    provider: str
    api_id: str
    context_window: int | None
    images: bool
    thinking: bool
    max_output: int | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """What the name of a model stands for; ``model`` is None where the catalogue does not know it."""

    provider: str
    api_id: str
    model: Model | None


OFFLINE = "demo"

PROVIDERS: Mapping[str, Provider] = {
    provider.slug: provider
    for provider in (
        Provider("anthropic", "Anthropic", "ANTHROPIC_API_KEY"),
        Provider("openai", "OpenAI", "OPENAI_API_KEY"),
        Provider("google", "Google", "GOOGLE_API_KEY"),
        Provider("xai", "xAI", "XAI_API_KEY"),
        Provider("mistral", "Mistral", "MISTRAL_API_KEY"),
        Provider("deepseek", "DeepSeek", "DEEPSEEK_API_KEY"),
        Provider("groq", "Groq", "GROQ_API_KEY"),
        Provider(OFFLINE, "Offline demonstration", None),
    )
}

PRICED_AS: Mapping[str, str] = {"xai": "x-ai"}
"""What the price list of genai-prices calls providers, where that is not their slug."""

SEARCH_KEY = "EXA_API_KEY"
"""What the built-in tool `web_search` asks with."""
KEYS = frozenset({SEARCH_KEY, *(one.key for one in PROVIDERS.values() if one.key is not None)})
"""The names of all keys that agents' work may need, as secrets or in the machine's environment."""

_ENTRIES = (
    ("claude-opus-4.6", "Claude Opus 4.6", "anthropic", "claude-opus-4-6", 1_000_000, True, True),
    ("claude-opus-4.5", "Claude Opus 4.5", "anthropic", "claude-opus-4-5", 200_000, True, True),
    (
        "claude-sonnet-4.5",
        "Claude Sonnet 4.5",
        "anthropic",
        "claude-sonnet-4-5",
        200_000,
        True,
        True,
    ),
    (
        "claude-sonnet-4",
        "Claude Sonnet 4",
        "anthropic",
        "claude-sonnet-4-0",
        200_000,
        True,
        True,
        # It can say 64,000, but refuses what is longer than its window together with the conversation,
        # which is summed up only at four fifths of that.
        32_000,
    ),
    ("claude-haiku", "Claude Haiku", "anthropic", "claude-haiku-4-5", 200_000, True, True),
    ("gpt-5.2", "GPT-5.2", "openai", "gpt-5.2", 400_000, True, True),
    ("gpt-5.2-pro", "GPT-5.2 Pro", "openai", "gpt-5.2-pro", 400_000, True, True),
    ("gpt-5", "GPT-5", "openai", "gpt-5", 400_000, True, True),
    ("gpt-5-mini", "GPT-5 Mini", "openai", "gpt-5-mini", 400_000, True, True),
    ("gpt-5-nano", "GPT-5 Nano", "openai", "gpt-5-nano", 400_000, True, True),
    ("gpt-4.1", "GPT-4.1", "openai", "gpt-4.1", 1_000_000, True, False),
    ("o4-mini", "o4-mini", "openai", "o4-mini", 200_000, True, True),
    ("gemini-3-pro", "Gemini 3 Pro", "google", "gemini-3-pro-preview", 1_000_000, True, True),
    ("gemini-3-flash", "Gemini 3 Flash", "google", "gemini-3-flash-preview", 1_000_000, True, True),
    ("gemini-2-flash", "Gemini 2 Flash", "google", "gemini-2.0-flash", 1_000_000, True, False),
    ("grok-4", "Grok 4", "xai", "grok-4", 256_000, True, True),
    ("grok-3", "Grok 3", "xai", "grok-3", 131_072, False, False),
    ("mistral-large", "Mistral Large", "mistral", "mistral-large-latest", None, True, False),
    ("deepseek", "DeepSeek", "deepseek", "deepseek-chat", 64_000, False, False, 8_192),
    (
        "deepseek-reasoner",
        "DeepSeek Reasoner",
        "deepseek",
        "deepseek-reasoner",
        64_000,
        False,
        True,
    ),
    (
        "llama-4",
        "Llama 4",
        "groq",
        "meta-llama/llama-4-maverick-17b-128e-instruct",
        131_072,
        True,
        False,
    ),
    ("llama-3.3-70b", "Llama 3.3 70B", "groq", "llama-3.3-70b-versatile", 131_072, False, False),
    (OFFLINE, "Offline demonstration", OFFLINE, OFFLINE, None, False, False),
)

_BY_ID_ALONE = (
    # Theirs is what Claude Sonnet 4's is: what is longer than the window with the conversation is refused.
    (
        "claude-opus-4.1",
        "Claude Opus 4.1",
        "anthropic",
        "claude-opus-4-1",
        200_000,
        True,
        True,
        32_000,
    ),
    ("claude-opus-4", "Claude Opus 4", "anthropic", "claude-opus-4-0", 200_000, True, True, 32_000),
)
"""What the catalogue does not list, and knows all the same when it is named as ``provider:id``."""

MODELS: Mapping[str, Model] = {said[0]: Model(*said) for said in _ENTRIES}
_BY_API_ID = {
    (model.provider, model.api_id): model
    for model in (*MODELS.values(), *(Model(*said) for said in _BY_ID_ALONE))
}
_UNDATED = {"claude-opus-4": "claude-opus-4-0", "claude-sonnet-4": "claude-sonnet-4-0"}
"""What is left of an id without its date, where the model has another id beside that."""
_DATE = re.compile(r"[-@](\d{8}|\d{4}-\d{2}-\d{2})$")

_NEAR = 3
_MAX_ID = 200


def choose(name: str, endpoints: Collection[str] = ()) -> Choice:
    """What a model's name stands for.

    Args:
        name: an alias, ``provider:id`` or ``endpoint:id``.
        endpoints: slugs of the org's own endpoints.

    Raises:
        InvalidRequest: nothing is called that; the hint has what looks like it.
    """
    model = MODELS.get(name)
    if model is not None:
        return Choice(model.provider, model.api_id, model)
    provider, colon, api_id = name.partition(":")
    if not colon:
        raise _unknown(name, "model", MODELS)
    if not 0 < len(api_id) <= _MAX_ID or not api_id.isprintable() or " " in api_id:
        raise InvalidRequest(
            f"{name[:80]!r} names no model of {provider}", hint="write provider:id, as it calls it"
        )
    if provider == OFFLINE or not (provider in PROVIDERS or provider in endpoints):
        known = [*(slug for slug in PROVIDERS if slug != OFFLINE), *endpoints]
        raise _unknown(provider, "provider", known)
    return Choice(provider, api_id, entry(provider, api_id))


def parts_of(name: str) -> tuple[str, str]:
    """The provider and its id in a name that was good when it was chosen; nothing is looked up."""
    model = MODELS.get(name)
    if model is not None:
        return model.provider, model.api_id
    provider, _, api_id = name.partition(":")
    return provider, api_id


def entry(provider: str, api_id: str) -> Model | None:
    """The entry of the catalogue for a provider's own id; with a date at its end it is the same model's."""
    return _BY_API_ID.get((provider, _undated(api_id)))


def in_traces(provider: str) -> str:
    """What OpenTelemetry's conventions call a provider."""
    return {"google": "gcp.gemini", "mistral": "mistral_ai", "xai": "x_ai"}.get(provider, provider)


def published(api_id: str) -> Model | None:
    """The entry of the catalogue whose provider calls it so; gateways put words before it."""
    own = _undated(api_id.rpartition("/")[2])
    return next((model for model in _BY_API_ID.values() if model.api_id == own), None)


def _undated(api_id: str) -> str:
    without = _DATE.sub("", api_id)
    return _UNDATED.get(without, without)


def _unknown(name: str, what: str, known: Collection[str]) -> InvalidRequest:
    near = difflib.get_close_matches(name.lower(), known, n=_NEAR, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "runtools models lists them"
    return InvalidRequest(f"there is no {what} {name[:80]!r}", hint=hint, details={"near": near})
