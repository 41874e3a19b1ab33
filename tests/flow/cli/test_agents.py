"""Agents at work, as commands; a worker of the test's does what it is told in the prompt."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from time import monotonic

import pytest
from tests.flow.cli.conftest import Cli, Platform

from runtools import RunTools
from runtools.errors import Conflict
from runtools.platform.core.ports.worker import Assignment
from runtools.testing.fake_worker import (
    FakeWorker,
    Held,
    answered,
    asked,
    called,
    done,
    fake_worker,
    said,
    used,
)
from runtools.testing.run_stage import furnish


async def drive(worker: FakeWorker, run: Held, given: Assignment, go_on: threading.Event) -> None:
    """Do what the prompt says; of a run that has waited, go on after it."""
    prompt = next(one.data["text"] for one in given.log if one.type == "message")
    if any(one.type == "approval-requested" for one in given.log):
        await go_on_with(worker, run, given)
    elif prompt == "ask two":
        calls = [make("bash", one, command=one) for make in (called, asked) for one in ("c1", "c2")]
        await worker.append(run, said("May I?"), *calls, wait=True)
        await told(go_on)  # as one that is busy, it takes the run back late
    elif prompt == "ask late":
        while not go_on.is_set():
            await worker.delta(run, "text-delta", text="I am at it", turn=1, attempt=1)
            await asyncio.sleep(0.02)
        call = called("bash", command="ls"), asked("bash", command="ls")
        await worker.append(run, said("May I?"), *call, wait=True)
    elif prompt == "ask":
        call = called("bash", command="rm -r /")
        await worker.append(run, said("May I?"), call, asked("bash", command="rm -r /"), wait=True)
    elif prompt == "fail":
        error = {"code": "model_refused", "message": "it will not", "hint": "ask otherwise"}
        await worker.append(run, done(status="failed", error=error))
    elif prompt == "limit":
        await worker.append(run, said("So far."), done("So far.", "limit_reached", limit="few"))
    elif prompt == "listen":
        last, word = given.log[-1].seq or 0, ""
        while not word:
            await worker.delta(run, "text-delta", text="I am at it", turn=1, attempt=1)
            await asyncio.sleep(0.02)
            found = (await worker.read(run, last)).events
            word = "".join(one.data["text"] for one in found if one.type == "message")
        await worker.append(run, said(f"heard: {word}"), done(f"heard: {word}"))
    elif prompt == "hang":
        while not (await worker.read(run, 0)).cancel:
            # Pieces are for who reads at the moment, and somebody is about to.
            await worker.delta(run, "text-delta", text="I am at it", turn=1, attempt=1)
            await asyncio.sleep(0.02)
        await worker.append(run, done(status="cancelled"))
    else:
        await worker.delta(run, "text-delta", text="I **look**", turn=1, attempt=1)
        call = called("bash", command="ls")
        await worker.append(run, said("I **look** around."), call, used())
        lines = "\n".join(f"line {n}" for n in range(10))
        await worker.append(run, answered("bash", output=lines))
        await worker.append(run, said("Done.", turn=2), used(2), done("Done."))


async def go_on_with(worker: FakeWorker, run: Held, given: Assignment) -> None:
    """Wait on for what is not decided on yet, or say what was decided."""
    log = given.log
    while True:
        decided = [one.data for one in log if one.type == "approval-resolved"]
        if len(decided) == sum(one.type == "approval-requested" for one in log):
            break
        missed = await worker.append(run, seen=log[-1].seq, wait=True)
        if not missed.events:
            return  # it waits
        log = [*log, *missed.events]
    outputs = [f"{x['decision']} {x['reason']} {json.dumps(x['arguments'])}" for x in decided]
    results = [
        answered("bash", one["callId"], output=output)
        for one, output in zip(decided, outputs, strict=True)
    ]
    await worker.append(run, *results, done("; ".join(outputs)))


async def told(word: threading.Event) -> None:
    while not word.is_set():
        await asyncio.sleep(0.02)


@asynccontextmanager
async def driven(platform: Platform, go_on: threading.Event) -> AsyncIterator[None]:
    world = platform.world

    async def work(worker: FakeWorker) -> None:
        while True:
            offer = await worker.offers.get()
            with suppress(Conflict):  # it was offered twice
                given = await worker.take(offer)
                run = Held(run_id=offer.run_id, lease=offer.lease)
                await drive(worker, run, given, go_on)

    async with fake_worker(world.url, world.token("worker")) as worker:
        working = asyncio.create_task(work(worker))
        yield
        working.cancel()


@pytest.fixture(scope="module")
def worker(platform: Platform) -> Iterator[threading.Event]:
    """An agent `coder`, and somebody who drives its runs, some of them on once he is told to."""
    go_on = threading.Event()

    async def run() -> None:
        await furnish(platform.world)
        async with driven(platform, go_on):
            ready.set_result(None)
            await stop.wait()

    async def prepare() -> tuple[asyncio.Future[None], asyncio.Event]:
        return asyncio.get_running_loop().create_future(), asyncio.Event()

    ready, stop = asyncio.run_coroutine_threadsafe(prepare(), platform.loop).result(10)
    running = asyncio.run_coroutine_threadsafe(run(), platform.loop)

    async def begun() -> None:
        await ready

    asyncio.run_coroutine_threadsafe(begun(), platform.loop).result(30)
    yield go_on
    platform.loop.call_soon_threadsafe(stop.set)
    running.result(20)


PATIENCE = 60.0


@dataclass
class Person:
    """Somebody at the terminal of a command."""

    pid: int
    terminal: int
    seen: bytes = b""

    def until(self, word: bytes) -> None:
        """Read on until a word comes."""
        end = monotonic() + PATIENCE
        while word not in self.seen:
            # What is drawn again and again is no sign that the word will come.
            assert select.select([self.terminal], [], [], max(end - monotonic(), 0))[0], self.seen
            assert monotonic() < end, self.seen
            self.seen += os.read(self.terminal, 4096)
        self.seen = self.seen.partition(word)[2]

    def type(self, keys: bytes) -> None:
        os.write(self.terminal, keys)


@contextmanager
def sitting(cli: Cli, *argv: str) -> Iterator[Person]:
    """A command at a terminal, which ends well."""
    main = [sys.executable, "-c", "import sys; from runtools.cli import main; sys.exit(main())"]
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*main, *argv],
        env=cli.env | {"TERM": "xterm"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    ) as running:
        os.close(theirs)
        try:
            yield Person(running.pid, ours)
            with suppress(OSError):  # nobody writes any more
                while os.read(ours, 4096):
                    pass
            assert running.wait(30) == 0
        finally:
            running.kill()
            os.close(ours)


pytestmark = pytest.mark.usefixtures("worker")


class TestRun:
    def test_its_words_are_stdout_and_all_else_is_not(self, cli: Cli) -> None:
        ended = cli("agent", "run", "coder", "--prompt", "look")
        assert (ended.code, ended.text) == (0, "I **look** around.\nDone.\n")
        assert "bash ls" in ended.err
        assert "  line 0\n  line 1\n  line 2\n  … 7 more lines\n" in ended.err
        assert "completed · " in ended.err

    def test_a_prompt_from_stdin(self, cli: Cli) -> None:
        assert cli("agent", "run", "coder", stdin=b"look").text.endswith("Done.\n")

    def test_as_json_an_event_a_line(self, cli: Cli) -> None:
        ended = cli.ok("agent", "run", "coder", "-p", "look", "--json")
        events = [json.loads(line) for line in ended.text.splitlines()]
        numbers = [event["seq"] for event in events if event["seq"] is not None]
        assert numbers == list(range(1, len(numbers) + 1))
        assert (events[0]["type"], events[-1]["type"]) == ("run-started", "done")

    @pytest.mark.parametrize(("prompt", "code"), [("fail", 1), ("limit", 3)])
    def test_its_end_is_the_exit_code(self, cli: Cli, prompt: str, code: int) -> None:
        ended = cli("agent", "run", "coder", "-p", prompt)
        assert ended.code == code
        assert ("it will not" if prompt == "fail" else "stopped at a limit: few") in ended.err
        assert ("to go on: runtools runs continue run_" in ended.err) is (prompt == "limit")

    def test_detached_and_followed(self, cli: Cli) -> None:
        run = cli.ok("agent", "run", "coder", "-p", "look", "--detach").text.strip()
        assert cli.ok("runs", "follow", run).text == "I **look** around.\nDone.\n"
        assert cli.ok("runs", "show", run, "--json").data["status"] == "completed"
        assert run in cli.ok("runs", "list").text

    def test_ctrl_c_cancels_it(self, cli: Cli) -> None:
        argv = [sys.executable, "-c", "import sys; from runtools.cli import main; sys.exit(main())"]
        with subprocess.Popen(
            [*argv, "agent", "run", "coder", "-p", "hang"],
            env=cli.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as running:
            assert running.stdout is not None
            assert running.stdout.read(10) == b"I am at it"
            running.send_signal(signal.SIGINT)
            _, err = running.communicate(timeout=30)
        assert running.returncode == 130
        assert "cancelled · " in err.decode()

    def test_nothing_is_asked_for(self, cli: Cli) -> None:
        ended = cli("agent", "run", "coder", stdin=b"  \n")
        assert (ended.code, ended.text) == (1, "")
        assert "nothing is asked for" in ended.err


class TestApprovals:
    def waiting(self, cli: Cli) -> str:
        run = str(cli.ok("agent", "run", "coder", "-p", "ask", "--detach").text.strip())
        while cli.ok("runs", "show", run, "--json").data["status"] != "waiting":
            pass
        return run

    def test_allowed_with_other_arguments(self, cli: Cli) -> None:
        run = self.waiting(cli)
        given = '{"command": "ls"}'
        told = cli.ok("runs", "approve", run, "--arguments", given).text
        assert "allowed: c1" in told
        assert 'command: "ls"' in told  # what was allowed, not what was asked for
        told = cli("runs", "follow", run).err
        assert 'allow None {"command": "ls"}' in told
        assert "to decide: " not in told
        again = cli("runs", "approve", run)
        assert again.code == 1
        assert f"nothing of {run} waits to be decided: it is completed" in again.err

    def test_who_only_looks_is_told_how_to_decide(self, cli: Cli) -> None:
        run = self.waiting(cli)
        argv = [sys.executable, "-c", "import sys; from runtools.cli import main; sys.exit(main())"]
        with subprocess.Popen(
            [*argv, "runs", "follow", run],
            env=cli.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as looking:
            assert looking.stderr is not None
            while f"to decide: runtools runs approve {run}" not in (
                line := looking.stderr.readline().decode()
            ):
                assert line, "it ended"
            cli.ok("runs", "approve", run)
            looking.communicate(timeout=30)
        assert looking.returncode == 0

    def test_what_another_has_decided_is_told(self, cli: Cli) -> None:
        run = self.waiting(cli)
        cli.ok("runs", "approve", run, "c1", "--deny", "--reason", "too much")
        late = cli("runs", "approve", run, "c1")
        assert late.code == 1
        assert "was decided on already: deny, by " in late.err
        assert "too much" in late.err
        assert "allowed" not in late.text + late.err

    def test_denied_with_a_reason(self, cli: Cli) -> None:
        run = self.waiting(cli)
        cli.ok("runs", "approve", run, "--deny", "--reason", "too much")
        assert "deny too much null" in cli("runs", "follow", run).err

    def test_asked_where_somebody_sits(self, cli: Cli) -> None:
        with sitting(cli, "agent", "run", "coder", "-p", "ask") as person:
            person.type(b"y\n\ny\n")  # nothing was asked yet that it might answer
            person.until(b"allow it?")
            person.type(b"not like that\n")
            person.until(b"deny not like that")

    def test_of_several_calls_each_is_asked_about(self, cli: Cli, worker: threading.Event) -> None:
        worker.clear()
        with sitting(cli, "agent", "run", "coder", "-p", "ask two") as person:
            try:
                person.until(b"allow it?")
                person.type(b"y\n")
                person.until(b"allow it?")  # before anybody has taken the run back
                found = cli.ok("runs", "list", "--json").data[0]
                assert found["status"] == "queued"
                shown = cli.ok("runs", "show", found["id"]).text
                assert 'command: "c2"' in shown
                assert 'command: "c1"' not in shown
                person.type(b"n\n")
                person.until(b"denied by")
            finally:
                worker.set()
            person.until(b"completed")
        assert cli.ok("runs", "show", found["id"], "--json").data["output"] == (
            "allow None null; deny None null"
        )


class TestChat:
    def test_a_line_that_is_begun_answers_nothing(self, cli: Cli, worker: threading.Event) -> None:
        worker.clear()
        with sitting(cli, "agent", "chat", "coder") as person:
            try:
                person.until(b"> ")
                person.type(b"ask late\n")
                person.until(b"I am at it")
                person.type(b"tell me al")
                person.until(b"tell me al")
            finally:
                worker.set()
            person.until(b"waits to be allowed")
            person.until(b"the line that you have begun")
            person.type(b"so\n")
            person.until(b"allow it?")
            person.type(b"no need\n")
            person.until(b"deny no need")
            person.until(b"completed")
            person.until(b"> ")
            person.type(b"\x04")
            person.until(b"to go on: ")
        latest = cli.ok("threads", "list", "--json").data[0]
        assert "user: tell me also\n" in cli.ok("threads", "show", latest["id"]).text

    def test_a_talk_with_a_word_in_between(self, cli: Cli) -> None:
        with sitting(cli, "agent", "chat", "coder") as person:
            person.until(b"> ")
            person.type(b"listen\n")
            person.until(b"I am at it")
            person.type("and tell mé\n".encode())
            person.until("heard: and tell mé".encode())
            person.until(b"> ")
            person.type(b"hang\n")
            person.until(b"I am at it")
            os.kill(person.pid, signal.SIGINT)
            person.until(b"cancelled")
            person.until(b"> ")
            person.type(b"look\n")
            person.until(b"Done.")
            person.until(b"> ")
            person.type(b"\x04")
            person.until(b"to go on: runtools agent chat coder --thread thr_")
        latest = cli.ok("threads", "list", "--json").data[0]
        shown = cli.ok("threads", "show", latest["id"]).text
        assert latest["runs"] == 3
        assert [shown.count(word) for word in ("listen", "and tell mé", "hang")] == [1, 2, 1]


class TestThreads:
    def test_a_conversation(self, cli: Cli) -> None:
        first = cli.ok("agent", "run", "coder", "-p", "look", "--detach", "--json").data
        thread = first["threadId"]
        cli.ok("runs", "follow", first["id"])
        cli.ok("agent", "run", "coder", "-p", "look", "--thread", thread)
        assert cli.ok("threads", "show", thread).text.count("user: look") == 2
        cli.ok("threads", "rename", thread, "Looking around")
        assert "Looking around" in cli.ok("threads", "list").text
        assert len(json.loads(cli.ok("threads", "export", thread).text)["runs"]) == 2
        cli.ok("threads", "delete", thread, "--force")
        assert cli("threads", "show", thread).code == 1


class TestFolder:
    """Called in the folder of a project."""

    def test_a_slug_is_sought_in_its_project(self, cli: Cli, rt: RunTools) -> None:
        coder = rt.agents.get("coder")
        [mine] = [one for one in rt.projects.list() if one.id == coder.project_id]
        other = rt.projects.create("elsewhere")
        settings = cli.folder / "pyproject.toml"
        run = ("agent", "run", "coder", "-p", "look")
        try:
            settings.write_text(f'[tool.runtools]\nproject = "{mine.name}"\n')
            begun = cli.ok(*run, "--detach", "--json").data
            assert begun["projectId"] == mine.id
            settings.write_text('[tool.runtools]\nproject = "elsewhere"\n')
            for argv in (run, ("agent", "get", "coder"), ("agent", "versions", "coder")):
                refused = cli(*argv)
                assert refused.code == 1, argv
                assert "sought in project elsewhere" in refused.err
                assert "--project" in refused.err
            cli.ok(*run, "--project", mine.name)
            assert "coder" in cli.ok("agent", "get", coder.id).text
            assert cli.ok("agent", "list", "--json").data  # a list is of all projects
        finally:
            rt.projects.delete(other.id)

    def test_it_says_on_which_platform_they_act(self, cli: Cli) -> None:
        """Where somebody has logged in: all commands act where the folder is deployed to."""
        url, key = cli.env["RUNTOOLS_API_URL"], cli.env["RUNTOOLS_API_KEY"]
        away = {"RUNTOOLS_API_URL": "", "RUNTOOLS_API_KEY": "", "RUNTOOLS_HOME": ""}
        settings = cli.folder / "pyproject.toml"
        settings.write_text('[tool.runtools]\napi_url = "http://127.0.0.1:9"\n')
        env = away | {"XDG_CONFIG_HOME": str(cli.folder)}
        kept = cli("login", "--url", url, "--api-key", stdin=key.encode(), **env)
        assert kept.code == 0, kept.err
        refused = cli("agent", "run", "coder", "-p", "look", **env)
        assert refused.code == 1
        assert "runtools login --url http://127.0.0.1:9" in refused.err
        settings.write_text(f'[tool.runtools]\napi_url = "{url}"\n')
        logins = cli.folder / "runtools/logins.json"
        logins.write_text(json.dumps({"current": "http://127.0.0.1:9", "logins": {url: key}}))
        assert cli("agent", "run", "coder", "-p", "look", **env).text.endswith("Done.\n")
        status = cli("auth", "status", **env)
        assert f"{url} (the project's folder says so)" in status.text

    def test_a_key_is_sent_to_no_address_that_it_alone_names(self, cli: Cli) -> None:
        cli.ok("init", "theirs")
        settings = cli.folder / "theirs/pyproject.toml"
        with socket.create_server(("127.0.0.1", 0)) as trap:
            trap.settimeout(0)
            url = f"http://127.0.0.1:{trap.getsockname()[1]}"
            changed = settings.read_text().replace("project = ", f'api_url = "{url}"\nproject = ')
            settings.write_text(changed)
            env = {"RUNTOOLS_API_URL": "", "RUNTOOLS_HOME": "", "XDG_CONFIG_HOME": str(cli.folder)}
            for argv in (
                ("deploy", "--yes"),
                ("agent", "run", "coder", "-p", "look"),
                ("runs", "list"),
            ):
                refused = replace(cli, folder=settings.parent)(*argv, **env)
                assert refused.code == 1, argv
                assert f"only the project's folder says {url}" in refused.err
                assert f"runtools login --url {url}" in refused.err
            with pytest.raises(BlockingIOError):
                trap.accept()
