from __future__ import annotations

from typing import Annotated

import pytest
from pydantic import Field, validate_call

from runtools.errors import ProjectInvalid
from runtools.project.actions import described
from runtools.project.define import Action
from runtools.project.loading import load

HEAD = "from pydantic import Field\nfrom runtools import Action, define_tool\n"


def tool(project, body, files=None, **more):
    folder = project({"tools/t.py": HEAD + body, **(files or {})}, **more)
    return load(folder)[0].definition


def problem(project, body, **more):
    with pytest.raises(ProjectInvalid) as caught:
        tool(project, body, **more)
    (one,) = caught.value.details["problems"]
    return one


def test_a_typed_function_is_its_own_schema(project):
    body = '''
from typing import Literal

async def query(sql: str, limit: int = 10, *, how: Literal["fast", "safe"] = "safe", credentials: dict):
    """Run a query.

    It reads only.

    Args:
        sql: what is asked.
        limit: most rows.
    """

define_tool(name="db", actions={"query": query})
'''
    action = tool(project, body).actions["query"]
    assert action.description == "Run a query.\n\nIt reads only."
    assert action.parameters == {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "sql": {"type": "string", "description": "what is asked."},
            "limit": {"type": "integer", "default": 10, "description": "most rows."},
            "how": {"type": "string", "enum": ["fast", "safe"], "default": "safe"},
        },
        "required": ["sql"],
    }


def test_no_parameter_is_lost_whatever_it_is_called(project):
    body = '''
from typing import Annotated

from pydantic import Field

def do(
    _x: str,
    model_config: str,
    n: int = Field(3, ge=1),
    m: Annotated[int, Field(description="mine", le=9)] = 4,
    from_: str = Field("here", alias="from"),
    *,
    schema: str = "", copy: str = "", json: str = "", validate: str = "",
):
    """Do it.

    Args:
        _x: hidden from nobody.
        n: how often.
        m: theirs.
        from_: whence.
    """

define_tool(name="t", actions={"do": do})
'''
    parameters = tool(project, body).actions["do"].parameters
    text = {"type": "string"}
    assert parameters["properties"] == {
        "_x": {**text, "description": "hidden from nobody."},
        "model_config": text,
        "n": {"type": "integer", "default": 3, "minimum": 1, "description": "how often."},
        "m": {"type": "integer", "default": 4, "maximum": 9, "description": "mine"},
        "from": {**text, "default": "here", "description": "whence."},
        **{name: {**text, "default": ""} for name in ("schema", "copy", "json", "validate")},
    }
    assert parameters["required"] == ["_x", "model_config"]


def test_what_a_schema_lets_through_its_function_can_be_called_with():
    """By pydantic, which is how whoever runs it comes from the names in the schema to parameters."""

    def do(_x: str, model_config: int, from_: Annotated[str, Field(alias="from")], copy: str = "c"):
        """Do it."""
        return _x, model_config, from_, copy

    schema = described(Action(do)).parameters
    given = {"_x": "a", "model_config": 1, "from": "b"}
    assert sorted(given) == sorted(schema["required"])
    assert validate_call(do)(**given) == ("a", 1, "b", "c")


def test_a_default_that_has_no_json_is_not_told(project, capfd):
    body = '''
UNSET = object()

def do(x: int = UNSET):
    """Do it."""

define_tool(name="t", actions={"do": do})
'''
    parameters = tool(project, body).actions["do"].parameters
    assert parameters["properties"] == {"x": {"type": "integer"}}
    assert "required" not in parameters
    assert capfd.readouterr().err == ""


def test_an_explicit_schema_is_taken_as_it_is(project):
    schema = {"type": "object", "properties": {"sql": {"type": "string"}}, "required": ["sql"]}
    body = f'define_tool(name="db", actions={{"q": Action(print, "Asks.", {schema!r})}})\n'
    action = tool(project, body).actions["q"]
    assert (action.description, action.parameters) == ("Asks.", schema)


def test_credentials_as_documented(project):
    body = """
def send(to: str, credentials: dict):
    "Sends."

define_tool(
    name="mail",
    credentials={
        "required": ["token"],
        "schema": {"token": {"type": "string", "description": "a token"}},
        "oauth": {"provider": "google", "scopes": ["s"], "credentialMapping": {"token": "access_token"}},
    },
    actions={"send": send},
)
"""
    needs = tool(project, body).credentials
    assert needs.required == ["token"]
    assert needs.fields["token"].description == "a token"
    assert needs.oauth.credential_mapping == {"token": "access_token"}


@pytest.mark.parametrize(
    ("body", "field", "said"),
    [
        ('define_tool(name="t", actions={})', "actions", "at least 1"),
        ('define_tool(name="T", actions={"f": print})', "name", "lower-case"),
        ('define_tool(name="t", actions={"f": 3})', "actions.f", "no function"),
        ('def f(x): "d"\ndefine_tool(name="t", actions={"f": f})', "actions.f", "'x' has no type"),
        ('def f(x: int): ...\ndefine_tool(name="t", actions={"f": f})', "actions.f", "docstring"),
        ('def f(*x: int): "d"\ndefine_tool(name="t", actions={"f": f})', "actions.f", "by name"),
        ('def f(x: "No"): "d"\ndefine_tool(name="t", actions={"f": f})', "actions.f", "No"),
        (
            'import json\ndef f(x: "json.No"): "d"\ndefine_tool(name="t", actions={"f": f})',
            "actions.f",
            "no attribute 'No'",
        ),
        (
            'define_tool(name="t", actions={"f": Action(print, 5, {"type": "object"})})',
            "actions.f.description",
            "string",
        ),
        (
            'define_tool(name="t", actions={"f": Action(print, "d", 5)})',
            "actions.f.parameters",
            "dictionary",
        ),
        (
            'import socket\ndef f(x: socket.socket): "d"\ndefine_tool(name="t", actions={"f": f})',
            "actions.f",
            "socket",
        ),
        (
            'define_tool(name="t", actions={"f": Action(print, "d", {"type": "array"})})',
            "actions.f.parameters",
            "object",
        ),
        (
            'define_tool(name="t", actions={"f": print}, credentials={"required": [1]})',
            "credentials.required.0",
            "string",
        ),
        (
            'define_tool(name="t", actions={"f": print}, credentials={"oauth": {"provider": "x"}})',
            "credentials.oauth.credentialMapping",
            "required",
        ),
        (
            'def f(x: int = Field(1, alias="y"), y: int = 2): "d"\ndefine_tool(name="t", actions={"f": f})',
            "actions.f",
            "one alias",
        ),
        (
            '# /// script\n# a = [\n# ///\ndef f(): "d"\ndefine_tool(name="t", actions={"f": f})',
            None,
            "script metadata are no TOML",
        ),
        ('define_tool(name="bash", actions={"f": print})', "name", "every agent has"),
        (
            'define_tool(name="t", actions={"f": print}, credentials={"required": ["url"]})',
            "credentials.required.0",
            "'url' is not in schema",
        ),
        (
            ('O = {"provider": "x", "credentialMapping": {"b": "access_token"}}\n'
             'define_tool(name="t", actions={"f": print}, credentials={"oauth": O})'),
            "credentials.oauth.credentialMapping",
            "'b' is not in schema",
        ),
        (
            'define_tool(name="t", actions={"f": Action(print, "d", {"type": "object", "properties": 5})})',
            "actions.f.parameters.properties",
            "no JSON Schema: 5 is not of type 'object'",
        ),
        (
            ('P = {"type": "object", "properties": {"a": {"pattern": "("}}}\n'
             'define_tool(name="t", actions={"f": Action(print, "d", P)})'),
            "actions.f.parameters.properties.a.pattern",
            "no JSON Schema: '(' is not a 'regex'",
        ),
        ('define_tool(name="t", actions={"f-g": Action(print, "d", {"type": "object"})})',
         "actions.f-g.[key]", "underscores"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(project, body, field, said):
    found = problem(project, body)
    assert (found["file"], found["field"]) == ("tools/t.py", field)
    assert said in found["message"]
    assert found["line"] == len((HEAD + body).splitlines())


def test_a_mistake_in_an_action_names_the_line_that_it_begins_in(project):
    found = problem(
        project, 'define_tool(\n    name="t",\n    actions={\n        "f": 3,\n    },\n)\n'
    )
    assert (found["line"], found["field"]) == (5, "actions.f")


TOOL = 'def f(): "Does."\ndefine_tool(name="t", actions={"f": f})\n'


def test_the_source_holds_what_the_tool_imports_of_the_project(project):
    files = {
        "tools/_near.py": "from lib.deep import more\n",
        "lib/__init__.py": "",
        "lib/deep/__init__.py": "",
        "lib/deep/more.py": "import json\n",
        "lib/unused.py": "",
        "agents/_other.py": "",
    }
    source = tool(project, f"from ._near import more\n{TOOL}", files).source
    assert source.entry == "tools/t.py"
    assert sorted(source.files) == [
        "lib/__init__.py",
        "lib/deep/__init__.py",
        "lib/deep/more.py",
        "tools/_near.py",
        "tools/t.py",
    ]


def test_a_change_of_what_it_imports_changes_its_digest(project):
    one = tool(project, f"import tools._near\n{TOOL}", {"tools/_near.py": "A = 1\n"}).source
    same = tool(project, f"import tools._near\n{TOOL}", {"tools/_near.py": "A = 1\n"}).source
    other = tool(project, f"import tools._near\n{TOOL}", {"tools/_near.py": "A = 2\n"}).source
    assert one.digest == same.digest != other.digest


def test_dependencies_are_the_projects_unless_the_file_has_its_own(project):
    head = '[project]\nname = "x"\ndependencies = ["httpx>=0.28"]\nrequires-python = ">=3.12"\n'
    theirs = tool(project, TOOL, head=head).source
    assert (theirs.dependencies, theirs.requires_python) == (["httpx>=0.28"], ">=3.12")
    block = '# /// script\n# dependencies = ["rich"]\n# ///\n'
    own = tool(project, block + TOOL, head=head).source
    assert (own.dependencies, own.requires_python) == (["rich"], None)


def test_what_an_action_would_import_and_is_no_python_is_named(project):
    """Nothing has run it yet: it is imported within the action."""
    later = "def later():\n    import tools._late\n\n\n"
    found = problem(project, later + TOOL, files={"tools/_late.py": "def :\n"})
    assert (found["file"], "tools/_late.py cannot be read" in found["message"]) == (
        "tools/t.py",
        True,
    )


def test_a_source_without_bounds_is_refused(project):
    found = problem(project, f"import tools._big\n{TOOL}", files={"tools/_big.py": "#" * 1_100_000})
    assert "exceed" in found["message"]
