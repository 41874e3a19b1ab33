"""Orgs, the people in them, and invitations."""

from __future__ import annotations

from runtools.sdk import wire
from runtools.sdk.shapes.account import Role
from runtools.sdk.shapes.dev_urls import Access, OrgDevUrls
from runtools.sdk.shapes.people import Invitation, Member, Org, OrgCreated, ResetLink
from runtools.sdk.transport import AsyncTransport

_PAGE = 100


class AsyncOrgs:
    """Orgs: ``rt.orgs``. Everything else acts in the current one."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def list(self) -> list[Org]:
        """The orgs that the caller is in; ``current`` is the one that calls act in."""
        return wire.shapes(Org, (await self._transport.call("GET", "/orgs")).data)

    async def current(self) -> Org:
        """The org that calls act in."""
        return wire.shape(Org, (await self._transport.call("GET", "/org")).data)

    async def create(self, name: str, *, admin_email: str | None = None) -> OrgCreated:
        """Make an org, as the operator.

        Args:
            name: what it is called.
            admin_email: who is invited as its first Admin: the link is in ``invitation``, this once. None:
                the person who calls is it (an API key cannot be).
        """
        body = {"name": name, "adminEmail": admin_email}
        return wire.shape(OrgCreated, (await self._transport.call("POST", "/orgs", body=body)).data)

    async def rename(self, name: str) -> Org:
        """Give the current org another name."""
        body = {"name": name}
        return wire.shape(Org, (await self._transport.call("PATCH", "/org", body=body)).data)

    async def switch(self, org_id: str) -> Org:
        """Act in another of the person's orgs from now on, in this session."""
        path = f"/orgs/{wire.segment(org_id)}/switch"
        return wire.shape(Org, (await self._transport.call("POST", path)).data)

    async def dev_urls(self) -> Access:
        """Who may enter ports of the current org's sandboxes for which nothing nearer was chosen."""
        answer = await self._transport.call("GET", "/dev-urls")
        return wire.shape(OrgDevUrls, answer.data).access

    async def choose_dev_urls(self, access: Access) -> None:
        """Choose that: ``private`` or ``public``."""
        await self._transport.call("POST", "/dev-urls", body={"access": access})

    async def leave(self) -> None:
        """Leave the current org. Its last Admin cannot."""
        await self._transport.call("POST", "/org/leave")


class AsyncMembers:
    """The people in the current org: ``rt.members``."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def list(self) -> list[Member]:
        """Who is in the org, who came first first."""
        pages = self._transport.pages("/members", [], _PAGE)
        return [wire.shape(Member, item) async for item in pages]

    async def set_role(self, user_id: str, role: Role) -> Member:
        """Make somebody ``admin`` or ``member``; open sessions have it within a second."""
        path = f"/members/{wire.segment(user_id)}"
        answer = await self._transport.call("PATCH", path, body={"role": role})
        return wire.shape(Member, answer.data)

    async def remove(self, user_id: str, *, revoke_keys: bool = False) -> None:
        """Take somebody out of the org, and with ``revoke_keys`` the API keys that the person made."""
        path = f"/members/{wire.segment(user_id)}"
        await self._transport.call("DELETE", path, query=[("revokeKeys", revoke_keys)])

    async def reset(self, user_id: str) -> ResetLink:
        """A link by which somebody who is in this org alone sets another password, once, within a day."""
        path = f"/members/{wire.segment(user_id)}/reset"
        return wire.shape(ResetLink, (await self._transport.call("POST", path)).data)


class AsyncInvitations:
    """Invitations into the current org: ``rt.invitations``."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def create(
        self,
        email: str,
        *,
        role: Role = "member",
        expires_in: str | None = None,
        operator: bool = False,
    ) -> Invitation:
        """Invite somebody. The ``link`` is in this answer alone, and good once.

        Args:
            email: the address of the account that the link makes.
            role: ``admin`` or ``member``.
            expires_in: e.g. ``24h``, ``7d`` (the default); at most ``30d``.
            operator: make the person an operator of the whole installation, too.
        """
        body = {"email": email, "role": role, "expiresIn": expires_in, "operator": operator}
        answer = await self._transport.call("POST", "/invitations", body=body)
        return wire.shape(Invitation, answer.data)

    async def list(self) -> list[Invitation]:
        """All of them, the latest first, and what became of them."""
        pages = self._transport.pages("/invitations", [], _PAGE)
        return [wire.shape(Invitation, item) async for item in pages]

    async def revoke(self, invitation_id: str) -> None:
        """Take one back."""
        await self._transport.call("DELETE", f"/invitations/{wire.segment(invitation_id)}")

    async def accept(self, code: str) -> Org:
        """Come into an org by what stands behind ``#`` in a link, as the person who is signed in."""
        body = {"code": code.rpartition("#")[2]}
        answer = await self._transport.call("POST", "/invitations/accept", body=body)
        return wire.shape(Org, answer.data)
