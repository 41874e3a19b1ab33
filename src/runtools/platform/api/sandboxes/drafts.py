"""Rows of sandboxes to come, and the orders that a host gets for them."""

from __future__ import annotations

from runtools.errors import InvalidRequest
from runtools.platform.api.calls import Call
from runtools.platform.api.sandboxes import rules
from runtools.platform.api.sandboxes.tables import Record
from runtools.platform.api.templates.store import Version
from runtools.platform.core.ids import new_sandbox_id
from runtools.platform.core.ports.host import CreateOrder, Guest, Sizes
from runtools.platform.core.recipes import usual_memory_mb
from runtools.sdk.shapes.egress import EgressRules
from runtools.sdk.shapes.sandboxes import SandboxCreate


def fresh(call: Call, version: Version, wanted: SandboxCreate) -> Record:
    """The row of a sandbox that a caller wants; its project is still to be found."""
    now = call.platform.clock.now()
    return Record(
        id=new_sandbox_id(),
        org_id=call.org,
        project_id="",
        host_id=version.host_id,
        name=wanted.name,
        template_id=version.id,
        template=version.slug,
        template_version=version.version,
        parent_id=None,
        tags=wanted.tags,
        env_names=sorted({*wanted.env, *wanted.secrets}),
        vcpus=wanted.vcpus,
        memory_mb=wanted.memory_mb or usual_memory_mb(version.recipe),
        disk_mb=wanted.disk_mb,
        internet=wanted.internet,
        egress=rules.egress(wanted.egress or EgressRules(), "egress.").model_dump(by_alias=False),
        idle_timeout_seconds=wanted.idle_timeout_seconds,
        max_lifetime_seconds=wanted.max_lifetime_seconds,
        require_isolation=wanted.require_isolation,
        may_queue=wanted.queue,
        born="create",
        born_op=call.op,
        born_n=0,
        created_at=now,
        wanted="running",
        generation=1,
        wish_op=call.op,
        wish_actor=call.actor,
        wish_open=True,
        wished_at=now,
    )


def after(
    call: Call, parent: Record, born: str, n: int, name: str | None, tags: dict[str, str] | None
) -> Record:
    """A new row that takes after another sandbox, with nothing observed yet."""
    now = call.platform.clock.now()
    takes_after = {
        field: getattr(parent, field)
        for field in (
            "org_id",
            "project_id",
            "host_id",
            "template_id",
            "template",
            "template_version",
            "env_names",
            "vcpus",
            "memory_mb",
            "disk_mb",
            "internet",
            "egress",
            "idle_timeout_seconds",
            "max_lifetime_seconds",
            "require_isolation",
            "may_queue",
        )
    }
    return Record(
        **takes_after,
        id=new_sandbox_id(),
        name=name,
        parent_id=parent.id,
        tags=parent.tags if tags is None else tags,
        born=born,
        born_op=call.op,
        born_n=n,
        created_at=now,
        wanted="running",
        generation=1,
        wish_op=call.op,
        wish_actor=call.actor,
        wish_open=True,
        wished_at=now,
    )


def order(record: Record, guest: Guest) -> CreateOrder:
    """What the host is asked to make of the row; the same again at every repeat."""
    if record.born == "fork":
        raise InvalidRequest(f"{record.id} is a child of a fork")
    return CreateOrder(
        op=record.born_op,
        sandbox_id=record.id,
        org_id=record.org_id,
        actor=record.wish_actor,
        template_version_id=record.template_id,
        recover_from=record.parent_id if record.born == "recover" else None,
        sizes=Sizes(vcpus=record.vcpus, memory_mb=record.memory_mb, disk_mb=record.disk_mb),
        guest=guest,
        internet=record.internet,
        egress=EgressRules.model_validate(record.egress),
        idle_timeout_seconds=record.idle_timeout_seconds,
        max_lifetime_seconds=record.max_lifetime_seconds,
        require_isolation=record.require_isolation,
        queue=record.may_queue,
    )
