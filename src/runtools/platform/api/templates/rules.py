"""What may be built, and how a version is shown. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from runtools.errors import InvalidRequest, QuotaExceeded, TemplateInUse
from runtools.platform.api.templates.store import Version
from runtools.platform.core.access import Caller, covers
from runtools.platform.core.ids import is_name
from runtools.platform.core.recipes import RECIPES, no_package
from runtools.platform.kit.http import wrong_field
from runtools.sdk.shapes.templates import BuildState, Template, TemplateBuild


def check_slug(slug: str) -> None:
    """A slug is a name."""
    if not is_name(slug):
        raise wrong_field("slug", "must be 1 to 63 lower-case letters, digits and inner hyphens")


def recipe_of(slug: str, wanted: TemplateBuild) -> str:
    """The recipe to build by: the one that is named, else the one that the slug names."""
    recipe = wanted.recipe or slug
    if recipe not in RECIPES:
        raise InvalidRequest(
            f"no recipe {recipe!r}",
            hint=f"recipes are {', '.join(sorted(RECIPES))}; name one for a slug of your own",
            details={"fields": [{"field": "recipe", "problem": "unknown", "type": "value_error"}]},
        )
    if slug in RECIPES and slug != recipe:
        raise wrong_field("recipe", f"{slug} is a recipe's own name; it never lies")
    return recipe


def check_packages(packages: Iterable[str]) -> None:
    """Names of Debian packages, so that none can be an option of the package manager."""
    bad = no_package(packages)
    if bad is not None:
        raise wrong_field(
            f"apt.{bad[0]}",
            f"{bad[1][:80]!r} is no package name: lower-case letters, digits, '+', '-' and '.', with an "
            "optional =version",
        )


def check_queue(most: int, has: int) -> None:
    """So many builds an org may have under way or waiting; 0: no limit.

    Raises:
        QuotaExceeded: it has them; it names the limit.
    """
    if most and has >= most:
        raise QuotaExceeded(
            f"the org may have {most} builds under way or waiting, and it has {has}",
            hint="wait for one to end, or delete its version; the setting limit_builds allows more",
            details={"limit": "builds", "max": most, "used": has, "asked": 1},
        )


def in_use(
    who: Caller, version: Version, living: Mapping[str, int], kept: Mapping[str, int]
) -> TemplateInUse:
    """Why a version stays, by how many sandboxes and snapshots of each org stand on it.

    Who asks is told how many of its own do, and of other orgs only that some do; the operator is told how
    many.
    """
    mine = str(who.org_id)
    own, own_kept = living.get(mine, 0), kept.get(mine, 0)
    others, others_kept = sum(living.values()) - own, sum(kept.values()) - own_kept
    details: dict[str, object] = {
        "sandboxes": own,
        "snapshots": own_kept,
        "others": bool(others or others_kept),
        "version": version.version,
    }
    users = [f"{own} sandboxes and {own_kept} snapshots"] if own or own_kept else []
    if _is_operator(who):
        details |= {"otherSandboxes": others, "otherSnapshots": others_kept}
        if others or others_kept:
            users.append(f"{others} sandboxes and {others_kept} snapshots of other orgs")
    elif others or others_kept:
        users.append("other orgs")
    hint = "destroy them first; ended sandboxes count while they can be recovered"
    if not (own or own_kept):
        hint = (
            "it can go when nothing of theirs stands on it; new sandboxes take the newest version"
        )
    name = f"{version.slug}@{version.version}"
    return TemplateInUse(f"{name} is used by {', and by '.join(users)}", hint=hint, details=details)


def as_told(refusal: TemplateInUse, who: Caller, version: Version) -> TemplateInUse:
    """A host's refusal as who asked may hear it: it names sandboxes and snapshots of whichever org."""
    if _is_operator(who):
        return refusal
    return TemplateInUse(
        f"something stands on {version.slug}@{version.version} still",
        hint="destroy what is yours of it; what has ended counts while it can be recovered",
        details={"version": version.version},
    )


def _is_operator(who: Caller) -> bool:
    return covers(who.scopes, "platform:read")


def shown(version: Version, default_slug: str, org_id: str) -> Template:
    """The version as an org sees it."""
    # One that is being dropped is shown as it was, and one that was being built then as not built.
    state: BuildState = "failed" if version.error is not None else "ready"
    step, error = version.step, version.error
    if version.state == "building":
        state = "building"
    elif version.state_before == "building":
        state, step, error = "failed", "deleted", "it was deleted while it was being built"
    return Template(
        id=version.id,
        slug=version.slug,
        version=version.version,
        recipe=version.recipe,
        state=state,
        progress=version.progress,
        step=step,
        tested=RECIPES.get(version.recipe, False),
        is_default=version.slug == default_slug,
        is_own=version.org_id == org_id,
        size_bytes=version.size_bytes,
        error=error,
        created_at=version.created_at,
        finished_at=version.finished_at,
    )
