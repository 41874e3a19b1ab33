"""Calls that fail: what is repeated, under which key, and what is said in the end."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from runtools import AsyncRunTools, RunTools
from runtools.errors import (
    CapacityExhausted,
    DeadlineExceeded,
    GuestMisbehaved,
    GuestUnreachable,
    InvalidRequest,
    NotFound,
    RateLimited,
    RunToolsError,
    Unauthenticated,
    Unavailable,
    VersionMismatch,
)
from runtools.sdk import wire
from runtools.sdk.sync import transport as sync_transport
from runtools.testing.scripted_api import KEY, Failure, ScriptedApi


def failing(error: RunToolsError) -> Failure:
    return Failure(error.status, json.dumps({"error": error.to_wire()}).encode())


def keys(api: ScriptedApi, path: str) -> list[str | None]:
    return [seen.headers.get("idempotency-key") for seen in api.seen if seen.path.endswith(path)]


class TestRepeats:
    def test_a_call_is_repeated_under_one_key(self, api: ScriptedApi, rt: RunTools) -> None:
        api.failures.extend([Failure(503), Failure(502), Failure(504)])
        assert rt.sandboxes.create(name="web").name == "web"
        used = keys(api, "/sandboxes")
        assert len(used) == 4
        assert len(set(used)) == 1
        assert used[0]

    def test_a_lost_answer_does_not_do_it_twice(self, api: ScriptedApi, rt: RunTools) -> None:
        api.failures.append(Failure(cut=True))
        rt.sandboxes.create()
        assert len(api.sandboxes) == 1
        assert len(keys(api, "/sandboxes")) == 2

    async def test_nor_in_the_async_client(self, api: ScriptedApi, art: AsyncRunTools) -> None:
        api.failures.append(Failure(cut=True))
        await art.sandboxes.create()
        assert len(api.sandboxes) == 1

    def test_a_command_is_not_run_again(self, api: ScriptedApi, rt: RunTools) -> None:
        sandbox = rt.sandboxes.create()
        api.failures.append(Failure(cut=True, path="/exec"))
        result = sandbox.exec("echo once >> ran; cat ran")
        assert result.stdout == "once\n"
        named = {json.loads(s.body)["processId"] for s in api.seen if s.path.endswith("/exec")}
        assert named == {result.process_id}

    def test_two_calls_have_two_keys(self, api: ScriptedApi, rt: RunTools) -> None:
        rt.sandboxes.create()
        rt.sandboxes.create()
        assert len(set(keys(api, "/sandboxes"))) == 2
        assert len(api.sandboxes) == 2

    def test_a_callers_own_key_is_sent(self, api: ScriptedApi, rt: RunTools) -> None:
        first = rt.sandboxes.create(idempotency_key="order-7")
        assert rt.sandboxes.create(idempotency_key="order-7").id == first.id

    def test_reads_are_repeated_too_and_carry_no_key(self, api: ScriptedApi, rt: RunTools) -> None:
        made = api.add(name="web")
        api.failures.append(Failure(503))
        assert rt.sandboxes.get("web").id == made.id
        assert keys(api, "/web") == [None, None]

    @pytest.mark.parametrize("key", ["", "a\nb", "ü", "x" * 256])
    def test_a_key_that_may_not_be_sent_is_refused(self, rt: RunTools, key: str) -> None:
        if key:
            with pytest.raises(InvalidRequest, match="key"):
                rt.sandboxes.create(idempotency_key=key)
        else:
            assert rt.sandboxes.create(idempotency_key=key).id

    @pytest.mark.parametrize(
        ("error", "passing"),
        [
            (CapacityExhausted("no room"), False),
            (NotFound("nothing"), False),
            (GuestMisbehaved("garbage"), False),
            (RunToolsError("a bug"), False),
            (RateLimited("slow down", details={"retryAfterSeconds": 3600}), False),
            (RateLimited("slow down", details={"retryAfterSeconds": 0.01}), True),
            (GuestUnreachable("silent"), True),
            (DeadlineExceeded("late"), True),
            (Unavailable("restarting"), True),
        ],
    )
    def test_only_what_may_pass_is_repeated(
        self, api: ScriptedApi, error: RunToolsError, passing: bool
    ) -> None:
        api.failures.extend([failing(error)] * 50)
        with (
            RunTools(KEY, api.url, retry_seconds=0.3) as rt,
            pytest.raises(type(error)) as caught,
        ):
            rt.disk()
        assert (len(api.seen) > 1) is passing
        assert type(caught.value) is type(error)
        assert caught.value.message == error.message

    @pytest.mark.parametrize(("said", "seconds"), [("7", 7), ("soon", 1), (None, 1)])
    def test_a_proxy_that_holds_up_is_waited_for(self, said: str | None, seconds: int) -> None:
        error = wire.error(429, b"<html>", said)
        assert isinstance(error, RateLimited)
        assert error.details == {"retryAfterSeconds": seconds}

    def test_a_platform_that_restarts_is_waited_for(self, tmp_path: Path) -> None:
        with ScriptedApi(tmp_path) as first:
            port = urlsplit(first.url).port
        later = ScriptedApi(tmp_path, port=port or 0)
        made = later.add(name="web")
        timer = threading.Timer(0.5, later.__enter__)
        timer.start()
        with RunTools(KEY, first.url) as rt:
            assert rt.sandboxes.get("web").id == made.id
        timer.join()
        later.__exit__()

    def test_retries_can_be_switched_off(self, api: ScriptedApi) -> None:
        api.failures.append(Failure(503))
        with (
            RunTools(KEY, api.url, retry_seconds=0) as rt,
            pytest.raises(Unavailable, match="proxy"),
        ):
            rt.disk()


class TestTrouble:
    def test_nobody_listens(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        rt = RunTools("k", f"http://127.0.0.1:{port}", retry_seconds=0)
        with rt, pytest.raises(Unavailable, match="no platform answers") as caught:
            rt.disk()
        assert "runtools up" in (caught.value.hint or "")

    async def test_nobody_listens_to_the_async_client(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        async with AsyncRunTools("k", f"http://127.0.0.1:{port}", retry_seconds=0.2) as rt:
            with pytest.raises(Unavailable, match="no platform answers"):
                await rt.disk()

    def test_who_watches_is_told_of_a_long_wait(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("runtools.sdk.patience._TOLD_AFTER", 0.0)
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        told: list[str] = []
        url = f"http://127.0.0.1:{port}"
        with (
            RunTools(
                "k", url, retry_seconds=0.5, waiting=lambda exc: told.append(exc.message)
            ) as rt,
            pytest.raises(Unavailable),
        ):
            rt.disk()
        assert told
        assert "no platform answers" in told[0]

    def test_silence_is_not_repeated(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as mute:
            url = f"http://127.0.0.1:{mute.getsockname()[1]}"
            with RunTools("k", url) as rt, pytest.raises(wire.Silence, match="in time"):
                rt._transport.call("GET", "/disk", seconds=0.05)

    def test_a_wrong_key(self, api: ScriptedApi) -> None:
        with RunTools("rt_live_wrong", api.url) as rt, pytest.raises(Unauthenticated) as caught:
            rt.disk()
        assert caught.value.request_id == "req_1"
        assert "rt_live_wrong" not in repr(caught.value)


class TestVersionSkew:
    def test_something_else_listens(self, api: ScriptedApi, rt: RunTools) -> None:
        api.failures.append(Failure(200, b"<html>hello"))
        with pytest.raises(VersionMismatch, match="<html>hello"):
            rt.disk()

    def test_a_route_that_is_not_there(self, rt: RunTools) -> None:
        with pytest.raises(VersionMismatch, match="healthz"):
            rt.disk()

    def test_a_state_nobody_knows(self, api: ScriptedApi, rt: RunTools) -> None:
        view = api.add(name="web")
        api.sandboxes[view.id] = view.model_copy(update={"state": "levitating"})
        with pytest.raises(VersionMismatch, match="state"):
            rt.sandboxes.get("web")

    def test_an_error_nobody_knows_keeps_its_words(self, api: ScriptedApi, rt: RunTools) -> None:
        body = {"error": {"code": "too_purple", "message": "no purple", "requestId": "req_9"}}
        api.failures.append(Failure(418, json.dumps(body).encode()))
        with pytest.raises(RunToolsError, match="no purple") as caught:
            rt.disk()
        assert caught.value.request_id == "req_9"

    def test_fields_nobody_knows_are_ignored(self, api: ScriptedApi, rt: RunTools) -> None:
        api.fixed["GET /v1/me"] = {
            "orgId": "org_1",
            "orgName": "default",
            "keyId": "key_1",
            "defaultProjectId": None,
            "shoeSize": 43,
        }
        assert rt.me().org_name == "default"


class TestFollow:
    PATH = "/v1/templates/base-debian/logs"

    def line(self, n: int) -> bytes:
        at = "2026-01-01T00:00:00Z"
        body = {"n": n, "at": at, "progress": 0.5, "step": "s", "text": f"t{n}"}
        return b"id: %d\nevent: line\ndata: %b\n\n" % (n, json.dumps(body).encode())

    def end(self, state: str = "ready") -> bytes:
        body = {
            "id": "bld_1",
            "slug": "base-debian",
            "version": 1,
            "recipe": "base-debian",
            "state": state,
            "progress": 1,
            "step": "done",
            "tested": True,
            "isDefault": True,
            "sizeBytes": 7,
            "error": None if state == "ready" else "apt failed",
            "createdAt": "2026-01-01T00:00:00Z",
            "finishedAt": None,
        }
        return b"event: end\ndata: %b\n\n" % json.dumps(body).encode()

    def test_a_stream_that_breaks_goes_on_where_it_broke(
        self, api: ScriptedApi, rt: RunTools
    ) -> None:
        api.streams[self.PATH] = [self.line(1) + self.line(2), b"", self.line(3) + self.end()]
        assert [line.text for line in rt.templates.logs("base-debian")] == ["t1", "t2", "t3"]
        resumed = [seen.headers.get("last-event-id") for seen in api.seen]
        assert resumed == [None, "2", "2"]

    async def test_likewise_in_the_async_client(self, api: ScriptedApi, art: AsyncRunTools) -> None:
        api.streams[self.PATH] = [self.line(1), self.line(2) + self.end()]
        assert [line.n async for line in art.templates.logs("base-debian", 1)] == [1, 2]
        assert api.seen[0].query == [("version", "1")]

    def test_one_that_never_says_anything_is_given_up(
        self, api: ScriptedApi, rt: RunTools, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sync_transport, "FOLLOW_SECONDS", 0.3)
        api.streams[self.PATH] = []
        with pytest.raises(Unavailable, match="again and again"):
            list(rt.templates.logs("base-debian"))

    def test_a_refusal_ends_it(self, rt: RunTools) -> None:
        with pytest.raises(VersionMismatch):
            list(rt.sandboxes.events())

    def test_events_resume_after_what_the_caller_saw(self, api: ScriptedApi, rt: RunTools) -> None:
        view = api.add(name="web").model_dump_json()
        event = f'{{"id":8,"at":"2026-01-01T00:00:00Z","sandbox":{view},"cause":"idle","actor":""}}'
        api.streams["/v1/events"] = [f"id: 8\nevent: sandbox\ndata: {event}\n\n".encode()]
        found = next(rt.sandboxes.events(after=7))
        assert (found.sandbox.name, found.cause) == ("web", "idle")
        assert api.seen[-1].headers["last-event-id"] == "7"
