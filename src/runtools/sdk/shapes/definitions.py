"""What a project folder defines: agents, tools and standing sandboxes, in the form that is deployed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, JsonValue, StringConstraints, model_validator

from runtools.sdk.shapes.base import Request
from runtools.sdk.shapes.dev_urls import Access
from runtools.sdk.shapes.egress import EgressRules
from runtools.sdk.shapes.sandboxes import (
    DEFAULT_DISK_MB,
    DEFAULT_IDLE_TIMEOUT_SECONDS,
    DEFAULT_MEMORY_MB,
    DEFAULT_VCPUS,
    EnvName,
    Isolation,
    Name,
    TagText,
)

Kind = Literal["tool", "sandbox", "agent"]
SandboxMode = Literal["shared", "fork"]
Thinking = Literal[True, False, "minimal", "low", "medium", "high", "xhigh", "max"]
"""Whether a model thinks before it answers, or how much; how close it comes is the provider's."""
Permission = Literal["allow", "ask", "deny"]
"""Whether an agent may call a tool: ``ask`` waits for a person's decision on each call."""

# Every agent has these; naming them among its tools changes nothing.
BUILT_IN_TOOLS = frozenset(
    {
        "bash",
        "read_file",
        "edit_file",
        "write_file",
        "delete_file",
        "list_directory",
        "file_search",
        "grep",
        "web_search",
        "get_dev_url",
    }
)

# The official integrations: an agent may name one before it is installed.
MARKETPLACE_TOOLS = frozenset(
    {
        "github",
        "gmail",
        "google-calendar",
        "google-sheets",
        "slack",
        "discord",
        "outlook",
        "x-twitter",
        "linkedin",
        "telegram",
    }
)

DEFAULT_MAX_ITERATIONS = 25
MAX_SOURCE_BYTES = 1_048_576
MAX_DEFINITIONS = 1000
"""Of each kind in a project."""

ActionName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]{0,63}$")]
# A built-in tool, or the slug of an installed or custom one.
ToolName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?$")]
Description = Annotated[str, StringConstraints(max_length=4096)]
# What a model calls a tool: a built-in one, ``tool__action`` or ``server__tool``.
CalledName = Annotated[str, StringConstraints(pattern=r"^(?:[a-zA-Z0-9_-]{1,128}\*?|\*)$")]


def _is_printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("it has characters that cannot be shown")
    return text


def _is_object_schema(schema: dict[str, JsonValue]) -> dict[str, JsonValue]:
    if schema.get("type") != "object":
        raise ValueError('the schema of an action\'s parameters has "type": "object"')
    return schema


def _is_once(names: list[str]) -> list[str]:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{', '.join(twice)} is named more than once")
    return names


def _is_command(line: str) -> str:
    if "\0" in line or not line.strip():
        raise ValueError("it is no command")
    return line


SetupLine = Annotated[str, StringConstraints(max_length=65_536), AfterValidator(_is_command)]
TemplateName = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(@[1-9][0-9]{0,8})?$")
]
Label = Annotated[
    str, StringConstraints(min_length=1, max_length=200), AfterValidator(_is_printable)
]
ObjectSchema = Annotated[dict[str, JsonValue], AfterValidator(_is_object_schema)]


class McpServer(Request, defer_build=True):
    """A server of tools by the Model Context Protocol: called by the platform, or run in the sandbox.

    One with ``url`` (streamable HTTP) is called by the worker; one with ``command`` (stdio) runs inside the
    sandbox, and is given what stands in ``env`` there.
    """

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$")]
    url: str | None = Field(None, max_length=2048)
    secret: EnvName | None = Field(None, description="the secret sent to `url` as a bearer token")
    command: list[str] | None = Field(None, min_length=1, max_length=64)
    env: dict[EnvName, str] = Field(default_factory=dict)
    tools: list[str] | None = Field(
        None, max_length=128, description="which of its tools the agent may use; default: all"
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> McpServer:
        if (self.url is None) == (self.command is None):
            raise ValueError("give either url or command")
        if self.command is not None and self.secret is not None:
            raise ValueError("no secret enters a sandbox: it goes with url")
        if self.url is not None and self.env:
            raise ValueError("env goes with command")
        return self


def _is_server_once(servers: list[McpServer]) -> list[McpServer]:
    _is_once([server.name for server in servers])
    return servers


class AgentDefinition(Request, defer_build=True):
    """A model, instructions, tools, and the sandbox it works in."""

    slug: Name
    name: Label
    description: Description | None = None
    model: Label
    system_prompt: str = Field("", max_length=262_144)
    tools: Annotated[list[ToolName], AfterValidator(_is_once)] = Field(
        default_factory=list, max_length=128, description="built-in tools are always there"
    )
    permissions: dict[CalledName, Permission] = Field(
        default_factory=dict,
        max_length=256,
        description="by the name that the model calls, a `*` at its end stands for any rest; the longest"
        " that fits counts; default: allow",
    )
    mcp_servers: Annotated[list[McpServer], AfterValidator(_is_server_once)] = Field(
        default_factory=list, max_length=16
    )
    sandbox: Name | None = Field(None, description="a standing sandbox; default: one on demand")
    sandbox_mode: SandboxMode = "shared"
    side_by_side: bool = Field(
        False, description="runs that share a sandbox do not wait for each other"
    )
    max_iterations: int = Field(DEFAULT_MAX_ITERATIONS, ge=1, le=100)
    max_tokens: int | None = Field(None, ge=1, le=128_000)
    temperature: float | None = Field(None, ge=0, le=2, allow_inf_nan=False)
    top_p: float | None = Field(None, ge=0, le=1, allow_inf_nan=False)
    top_k: int | None = Field(None, ge=1)
    presence_penalty: float | None = Field(None, ge=-2, le=2, allow_inf_nan=False)
    frequency_penalty: float | None = Field(None, ge=-2, le=2, allow_inf_nan=False)
    thinking: Thinking | None = Field(
        None, description="true, false or how much; default: what the model does by itself"
    )
    max_total_tokens: int | None = Field(None, ge=1, le=1_000_000_000)
    max_cost_usd: float | None = Field(None, gt=0, le=1_000_000, allow_inf_nan=False)
    max_seconds: int | None = Field(None, ge=1, le=604_800)


class SandboxDefinition(Request, defer_build=True):
    """A standing sandbox. ``setup`` runs once, in order, and is kept in its snapshot."""

    slug: Name
    name: Label | None = None
    template: TemplateName | None = Field(
        None, description="slug or slug@version; default base-debian"
    )
    vcpus: int = Field(DEFAULT_VCPUS, ge=1, le=64)
    memory_mb: int = Field(DEFAULT_MEMORY_MB, ge=256, le=524_288)
    disk_mb: int = Field(DEFAULT_DISK_MB, ge=512, le=4_194_304)
    env: dict[EnvName, str] = Field(default_factory=dict)
    secrets: Annotated[list[EnvName], AfterValidator(_is_once)] = Field(
        default_factory=list,
        max_length=64,
        description="secrets (category custom, scope sandboxes or all) to be set in the environment",
    )
    tags: dict[TagText, TagText] = Field(default_factory=dict, max_length=64)
    idle_timeout_seconds: int = Field(DEFAULT_IDLE_TIMEOUT_SECONDS, ge=0, le=31_536_000)
    max_lifetime_seconds: int | None = Field(None, ge=1, le=31_536_000)
    internet: bool = True
    egress: EgressRules = Field(default_factory=EgressRules)
    require_isolation: Isolation | None = None
    dev_urls: Access | None = Field(
        None, description="who may enter its ports by their URLs; default: what the org has chosen"
    )
    setup: list[SetupLine] = Field(default_factory=list, max_length=128)


class CredentialField(Request, defer_build=True):
    """One credential that a tool needs, as it is asked for."""

    type: Literal["string"] = "string"
    description: Description = ""


class OAuthCredentials(Request, defer_build=True):
    """Where credentials come from without being typed in: a connected account."""

    provider: Name
    scopes: list[str] = Field(default_factory=list, max_length=64)
    credential_mapping: dict[str, Literal["access_token"]] = Field(
        description="field of the credentials -> what of the connection goes there"
    )


class Credentials(Request, defer_build=True):
    """What a tool must be given to do its work; it never enters a sandbox."""

    required: list[str] = Field(default_factory=list, max_length=64)
    fields: dict[str, CredentialField] = Field(default_factory=dict, alias="schema")
    oauth: OAuthCredentials | None = None


class ActionDefinition(Request, defer_build=True):
    """One thing a tool can do, as a model is told of it."""

    description: Annotated[str, StringConstraints(min_length=1, max_length=4096)]
    parameters: ObjectSchema


class ToolSource(Request, defer_build=True):
    """The code of a custom tool, complete but for its declared dependencies."""

    entry: str = Field(description="the file that defines it, among `files`")
    files: dict[str, str] = Field(description="path in the project -> text")
    dependencies: list[str] = Field(default_factory=list, description="PEP 508 requirements")
    requires_python: str | None = None
    digest: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 over all of the above")


class ToolHead(Request, defer_build=True):
    """What a custom tool is, beside what it does."""

    name: Name
    description: Description = ""
    category: Label | None = None
    credentials: Credentials | None = None


def amiss(tool: ToolHead) -> Iterator[tuple[tuple[str, ...], str]]:
    """Which fields of a tool to come do not go with what else is there, and why.

    It is no part of the shape: what was deployed before it was looked at can still be read.
    """
    if tool.name in BUILT_IN_TOOLS:
        yield ("name",), f"{tool.name!r} is a tool that every agent has; call yours otherwise"
    needs = tool.credentials
    if needs is None:
        return
    for at, field in enumerate(needs.required):
        if field not in needs.fields:
            yield ("credentials", "required", str(at)), f"{field!r} is not in schema"
    if needs.oauth is not None:
        for field in needs.oauth.credential_mapping:
            if field not in needs.fields:
                yield ("credentials", "oauth", "credentialMapping"), f"{field!r} is not in schema"


class ToolDefinition(ToolHead):
    """A custom tool: what it can do, what it needs, and its code."""

    actions: dict[ActionName, ActionDefinition] = Field(min_length=1, max_length=128)
    source: ToolSource

    @property
    def slug(self) -> str:
        """Its name, which is a slug: what it is known by."""
        return self.name


Definition = AgentDefinition | SandboxDefinition | ToolDefinition
DEFINITIONS: dict[Kind, type[Definition]] = {
    "tool": ToolDefinition,
    "sandbox": SandboxDefinition,
    "agent": AgentDefinition,
}


def kind_of(definition: Definition) -> Kind:
    """The word by which its kind is known on the wire."""
    return next(kind for kind, shape in DEFINITIONS.items() if isinstance(definition, shape))


def to_wire(definition: Definition) -> dict[str, Any]:
    """The JSON form that travels; what has its default is in it too, so that two can be compared."""
    return definition.model_dump(mode="json", by_alias=True)
