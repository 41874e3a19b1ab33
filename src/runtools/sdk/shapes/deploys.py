"""Deploys, and what they leave standing in a project: agents, custom tools and standing sandboxes."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from runtools.sdk.shapes.base import Request, Shape
from runtools.sdk.shapes.definitions import (
    MAX_DEFINITIONS,
    AgentDefinition,
    Definition,
    Kind,
    SandboxDefinition,
    ToolDefinition,
)
from runtools.sdk.shapes.sandboxes import Name

Action = Literal["create", "update", "replace", "delete"]
DeployState = Literal["running", "done", "failed"]

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class FieldChange(Shape, defer_build=True):
    """One field that changes. Of a private one (`env`) only names are shown."""

    field: str
    old: Any = None
    new: Any = None
    private: bool = False


class Change(Shape, defer_build=True):
    """One thing that a deploy does."""

    action: Action
    kind: Kind
    slug: str
    fields: list[FieldChange]

    @property
    def loses_data(self) -> bool:
        """Whether a sandbox's disk goes with it."""
        return self.kind == "sandbox" and self.action in ("replace", "delete")


class PlanRequest(Request, defer_build=True):
    """What `POST /v1/deploys/plan` takes: all that a project defines."""

    project: Name = Field(description="its name; one that is not there is made by the deploy")
    tools: list[ToolDefinition] = Field(default_factory=list, max_length=MAX_DEFINITIONS)
    sandboxes: list[SandboxDefinition] = Field(default_factory=list, max_length=MAX_DEFINITIONS)
    agents: list[AgentDefinition] = Field(default_factory=list, max_length=MAX_DEFINITIONS)
    only: list[Kind] = Field(
        default_factory=list, max_length=3, description="kinds that are looked at; default: all"
    )
    prune: bool = Field(False, description="delete what stands and is defined no more")

    @property
    def definitions(self) -> list[Definition]:
        """All of them."""
        return [*self.tools, *self.sandboxes, *self.agents]


class Plan(Shape, defer_build=True):
    """What a deploy would do, in its order; nothing, when nothing changes."""

    project: str
    makes_project: bool = Field(description="there is none of the name yet: the deploy makes it")
    changes: list[Change]
    notes: list[str] = Field(description="what will not work yet, and why")
    digest: Digest = Field(description="what `POST /v1/deploys` wants back as `plan`")


class Commit(Request, defer_build=True):
    """Where in the history of the project's files a deploy comes from."""

    id: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{7,64}$")]
    dirty: bool = Field(description="whether the files differ from it")


class DeployRequest(PlanRequest):
    """What `POST /v1/deploys` takes: the same again, and the plan of it that was confirmed."""

    plan: Digest = Field(description="the plan's `digest`: refused when the state has moved since")
    losing: list[Name] = Field(
        default_factory=list,
        max_length=MAX_DEFINITIONS,
        description="slugs of the sandboxes that are confirmed to lose their data",
    )
    commit: Commit | None = None


class DeployError(Shape, defer_build=True):
    """What a deploy failed at."""

    code: str
    message: str
    hint: str | None = None
    output: str | None = Field(None, description="the last a failed `setup` command said")


class Deploy(Shape, defer_build=True):
    """A deploy: who had what done, from which commit, and how far it came."""

    id: str
    project_id: str
    project: str
    state: DeployState
    actor: str
    commit: Commit | None
    changes: list[Change]
    done: int = Field(description="how many of the changes are carried out")
    error: DeployError | None
    created_at: datetime
    ended_at: datetime | None
    cancelled_by: str | None = Field(None, description="the user or key that cancelled it")


class Standing(Shape, defer_build=True):
    """What every deployed thing has."""

    id: str
    slug: str
    project_id: str
    project: str
    version: int = Field(description="the one in force")
    latest_version: int
    created_at: datetime
    updated_at: datetime


class Agent(Standing):
    """A deployed agent."""

    version_id: str = Field(description="of the version in force; it never changes")
    definition: AgentDefinition


class Tool(Standing):
    """A deployed custom tool, without its files."""

    version_id: str
    name: str
    description: str
    actions: list[str]
    dependencies: list[str]
    digest: Digest = Field(description="of its source")


class StandingSandbox(Standing):
    """A deployed sandbox: which one stands for the slug now."""

    sandbox_id: str
    definition: SandboxDefinition = Field(description="the values of `env` are not shown")


class Version(Shape, defer_build=True):
    """A version of a deployed thing: what it was, and which deploy made it."""

    id: str
    version: int
    current: bool
    deploy_id: str
    actor: str
    commit: Commit | None
    created_at: datetime


class AgentVersion(Version):
    """A version of an agent with what it says."""

    definition: AgentDefinition


class ToolVersion(Version):
    """A version of a tool with its code."""

    definition: ToolDefinition


class AgentRollback(Request, defer_build=True):
    """What `POST /v1/agents/{ref}/rollback` takes."""

    version: int | None = Field(
        None, ge=1, lt=2**31, description="default: the one before the one in force"
    )


class ToolExecute(Request, defer_build=True):
    """What `POST /v1/tools/{ref}/execute` takes."""

    action: Annotated[str, StringConstraints(max_length=64)]
    params: dict[str, Any] = Field(default_factory=dict)
