"""What a deploy would change."""

from __future__ import annotations

import pytest

from runtools.platform.api.deploys.boxes import name_of
from runtools.platform.api.deploys.plan import Stood, digest, steps
from runtools.platform.api.deploys.setup import hidden
from runtools.platform.core.ids import is_name
from runtools.sdk.shapes.definitions import (
    AgentDefinition,
    SandboxDefinition,
    ToolDefinition,
    kind_of,
    to_wire,
)


def agent(slug="a", **fields):
    return AgentDefinition(slug=slug, name="A", model="m", **fields)


def box(slug="s", **fields):
    return SandboxDefinition(slug=slug, **fields)


def tool(name="t", description="", text=""):
    action = {"description": "d", "parameters": {"type": "object"}}
    source = {"entry": "t.py", "files": {"t.py": text}, "digest": f"{len(text):064d}"}
    return ToolDefinition.model_validate(
        {"name": name, "description": description, "actions": {"f": action}, "source": source}
    )


def stood(*definitions, gone=False):
    return [
        Stood(
            id=f"{kind_of(one)}-{one.slug}",
            kind=kind_of(one),
            slug=one.slug,
            version=1,
            says=to_wire(one),
            sandbox_id="sandbox-old" if isinstance(one, SandboxDefinition) else None,
            gone=gone,
        )
        for one in definitions
    ]


def told(found):
    return [(one.change.action, one.change.kind, one.change.slug) for one in found]


def test_nothing_changes_when_nothing_differs():
    everything = [agent(), box(env={"A": "1"}, tags={"b": "2"}), tool()]
    assert steps(everything, stood(*everything), prune=True) == []


def test_tools_and_sandboxes_come_before_agents():
    assert told(steps([agent("b"), agent("a"), box(), tool()], [])) == [
        ("create", "tool", "t"),
        ("create", "sandbox", "s"),
        ("create", "agent", "a"),
        ("create", "agent", "b"),
    ]


def test_a_change_shows_its_fields():
    (step,) = steps([agent(temperature=0.5)], stood(agent(temperature=1)))
    assert told([step]) == [("update", "agent", "a")]
    (field,) = step.change.fields
    assert (field.field, field.old, field.new) == ("temperature", 1.0, 0.5)


@pytest.mark.parametrize(
    ("fields", "action"),
    [
        ({"template": "other"}, "replace"),
        ({"setup": ["ls"]}, "replace"),
        ({"vcpus": 4}, "replace"),
        ({"memory_mb": 4096}, "replace"),
        ({"disk_mb": 4096}, "replace"),
        ({"env": {"A": "1"}}, "replace"),
        ({"secrets": ["A"]}, "replace"),
        ({"require_isolation": "hardware"}, "replace"),
        ({"name": "Other"}, "update"),
        ({"tags": {"a": "b"}}, "update"),
        ({"internet": False}, "update"),
        ({"egress": {"allow": ["pypi.org"]}}, "update"),
        ({"idle_timeout_seconds": 5}, "update"),
        ({"max_lifetime_seconds": 50}, "update"),
        ({"max_lifetime_seconds": 50, "vcpus": 4}, "replace"),
    ],
)
def test_what_cannot_be_changed_in_place_replaces_a_sandbox(fields, action):
    (step,) = steps([box(**fields)], stood(box()))
    assert (step.change.action, step.change.loses_data) == (action, action == "replace")


def test_a_sandbox_that_has_ended_is_made_anew_and_nothing_is_lost():
    (step,) = steps([box(setup=["ls"])], stood(box(), gone=True))
    assert (step.change.action, step.change.loses_data) == ("create", False)


def test_private_values_are_not_shown():
    (step,) = steps([box(env={"A": "hunter2"})], stood(box(env={"A": "hunter1"})))
    assert "hunter" not in step.change.model_dump_json()
    (field,) = step.change.fields
    assert (field.field, field.private, field.old, field.new) == ("env", True, ["A"], ["A"])


def test_code_is_shown_by_its_digest():
    (step,) = steps([tool(text="secret sauce")], stood(tool()))
    assert "sauce" not in step.change.model_dump_json()
    (field,) = step.change.fields
    assert field.new["files"] == ["t.py"]


def test_what_is_defined_no_more_is_kept_unless_pruned():
    old = stood(agent("old"), box("old"), tool("old"))
    assert steps([], old) == []
    assert told(steps([], old, prune=True)) == [
        ("delete", "agent", "old"),
        ("delete", "sandbox", "old"),
        ("delete", "tool", "old"),
    ]


def test_only_some_kinds_are_looked_at():
    found = steps([agent(), box()], stood(tool()), only=frozenset({"sandbox"}), prune=True)
    assert told(found) == [("create", "sandbox", "s")]


def test_another_plan_has_another_digest():
    plans = [
        steps([agent()], []),
        steps([agent(temperature=0.5)], []),
        steps([agent()], stood(agent(temperature=1))),
        steps([box(env={"A": "1"})], []),
        steps([box(env={"A": "2"})], []),
    ]
    found = {digest("p", one) for one in plans} | {digest("q", plans[0])}
    assert len(found) == len(plans) + 1
    assert digest("p", plans[0]) == digest("p", steps([agent()], []))


def test_a_long_name_stays_a_name_of_its_own():
    assert name_of("shop", "dev") == "shop-dev"
    names = {name_of("p" * 50, "s" * 50), name_of("p" * 51, "s" * 49), name_of("p" * 63, "s" * 63)}
    assert len(names) == 3
    assert all(is_name(name) for name in names)


def test_values_are_hidden_also_where_one_is_a_part_of_another():
    assert hidden("a hunter2x and hunter2", ["hunter2", "hunter2x", "a"]) == "a *** and ***"
