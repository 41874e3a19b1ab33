from __future__ import annotations

import json

import pytest

from runtools import errors


@pytest.mark.parametrize("kind", errors.BY_CODE.values())
def test_every_error_survives_the_wire(kind):
    raised = kind("it broke", hint="mend it", details={"what": "it"}, request_id="req_1")
    again = errors.from_wire(json.loads(json.dumps(raised.to_wire())))
    assert (type(again), again.to_wire()) == (kind, raised.to_wire())


def test_codes_are_unique_and_drawn_in_the_header():
    kinds = [k for k in errors._tree(errors.RunToolsError) if k.__module__ == errors.__name__]
    assert len(errors.BY_CODE) == len(kinds)
    drawn = {line.split()[-1] for line in errors.__doc__.splitlines() if "──" in line}
    assert drawn == set(errors.BY_CODE) - {"internal"}


def test_an_unknown_code_keeps_its_words():
    again = errors.from_wire({"code": "of_tomorrow", "message": "new", "hint": "update"})
    assert (type(again), str(again)) == (errors.RunToolsError, "new (update)")
