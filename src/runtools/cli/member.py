"""``runtools member …`` and ``runtools invite …``"""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from runtools.cli import output, stdin
from runtools.cli.output import Json, org_looks
from runtools.cli.session import connected, flag

Role = Literal["admin", "member"]

app = typer.Typer(
    help="The people in the organisation: list, role, reset, remove.", no_args_is_help=True
)
invite = typer.Typer(
    help="Invite people by link: create, list, accept, revoke.", no_args_is_help=True
)

User = Annotated[str, typer.Argument(metavar="USER_ID", help="usr_…", show_default=False)]


@app.command(name="list")
def list_(json: Json = False) -> None:
    """List who is in the organisation."""
    with connected() as rt:
        found = rt.members.list()
    output.show(found, lambda: org_looks.members(found))


@app.command()
def role(
    user: User, role: Annotated[Role, typer.Argument(show_default=False)], json: Json = False
) -> None:
    """Make somebody an Admin or a Member."""
    with connected() as rt:
        member = rt.members.set_role(user, role)
    output.show(member, lambda: org_looks.members([member]))


@app.command()
def remove(
    user: User,
    revoke_keys: Annotated[
        bool, flag("--revoke-keys", help="End the API keys that the person made, too.")
    ] = False,
) -> None:
    """Take somebody out of the organisation, within a second."""
    with connected() as rt:
        rt.members.remove(user, revoke_keys=revoke_keys)


@app.command()
def reset(user: User, json: Json = False) -> None:
    """Make a link by which a member of this organisation alone sets another password; prints it."""
    with connected() as rt:
        made = rt.members.reset(user)
    output.show(made, lambda: made.link)


@invite.command(name="create")
def create(
    email: Annotated[str, typer.Argument(metavar="EMAIL", show_default=False)],
    role: Annotated[Role, typer.Option(help="What the person becomes.")] = "member",
    expires_in: Annotated[
        str | None, typer.Option(metavar="24h|7d", help="Default: 7d; at most 30d.")
    ] = None,
    operator: Annotated[
        bool, flag("--operator", help="Make the person an operator of the whole platform, too.")
    ] = False,
    json: Json = False,
) -> None:
    """Invite somebody; prints the link, this once. Whoever has it comes in."""
    with connected() as rt:
        made = rt.invitations.create(email, role=role, expires_in=expires_in, operator=operator)
    hint = f"take it back and invite again: runtools invite revoke {made.id}"
    output.show_once(made, made.id, "link", made.link, hint)


@invite.command(name="list")
def invitations(json: Json = False) -> None:
    """List the latest invitations, and what became of them."""
    with connected() as rt:
        found = rt.invitations.list()
    output.show(found, lambda: org_looks.invitations(found))


@invite.command()
def accept(json: Json = False) -> None:
    """Come into an organisation, as who is signed in; reads the link from stdin."""
    link = stdin.secret("link", "runtools invite accept < file-with-the-link")
    with connected() as rt:
        joined = rt.invitations.accept(link)
    output.show(joined, lambda: org_looks.orgs([joined]))


@invite.command()
def revoke(
    invitation_id: Annotated[
        str, typer.Argument(metavar="INVITATION_ID", help="inv_…", show_default=False)
    ],
) -> None:
    """Take an invitation back."""
    with connected() as rt:
        rt.invitations.revoke(invitation_id)
