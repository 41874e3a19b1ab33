from __future__ import annotations

import os
import select
import sys

import pytest

from runtools.errors import ProjectInvalid
from runtools.project.folder import find
from runtools.project.loading import load
from runtools.project.scaffold import scaffold

AGENT = 'from runtools import define_agent\ndefine_agent(slug="{0}", name="A", model="m"{1})\n'
SANDBOX = 'from runtools import define_sandbox\ndefine_sandbox(slug="{0}")\n'


def problems(folder, seconds=30.0):
    with pytest.raises(ProjectInvalid) as caught:
        load(folder, seconds)
    for problem in caught.value.details["problems"]:
        assert problem["message"]
        assert problem["file"] in caught.value.message
    return [
        (problem["file"], problem["line"], problem["field"], problem["message"])
        for problem in caught.value.details["problems"]
    ]


def test_a_fresh_project_loads_as_it_stands(tmp_path):
    scaffold(tmp_path / "My Project")
    defined = load(find(tmp_path / "My Project"))
    assert [(one.kind, one.slug, one.file) for one in defined] == [
        ("tool", "word-count", "tools/word_count.py"),
        ("sandbox", "dev-env", "sandboxes/dev_env.py"),
        ("agent", "hello", "agents/hello.py"),
    ]


def test_an_empty_project_defines_nothing(project):
    assert load(project({})) == []


def test_loading_leaves_nothing_in_the_folder(project):
    folder = project({"agents/a.py": AGENT.format("a", "")})
    before = sorted(folder.root.rglob("*"))
    load(folder)
    assert sorted(folder.root.rglob("*")) == before


@pytest.mark.parametrize("kind", ["agents", "tools", "sandboxes"])
def test_a_package_of_the_same_name_that_is_installed_is_not_loaded(
    project, tmp_path_factory, monkeypatch, kind
):
    """As `pip install openai-agents` brings one called ``agents``."""
    installed = tmp_path_factory.mktemp("installed")
    (installed / kind).mkdir()
    (installed / kind / "__init__.py").write_text('raise SystemExit("theirs was run")\n')
    monkeypatch.setenv("PYTHONPATH", str(installed), prepend=os.pathsep)
    folder = project(
        {
            "sandboxes/deep/box.py": SANDBOX.format("box"),
            "tools/_slugs.py": 'SLUG = "a"\n',
            "agents/a.py": "import sandboxes.deep.box\nfrom tools._slugs import SLUG\n"
            + AGENT.format("a", ""),
        }
    )
    assert [one.slug for one in load(folder)] == ["box", "a"]


def test_a_folder_that_is_a_package_runs_what_makes_it_one(project):
    source = """
        from agents import SLUG
        from runtools import define_agent

        define_agent(slug=SLUG, name="A", model="m")
        """
    folder = project({"agents/__init__.py": 'SLUG = "from-the-package"\n', "agents/a.py": source})
    assert [one.slug for one in load(folder)] == ["from-the-package"]


def test_folders_may_lie_in_one(project):
    table = """
        [tool.runtools.folders]
        agents = "src/agents"
        sandboxes = "src/boxes"
        """
    files = {
        "src/boxes/box.py": SANDBOX.format("box"),
        "src/agents/a.py": "import src.boxes.box\n" + AGENT.format("a", ""),
    }
    assert [one.slug for one in load(project(files, table))] == ["box", "a"]


@pytest.mark.parametrize("place", ["platform", "json/agents", "runtools/agents", "pydantic"])
def test_a_folder_cannot_have_the_name_of_what_the_loading_needs(project, place):
    folder = project(
        {f"{place}/a.py": AGENT.format("a", "")}, f"[tool.runtools.folders]\nagents = '{place}'"
    )
    ((file, _, field, message),) = problems(folder)
    assert (file, field) == ("pyproject.toml", "tool.runtools.folders.agents")
    assert repr(place.partition("/")[0]) in message


def test_a_folder_that_is_named_and_not_there_is_a_slip(project):
    """With --prune, all that was deployed from where it really lies would be deleted."""
    folder = project({"tools/_a.py": ""}, "[tool.runtools.folders]\nagents = 'agnets'")
    assert problems(folder) == [
        ("pyproject.toml", None, "tool.runtools.folders.agents", "there is no agnets/")
    ]


def test_what_a_file_imports_and_is_not_installed_says_for_whom(project):
    folder = project(
        {"agents/a.py": "import no_such_library.deep\n", "agents/b.py": "import agents._none\n"}
    )
    (_, _, _, theirs), (_, _, _, ours) = problems(folder)
    assert "No module named 'no_such_library'" in theirs
    assert f"{sys.executable} runs the files" in theirs
    assert sys.executable not in ours


def test_a_dot_in_a_name_that_becomes_a_modules(project):
    folder = project({"agents/v1.2.py": AGENT.format("a", "")})
    ((file, _, _, message),) = problems(folder)
    assert (file, "dot in its name" in message) == ("agents/v1.2.py", True)


def test_several_in_one_file_and_helpers(project):
    folder = project(
        {
            "agents/_shared.py": 'PROMPT = "be brief"\n',
            "agents/both.py": """
                from agents._shared import PROMPT
                from runtools import define_agent

                for slug in ("one", "two"):
                    define_agent(slug=slug, name=slug, model="m", system_prompt=PROMPT)
                """,
        }
    )
    defined = load(folder)
    assert [one.slug for one in defined] == ["one", "two"]
    assert {one.definition.system_prompt for one in defined} == {"be brief"}


def test_one_that_another_imports_is_defined_once(project):
    folder = project(
        {
            "sandboxes/box.py": 'from runtools import define_sandbox\nBOX = define_sandbox(slug="box")\n',
            "agents/a.py": """
                from runtools import define_agent
                from sandboxes.box import BOX

                define_agent(slug="a", name="A", model="m", sandbox=BOX.slug)
                """,
        }
    )
    sandbox, agent = load(folder)
    assert (sandbox.slug, agent.definition.sandbox) == ("box", "box")


def test_what_files_print_is_no_part_of_the_answer(project, capfd):
    folder = project({"agents/a.py": 'print("{}\\n[]")\n' + AGENT.format("a", "")})
    assert [one.slug for one in load(folder)] == ["a"]
    out, err = capfd.readouterr()
    assert out == ""
    assert "[]" in err


def test_tuples_are_lists(project):
    folder = project({"agents/a.py": AGENT.format("a", ', tools=("bash", "grep")')})
    assert load(folder)[0].definition.tools == ["bash", "grep"]


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("max_iterations=0", "max_iterations"),
        ("max_iterations=101", "max_iterations"),
        ("max_iterations=True", "max_iterations"),
        ("max_tokens=128_001", "max_tokens"),
        ("temperature=2.1", "temperature"),
        ("temperature=float('nan')", "temperature"),
        ("top_p=1.5", "top_p"),
        ("top_k=0", "top_k"),
        ("presence_penalty=-2.5", "presence_penalty"),
        ("frequency_penalty=3", "frequency_penalty"),
        ("thinking='hard'", "thinking"),
        ("sandbox='No'", "sandbox"),
        ("sandbox_mode='mine'", "sandbox_mode"),
        ("tools='bash'", "tools"),
        ("tools=['bash', 'bash']", "tools"),
        ("tools=['Upper']", "tools.0"),
        ("description='x' * 4097", "description"),
        ("description=3", "description"),
    ],
)
def test_every_range_names_its_line_and_field(project, text, field):
    name, value = text.split("=", 1)
    source = f"""
        from runtools import define_agent

        define_agent(
            slug="a",
            name="A",
            model="m",
            {name}=
            {value},
        )
        """
    (found,) = problems(project({"agents/a.py": source}))
    assert found[:3] == ("agents/a.py", 9, field)


@pytest.mark.parametrize("name", ["", "x" * 201, "a\nb", "a\x00b", "a\u202eb", "\u200b"])
def test_names_that_no_screen_can_show(project, name):
    source = f"""
        from runtools import define_agent
        define_agent(slug="a", name={name!a}, model="m")
        """
    ((_, _, field, _),) = problems(project({"agents/a.py": source}))
    assert field == "name"


def test_all_problems_of_all_files_at_once(project):
    folder = project(
        {
            "agents/a.py": AGENT.format("A", ", top_k=0"),
            "agents/b.py": "def f(:\n",
            "agents/c.py": "x = 1 / 0\n",
            "agents/d.py": "import sys\n\nsys.exit(3)\n",
            "agents/e.py": "from runtools import define_agent\ndefine_agent(slug='e', nam='E')\n",
            "agents/f.py": "from runtools import define_agent\ndefine_agent(slug='f', name='F')\n",
            "agents/g.py": "x = 1\n",
            "agents/h.py": SANDBOX.format("h"),
            "agents/i.py": "raise KeyboardInterrupt\n",
        }
    )
    found = [(file, line, field) for file, line, field, _ in problems(folder)]
    assert found == [
        ("agents/a.py", 2, "slug"),
        ("agents/a.py", 2, "top_k"),
        ("agents/b.py", 1, None),
        ("agents/c.py", 1, None),
        ("agents/d.py", 3, None),
        ("agents/e.py", 2, "nam"),
        ("agents/f.py", 2, "model"),
        ("agents/g.py", None, None),
        ("agents/h.py", 2, None),
        ("agents/i.py", 1, None),
    ]


def test_the_innermost_line_of_the_project_is_named(project):
    folder = project(
        {
            "agents/_helper.py": "def fail():\n    raise ValueError('no')\n",
            "agents/a.py": "from agents._helper import fail\nfail()\n",
        }
    )
    assert problems(folder) == [("agents/_helper.py", 2, None, "ValueError: no")]


def test_a_circle_of_imports(project):
    folder = project(
        {
            "agents/a.py": "from agents.b import y\nx = 1\n",
            "agents/b.py": "from agents.a import x\ny = 1\n",
        }
    )
    assert [found[0] for found in problems(folder)] == ["agents/a.py", "agents/b.py"]


def test_a_slug_twice_names_both_places(project):
    folder = project({"sandboxes/a.py": SANDBOX.format("x"), "sandboxes/b.py": SANDBOX.format("x")})
    ((file, line, field, message),) = problems(folder)
    assert (file, line, field) == ("sandboxes/b.py", 2, "slug")
    assert message == "sandboxes/a.py:2 defines sandbox 'x' already"


def test_one_that_runs_for_ever_is_ended(project):
    folder = project(
        {"agents/a.py": AGENT.format("a", ""), "agents/b.py": "while True:\n    pass\n"}
    )
    ((file, line, _, message),) = problems(folder, 3.0)
    assert (file, line in (1, 2), message) == ("agents/b.py", True, "still runs after 3 s")


def test_what_waits_for_ever_in_a_helper_is_named_there(project):
    folder = project(
        {
            "agents/_helper.py": "import time\n\ndef wait():\n    time.sleep(10_000)\n",
            "agents/a.py": "from agents._helper import wait\n\nwait()\n",
        }
    )
    assert problems(folder, 3.0) == [("agents/_helper.py", 4, None, "still runs after 3 s")]


@pytest.mark.parametrize(
    ("line", "said"),
    [("os._exit(0)", "exit code 0"), ("os.kill(os.getpid(), 9)", "signal 9")],
)
def test_one_that_ends_the_process_is_named(project, line, said):
    folder = project({"agents/a.py": f"import os\n{line}\n"})
    ((file, _, _, message),) = problems(folder)
    assert (file, said in message) == ("agents/a.py", True)


def test_what_a_file_started_goes_with_it(project, tmp_path):
    source = f"""
        import subprocess
        child = subprocess.Popen(["sleep", "600"])
        open("{tmp_path / "pid"}", "w").write(str(child.pid))
        """
    problems(project({"agents/a.py": source}))
    try:
        fd = os.pidfd_open(int((tmp_path / "pid").read_text()))
    except ProcessLookupError:
        return
    try:
        assert select.select([fd], [], [], 10)[0]
    finally:
        os.close(fd)


def test_a_file_that_lies_elsewhere_is_not_run(project, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "agent.py"
    ran = outside.with_name("ran")
    outside.write_text(f"open({str(ran)!r}, 'w')\n" + AGENT.format("a", ""))
    folder = project({"agents/mine.py": AGENT.format("b", "")})
    (folder.root / "agents/theirs.py").symlink_to(outside)
    assert problems(folder) == [("agents/theirs.py", None, None, "it lies elsewhere")]
    assert not ran.exists()


def test_more_definitions_than_a_project_may_have(project):
    text = (
        "from runtools import define_agent\nfor n in range(10_000):\n"
        '    define_agent(slug=f"a{n}", name="A", model="m")\n'
    )
    ((file, _, _, message),) = problems(project({"agents/many.py": text}))
    assert (file, message) == (
        "agents/",
        "10000 definitions of one kind, more than 1000 of a project",
    )


def test_an_environment_that_is_none_names_its_field(project):
    text = (
        'from runtools import define_sandbox\ndefine_sandbox(\n    slug="a",\n    env=["A"],\n)\n'
    )
    ((file, line, field, _),) = problems(project({"sandboxes/a.py": text}))
    assert (file, line, field) == ("sandboxes/a.py", 4, "env")


def test_egress_and_secrets_of_a_sandbox(project):
    text = (
        "from runtools import define_sandbox\n"
        'define_sandbox(slug="a", secrets=["TOKEN"], egress={"allow": ("pypi.org",)})\n'
    )
    (one,) = load(project({"sandboxes/a.py": text}))
    assert one.definition.secrets == ["TOKEN"]
    assert (one.definition.egress.allow, one.definition.egress.deny) == (["pypi.org"], [])
