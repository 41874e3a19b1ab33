"""What the platform refuses is told with the place in the files."""

from __future__ import annotations

import pytest

from runtools.errors import Conflict, InvalidRequest, NotFound
from runtools.project.loading import load
from runtools.project.places import place

AGENTS = """
    from runtools import define_agent

    define_agent(slug="one", name="One", model="m")
    define_agent(
        slug="two",
        name="Two",
        model="m",
        max_iterations=3,
    )
    """
BOX = """
    from runtools import define_sandbox

    define_sandbox(
        slug="box",
        env={"A": "1"},
    )
    """


def wrong(field):
    return InvalidRequest(f"{field}: it is wrong", details={"fields": [{"field": field}]})


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (wrong("agents.two.model"), "agents/a.py:8: model: it is wrong"),
        (wrong("agents.1.maxIterations"), "agents/a.py:9: max_iterations: it is wrong"),
        (wrong("agents.0.slug"), "agents/a.py:4: slug: it is wrong"),
        (wrong("sandboxes.0.env"), "boxes/box.py:6: env: it is wrong"),
        (
            NotFound("sandbox box: no template", details={"definition": "sandboxes.box"}),
            "boxes/box.py:4: sandbox box: no template",
        ),
        (
            NotFound("no such", details={"definition": "sandboxes.box", "field": "env"}),
            "boxes/box.py:6: env: no such",
        ),
        (wrong("agents.three.model"), "agents.three.model: it is wrong"),
        (wrong("agents"), "agents: it is wrong"),
        (wrong("project"), "project: it is wrong"),
        (Conflict("something else"), "something else"),
    ],
)
def test_a_field_of_the_request_is_a_line_of_a_file(project, error, said):
    folder = project(
        {"agents/a.py": AGENTS, "boxes/box.py": BOX}, "folders = { sandboxes = 'boxes' }"
    )
    place(error, folder.root, load(folder))
    assert error.message == said
    found = error.details.get("problems", [])
    assert [f"{one['file']}:{one['line']}:" for one in found] == (
        [said.partition(" ")[0]] if ".py:" in said else []
    )
