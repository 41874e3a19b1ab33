"""What templates are made of: one recipe that takes a distribution, a suite and its packages' names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from runtools.errors import InvalidRequest
from runtools.platform.core.recipes import no_package

# What both distributions call the same. Much that is usual comes along as a dependency.
COMMON = (
    *("apt", "ca-certificates", "systemd", "systemd-sysv", "kmod", "tzdata"),
    *("bash", "procps", "psmisc", "iproute2", "iputils-ping", "netcat-openbsd", "e2fsprogs"),
    *("openssh-server", "openssh-client", "git", "curl", "wget", "rsync", "ripgrep", "jq", "make"),
    *("less", "nano", "vim-tiny", "tmux", "tree", "patch"),
    *("bzip2", "unzip", "zip", "xz-utils", "zstd"),
    *("python3", "python3-pip", "python3-venv", "nodejs", "node-corepack"),
)

# Installed by the image's own npm, which comes from there too: the distribution's is 340 packages. The
# Bun for CPUs without the newest instructions, because an emulated one lacks them.
NPM = "npm@10"
BUN = "@oven/bun-linux-x64-baseline"


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one kind of template is made.

    Attributes:
        slug: the recipe's name, and that of the template made from it as it stands.
        distribution: as in the ``ID`` of os-release; chooses mirror and keys.
        suite: the release's code name.
        components: parts of the archive.
        packages: what is installed.
        kernel: the package that depends on the newest kernel; it is unpacked, not installed.
    """

    slug: str
    distribution: str
    suite: str
    components: tuple[str, ...]
    packages: tuple[str, ...]
    kernel: str


RECIPES: Mapping[str, Recipe] = {
    recipe.slug: recipe
    for recipe in (
        Recipe(
            slug="base-debian",
            distribution="debian",
            suite="trixie",
            components=("main",),
            packages=COMMON,
            kernel="linux-image-cloud-amd64",
        ),
        Recipe(
            slug="base-ubuntu",
            distribution="ubuntu",
            suite="noble",
            components=("main", "universe"),
            packages=COMMON,
            kernel="linux-image-virtual",
        ),
    )
}


def recipe_of(slug: str) -> Recipe:
    """The recipe of that name.

    Raises:
        InvalidRequest: there is none.
    """
    try:
        return RECIPES[slug]
    except KeyError:
        raise InvalidRequest(
            f"no recipe {slug!r}", hint=f"recipes are {', '.join(sorted(RECIPES))}"
        ) from None


def check_packages(names: list[str]) -> None:
    """Refuse what is no plain package name: apt would take some others as orders or patterns.

    Raises:
        InvalidRequest: the message names the first one.
    """
    bad = no_package(names)
    if bad is not None:
        raise InvalidRequest(
            f"{bad[1][:80]!r} is no package name",
            hint="letters, digits, '+', '-' and '.', with an optional =version",
            details={"fields": ["apt"]},
        )
