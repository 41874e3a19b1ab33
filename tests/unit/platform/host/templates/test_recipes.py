"""Recipes, and what counts as the name of a package."""

from __future__ import annotations

import pytest

from runtools.errors import InvalidRequest
from runtools.platform.api.templates import rules
from runtools.platform.core import recipes
from runtools.platform.host.templates.recipes import RECIPES, check_packages, recipe_of


def test_debian_is_tested_and_others_say_they_are_not() -> None:
    tested = {slug for slug, is_tested in recipes.RECIPES.items() if is_tested}
    assert tested == {"base-debian", "desktop-debian"}


def test_the_host_can_build_what_the_api_offers_and_no_more() -> None:
    assert set(RECIPES) == set(recipes.RECIPES)
    assert all(recipe_of(slug).slug == slug for slug in recipes.RECIPES)


def test_both_come_from_the_same_list() -> None:
    assert RECIPES["base-debian"].packages == RECIPES["base-ubuntu"].packages


def test_desktops_are_known_by_both_sides() -> None:
    assert {slug for slug, recipe in RECIPES.items() if recipe.vnc} == recipes.DESKTOPS
    assert recipes.usual_memory_mb("desktop-ubuntu") == 2048
    assert recipes.usual_memory_mb("base-debian") == 1024


def test_a_desktop_is_its_base_and_more() -> None:
    for distribution in ("debian", "ubuntu"):
        base, desktop = RECIPES[f"base-{distribution}"], RECIPES[f"desktop-{distribution}"]
        assert desktop.packages[: len(base.packages)] == base.packages
        assert (desktop.suite, desktop.kernel) == (base.suite, base.kernel)
        assert {"xfce4-session", "plank", "xdotool", "scrot", "imagemagick"} < set(desktop.packages)
        assert {"tigervnc-standalone-server", "novnc", "websockify"} < set(desktop.packages)
        browser = {*desktop.packages, *(name for one in desktop.archives for name in one.packages)}
        assert "firefox-esr" in browser


def test_kasmvnc_is_taken_only_where_it_is_named() -> None:
    for slug, recipe in RECIPES.items():
        assert (recipe.vnc == "kasmvnc") is slug.endswith("-kasmvnc")
        if recipe.vnc == "kasmvnc":
            assert not {"novnc", "tigervnc-standalone-server"} & set(recipe.packages)


def test_unknown_recipe_names_the_known() -> None:
    with pytest.raises(InvalidRequest, match="no recipe 'windows'") as caught:
        recipe_of("windows")
    assert "base-debian" in (caught.value.hint or "")


def test_every_recipe_names_only_packages() -> None:
    for recipe in RECIPES.values():
        check_packages([*recipe.packages, recipe.kernel])


@pytest.mark.parametrize("name", ["g++", "libc6", "python3.13", "git=1:2.47.3-0+deb13u1", "7zip"])
def test_good_names(name: str) -> None:
    check_packages([name])
    rules.check_packages([name])


@pytest.mark.parametrize(
    "name",
    [
        "",
        "-y",
        "--allow-unauthenticated",
        "apt-",  # apt would remove it
        "apt,dpkg",
        "a b",
        "~nfoo",
        "?all",
        "./file.deb",
        "/etc/passwd",
        "git/unstable",
        "git=",
        "$(reboot)",
        "x\n",
        "UPPER",
        "a" * 300,
        "libc6:i386",
    ],
)
def test_what_apt_would_take_for_something_else(name: str) -> None:
    with pytest.raises(InvalidRequest, match="no package name"):
        check_packages(["git", name])
    with pytest.raises(InvalidRequest, match=r"apt\.1"):
        rules.check_packages(["git", name])
