"""What a user may ask for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtools.errors import InvalidPath, InvalidRequest, TooLarge
from runtools.platform.api.sandboxes import rules
from runtools.sdk.shapes.sandboxes import MAX_ENV_BYTES


class TestPaths:
    @pytest.mark.parametrize("path", ["/", "/a", "/a/b.c/..d", "/ä/😀", "//a", "/a/./b", "/a b"])
    def test_good(self, path: str) -> None:
        assert rules.check_path(path) == path

    @pytest.mark.parametrize(
        "path", ["", "a", "./a", "/..", "/a/../b", "/a\0", "/" + "ä" * 128, "/a" * 2050, "/\ud800"]
    )
    def test_bad(self, path: str) -> None:
        with pytest.raises(InvalidPath) as caught:
            rules.check_path(path, field="cwd")
        assert caught.value.details["fields"][0]["field"] == "cwd"

    @given(st.text(max_size=100))
    def test_what_passes_stays_below_the_root(self, text: str) -> None:
        try:
            rules.check_path(text)
        except InvalidPath:
            return
        assert text.startswith("/")
        assert ".." not in text.split("/")
        assert "\0" not in text


class TestEnv:
    def test_the_bound_counts_bytes(self) -> None:
        rules.check_env({"A": "x" * (MAX_ENV_BYTES - 3)})
        with pytest.raises(TooLarge):
            rules.check_env({"A": "x" * (MAX_ENV_BYTES - 2)})
        with pytest.raises(TooLarge):
            rules.check_env({"A": "ä" * (MAX_ENV_BYTES // 2)})


class TestNames:
    def test_children(self) -> None:
        assert rules.child_names(None, 2) == [None, None]
        assert rules.child_names("a", 1) == ["a"]
        assert rules.child_names("a", 3) == ["a-1", "a-2", "a-3"]

    def test_a_stem_that_grows_too_long(self) -> None:
        with pytest.raises(InvalidRequest):
            rules.child_names("a" * 62, 2)

    def test_templates(self) -> None:
        assert rules.template_ref("base-debian") == ("base-debian", None)
        assert rules.template_ref("x@12") == ("x", 12)
        for bad in ("", "@1", "x@", "x@01", "x@-1", "x@1@2", "X", "x" * 64, "x@99999999999"):
            with pytest.raises(InvalidRequest):
                rules.template_ref(bad)


class TestSmall:
    def test_tags(self) -> None:
        assert rules.tag_filter(["a:b", "c:d:e", "f:"]) == [("a", "b"), ("c", "d:e"), ("f", "")]

    def test_modes(self) -> None:
        assert [rules.octal_mode(text) for text in (None, "0", "644", "07777")] == [
            None,
            0,
            0o644,
            0o7777,
        ]

    def test_ranges(self) -> None:
        rules.check_range(0, None)
        rules.check_range(5, 5)
        with pytest.raises(InvalidRequest):
            rules.check_range(6, 5)

    @pytest.mark.parametrize("password", ["tab\there1", "x" * 257, "ä" * 129, "nul\0nul1"])
    def test_passwords_that_a_login_would_not_take_whole(self, password: str) -> None:
        with pytest.raises(InvalidRequest):
            rules.check_password(password)
