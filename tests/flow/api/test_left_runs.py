"""Runs that nobody drives any more, though nobody has said so: each is found, offered anew, or ended."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any
from unittest.mock import AsyncMock

import pytest

from runtools.errors import (
    Conflict,
    HostUnavailable,
    InvalidRequest,
    NotFound,
    RunAbandoned,
    WrongMasterKey,
)
from runtools.platform.api.callers.door import BELIEVED_SECONDS
from runtools.platform.api.leftovers import service as leftovers
from runtools.platform.api.leftovers import store as owed
from runtools.platform.api.runs import store as runs
from runtools.platform.api.workers import dispatch, taking
from runtools.platform.api.workers import store as workers
from runtools.platform.api.workers.links import Link
from runtools.platform.core.ports.worker import Hello, NewEvent, Take
from runtools.platform.core.runs import Status, process_of
from runtools.platform.kit.db import Transaction
from runtools.testing.api_world import PATIENCE_SECONDS, client, holds
from runtools.testing.fake_worker import Held, answered, asked, called, done, fake_worker, said
from runtools.testing.run_stage import Stage

pytestmark = pytest.mark.asyncio(loop_scope="module")

LONG = timedelta(minutes=5)


class Killed(Exception):
    """The api has ended."""


def link_of(stage: Stage) -> Any:
    """The api's side of the worker's connection."""
    [link] = [
        one for one in stage.world.platform.workers if one.worker_id == stage.worker.worker_id
    ]
    return link


async def status(stage: Stage, run: Held) -> str:
    """How it stands."""
    return str((await stage.get(run.run_id))["status"])


def becomes(stage: Stage, run: Held, wanted: str) -> Callable[[], Any]:
    """Whether it stands so."""

    async def stands() -> bool:
        return await status(stage, run) == wanted

    return stands


def killed(stage: Stage, box: str, process_id: str) -> Callable[[], Any]:
    """Whether a process was ended by force."""

    async def ended() -> bool:
        shown = await stage.org.ask("GET", f"/v1/sandboxes/{box}/processes/{process_id}")
        return bool((shown["state"], shown["signal"]) == ("ended", 9))

    return ended


class TestCancelled:
    async def test_what_waited_for_its_sandbox_does_not_begin_when_the_run_has_ended(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It had been let in, with a token that was good then."""
        run, given = await stage.taken()
        box = (await stage.worker.place(run)).sandbox_id
        await stage.org.ask("POST", f"/v1/sandboxes/{box}/pause")
        resume, asked_for, go_on = stage.world.host.resume, asyncio.Event(), asyncio.Event()

        async def slowly(*given: Any) -> Any:
            asked_for.set()
            await go_on.wait()
            return await resume(*given)

        monkeypatch.setattr(stage.world.host, "resume", slowly)
        async with client(stage.world.url, given.token) as http:
            path = f"/v1/sandboxes/{box}"
            begun = [
                asyncio.create_task(http.post(f"{path}/exec", json={"command": "touch it-ran"})),
                asyncio.create_task(http.post(f"{path}/processes", json={"command": "touch ran"})),
                asyncio.create_task(http.put(f"{path}/files?path=/workspace/x", content=b"x")),
            ]
            async with asyncio.timeout(PATIENCE_SECONDS / 4):
                await asked_for.wait()
            await stage.worker.finish(run)
            await asyncio.sleep(BELIEVED_SECONDS)
            go_on.set()
            answers = [await one for one in begun]
        assert [one.status_code for one in answers] == [401] * 3
        assert "while" in answers[0].json()["error"]["message"]
        body = {"command": "ls"}
        seen = await stage.org.ask("POST", f"{path}/exec", json=body)
        assert seen["stdout"] == ""


class TestOwed:
    """What could not be ended: it is noted, whatever becomes of the run, and ended when that can be."""

    async def begun(self, stage: Stage, run: Held, turn: int = 1) -> tuple[str, str]:
        """A command of a call that runs: its sandbox, and what it is called there."""
        box, command = (await stage.worker.place(run)).sandbox_id, process_of(run.run_id, turn, 0)
        body: Any = {"command": ["sleep", "60"], "processId": command}
        await stage.org.ask("POST", f"/v1/sandboxes/{box}/processes", json=body)
        return box, command

    @contextmanager
    def away(self, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """The host does not answer."""

        async def fails(*_: str) -> Any:
            raise HostUnavailable("it is away")

        with monkeypatch.context() as patch:
            patch.setattr(stage.world.host, "end_process", fails)
            yield

    async def left(self, stage: Stage, run: Held) -> list[str]:
        """What is noted of a run."""
        found = await stage.world.platform.db.read(owed.due, ("", ""), 1000)
        return [one.name for one in found if one.run_id == run.run_id]

    async def test_a_command_that_its_worker_could_not_end_is_ended_later(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Nor could the api when the run had ended."""
        run, _ = await stage.taken()
        box, command = await self.begun(stage, run)
        await stage.worker.append(run, called("bash"))
        with self.away(stage, monkeypatch):
            ending = [answered("bash", failed=True), done(status="cancelled")]
            await stage.worker.append(run, *ending, left=[command])
            await holds(lambda: f"process {command} of {box} was not ended" in caplog.text)
        assert not await killed(stage, box, command)()
        assert await self.left(stage, run) == [command]
        await leftovers.end_left(stage.world.platform)
        assert await killed(stage, box, command)()
        assert await self.left(stage, run) == []

    async def test_while_the_run_goes_on_and_beside_what_was_left_before(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run, _ = await stage.taken()
        commands = []
        with self.away(stage, monkeypatch):
            for turn in (1, 2):
                box, command = await self.begun(stage, run, turn)
                broken_off = answered("bash", f"c{turn}", turn, failed=True)
                call = called("bash", f"c{turn}", turn)
                await stage.worker.append(run, call, broken_off, left=[command])
                commands.append(command)
            assert await self.left(stage, run) == commands
        await stage.worker.append(run, said("I go on."), left=commands[:1])  # it is ended at once
        for command in commands:
            await holds(killed(stage, box, command))
        assert await status(stage, run) == "running"
        await stage.worker.finish(run)

    async def test_it_is_noted_also_where_nothing_is_appended(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run, given = await stage.taken()
        _, command = await self.begun(stage, run)
        path = f"/v1/runs/{run.run_id}/messages"
        await stage.org.ask("POST", path, json={"message": "And this."})
        with self.away(stage, monkeypatch):
            seen = given.log[-1].seq
            news = await stage.worker.append(run, said("Done."), seen=seen, left=[command])
            assert [one.data["text"] for one in news.events] == ["And this."]
            assert await self.left(stage, run) == [command]
        await stage.worker.finish(run)

    async def test_it_outlives_its_thread(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run, given = await stage.taken(agent="served")
        box, command = await self.begun(stage, run)
        server: Any = {"command": ["sleep", "60"], "processId": f"mcp.{run.run_id}.small.1.1"}
        await stage.org.ask("POST", f"/v1/sandboxes/{box}/processes", json=server)
        with self.away(stage, monkeypatch):
            await stage.worker.append(run, done(), left=[command])
            await stage.org.ask("DELETE", f"/v1/threads/{given.run.thread_id}")
            await leftovers.end_left(stage.world.platform)
        assert await self.left(stage, run) == [f"mcp.{run.run_id}.", command]
        await leftovers.end_left(stage.world.platform)
        assert await killed(stage, box, command)()
        assert await killed(stage, box, server["processId"])()
        assert await self.left(stage, run) == []

    async def test_it_goes_with_its_sandbox(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run, _ = await stage.taken(agent="served")
        box, command = await self.begun(stage, run)
        with self.away(stage, monkeypatch):
            await stage.worker.append(run, done(), left=[command])
            await stage.org.ask("DELETE", f"/v1/sandboxes/{box}")
            await stage.world.becomes(box, state="stopped")
        await leftovers.end_left(stage.world.platform)
        assert await self.left(stage, run) == []

    async def test_a_worker_names_processes_of_its_run_alone(self, stage: Stage) -> None:
        run, _ = await stage.taken()
        await stage.worker.place(run)
        for other in ("run_another.1.0", f"mcp.{run.run_id}.small.1.1", f"{run.run_id}x.1.0"):
            with pytest.raises(InvalidRequest) as caught:
                await stage.worker.append(run, said("Mine?"), left=[other])
            assert caught.value.details["fields"][0]["field"] == "left"
        await stage.worker.finish(run)

    async def test_what_a_run_has_open_that_no_worker_takes(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        run, _ = await stage.taken()
        box, command = await self.begun(stage, run)
        await stage.worker.append(run, said("I run it."), called("bash", command="sleep 60"))
        await stage.worker.close()
        await holds(becomes(stage, run, "queued"))
        with self.away(stage, monkeypatch):
            await stage.org.ask("POST", f"/v1/runs/{run.run_id}/cancel")
            await holds(becomes(stage, run, "cancelled"))  # which waits for no host
            assert f"process {command} of {box} was not ended" in caplog.text
        assert not await killed(stage, box, command)()
        await leftovers.end_left(stage.world.platform)
        assert await killed(stage, box, command)()

    @pytest.mark.parametrize(
        ("wanted", "edited", "is_ended"),
        [
            ({"process_id": "another"}, {"command": "sleep 60"}, True),
            ({"command": "sleep 60"}, {"process_id": "another"}, False),
            ({"command": "sleep 60", "process_id": None}, None, True),
        ],
    )
    async def test_what_a_call_runs_is_what_a_person_has_made_of_it(
        self, stage: Stage, wanted: Any, edited: Any, is_ended: bool
    ) -> None:
        run, _ = await stage.taken()
        box, command = await self.begun(stage, run)
        call = called("bash", **wanted)
        await stage.worker.append(run, call, asked("bash", **wanted), wait=True)
        body = {"callId": "c1", "decision": "allow", "arguments": edited}
        await stage.org.ask("POST", f"/v1/runs/{run.run_id}/approve", json=body)
        await stage.take(run.run_id)
        await stage.worker.close()
        await holds(becomes(stage, run, "queued"))
        await stage.org.ask("POST", f"/v1/runs/{run.run_id}/cancel")
        await holds(becomes(stage, run, "cancelled"))
        assert await killed(stage, box, command)() == is_ended


class TestGivenBack:
    async def test_what_a_worker_gives_back_is_offered_anew(self, stage: Stage) -> None:
        run, given = await stage.taken()
        await stage.worker.place(run)
        await stage.worker.append(run, said("So far."))
        await stage.worker.release(run)
        with pytest.raises(Conflict):
            await stage.worker.append(run, said("More.", 2))
        async with client(stage.world.url, given.token) as http:
            box = (await stage.get(run.run_id))["sandboxId"]
            assert (await http.get(f"/v1/sandboxes/{box}")).status_code == 401
        again, given = await stage.take(run.run_id)
        assert again.lease == run.lease + 1
        assert given.log[-1].data["text"] == "So far."
        await stage.worker.finish(again)
        await stage.worker.release(again)  # there is nothing to give back any more
        assert await status(stage, run) == "completed"

    async def test_nobody_gives_back_anothers(self, stage: Stage) -> None:
        run, _ = await stage.taken()
        async with fake_worker(stage.world.url, stage.world.token("worker"), slots=0) as other:
            for lease in (run.lease, run.lease + 1):
                with pytest.raises(Conflict):
                    await other.release(Held(run_id=run.run_id, lease=lease))
        assert await status(stage, run) == "running"
        await stage.worker.finish(run)

    async def test_one_that_was_given_into_a_connection_that_broke(self, stage: Stage) -> None:
        run, _ = await stage.taken()
        link_of(stage).lets_go(run.run_id)  # it is the worker's, and the worker knows nothing of it
        again, _ = await stage.take(run.run_id)
        assert again.lease == run.lease + 1
        await stage.worker.finish(again)

    async def test_one_that_was_just_given_elsewhere_stays(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The worker's connection here has not been silent for long, and it took the run at another."""
        run, _ = await stage.taken()
        monkeypatch.setattr(dispatch, "_SILENT", LONG)
        link_of(stage).lets_go(run.run_id)
        for _ in range(3):
            await dispatch.look(stage.world.platform, may_take_back=True)
        record = await stage.world.platform.db.read(runs.known, run.run_id)
        assert record is not None
        assert (record.status, record.lease) == ("running", run.lease)
        link_of(stage).drives(run.run_id, run.lease, 0)
        await stage.worker.finish(run)

    async def test_what_is_anothers_now_fills_no_place(self, stage: Stage) -> None:
        link = link_of(stage)
        link.drives("run_of_another", 3, 0)
        await holds(lambda: "run_of_another" not in link.driving)


class TestSilent:
    async def test_one_that_stands_still_is_taken_over_though_it_is_connected(
        self, stage: Stage
    ) -> None:
        platform = stage.world.platform
        run, _ = await stage.taken()
        await stage.worker.freeze()
        link = link_of(stage)
        link.spoke -= LONG.total_seconds()
        me = stage.worker.worker_id
        assert me not in platform.workers.heard(platform.clock.monotonic())
        await platform.db.write(workers.seen, [me], platform.clock.now() - LONG)
        async with fake_worker(stage.world.url, stage.world.token("worker")) as other:
            await dispatch.look(platform, may_take_back=True)
            offer = await other.offered()  # and no offer waits for the one that is silent
            assert (offer.run_id, offer.lease) == (run.run_id, run.lease + 1)
            await other.take(offer)
            await other.finish(Held(run_id=offer.run_id, lease=offer.lease))
        silent_since = link.spoke
        with pytest.raises(Conflict):  # when it goes on it finds that it has nothing to do
            await stage.worker.append(run, said("I am back."))
        assert link.spoke > silent_since

    async def test_what_it_took_through_another_connection_is_not_taken_back(
        self, stage: Stage
    ) -> None:
        """Its old connection here is silent, and its new one at another process."""
        platform = stage.world.platform
        run, _ = await stage.taken()
        silent = Link("elsewhere", 0, platform.clock.monotonic() - LONG.total_seconds())
        await platform.db.write(workers.came, silent.worker_id, platform.clock.now())
        platform.workers.add(silent)

        def given(conn: Transaction) -> None:
            record = runs.held(conn, run.run_id)
            assert record is not None
            runs.change(conn, record, {"worker_id": silent.worker_id})

        await platform.db.write(given)
        await dispatch.look(platform, may_take_back=False)
        assert await status(stage, run) == "running"
        silent.spoke = platform.clock.monotonic() + LONG.total_seconds()
        again, _ = await stage.take(run.run_id)  # heard again, it knows nothing of it
        platform.workers.remove(silent)
        await stage.worker.finish(again)

    async def test_whoever_says_anything_is_there(self, stage: Stage) -> None:
        link = link_of(stage)
        link.spoke -= LONG.total_seconds()
        await holds(lambda: not link.is_silent(stage.world.platform.clock.monotonic()))


class TestCancel:
    async def test_one_that_no_worker_takes_ends_with_its_command(self, stage: Stage) -> None:
        run, _ = await stage.taken(agent="served")
        box = (await stage.worker.place(run)).sandbox_id
        await stage.worker.append(
            run,
            said("I run it."),
            called("bash", "c0", command="true", process_id="other"),
            called("bash", "c1", command="sleep 60"),
        )
        process: Any = {"command": ["sleep", "60"], "processId": f"{run.run_id}.1.1"}
        await stage.org.ask("POST", f"/v1/sandboxes/{box}/processes", json=process)
        server: Any = {**process, "processId": f"mcp.{run.run_id}.small.1.1"}
        await stage.org.ask("POST", f"/v1/sandboxes/{box}/processes", json=server)
        await stage.worker.close()
        await holds(becomes(stage, run, "queued"))
        await stage.org.ask("POST", f"/v1/runs/{run.run_id}/cancel")
        await holds(becomes(stage, run, "cancelled"))
        await holds(killed(stage, box, process["processId"]))
        await holds(killed(stage, box, server["processId"]))
        results = [one for one in await stage.events(run.run_id) if one["type"] == "tool-result"]
        assert len(results) == 2

    async def test_one_whose_model_cannot_be_asked_any_more_likewise(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run, _ = await stage.taken()
        box = (await stage.worker.place(run)).sandbox_id
        await stage.worker.append(run, said("I run it."), called("bash", command="sleep 60"))
        process: Any = {"command": ["sleep", "60"], "processId": f"{run.run_id}.1.0"}
        await stage.org.ask("POST", f"/v1/sandboxes/{box}/processes", json=process)

        async def refuse(*_: Any) -> Any:
            raise NotFound("its key is gone")

        with monkeypatch.context() as patch:
            patch.setattr(taking, "access", refuse)
            await stage.worker.release(run)
            await holds(becomes(stage, run, "queued"))
            offer = await stage.worker.offered()
            while offer.run_id != run.run_id:
                offer = await stage.worker.offered()
            with pytest.raises(NotFound):
                await stage.worker.take(offer)
        assert await status(stage, run) == "failed"
        await holds(killed(stage, box, process["processId"]))

    async def test_one_that_another_worker_has_taken_meanwhile_goes_on(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Two processes may offer one: who comes too late ends neither it nor what it has under way."""
        run, _ = await stage.taken()
        await stage.worker.place(run)
        await stage.worker.append(run, said("I run it."), called("bash", command="sleep 60"))

        async def refuse(*_: Any) -> Any:
            raise NotFound("its key is gone")

        platform = stage.world.platform
        with monkeypatch.context() as patch:
            patch.setattr(taking, "access", refuse)
            with pytest.raises(NotFound):
                await taking.take(platform, "another", Take(run_id=run.run_id, lease=run.lease))
        record = await platform.db.read(runs.known, run.run_id)
        assert record is not None
        assert record.status == "running"
        assert await platform.db.read(owed.of_run, record) == []
        old = replace(record, status=Status.QUEUED, worker_id=None)
        await leftovers.end_open(platform, old)
        assert await platform.db.read(owed.of_run, record) == []
        await stage.worker.finish(run)

    async def test_one_that_hangs_in_its_worker_ends_without_it(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run, _ = await stage.taken()
        await stage.worker.append(run, said("I run it."), called("bash", command="sleep 60"))
        monkeypatch.setattr(dispatch, "_CANCEL_SECONDS", 0.0)
        monkeypatch.setattr(dispatch, "_UNCANCELLED", timedelta())
        await dispatch.look(stage.world.platform, may_take_back=True)
        assert await status(stage, run) == "running"  # nobody wants its end
        await stage.org.ask("POST", f"/v1/runs/{run.run_id}/cancel")
        await holds(
            becomes(stage, run, "cancelled")
        )  # its worker says that it is there, and nothing else
        assert run.run_id not in link_of(stage).driving
        with pytest.raises(Conflict):
            await stage.worker.append(run, said("Oh!", 2))


class TestGivenUp:
    async def test_a_key_that_does_not_open_ends_its_run_and_nothing_else(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = await stage.run()

        async def refuse(*_: Any) -> Any:
            raise WrongMasterKey("it was sealed with another one")

        with monkeypatch.context() as patch:
            patch.setattr(taking, "access", refuse)
            with pytest.raises(WrongMasterKey):
                await stage.take(made["id"])
        shown = await stage.get(made["id"])
        assert (shown["status"], shown["error"]["code"]) == ("failed", "wrong_master_key")
        run, _ = await stage.taken()
        await stage.worker.finish(run)

    async def test_one_that_costs_its_workers_their_lives_is_not_given_out_for_ever(
        self, stage: Stage
    ) -> None:
        run, given = await stage.taken()
        platform = stage.world.platform
        assert given.driven_to == 0
        for _ in range(taking.MOST_TAKEOVERS):
            record = await platform.db.read(runs.known, run.run_id)
            assert record is not None
            await dispatch.take_back(platform, record)
            run, given = await stage.take(run.run_id)
            assert given.driven_to == 2
        await stage.worker.append(run, said("I get on."))  # that begins anew
        for count in range(taking.MOST_TAKEOVERS + 1):
            record = await platform.db.read(runs.known, run.run_id)
            assert record is not None
            await dispatch.take_back(platform, record)
            if count < taking.MOST_TAKEOVERS:
                run, given = await stage.take(run.run_id)
        with pytest.raises(RunAbandoned):
            await stage.take(run.run_id)
        shown = await stage.get(run.run_id)
        assert (shown["status"], shown["error"]["code"]) == ("failed", "run_abandoned")

    async def test_one_that_every_worker_gives_back_is_not_given_out_for_ever(
        self, stage: Stage
    ) -> None:
        run, _ = await stage.taken()
        for _ in range(2):  # workers that end have nothing against it
            await stage.worker.release(run, ending=True)
            run, _ = await stage.take(run.run_id)
        for _ in range(taking.MOST_TAKEOVERS):
            await stage.worker.release(run)
            run, _ = await stage.take(run.run_id)
        await stage.worker.release(run)
        with pytest.raises(RunAbandoned):
            await stage.take(run.run_id)
        shown = await stage.get(run.run_id)
        assert (shown["status"], shown["error"]["code"]) == ("failed", "run_abandoned")

    async def test_a_worker_that_comes_back_costs_no_run_its_life(self, stage: Stage) -> None:
        """However often its connection breaks: that it knows what it drove says that it lives."""
        run, _ = await stage.taken()
        worker = stage.worker.worker_id
        for _ in range(taking.MOST_TAKEOVERS + 2):
            hello = Hello(worker_id=worker, slots=4, drove={run.run_id: run.lease})
            await dispatch.arrived(stage.world.platform, hello)
            run, _ = await stage.take(run.run_id)
        record = await stage.world.platform.db.read(runs.known, run.run_id)
        assert record is not None
        assert record.takeovers == 0
        stale = {run.run_id: run.lease - 1}  # what it drove under an earlier lease, and then again
        await dispatch.arrived(stage.world.platform, Hello(worker_id=worker, slots=4, drove=stale))
        record = await stage.world.platform.db.read(runs.known, run.run_id)
        assert record is not None
        assert record.takeovers == 1
        run, _ = await stage.take(run.run_id)
        await stage.worker.finish(run)

    @pytest.mark.parametrize(
        ("cut_short", "then"),
        [
            (None, "comes back"),
            (None, "is gone"),
            # The api ends with it, before the run is offered anew.
            ("comes back", "comes back"),
            ("has left", "is gone"),
        ],
    )
    async def test_time_in_which_nobody_drove_it_is_none_of_its(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch, cut_short: str | None, then: str
    ) -> None:
        """The machine was off, say: what went by since its worker was last heard of counts for nobody."""
        platform, me = stage.world.platform, stage.worker.worker_id
        run, _ = await stage.taken(config={"maxSeconds": 60})
        record = await platform.db.read(runs.known, run.run_id)
        assert record is not None
        taken_at = platform.clock.now() - LONG
        await platform.db.write(runs.change, record, {"taken_at": taken_at})
        await stage.worker.freeze()
        link_of(stage).spoke -= LONG.total_seconds()
        await platform.db.write(workers.seen, [me], taken_at + timedelta(seconds=3))
        acts: dict[str, Callable[[], Awaitable[None]]] = {
            "comes back": lambda: dispatch.arrived(platform, Hello(worker_id=me, slots=4)),
            "has left": lambda: dispatch.left(platform, me),
            "is gone": lambda: dispatch.look(platform, may_take_back=True),
        }
        if cut_short is not None:
            with monkeypatch.context() as patch:
                patch.setattr(dispatch, "take_back", AsyncMock(side_effect=Killed))
                with pytest.raises(Killed):
                    await acts[cut_short]()
        await acts[then]()
        async with fake_worker(stage.world.url, stage.world.token("worker")) as other:
            offer = await other.offered()
            given = await other.take(offer)
            assert given.spent_seconds == 3.0
            await other.finish(Held(run_id=offer.run_id, lease=offer.lease))

    async def test_a_wait_leaves_nothing_under_way(self, stage: Stage) -> None:
        run, _ = await stage.taken()
        await stage.worker.append(run, said("May I?"), called("bash"), asked("bash"), wait=True)
        body = {"callId": "c1", "decision": "allow"}
        await stage.org.ask("POST", f"/v1/runs/{run.run_id}/approve", json=body)
        run, given = await stage.take(run.run_id)
        assert given.driven_to == 0
        await stage.worker.finish(run)


class TestServers:
    """Of its tools, in the sandbox: the worker's token is good for nothing when a run lets go of it."""

    async def serve(self, stage: Stage, run: Held, box: str, lease: int = 1) -> str:
        """One that was started under a lease."""
        name = f"mcp.{run.run_id}.small.{lease}.1"
        body: Any = {"command": ["sleep", "60"], "processId": name}
        await stage.org.ask("POST", f"/v1/sandboxes/{box}/processes", json=body)
        return name

    async def test_nothing_is_noted_of_a_run_that_has_none(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(leftovers, "end_of", AsyncMock())
        for agent, left in (("coder", []), ("claude", []), ("served", [1])):
            run, _ = await stage.taken(agent=agent)
            await stage.worker.place(run)
            await stage.worker.append(run, called("bash"), asked("bash"), wait=True)
            record = await stage.world.platform.db.read(runs.known, run.run_id)
            assert record is not None
            found = await stage.world.platform.db.read(owed.of_run, record)
            assert [one.lease for one in found] == left
            await stage.org.ask("POST", f"/v1/runs/{run.run_id}/cancel")

    async def test_they_end_with_it(self, stage: Stage) -> None:
        run, _ = await stage.taken(agent="served")
        box = (await stage.worker.place(run)).sandbox_id
        server = await self.serve(stage, run, box)
        await stage.worker.finish(run)
        await holds(killed(stage, box, server))

    async def test_they_end_when_it_waits_but_for_those_of_a_later_lease(
        self, stage: Stage
    ) -> None:
        run, _ = await stage.taken(agent="served")
        box = (await stage.worker.place(run)).sandbox_id
        later = await self.serve(stage, run, box, 2)
        server = await self.serve(stage, run, box)
        await stage.worker.append(run, called("bash"), asked("bash"), wait=True)
        await holds(killed(stage, box, server))
        assert not await killed(stage, box, later)()
        left = await self.serve(stage, run, box, 0)
        await stage.org.ask("POST", f"/v1/runs/{run.run_id}/cancel")
        await holds(killed(stage, box, left))

    async def test_what_could_not_be_ended_is_ended_later(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        platform, host = stage.world.platform, stage.world.host
        run, _ = await stage.taken(agent="served")
        box = (await stage.worker.place(run)).sandbox_id
        server = await self.serve(stage, run, box)

        async def away(_sandbox: str) -> Any:
            raise HostUnavailable("it is away")

        async def left() -> bool:
            record = await platform.db.read(runs.known, run.run_id)
            assert record is not None
            return bool(await platform.db.read(owed.of_run, record))

        with monkeypatch.context() as patch:
            patch.setattr(host, "list_processes", away)
            await stage.worker.finish(run)
            await holds(lambda: f"servers of {run.run_id} in {box} cannot" in caplog.text)
            assert await left()
        await stage.org.ask("POST", f"/v1/sandboxes/{box}/pause")
        await stage.world.becomes(box, state="paused")
        await leftovers.end_left(platform)
        assert (await stage.org.ask("GET", f"/v1/sandboxes/{box}"))["state"] == "paused"
        await stage.org.ask("POST", f"/v1/sandboxes/{box}/resume")
        await leftovers.end_left(platform)  # as the reconcile loop does, also after a crash
        await holds(killed(stage, box, server))
        assert not await left()

    async def test_one_that_does_not_answer_holds_up_no_other(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        platform, host = stage.world.platform, stage.world.host
        looks: set[str] = set()
        all_look = asyncio.Event()
        with monkeypatch.context() as patch:
            patch.setattr(leftovers, "end_of", AsyncMock())
            for _ in range(3):
                run, _ = await stage.taken(agent="served")
                await stage.worker.place(run)
                await stage.worker.finish(run)

        async def slow(sandbox: str) -> Any:
            looks.add(sandbox)
            if len(looks) == 3:
                all_look.set()
            await all_look.wait()
            raise HostUnavailable("it is away")

        with monkeypatch.context() as patch:
            patch.setattr(host, "list_processes", slow)
            patch.setattr(leftovers, "_AT_ONCE", 100)
            async with asyncio.timeout(PATIENCE_SECONDS):
                await leftovers.end_left(platform)
        await leftovers.end_left(platform)
        assert await platform.db.read(owed.due, ("", ""), 1) == []


class TestKeys:
    async def test_ids_that_differ_at_their_ends_alone(self, stage: Stage) -> None:
        run, _ = await stage.taken()
        ids = [f"{'x' * 127}{n}" for n in range(2)]
        calls = [
            NewEvent(key=f"{one.type}:{n}", type=one.type, data={**one.data, "callId": call_id})
            for n, call_id in enumerate(ids)
            for one in (called("bash"), asked("bash"))
        ]
        await stage.worker.append(run, *calls, wait=True)
        path = f"/v1/runs/{run.run_id}/approve"
        for call_id in ids:
            await stage.org.ask("POST", path, json={"callId": call_id, "decision": "allow"})
        again, given = await stage.take(run.run_id)
        decided = [one.data["callId"] for one in given.log if one.type == "approval-resolved"]
        assert decided == ids
        await stage.worker.release(again)
        await stage.worker.close()
        await stage.org.ask("POST", f"/v1/runs/{run.run_id}/cancel")
        await holds(becomes(stage, run, "cancelled"))
        log = await stage.events(run.run_id)
        assert [one["data"]["callId"] for one in log if one["type"] == "tool-result"] == ids


class TestGoingOn:
    async def test_what_came_while_it_was_summed_up_is_told_to_later_runs(
        self, stage: Stage
    ) -> None:
        run, given = await stage.taken("Long story.")
        news = await stage.worker.append(run, said("Yes."))
        path = f"/v1/runs/{run.run_id}/messages"
        await stage.org.ask("POST", path, json={"message": "And this too."})
        summary = {"turn": 2, "tokensBefore": 9, "summary": "It was long."}
        wire = {"seen": news.events[-1].seq}
        await stage.worker.append(
            run, NewEvent(key="2:c", type="compaction", data=summary, wire=wire)
        )
        await stage.worker.finish(run, "End.")
        made = await stage.run("And?", threadId=given.run.thread_id)
        run, given = await stage.take(made["id"])
        kinds = ["message", "compaction", "message", "usage"]
        assert [one.type for one in given.earlier] == kinds
        assert given.earlier[0].data["text"] == "And this too."
        await stage.worker.finish(run)

    async def test_what_had_no_answer_then_is_told_to_later_runs(self, stage: Stage) -> None:
        run, given = await stage.taken("Long story.")
        summary = {"turn": 1, "tokensBefore": 9, "summary": "It was long."}
        event = NewEvent(key="1:c", type="compaction", data=summary, wire={"seen": 0})
        await stage.worker.append(run, event)
        await stage.worker.finish(run, "End.")
        made = await stage.run("And?", threadId=given.run.thread_id)
        run, given = await stage.take(made["id"])
        texts = [one.data.get("text") for one in given.earlier]
        assert texts == ["Long story.", None, "End.", None]
        await stage.worker.finish(run)

    async def test_who_may_not_work_in_a_sandbox_continues_none_in_it(self, stage: Stage) -> None:
        box = await stage.world.create()
        run, _ = await stage.taken(sandboxId=box["id"])
        await stage.worker.append(run, done(status="limit_reached"))
        key = {"name": "runner", "scopes": ["agent:run"]}
        secret = (await stage.org.ask("POST", "/v1/api-keys", json=key))["key"]
        async with client(stage.world.url, secret) as http:
            answer = await http.post(f"/v1/runs/{run.run_id}/continue", json={})
        assert answer.json()["error"]["details"]["needed"] == "sandbox:write"


class TestWaits:
    async def test_a_run_says_what_it_waits_for(self, stage: Stage) -> None:
        run, given = await stage.taken()
        assert (await stage.get(run.run_id))["waitsFor"] is None
        second = await stage.run(threadId=given.run.thread_id)
        assert second["waitsFor"] == "turn"
        await stage.worker.append(run, called("bash"), asked("bash"), wait=True)
        assert (await stage.get(run.run_id))["waitsFor"] == "approval"
        await stage.org.ask("POST", f"/v1/runs/{run.run_id}/cancel")
        await stage.org.ask("POST", f"/v1/runs/{second['id']}/cancel")

    async def test_also_that_no_worker_is_there(self, stage: Stage) -> None:
        platform = stage.world.platform
        async with fake_worker(stage.world.url, stage.world.token("worker"), slots=0):
            await stage.worker.close()
            await holds(lambda: len(platform.workers) == 1)
            made = await stage.run()
            assert made["waitsFor"] == "room"
        await platform.db.write(workers.forget, platform.clock.now() + LONG)
        await holds(lambda: not len(platform.workers))
        await platform.db.write(workers.forget, platform.clock.now() + LONG)
        assert (await stage.get(made["id"]))["waitsFor"] == "worker"
        [listed] = await stage.org.ask("GET", "/v1/runs?status=queued&limit=1")
        assert listed["waitsFor"] == "worker"
        health = (await stage.org.http.get("/healthz")).json()["data"]
        assert any("no worker is connected" in one for one in health["warnings"])
        counts = await platform.db.read(runs.counts)
        assert counts["queued"] >= 1
        await stage.org.ask("POST", f"/v1/runs/{made['id']}/cancel")
        assert json.loads((await stage.org.http.get("/healthz")).text)["data"]["status"] == "ok"
