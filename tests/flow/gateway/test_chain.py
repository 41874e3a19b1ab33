"""The whole chain of a dev URL, by SDK and CLI: api, gateway, host, guest agent, and a server inside."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from runtools import AsyncRunTools
from runtools.errors import InvalidRequest
from runtools.sdk.sandbox import AsyncSandbox
from runtools.testing.api_world import holds
from runtools.testing.browser import browser
from runtools.testing.local_platform import local_platform
from runtools.workbench.bench import Bench
from runtools.workbench.toolset import TOOLS

pytestmark = pytest.mark.asyncio(loop_scope="module")

# What development servers do: the loopback alone, and no other host than their own.
SERVER = r"""
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        if self.headers["Host"] != "localhost:5173":
            self.send_error(403)
            return
        length = int(self.headers.get("Content-Length") or 0)
        body = f"{self.command} {self.path} {len(self.rfile.read(length))}\n{self.headers}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_POST = do_GET
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", 5173), Handler).serve_forever()
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rt(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AsyncRunTools]:
    async with (
        local_platform(tmp_path_factory.mktemp("chain")) as (url, key),
        AsyncRunTools(key, url) as made,
    ):
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def box(rt: AsyncRunTools) -> AsyncIterator[AsyncSandbox]:
    async with await rt.sandboxes.create(name="web") as made:
        await made.files.write("/server.py", SERVER)
        await made.processes.start(["python3", "/server.py"])
        seen = await made.stats()
        while 5173 not in seen.listening_ports:
            seen = await made.stats()
        yield made


async def cli(rt: AsyncRunTools, *words: str, **env: str) -> tuple[int, str, str]:
    env = {**os.environ, "RUNTOOLS_API_KEY": key_of(rt), "RUNTOOLS_API_URL": rt.url, **env}
    child = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).parent / "runtools"),
        *words,
        env=env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await child.communicate()
    return child.returncode or 0, out.decode(), err.decode()


def key_of(rt: AsyncRunTools) -> str:
    return rt._transport._headers[-1][1].decode().removeprefix("Bearer ")


async def test_a_client_is_ready_and_shows_the_sandbox_nothing(box: AsyncSandbox) -> None:
    async with box.http(5173) as http:
        answer = await http.get("/a?b=1", headers={"Cookie": "mine=1", "X-Test": "y"})
        assert (answer.status, answer.text.splitlines()[0]) == (200, "GET /a?b=1 0")
        assert "Cookie: mine=1\n" in answer.text
        assert "rt_" not in answer.text
        assert "Content-Length" not in answer.text
        sent = await http.post("/up", b"x" * (5 << 20))
        assert sent.text.startswith("POST /up 5242880\n")


async def test_a_paused_sandbox_wakes_and_answers(box: AsyncSandbox) -> None:
    async with box.http(5173) as http:
        await box.pause()
        assert (await http.get("/")).status == 200

        async def runs() -> bool:  # the api hears of it a moment later
            return (await box.refresh()).state == "running"

        await holds(runs)


async def test_the_address_alone_is_printed(rt: AsyncRunTools, box: AsyncSandbox) -> None:
    code, out, err = await cli(rt, "sandbox", "url", "web", "--port", "5173")
    assert (code, out, err) == (0, f"{await box.url(5173)}\n", "")
    code, out, _ = await cli(rt, "sandbox", "url", "web", "--port", "5173", "--ttl", "1h")
    assert code == 0
    assert out.startswith(f"{await box.url(5173)}/?runtools-link=rt_link_")
    async with httpx.AsyncClient(trust_env=False) as http:
        host = httpx.URL(out.strip())
        answer = await http.get(
            host.copy_with(host="127.0.0.1"), headers={"Host": host.netloc.decode()}
        )
        assert answer.text.startswith("GET / 0\n")
        assert answer.headers["set-cookie"].startswith("__Host-runtools-dev=rt_link_")


async def opens(link: str) -> bool:
    """Whether an address opens as it stands, where names do not resolve."""
    url = httpx.URL(link)
    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.get(
            url.copy_with(host="127.0.0.1"), headers={"Host": url.netloc.decode()}
        )
    return answer.text.startswith("GET / 0\n")


async def test_it_opens_in_the_browser_and_no_list_of_programs_tells_it(
    rt: AsyncRunTools, box: AsyncSandbox, tmp_path: Path
) -> None:
    person = browser(tmp_path)
    code, out, err = await cli(rt, "sandbox", "url", "web", "-p", "5173", "--open", **person.env)
    assert (code, out, err) == (0, f"{await box.url(5173)}\n", "")
    assert "runtools-link" not in person.started_with
    assert "runtools-link=" in person.led_to
    assert await opens(person.led_to)


async def test_what_an_agent_is_given_opens_as_it_stands(box: AsyncSandbox) -> None:
    told = await TOOLS["get_dev_url"].call(Bench(box, "test"), {"port": 5173})
    [link] = re.findall(r"https?://\S+", told.text)
    assert await opens(link)


async def test_public_and_private_again(rt: AsyncRunTools, box: AsyncSandbox) -> None:
    url = httpx.URL(await box.url(5173))

    async def status() -> int:
        async with httpx.AsyncClient(trust_env=False) as http:
            at = url.copy_with(host="127.0.0.1")
            return (await http.get(at, headers={"Host": url.netloc.decode()})).status_code

    assert await status() == 404
    code, out, _ = await cli(rt, "sandbox", "url", "web", "-p", "5173", "--public")
    assert (code, out) == (0, f"{url}\n")

    async def is_open() -> bool:
        return await status() == 200

    await holds(is_open)
    code, _, _ = await cli(rt, "sandbox", "url", "web", "-p", "5173", "--private")
    assert code == 0

    async def is_closed() -> bool:
        return await status() == 404

    await holds(is_closed)
    code, out, _ = await cli(rt, "sandbox", "url", "web", "--public")
    assert (code, out) == (0, f"{(await box.urls.list()).pattern}\n")
    assert (await box.urls.list()).access == "public"
    assert await status() == 404  # the port's own choice is nearer
    code, out, _ = await cli(rt, "org", "dev-urls", "public")
    assert (code, out) == (0, "public\n")
    await box.urls.forget()
    assert (await box.urls.get(5173)).decided_by == "org"
    await holds(is_open)
    await rt.orgs.choose_dev_urls("private")
    assert await cli(rt, "org", "dev-urls") == (0, "private\n", "")


async def test_a_client_whose_link_is_ended_makes_another(box: AsyncSandbox) -> None:
    async with box.http(5173) as http:
        assert (await http.get("/")).status == 200
        token, url = http._token, httpx.URL(await box.url(5173))
        await box.urls.end_links(5173)

        async def is_ended() -> bool:
            shown = {"Host": url.netloc.decode(), "X-RunTools-Key": token}
            async with httpx.AsyncClient(trust_env=False) as other:
                at = url.copy_with(host="127.0.0.1")
                return (await other.get(at, headers=shown)).status_code == 404

        await holds(is_ended)
        assert (await http.get("/")).status == 200
        assert http._token != token


async def test_where_nothing_listens_the_ports_are_named(box: AsyncSandbox) -> None:
    async with box.http(9) as http:
        answer = await http.get("/")
    assert answer.status == 503
    assert f"5173-{box.id}" in answer.text


async def test_what_cannot_be_is_said(rt: AsyncRunTools, box: AsyncSandbox) -> None:
    with pytest.raises(InvalidRequest):
        await box.url(22)
    code, _, err = await cli(rt, "sandbox", "url", "web", "-p", "5173", "--ttl", "soon")
    assert (code, "--ttl" in err) == (1, True)
    code, _, err = await cli(rt, "sandbox", "url", "web", "--open")
    assert (code, "--port" in err) == (1, True)
