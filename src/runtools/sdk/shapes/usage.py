"""Usage, as the API shows it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, computed_field

from runtools.sdk.shapes.base import Shape

Group = Literal["sandbox", "project", "day", "org"]

_SECOND = 1000
_GB_HOUR = 1024 * 3_600_000


class UsageRow(Shape):
    """What was used in a period by a sandbox, by a project's, in a day, or in all.

    The whole numbers add up exactly; the others are made of them for people.
    """

    sandbox_id: str | None = None
    name: str | None = None
    project_id: str | None = Field(None, description="where the sandbox lies now")
    day: str | None = Field(None, description="in UTC, e.g. 2026-01-31")
    running_ms: int = Field(description="milliseconds that it ran")
    vcpu_ms: int = Field(description="those times its vCPUs")
    memory_mb_ms: int = Field(description="those times the MB of its memory")
    stored_mb_ms: int = Field(
        description="MB that it took on its host's disk (snapshots and saved memory too), times ms"
    )

    @computed_field  # type: ignore[prop-decorator]
    @property
    def running_seconds(self) -> float:
        """Seconds that it ran."""
        return self.running_ms / _SECOND

    @computed_field  # type: ignore[prop-decorator]
    @property
    def vcpu_seconds(self) -> float:
        """Those times its vCPUs."""
        return self.vcpu_ms / _SECOND

    @computed_field  # type: ignore[prop-decorator]
    @property
    def memory_gb_hours(self) -> float:
        """Gigabytes (2**30 bytes) of memory times hours that it ran."""
        return self.memory_mb_ms / _GB_HOUR

    @computed_field  # type: ignore[prop-decorator]
    @property
    def stored_gb_hours(self) -> float:
        """Gigabytes (2**30 bytes) on disk times hours."""
        return self.stored_mb_ms / _GB_HOUR
