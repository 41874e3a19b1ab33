"""Every store function and every route is known to the proof that orgs are kept apart."""

from __future__ import annotations

from typing import Any

from runtools.testing.made_once import bare_app
from runtools.testing.tenancy.operations import operations
from runtools.testing.tenancy.outside import NOT_OF_AN_ORG, OF_A_PERSON, WHOLE_MACHINE
from runtools.testing.tenancy.records import PLACES
from runtools.testing.tenancy.scenes import SCENES
from runtools.testing.tenancy.stores import ACROSS, Method, methods, unclassified
from runtools.testing.tenancy.walk import uncovered

ROUTES = operations(bare_app())


class TestStores:
    def test_every_function_says_whose_records_it_touches(self) -> None:
        assert unclassified(methods()) == [], "give it an org_id, or a reason in stores.ACROSS"

    def test_no_reason_is_given_for_what_is_not_there_or_needs_none(self) -> None:
        known = {one.full: one for one in methods()}
        assert set(ACROSS) <= set(known)
        assert [name for name in ACROSS if known[name].is_given_the_row] == []

    def test_one_that_fetches_by_id_alone_is_seen(self) -> None:
        def find(conn: Any, thing_id: str) -> None: ...

        assert unclassified(iter([Method("things", "find", find)])) == ["things.find"]


class TestRoutes:
    def test_every_route_is_covered(self) -> None:
        assert uncovered(ROUTES) == []

    def test_no_table_speaks_of_what_is_not_there(self) -> None:
        known = {one.name for one in ROUTES}
        assert {*SCENES, *WHOLE_MACHINE, *NOT_OF_AN_ORG, *OF_A_PERSON} <= known
        assert set(PLACES) <= {place for one in ROUTES for place in one.prefixes().values()}
