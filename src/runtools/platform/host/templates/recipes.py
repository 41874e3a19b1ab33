"""What templates are made of: one recipe that takes a distribution, a suite and its packages' names, and
another on top of it for desktops.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

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

# A desktop: each part by itself, for the collections bring daemons that would wake an idle machine.
DESKTOP = (
    *("xfce4-session", "xfwm4", "xfdesktop4", "xfce4-panel", "xfce4-settings", "xfconf"),
    *("thunar", "xfce4-terminal", "xfce4-appfinder", "mousepad", "plank"),
    *(
        "dbus",
        "dbus-daemon",
        "dbus-x11",
        "x11-utils",
        "x11-xserver-utils",
        "x11-xkb-utils",
        "xauth",
    ),
    *("xdotool", "wmctrl", "scrot", "xclip", "imagemagick", "python3-xlib", "xdg-utils"),
    *("orchis-gtk-theme", "papirus-icon-theme", "dmz-cursor-theme", "librsvg2-common"),
    *("fonts-noto-core", "fonts-noto-color-emoji", "fonts-dejavu-core", "fonts-liberation"),
    *("fonts-droid-fallback", "shared-mime-info", "desktop-file-utils", "libglib2.0-bin"),
)
TIGERVNC = ("tigervnc-standalone-server", "novnc", "websockify")

# Installed by the image's own npm, which comes from there too: the distribution's is 340 packages. The
# Bun for CPUs without the newest instructions, because an emulated one lacks them.
NPM = "npm@10"
BUN = "@oven/bun-linux-x64-baseline"


Vnc = Literal["tigervnc", "kasmvnc"]


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive that is not the distribution's, and what is taken from it.

    Attributes:
        name: of its files below ``/etc/apt``.
        uri, suite, components: as in a source of apt.
        key: the file among ``keys`` that its index must be signed with.
        packages: what is installed from it.
    """

    name: str
    uri: str
    suite: str
    components: tuple[str, ...]
    key: str
    packages: tuple[str, ...]


# Ubuntu's own package of the browser is a snap, which needs a daemon of its own.
MOZILLA = Archive(
    name="mozilla",
    uri="https://packages.mozilla.org/apt",
    suite="mozilla",
    components=("main",),
    key="mozilla.asc",
    packages=("firefox-esr",),
)


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
        archives: further archives, with what is installed from them.
        vnc: what a desktop's screen is; None: there is no desktop.
        rehearsal: commands of the image that must succeed before a machine of it is captured.
    """

    slug: str
    distribution: str
    suite: str
    components: tuple[str, ...]
    packages: tuple[str, ...]
    kernel: str
    archives: tuple[Archive, ...] = ()
    vnc: Vnc | None = None
    rehearsal: tuple[tuple[str, ...], ...] = ()


_BASES = (
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


def _desktop(base: Recipe, vnc: Vnc) -> Recipe:
    """The recipe of a desktop on a base."""
    is_debian = base.distribution == "debian"
    named = "" if vnc == "tigervnc" else f"-{vnc}"
    return replace(
        base,
        slug=f"desktop-{base.distribution}{named}",
        packages=(
            *base.packages,
            *DESKTOP,
            *(TIGERVNC if vnc == "tigervnc" else ()),
            *(("firefox-esr",) if is_debian else ()),
        ),
        archives=() if is_debian else (MOZILLA,),
        vnc=vnc,
        rehearsal=(("/usr/lib/runtools-desktop/rehearse",),),
    )


RECIPES: Mapping[str, Recipe] = {
    recipe.slug: recipe
    for recipe in (
        *_BASES,
        *(_desktop(base, "tigervnc") for base in _BASES),
        *(_desktop(base, "kasmvnc") for base in _BASES),
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
