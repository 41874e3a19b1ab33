from __future__ import annotations

import pytest

from runtools.project.plan import plan
from runtools.sdk.shapes.definitions import AgentDefinition, SandboxDefinition, ToolDefinition


def agent(slug="a", **fields):
    return AgentDefinition(slug=slug, name="A", model="m", **fields)


def box(slug="s", **fields):
    return SandboxDefinition(slug=slug, **fields)


def tool(name="t", description=""):
    action = {"description": "d", "parameters": {"type": "object"}}
    source = {"entry": "t.py", "files": {"t.py": ""}, "digest": "0" * 64}
    return ToolDefinition.model_validate(
        {"name": name, "description": description, "actions": {"f": action}, "source": source}
    )


def told(changes):
    return [(one.action, one.kind, one.slug) for one in changes]


def test_nothing_changes_when_nothing_differs():
    everything = [agent(), box(), tool()]
    assert plan(everything, everything, prune=True) == []


def test_tools_and_sandboxes_come_before_agents():
    changes = plan([agent("b"), agent("a"), box(), tool()], [])
    assert told(changes) == [
        ("create", "tool", "t"),
        ("create", "sandbox", "s"),
        ("create", "agent", "a"),
        ("create", "agent", "b"),
    ]


def test_a_change_shows_its_fields():
    (change,) = plan([agent(temperature=0.5)], [agent(temperature=1)])
    assert told([change]) == [("update", "agent", "a")]
    (field,) = change.fields
    assert (field.field, field.old, field.new) == ("temperature", 1.0, 0.5)


@pytest.mark.parametrize(
    ("fields", "action"),
    [
        ({"template": "other"}, "replace"),
        ({"setup": ["ls"]}, "replace"),
        ({"vcpus": 4}, "update"),
        ({"env": {"A": "1"}}, "update"),
    ],
)
def test_only_what_a_sandbox_was_made_from_replaces_it(fields, action):
    (change,) = plan([box(**fields)], [box()])
    assert (change.action, change.loses_data) == (action, action == "replace")


def test_private_values_are_not_shown():
    (change,) = plan([box(env={"A": "hunter2"})], [box(env={"A": "hunter1"})])
    assert "hunter" not in change.model_dump_json()
    assert [field.field for field in change.fields] == ["env"]


def test_what_is_defined_no_more_is_kept_unless_pruned():
    old = [agent("old"), box("old"), tool("old")]
    assert plan([], old) == []
    assert told(plan([], old, prune=True)) == [
        ("delete", "agent", "old"),
        ("delete", "sandbox", "old"),
        ("delete", "tool", "old"),
    ]


def test_only_some_kinds_are_looked_at():
    changes = plan([agent(), box()], [tool()], only=frozenset({"sandbox"}), prune=True)
    assert told(changes) == [("create", "sandbox", "s")]
