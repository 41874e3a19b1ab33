"""``runtools auth …``: who the key stands for, and the org's API keys."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from runtools.cli import lazy, output
from runtools.cli.output import Json, org_looks
from runtools.cli.session import acting, connected, flag
from runtools.errors import Forbidden, InvalidRequest
from runtools.sdk import settings

if TYPE_CHECKING:
    from runtools.cli import key_looks, people_looks
else:
    key_looks = lazy.module("runtools.cli.key_looks")
    people_looks = lazy.module("runtools.cli.people_looks")

app = typer.Typer(help="Who you are to the platform, and API keys.", no_args_is_help=True)
keys = typer.Typer(help="API keys: make, list, rotate, revoke.", no_args_is_help=True)
app.add_typer(keys, name="keys")
sessions = typer.Typer(help="Where you are signed in: list, end.", no_args_is_help=True)
app.add_typer(sessions, name="sessions")
identities = typer.Typer(help="Other ways in to your account: list, unlink.", no_args_is_help=True)
app.add_typer(identities, name="identities")

KeyId = Annotated[str, typer.Argument(metavar="KEY_ID", help="key_…", show_default=False)]


@app.command()
def status(json: Json = False) -> None:
    """Say which platform, org, and person or key commands act with, and where that was said."""
    found = acting()
    with connected() as rt:
        me = rt.me()
    said = "" if found.url == settings.address() else " (the project's folder says so)"
    output.show(me, lambda: key_looks.me(me, f"{found.url}{said}", found.source))


@app.command()
def switch(
    org: Annotated[str, typer.Argument(metavar="ORG", help="Its id or name.", show_default=False)],
    json: Json = False,
) -> None:
    """Act in another of your organisations from now on."""
    with connected() as rt:
        mine = [one for one in rt.orgs.list() if org in (one.id, one.name)]
        if len(mine) > 1:
            ids = ", ".join(one.id for one in mine)
            raise InvalidRequest(f"several of your organisations are called that: {ids}")
        switched = rt.orgs.switch(mine[0].id if mine else org)
    output.show(switched, lambda: org_looks.orgs([switched]))


@app.command()
def password() -> None:
    """Change your password; all your other sessions end."""
    current = typer.prompt("Present password", hide_input=True, err=True)
    new = typer.prompt("New password", hide_input=True, err=True, confirmation_prompt=True)
    with connected() as rt:
        ended = rt.sessions.change_password(current, new)
    output.note(f"changed; {ended} other sessions ended")


@sessions.command(name="list")
def sessions_list(json: Json = False) -> None:
    """List where you are signed in."""
    with connected() as rt:
        found = rt.sessions.list()
    output.show(found, lambda: org_looks.sessions(found))


@sessions.command(name="end")
def sessions_end(
    session_id: Annotated[
        str | None,
        typer.Argument(metavar="[SESSION_ID]", help="Default: all others.", show_default=False),
    ] = None,
) -> None:
    """Sign out there, or everywhere but here."""
    with connected() as rt:
        if session_id is None:
            output.note(f"{rt.sessions.end_others()} other sessions ended")
        else:
            rt.sessions.end(session_id)


@app.command()
def close() -> None:
    """Close your account, for good. What you made stays with your organisations."""
    if not sys.stdin.isatty():
        raise InvalidRequest("nobody is there to confirm it; nothing was done")
    with connected() as rt:
        me = rt.me()
        if me.user is None:
            raise Forbidden("an API key has no account to close", hint="runtools login")
        text = f"The account of {me.user.email} is closed for good. Type the address to go on"
        if typer.prompt(text, err=True, default="", show_default=False).strip() != me.user.email:
            output.note("nothing was done")
            raise typer.Exit(1)
        rt.sessions.close_account(
            typer.prompt("Password", hide_input=True, err=True, default="", show_default=False)
            or None
        )
    output.note("closed; `runtools logout` forgets the session")


@identities.command(name="list")
def identities_list(json: Json = False) -> None:
    """List the identities that are linked to your account."""
    with connected() as rt:
        found = rt.identities.list()
    output.show(found, lambda: people_looks.identities(found))


@identities.command(name="unlink")
def identities_unlink(
    identity_id: Annotated[
        str, typer.Argument(metavar="IDENTITY_ID", help="idn_…", show_default=False)
    ],
) -> None:
    """Unlink one; you are signed out everywhere else."""
    with connected() as rt:
        rt.identities.unlink(identity_id)


@keys.command(name="list")
def list_(
    project: Annotated[
        str | None, typer.Option(metavar="PROJECT", help="Only those in it.")
    ] = None,
    json: Json = False,
) -> None:
    """List the org's keys, revoked ones too."""
    with connected() as rt:
        found = rt.api_keys.list(project_id=project)
    output.show(found, lambda: key_looks.api_keys(found))


@keys.command()
def create(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="What it is for.", show_default=False)
    ],
    scope: Annotated[
        list[str] | None,
        typer.Option(metavar="NOUN:VERB", help="What it may do; repeatable; none: everything."),
    ] = None,
    expires_in: Annotated[
        str | None, typer.Option(metavar="30d|12w|1y", help="Default: never.")
    ] = None,
    project: Annotated[
        str | None, typer.Option(metavar="PROJECT", help="Its project, by id or name.")
    ] = None,
    test: Annotated[bool, flag("--test", help="Mark it rt_test_ instead of rt_live_.")] = False,
    json: Json = False,
) -> None:
    """Make a key; prints it, this once."""
    with connected() as rt:
        made = rt.api_keys.create(
            name, scopes=scope or [], expires_in=expires_in, project_id=project, is_test=test
        )
    output.show_once(made, made.id, "key", made.key, _lost(made.id))
    if not output.is_json():
        output.note(f"{made.id}; nobody can show it again")


@keys.command()
def rotate(
    key_id: KeyId,
    expires_in: Annotated[
        str | None, typer.Option(metavar="30d|12w|1y", help="Default: with the old one.")
    ] = None,
    json: Json = False,
) -> None:
    """Replace a key by another with the same name and rights; prints it, this once."""
    with connected() as rt:
        made = rt.api_keys.rotate(key_id, expires_in=expires_in)
    output.show_once(made, made.id, f"key in the place of {key_id}", made.key, _lost(made.id))
    if not output.is_json():
        output.note(f"{made.id} in the place of {key_id}, which ends within a second")


@keys.command()
def revoke(
    key_id: KeyId,
    made: Annotated[bool, flag("--made", help="End the keys that it made, too.")] = False,
) -> None:
    """End a key; it stops working within a second."""
    with connected() as rt:
        rt.api_keys.revoke(key_id, revoke_made=made)


def _lost(key_id: str) -> str:
    return f"`runtools auth keys rotate {key_id}` puts another in its place, `revoke` ends it"
