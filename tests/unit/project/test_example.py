"""`examples/hello` is what `runtools init` makes, so that the demo and the README show one thing."""

from __future__ import annotations

from pathlib import Path

from runtools.project.folder import find
from runtools.project.loading import load
from runtools.project.scaffold import scaffold

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "examples/hello"


def test_it_is_what_init_makes(tmp_path):
    for file in scaffold(tmp_path / "hello"):
        kept = EXAMPLE / file.relative_to(tmp_path / "hello")
        assert kept.read_text() == file.read_text(), kept


def test_it_loads():
    assert {one.slug for one in load(find(EXAMPLE))} == {"hello", "word-count", "dev-env"}


def test_the_demo_deploys_it():
    assert (
        "(cd examples/hello && ../../.venv/bin/runtools deploy --yes)" in (ROOT / "dev").read_text()
    )
