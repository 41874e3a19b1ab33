"""What a request shows to be let in, and what of it goes on: nothing of ours does."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple
from urllib.parse import unquote

from runtools.platform.core.dev_urls import LINK, DevUrls
from runtools.platform.gateway.web.head import AnswerHead, Field, Named, RequestHead, write

_OURS: Final = b"rt_"  # how all secrets of the platform begin
_LINK_BEGINS: Final = "rt_link_"
_KEY_HEADER: Final = b"x-runtools-key"
_COOKIES: Final = (b"__Host-runtools-dev", b"runtools-dev")
_MAX_COOKIES: Final = 4
_SWITCHING: Final = 101
_HOP: Final = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"proxy-authorization", b"te", b"upgrade"}
)
# What says how long a message is and whose: nobody may name it as a matter of one connection alone, for
# without it the next hop would read the body as another message.
_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding", b"host"})
# The last is read by CGI as the proxy to go out by.
NOT_INWARD: Final = _HOP | {b"host", b"forwarded", b"x-real-ip", b"via", b"proxy"}
# The first would clear the cookies of others too, the second is how the gateway says that it is its own; by
# the others a proxy before it would give out files and pages of its own.
NOT_OUTWARD: Final = _HOP | {
    b"clear-site-data",
    b"x-runtools-refused",
    b"x-accel-redirect",
    b"x-sendfile",
}
# Where something of ours may stand.
_TELLING: Final = frozenset({_KEY_HEADER, b"x-api-key", b"authorization", b"cookie", b"referer"})
_LOCAL: Final = re.compile(
    rb"https?://(?:localhost|127\.0\.0\.1|\[::1\])(?::([0-9]+))?(?=[/?#]|\Z)"
)
FORWARDED: Final = b"x-forwarded-"
_PAGE: Final = frozenset({b"origin", b"referer"})
_FORMS: Final = frozenset(
    {b"application/x-www-form-urlencoded", b"multipart/form-data", b"text/plain"}
)
PARAMETER: Final = LINK.encode()
_SECRET: Final = re.compile(r"[A-Za-z0-9_-]{1,512}")


class Shown(NamedTuple):
    """What opens. It is not printed.

    Attributes:
        key: an API key or a session, from a header.
        link: from the address.
        cookies: what links have become, from this origin's own pages; or a link from a header, which no
            page of another can send.
    """

    key: str | None = None
    link: str | None = None
    cookies: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Nothing secret."""
        return "Shown(…)"


NOTHING: Final = Shown()


def shown(head: RequestHead, urls: DevUrls) -> Shown:
    """Take what is ours out of a request's head."""
    link = None
    if PARAMETER in head.target:
        head.target, link = _without_link(head.target)
    if _TELLING.isdisjoint(head.named):
        return Shown(None, link) if link is not None else NOTHING
    cookies: list[str] = []
    key, head.fields = _taken_out(head.fields, urls, cookies)
    if cookies and not _is_own_page(head, urls):
        cookies = []
    if key is not None and key.startswith(_LINK_BEGINS):
        cookies.insert(0, key)
        key = None
    if key is None and link is None and not cookies:
        return NOTHING
    return Shown(key, link, tuple(cookies[:_MAX_COOKIES]))


def _taken_out(
    fields: list[Named], urls: DevUrls, cookies: list[str]
) -> tuple[str | None, list[Named]]:
    """The key that fields have, and them without what is ours; cookies of ours are added to those found."""
    key: str | None = None
    rest: list[Named] = []
    for field in fields:
        name, value, low = field
        if low not in _TELLING:
            rest.append(field)
        elif low == _KEY_HEADER or (low == b"x-api-key" and value.startswith(_OURS)):
            key = _secret(value)
        elif low == b"authorization" and _bearer(value).startswith(_OURS):
            key = _secret(_bearer(value))
        elif low == b"cookie":
            kept = value if _COOKIES[1] not in value else _without_ours(value, urls, cookies)
            if kept:
                rest.append((name, kept, low))
        elif low == b"referer" and PARAMETER in value:
            rest.append((name, _without_link(value)[0], low))
        else:
            rest.append(field)
    return key, rest


def is_navigation(head: RequestHead) -> bool:
    """Whether a person looks at what comes."""
    if head.method != b"GET":
        return False
    mode = head.one(b"sec-fetch-mode")
    return mode == b"navigate" if mode is not None else wants_html(head)


def is_window(head: RequestHead) -> bool:
    """Whether it fills a window, and is no frame of another page."""
    return is_navigation(head) and head.one(b"sec-fetch-dest") in (None, b"document")


def wants_html(head: RequestHead) -> bool:
    """Whether a page is understood."""
    return b"text/html" in b",".join(head.all(b"accept")).lower()


def behind_target(head: RequestHead, port: int, urls: DevUrls, peer: str) -> bytes:
    """The head as the server in the sandbox gets it, from the target on.

    It is of our version, whatever the visitor's: a server of HTTP/1.1 then says where its answer ends.
    To it everything comes from its own machine: development servers take no other host. Of forms and
    WebSockets servers compare the origin, some with ``Host`` and others with ``X-Forwarded-Host``: where
    they come from a page of its own, that is one of its machine too, by whatever name. Whose any other page
    is, it is told as it is, and judges itself. What programs send it keeps the address outside.
    """
    dropped = NOT_INWARD
    if head.connection:
        dropped |= head.connection - _FRAMING
    local = b"localhost:%d" % port
    fields = [
        (name, value)
        for name, value, low in head.fields
        # Servers that know names as variables (CGI, WSGI) read both lines as one.
        if (plain := low.replace(b"_", b"-")) not in dropped and not plain.startswith(FORWARDED)
    ]
    host, scheme = head.host.encode("latin-1"), urls.scheme.encode()
    if not _PAGE.isdisjoint(head.named) and (head.upgrades or _is_form(head)):
        own, here = b"%b://%b" % (scheme, host), b"http://" + local
        fields = [(name, _as_local(name.lower(), value, own, here)) for name, value in fields]
        if head.all(b"origin") == [own] and not head.upgrades:
            host, scheme = local, b"http"
    if head.upgrades:
        fields += [(b"Connection", b"Upgrade"), (b"Upgrade", head.all(b"upgrade")[0])]
    fields.append((b"X-Forwarded-For", peer.encode("latin-1")))
    fields.append((b"X-Forwarded-Host", host))
    fields.append((b"X-Forwarded-Proto", scheme))
    return write(b"HTTP/1.1\r\nHost: %b" % local, fields)


def _as_local(low: bytes, value: bytes, own: bytes, here: bytes) -> bytes:
    """A field's value, where it is a page of the own address: that, as the server knows it."""
    if low == b"origin" and value == own:
        return here
    if low == b"referer" and (value + b"/").startswith(own + b"/"):
        return here + value[len(own) :]
    return value


def _is_form(head: RequestHead) -> bool:
    """Whether it is what pages of any origin may send unasked: of that servers compare the origin."""
    kind = (head.one(b"content-type") or b"text/plain").partition(b";")[0].strip().lower()
    return head.method == b"POST" and kind in _FORMS


def outward(
    head: AnswerHead, sandbox_id: str, port: int, urls: DevUrls, more: Sequence[Field]
) -> bytes:
    """The head of an answer as its caller gets it; what we say besides, it says alone."""
    dropped = NOT_OUTWARD
    if head.connection:
        dropped |= head.connection - _FRAMING
    if more:
        dropped |= {name.lower() for name, _ in more} - {b"set-cookie"}
    fields: list[Field] = []
    if head.status == _SWITCHING:
        fields += [(b"Connection", b"Upgrade"), (b"Upgrade", b", ".join(head.all(b"upgrade")))]
    for name, value, low in head.fields:
        if low in dropped:
            continue
        if low == b"set-cookie":
            kept = _own_cookie(value)
            if kept is not None:
                fields.append((name, kept))
        elif low == b"location":
            fields.append((name, _outside(value, urls.url(sandbox_id, port), port)))
        else:
            fields.append((name, value))
    first = b"HTTP/%b %d %b" % (head.version, head.status, head.reason)
    return write(first, [*fields, *more])


def cookie(token: str, seconds: int, urls: DevUrls) -> Field:
    """What makes a browser keep a token for one origin."""
    name = _cookie_name(urls)
    more = b"; Secure" if urls.keeps_secure_cookies else b""
    value = b"%b=%b; Path=/; Max-Age=%d; HttpOnly; SameSite=Lax%b"
    return b"Set-Cookie", value % (name, token.encode("ascii"), seconds, more)


def _cookie_name(urls: DevUrls) -> bytes:
    return _COOKIES[0] if urls.keeps_secure_cookies else _COOKIES[1]


# An address that opens stands in no request that its page makes.
UNSEEN: Final[Field] = (b"Referrer-Policy", b"no-referrer")


def _bearer(value: bytes) -> bytes:
    scheme, *rest = value.split(None, 1) or [b""]
    return rest[0].strip() if rest and scheme.lower() == b"bearer" else b""


def _secret(value: bytes) -> str | None:
    text = value.strip().decode("latin-1")
    return text if _SECRET.fullmatch(text) else None


def _without_ours(value: bytes, urls: DevUrls, found: list[str]) -> bytes:
    """The cookies of others; what ours hold is added to those found.

    The pages of a sandbox can set cookies of other names for all of them, and so push the right one out:
    only that name counts that browsers keep for one origin, where they do.
    """
    counts = _cookie_name(urls)
    rest = []
    for pair in value.split(b";"):
        name, _, content = pair.strip().partition(b"=")
        if name.strip() in _COOKIES:
            token = _secret(content)
            if token is not None and name.strip() == counts:
                found.append(token)
        elif pair.strip():
            rest.append(pair.strip())
    return b"; ".join(rest)


def _without_link(address: bytes) -> tuple[bytes, str | None]:
    """An address without the secret in it, and that."""
    path, mark, query = address.partition(b"?")
    if not mark:
        return address, None
    link: str | None = None
    rest = []
    for pair in query.split(b"&"):
        name, _, value = pair.partition(b"=")
        if name == PARAMETER:
            link = _secret(unquote(value.decode("latin-1")).encode("latin-1", "replace"))
        else:
            rest.append(pair)
    return path + (b"?" + b"&".join(rest) if rest else b""), link


def _is_own_page(head: RequestHead, urls: DevUrls) -> bool:
    """Whether a cookie counts. Browsers send it for pages of other sandboxes too, which are of one site.

    What others may have of it is what anybody's link has: the whole window. They get no part of a page of
    theirs (a frame, a script, a picture) by it. Browsers that do not say what they ask for are asked what
    they say instead: whose page it is, or that they want a page. A page that tells nobody its address
    (ours of links ask for that) posts its forms as of no origin, and only the browser knows whose it is.
    """
    own = f"{urls.scheme}://{head.host}".encode("latin-1")
    origin, sites = head.all(b"origin"), head.all(b"sec-fetch-site")
    if origin == [b"null"]:
        return sites == [b"same-origin"]
    if origin:
        return origin == [own]
    if sites in ([b"same-origin"], [b"none"]):
        return True
    looks = head.method in (b"GET", b"HEAD")
    if sites:
        dest, mode = head.one(b"sec-fetch-dest"), head.one(b"sec-fetch-mode")
        return looks and mode == b"navigate" and dest == b"document"
    referer = head.one(b"referer")
    if referer is not None and (referer + b"/").startswith(own + b"/"):
        return True
    return looks and not head.upgrades and wants_html(head)


def _own_cookie(value: bytes) -> bytes | None:
    """A cookie that a sandbox sets, for its own origin alone; None: it is one of ours."""
    first, *attributes = value.split(b";")
    if first.partition(b"=")[0].strip() in _COOKIES:
        return None
    kept = [one for one in attributes if one.partition(b"=")[0].strip().lower() != b"domain"]
    return b";".join([first, *kept])


def _outside(value: bytes, base: str, port: int) -> bytes:
    """An address on the server's own machine, as it is reached from outside."""
    found = _LOCAL.match(value)
    if found is None or int(found[1] or 80) != port:
        return value
    return base.encode() + value[found.end() :]
