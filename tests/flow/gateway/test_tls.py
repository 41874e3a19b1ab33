"""TLS: by nginx or Caddy before the gateway, as docs/dev-urls.md says, and by the gateway itself."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import pytest
import pytest_asyncio
import websockets
from websockets.asyncio.server import ServerConnection

from runtools.errors import InvalidRequest
from runtools.platform.gateway.web import house, talk, visit
from runtools.platform.gateway.web import server as server_module
from runtools.platform.gateway.web.certificate import Certificate
from runtools.testing.gateway_world import BOX, KEY, LINK, OTHER, Gateway, gateway

NGINX, CADDY = (shutil.which(name, path="/usr/sbin:/usr/bin") for name in ("nginx", "caddy"))
Front = Callable[[int, int, Path], list[str]]
pytestmark = pytest.mark.asyncio(loop_scope="module")
DOCS = Path(__file__).resolve().parents[3] / "docs/dev-urls.md"
DOMAIN = "sandboxes.example.com"
MB = 1 << 20


def documented(begins: str, replaced: Mapping[str, str]) -> str:
    """A configuration of the documentation, on ports of a test, with a certificate made for it."""
    found = re.search(
        rf"^    {re.escape(begins)}.*?^    }}\n(?!    \S)", DOCS.read_text(), re.S | re.M
    )
    assert found is not None
    text = found[0]
    for old, new in replaced.items():
        assert old in text
        text = text.replace(old, new)
    return text


def nginx(listen: int, gate: int, folder: Path) -> list[str]:
    """What starts one."""
    text = documented(
        "log_format",
        {
            "listen 443 ssl": f"listen 127.0.0.1:{listen} ssl",
            "127.0.0.1:7780": f"127.0.0.1:{gate}",
            "/etc/ssl/sandboxes": f"{folder}/sandboxes",
            "/var/log/nginx/": f"{folder}/",
        },
    )
    own = " ".join(f"{one}_temp_path {folder}/{one};" for one in ("proxy", "client_body"))
    (folder / "conf").write_text(
        f"daemon off; pid {folder}/pid; error_log {folder}/error.log;\n"
        f"events {{}}\nhttp {{ {own}\n{text}}}\n"
    )
    return [str(NGINX), "-c", f"{folder}/conf", "-p", str(folder)]


def caddy(listen: int, gate: int, folder: Path) -> list[str]:
    """What starts one."""
    text = documented(
        "{",
        {
            "    {\n        log": "    {\n        admin off\n        default_bind 127.0.0.1\n"
            "        auto_https disable_redirects\n        log",
            f"*.{DOMAIN} {{": f"*.{DOMAIN}:{listen} {{",
            "127.0.0.1:7780": f"127.0.0.1:{gate}",
            "/etc/ssl/sandboxes": f"{folder}/sandboxes",
        },
    )
    (folder / "conf").write_text(text)
    argv = [str(CADDY), "run", "--adapter", "caddyfile", "--config", f"{folder}/conf"]
    return ["env", f"HOME={folder}", f"XDG_DATA_HOME={folder}", f"XDG_CONFIG_HOME={folder}", *argv]


@pytest.fixture
def certified(tmp_path: Path) -> Path:
    """A folder with a certificate for the domain."""
    certify(tmp_path)
    return tmp_path


def certify(folder: Path) -> None:
    """Make one, with its key."""
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN=*.{DOMAIN}"]
    words += ["-addext", f"subjectAltName=DNS:*.{DOMAIN}", "-days", "1"]
    words += ["-keyout", f"{folder}/sandboxes.key", "-out", f"{folder}/sandboxes.pem"]
    subprocess.run(words, check=True, capture_output=True)


def refuse() -> ssl.SSLContext:
    """What loads nothing."""
    raise InvalidRequest("Permission denied")


def lock(folder: Path) -> None:
    """Put a password on a copy of its key."""
    words = ["openssl", "rsa", "-aes256", "-passout", "pass:secret"]
    words += ["-in", f"{folder}/sandboxes.key", "-out", f"{folder}/locked.key"]
    subprocess.run(words, check=True, capture_output=True)


@contextlib.asynccontextmanager
async def before(gate: Gateway, folder: Path, front: Front) -> AsyncIterator[int]:
    """A proxy before the gateway; gives its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    with (folder / "said.log").open("wb") as log:
        argv = front(port, gate.port, folder)
        child = await asyncio.create_subprocess_exec(*argv, stdout=log, stderr=log)
    try:
        async with asyncio.timeout(60):
            while True:
                assert child.returncode is None, (folder / "said.log").read_text()
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    await writer.wait_closed()
                    break
                await asyncio.sleep(0.05)
        yield port
    finally:
        child.terminate()
        await child.wait()


@pytest_asyncio.fixture(loop_scope="module")
async def gate() -> AsyncIterator[Gateway]:
    async with gateway(proxies="127.0.0.1/32", base=f"https://{DOMAIN}") as made:
        yield made


async def curl(port: int, host: str, folder: Path, *more: str) -> str:
    words = ["curl", "-sS", "--max-time", "20", "--cacert", f"{folder}/sandboxes.pem"]
    words += ["--connect-to", f"::127.0.0.1:{port}", "-H", f"X-RunTools-Key: {KEY}", *more]
    child = await asyncio.create_subprocess_exec(
        *words, f"https://{host}/path", stdout=asyncio.subprocess.PIPE
    )
    out, _ = await child.communicate()
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, words, out)
    return out.decode()


async def mirror(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: (\d+)", head)
            count = int(length[1]) if length else 0
            left = count
            while left:
                left -= len(await reader.read(min(left, MB)))
            said = head + b"%d bytes" % count
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(said), said))
    writer.close()


@pytest.fixture(params=["nginx", "caddy"])
def front(request: pytest.FixtureRequest) -> Front:
    """A proxy that the documentation configures."""
    installed, package = {"nginx": (NGINX, "nginx-light"), "caddy": (CADDY, "caddy")}[request.param]
    if installed is None:
        pytest.skip(f"{request.param} is not installed: apt install {package}")
    return {"nginx": nginx, "caddy": caddy}[request.param]


async def test_the_documented_configuration_works(
    gate: Gateway, certified: Path, front: Front
) -> None:
    server = await asyncio.start_server(mirror, "127.0.0.1", 0)
    inside = server.sockets[0].getsockname()[1]
    async with before(gate, certified, front) as port:
        for box in (BOX, OTHER):
            name = f"{inside}-{box}.{DOMAIN}"
            said = await curl(port, name, certified)
            assert f"Host: localhost:{inside}\r\n" in said
            assert f"X-Forwarded-Host: {name}\r\n" in said
            assert "X-Forwarded-Proto: https\r\n" in said
            assert "X-Forwarded-For: 127.0.0.1\r\n" in said
            assert KEY not in said
        big = certified / "big"
        big.write_bytes(b"x" * 20 * MB)
        said = await curl(port, f"{inside}-{BOX}.{DOMAIN}", certified, "--data-binary", f"@{big}")
        assert said.endswith(f"{20 * MB} bytes")
        said = await curl(port, f"{inside}-{BOX}.{DOMAIN}/?runtools-link={LINK}&", certified)
        assert "GET /&/path HTTP/1.1" in said or "GET /?/path HTTP/1.1" in said
    if front is nginx:
        assert f"{inside}-{BOX}.{DOMAIN}" in (certified / "dev-urls.log").read_text()
    for log in certified.glob("*.log"):
        assert LINK not in log.read_text(), log
    server.close()
    await server.wait_closed()


async def test_a_proxy_of_the_old_version_gets_what_chunks_hold(
    gate: Gateway, certified: Path
) -> None:
    """As nginx is where nothing says which it speaks; and what breaks off it does not give out as whole."""
    if NGINX is None:
        pytest.skip("nginx is not installed: apt install nginx-light")

    async def chunks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\npieces\r\n")
        if b"/whole" in said:
            writer.write(b"0\r\n\r\n")
        await writer.drain()
        writer.close()

    def old(listen: int, gate: int, folder: Path) -> list[str]:
        argv = nginx(listen, gate, folder)
        text = (folder / "conf").read_text()
        assert "proxy_http_version 1.1;" in text
        (folder / "conf").write_text(text.replace("http_version 1.1;", "http_version 1.0;"))
        return argv

    server = await asyncio.start_server(chunks, "127.0.0.1", 0)
    name = f"{server.sockets[0].getsockname()[1]}-{BOX}.{DOMAIN}"
    try:
        async with before(gate, certified, old) as port:
            assert await curl(port, f"{name}/whole", certified) == "pieces"
            with pytest.raises(subprocess.CalledProcessError):
                await curl(port, f"{name}/broken", certified)
    finally:
        server.close()


async def test_what_it_says_of_failures_opens_nothing(certified: Path, front: Front) -> None:
    async with gateway(proxies="127.0.0.1/32", base=f"https://{DOMAIN}") as gone:
        pass
    async with before(gone, certified, front) as port:
        name = f"3000-{BOX}.{DOMAIN}/?runtools-link={LINK}&"
        said = await curl(port, name, certified, "-o", "/dev/null", "-w", "%{http_code}")
        assert said == "502"
    said = "".join(log.read_text() for log in certified.glob("*.log"))
    assert f"3000-{BOX}.{DOMAIN}" in said
    assert not {one for one in (LINK, KEY) if one in said}


async def test_websockets_go_through_it(gate: Gateway, certified: Path, front: Front) -> None:
    async def echo(sock: ServerConnection) -> None:
        async for message in sock:
            await sock.send(message)

    async with (
        websockets.serve(echo, "127.0.0.1", 0) as served,
        before(gate, certified, front) as port,
    ):
        inside = next(iter(served.sockets)).getsockname()[1]
        name = f"{inside}-{BOX}.{DOMAIN}"
        context = ssl.create_default_context(cafile=str(certified / "sandboxes.pem"))
        async with websockets.connect(
            f"wss://{name}/",
            host="127.0.0.1",
            port=port,
            ssl=context,
            server_hostname=name,
            origin=f"https://{name}",  # type: ignore[arg-type]
            additional_headers={"X-RunTools-Key": KEY},
        ) as sock:
            await sock.send("hello")
            assert await sock.recv() == "hello"


class TestItself:
    @pytest_asyncio.fixture(loop_scope="module")
    async def secured(self, certified: Path) -> AsyncIterator[Gateway]:
        files = f"{certified}/sandboxes.pem", f"{certified}/sandboxes.key"
        async with gateway(base=f"https://{DOMAIN}", secured=Certificate(*files)) as made:
            yield made

    async def test_it_serves_a_certificate(self, secured: Gateway, certified: Path) -> None:
        server = await asyncio.start_server(mirror, "127.0.0.1", 0)
        inside = server.sockets[0].getsockname()[1]
        said = await curl(secured.port, f"{inside}-{BOX}.{DOMAIN}", certified)
        assert "X-Forwarded-Proto: https\r\n" in said
        server.close()
        await server.wait_closed()

    async def test_a_websocket_that_the_server_ends_is_ended(
        self, secured: Gateway, certified: Path
    ) -> None:
        async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            head = b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"
            writer.write(head)
            writer.write(await reader.readexactly(5))
            writer.close()

        server = await asyncio.start_server(greet, "127.0.0.1", 0)
        inside = server.sockets[0].getsockname()[1]
        name = f"{inside}-{BOX}.{DOMAIN}"
        context = ssl.create_default_context(cafile=str(certified / "sandboxes.pem"))
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", secured.port, ssl=context, server_hostname=name
        )
        writer.write(
            f"GET / HTTP/1.1\r\nHost: {name}\r\nX-RunTools-Key: {KEY}\r\n"
            "Connection: upgrade\r\nUpgrade: x\r\n\r\nhello".encode()
        )
        async with asyncio.timeout(20):
            assert (await reader.read()).endswith(b"\r\n\r\nhello")
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        server.close()
        await server.wait_closed()

    async def test_who_shakes_no_hand_is_counted_and_goes(
        self, secured: Gateway, certified: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(house, "MOST_OF_A_SOURCE", 3)
        held = [await secured.connect() for _ in range(3)]
        async with asyncio.timeout(20):
            while len(secured.house._visits) < 3:
                await asyncio.sleep(0.01)
            reader, _ = await secured.connect()
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            held[0][1].write(b"GET / HTTP/1.1\r\n\r\n")
            held[1][1].write_eof()
            for reader, writer in held[:2]:
                with contextlib.suppress(ConnectionError):
                    await reader.read()
                writer.close()
            while len(secured.house._visits) > 1:
                await asyncio.sleep(0.01)
        held[2][1].transport.abort()

    @pytest.mark.parametrize("upgraded", [False, True])
    async def test_who_never_says_goodbye_holds_up_nobody(
        self,
        secured: Gateway,
        certified: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        upgraded: bool,
    ) -> None:
        """Closing TLS waits for the other end to say that it closes, too."""
        if not upgraded:  # else it is the server that ends it
            monkeypatch.setattr(visit, "HEAD_SECONDS", 0.1)

        async def switch(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
            writer.close()

        server = await asyncio.start_server(switch, "127.0.0.1", 0)
        name = f"{server.sockets[0].getsockname()[1]}-{BOX}.{DOMAIN}"
        context = ssl.create_default_context(cafile=str(certified / "sandboxes.pem"))
        ask = f"GET / HTTP/1.1\r\nHost: {name}\r\nX-RunTools-Key: {KEY}\r\n"
        ask += "Connection: upgrade\r\nUpgrade: x\r\n\r\n"

        def silent() -> ssl.SSLSocket:
            plain = socket.create_connection(("127.0.0.1", secured.port), timeout=20)
            sock = context.wrap_socket(plain, server_hostname=name)
            if upgraded:
                sock.sendall(ask.encode())
                assert sock.recv(5) == b"HTTP/"
            return sock

        client = await asyncio.to_thread(silent)
        async with asyncio.timeout(20):
            while True:
                await asyncio.sleep(0.01)
                ones = [one for one in secured.house._visits if isinstance(one, visit.Visit)]
                secured.house.look()
                if ones and ones[0]._transport.is_closing():
                    break
            for _ in range(5):
                secured.house.look()
            assert list(secured.house._visits) == ones
            monkeypatch.setattr(visit, "_LINGER_SECONDS", 0)
            monkeypatch.setattr(talk, "LINGER_SECONDS", 0)
            while secured.house._visits:
                await asyncio.sleep(0.01)
                secured.house.look()
        assert not [one for one in caplog.records if one.levelname == "ERROR"]
        client.close()
        server.close()
        await server.wait_closed()

    async def test_a_handshake_has_so_long(
        self, secured: Gateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(server_module, "HANDSHAKE_SECONDS", 0.3)
        reader, _ = await secured.connect()
        async with asyncio.timeout(20):
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            while secured.house._visits:
                await asyncio.sleep(0.01)

    async def test_one_that_is_renewed_is_served_from_then_on(
        self, secured: Gateway, certified: Path, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        """As ACME does it, file by file; what is open goes on."""
        renewed = tmp_path_factory.mktemp("renewed")
        certify(renewed)
        before, after = (
            ssl.PEM_cert_to_DER_cert((folder / "sandboxes.pem").read_text())
            for folder in (certified, renewed)
        )
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

        async def served() -> tuple[bytes, asyncio.StreamReader, asyncio.StreamWriter]:
            reader, writer = await asyncio.open_connection("127.0.0.1", secured.port, ssl=context)
            shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            return shown, reader, writer

        shown, reader, writer = await served()
        assert shown == before
        for name, expected in (("sandboxes.pem", before), ("sandboxes.key", after)):
            (renewed / name).replace(certified / name)
            shown, _, other = await served()
            other.transport.abort()
            assert shown == expected, name
        writer.write(b"GET / HTTP/1.1\r\nHost: nowhere\r\n\r\n")
        async with asyncio.timeout(20):
            assert (await reader.readline()).startswith(b"HTTP/1.1 404")
        writer.transport.abort()

    async def test_one_that_cannot_be_read_yet_is_tried_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Who may read it is settled after it is written, which its stamp does not tell."""
        certify(tmp_path)
        made = Certificate(str(tmp_path / "sandboxes.pem"), str(tmp_path / "sandboxes.key"))
        before = made.context()
        certify(tmp_path)
        with monkeypatch.context() as patched:
            patched.setattr(made, "_load", refuse)
            assert made.context() is before
        assert made.context() is before  # not at each connection
        made._not_before = 0.0
        assert made.context() is not before

    async def test_what_is_no_certificate_is_said(self, tmp_path: Path) -> None:
        (tmp_path / "x.pem").write_text("x")
        certify(tmp_path)
        lock(tmp_path)
        locked = ("sandboxes.pem", "locked.key")  # nobody is there to be asked for its password
        for files in (("x.pem",), ("none.pem",), ("sandboxes.pem",), locked):
            with pytest.raises(InvalidRequest, match="gateway_tls_cert"):
                Certificate(*(str(tmp_path / file) for file in files))
