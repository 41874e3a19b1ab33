"""An OpenID Connect provider: where a browser is sent, and what its answer proves.

Authorization code with PKCE, state and nonce. Verifier and nonce are made of the secret in the browser's
cookie, so that nothing of a sign-in under way can be used from the database.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import httpx
from authlib.integrations.base_client.errors import OAuthError
from authlib.integrations.httpx_client import AsyncOAuth2Client
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet, KeySetSerialization

from runtools.errors import Unauthenticated, Unavailable
from runtools.platform.kit.clock import Clock
from runtools.platform.kit.config import Settings
from runtools.platform.kit.crypto import keyed_digest, same

_ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"]
_SCOPES = "openid email profile"
_ADDRESSES = ("authorization_endpoint", "token_endpoint", "jwks_uri")
_SECONDS = 10.0
_LEEWAY = 60


@dataclass(frozen=True, slots=True)
class Claims:
    """Whom the provider vouches for. ``email`` is there only if the provider has verified it."""

    issuer: str
    subject: str
    email: str | None
    name: str | None


class Provider:
    """The provider that the settings name."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self.name = settings.oidc_name
        self._found: dict[str, Any] | None = None

    async def address(self, redirect: str, state: str, secret: str) -> str:
        """Where the browser is sent."""
        found = await self._discovered()
        async with self._client(found, redirect) as client:
            url, _ = client.create_authorization_url(
                found["authorization_endpoint"],
                state=state,
                nonce=_made(secret, b"nonce"),
                code_verifier=_made(secret, b"verifier"),
            )
        return str(url)

    async def claims(self, redirect: str, code: str, secret: str) -> Claims:
        """Whom the code stands for.

        Raises:
            Unauthenticated: the provider does not take the code, or what it says does not hold.
            Unavailable: it does not answer.
        """
        found = await self._discovered()
        try:
            async with self._client(found, redirect) as client:
                token = await client.fetch_token(
                    found["token_endpoint"],
                    code=code,
                    code_verifier=_made(secret, b"verifier"),
                    grant_type="authorization_code",
                )
            async with httpx.AsyncClient(timeout=_SECONDS) as plain:
                keys = await _json(plain, found["jwks_uri"])
            said = jwt.decode(
                str(token["id_token"]),
                KeySet.import_key_set(cast("KeySetSerialization", keys)),
                algorithms=_ALGORITHMS,
            ).claims
        except (OAuthError, JoseError, ValueError, KeyError, TypeError) as exc:
            raise _refused(type(exc).__name__) from None
        except httpx.HTTPError as exc:
            raise _away(exc) from None
        return self._checked(said, _made(secret, b"nonce"))

    def _checked(self, said: dict[str, Any], nonce: str) -> Claims:
        now = self._clock.now().timestamp()
        audience = said.get("aud")
        audiences = audience if isinstance(audience, list) else [audience]
        mine = self._settings.oidc_client_id
        expires, subject = said.get("exp"), said.get("sub")
        if said.get("iss") != self._settings.oidc_issuer:
            raise _refused("issuer")
        if mine not in audiences or (len(audiences) > 1 and said.get("azp") != mine):
            raise _refused("audience")
        if not isinstance(expires, int | float) or expires + _LEEWAY < now:
            raise _refused("time")
        if not same(str(said.get("nonce")), nonce):
            raise _refused("nonce")
        if not isinstance(subject, str) or not 0 < len(subject) <= 255:
            raise _refused("subject")
        email = said.get("email") if said.get("email_verified") is True else None
        name = said.get("name")
        return Claims(
            self._settings.oidc_issuer,
            subject,
            email.lower() if isinstance(email, str) else None,
            name if isinstance(name, str) else None,
        )

    async def _discovered(self) -> dict[str, Any]:
        if self._found is None:
            issuer = self._settings.oidc_issuer
            url = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
            try:
                async with httpx.AsyncClient(timeout=_SECONDS) as client:
                    found = await _json(client, url)
            except httpx.HTTPError as exc:
                raise _away(exc) from None
            except (ValueError, TypeError):
                raise _refused("discovery") from None
            if found.get("issuer") != issuer:
                raise _refused("issuer of the discovery document")
            if not all(isinstance(found.get(name), str) for name in _ADDRESSES):
                raise _refused("addresses of the discovery document")
            self._found = found
        return self._found

    def _client(self, found: dict[str, Any], redirect: str) -> AsyncOAuth2Client:
        methods = found.get("token_endpoint_auth_methods_supported")
        basic = not isinstance(methods, list) or "client_secret_basic" in methods
        return AsyncOAuth2Client(
            self._settings.oidc_client_id,
            self._settings.oidc_client_secret,
            token_endpoint_auth_method="client_secret_basic" if basic else "client_secret_post",
            scope=_SCOPES,
            redirect_uri=redirect,
            code_challenge_method="S256",
            timeout=_SECONDS,
        )


async def _json(client: httpx.AsyncClient, url: str) -> dict[str, Any]:
    answer = await client.get(url)
    answer.raise_for_status()
    body = answer.json()
    if not isinstance(body, dict):
        raise TypeError("no object")
    return body


def _made(secret: str, what: bytes) -> str:
    return keyed_digest(secret, what)


def _refused(what: str) -> Unauthenticated:
    return Unauthenticated(
        f"the identity provider's answer does not hold ({what})", hint="begin again"
    )


def _away(exc: httpx.HTTPError) -> Unavailable:
    return Unavailable(f"the identity provider does not answer ({type(exc).__name__})")
