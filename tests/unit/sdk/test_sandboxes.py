from __future__ import annotations

import hashlib
import inspect
import json
from typing import Any, get_type_hints

import pytest

from runtools import AsyncRunTools, RunTools, errors
from runtools.errors import InvalidRequest, NotFound, SandboxStopped
from runtools.sdk import shapes
from runtools.sdk.sandbox import AsyncSandbox
from runtools.sdk.sync.sandbox import Sandbox
from runtools.sdk.sync.sandboxes import Sandboxes
from runtools.testing.scripted_api import KEY, ScriptedApi

ENDED = {"cause": "start_failed", "reason": "the template is broken", "console_tail": []}


def sent(api: ScriptedApi) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(api.seen[-1].body)
    return body


class TestCreate:
    def test_every_field_of_the_request_is_an_argument(self) -> None:
        taken = set(inspect.signature(Sandboxes.create).parameters)
        assert set(shapes.SandboxCreate.model_fields) <= taken

    def test_defaults_are_those_of_the_request(self) -> None:
        parameters = inspect.signature(Sandboxes.create).parameters
        for name, field in shapes.SandboxCreate.model_fields.items():
            if name not in ("tags", "env", "secrets", "ssh_keys"):
                assert parameters[name].default == field.default, name

    def test_what_is_given_is_sent(self, api: ScriptedApi, rt: RunTools) -> None:
        rt.sandboxes.create(
            "base-debian@3",
            name="web",
            tags={"team": "a"},
            env={"A": "ü"},
            ssh_keys=["ssh-ed25519 AAAA"],
            password="long enough",
            internet=False,
            max_lifetime_seconds=60,
            require_isolation="hardware",
            project_id="prj_1",
            queue=False,
        )
        assert sent(api) == {
            "template": "base-debian@3",
            "name": "web",
            "tags": {"team": "a"},
            "env": {"A": "ü"},
            "sshKeys": ["ssh-ed25519 AAAA"],
            "password": "long enough",
            "idleTimeoutSeconds": 600,
            "maxLifetimeSeconds": 60,
            "vcpus": 2,
            "diskMb": 2048,
            "internet": False,
            "requireIsolation": "hardware",
            "projectId": "prj_1",
            "waitForReady": True,
            "queue": False,
        }

    def test_it_waits_for_its_place_in_the_queue(self, api: ScriptedApi, rt: RunTools) -> None:
        api.waits = 2
        seen: list[str] = []
        sandbox = rt.sandboxes.create(on_wait=lambda waiting: seen.append(waiting.state))
        assert sandbox.state == "running"
        assert seen == ["creating", "creating"]

    def test_it_need_not_wait(self, api: ScriptedApi, rt: RunTools) -> None:
        api.waits = 2
        assert rt.sandboxes.create(wait_for_ready=False).state == "creating"

    def test_one_that_never_runs_says_why(self, api: ScriptedApi, rt: RunTools) -> None:
        view = api.add(state="creating")
        waiting = rt.sandboxes.get(view.id)
        api.sandboxes[view.id] = view.model_copy(
            update={"state": "stopped", "ending": shapes.Ending.model_validate(ENDED)}
        )
        with pytest.raises(SandboxStopped, match="the template is broken"):
            waiting.wait_until_running()

    def test_text_that_is_none_is_refused(self, rt: RunTools) -> None:
        with pytest.raises(InvalidRequest, match="not Unicode"):
            rt.sandboxes.create(name="\udcff")

    def test_with_destroys_at_the_end(self, api: ScriptedApi, rt: RunTools) -> None:
        with pytest.raises(ZeroDivisionError), rt.sandboxes.create() as sandbox:
            raise ZeroDivisionError
        assert sandbox.state == "stopped"
        assert api.sandboxes[sandbox.id].state == "stopped"

    async def test_async_with_too(self, api: ScriptedApi, art: AsyncRunTools) -> None:
        async with await art.sandboxes.create() as sandbox:
            assert (await sandbox.exec(["echo", "hi"])).stdout == "hi\n"
        assert api.sandboxes[sandbox.id].state == "stopped"


class TestHandle:
    @pytest.mark.parametrize("kind", [Sandbox, AsyncSandbox])
    def test_it_has_every_field_of_the_shape(self, kind: type) -> None:
        hints = get_type_hints(kind)
        expected = {n: f.annotation for n, f in shapes.Sandbox.model_fields.items()}
        assert {name: hints.get(name) for name in expected} == expected

    def test_acts_keep_it_up_to_date(self, api: ScriptedApi, rt: RunTools) -> None:
        sandbox = rt.sandboxes.create(name="web")
        assert sandbox.pause().state == "paused"
        assert sandbox.resume() is sandbox
        assert sandbox.state == "running"
        assert sandbox.view == api.sandboxes[sandbox.id]

    def test_refresh_asks_again(self, api: ScriptedApi, rt: RunTools) -> None:
        sandbox = rt.sandboxes.create()
        api.sandboxes[sandbox.id] = sandbox.view.model_copy(update={"state": "paused"})
        assert sandbox.state == "running"
        assert sandbox.refresh().state == "paused"

    def test_fork_brings_the_children_and_the_standstill(self, rt: RunTools) -> None:
        sandbox = rt.sandboxes.create(name="web")
        children = sandbox.fork(count=3, name="twin")
        assert [child.name for child in children] == ["twin-1", "twin-2", "twin-3"]
        assert {child.parent_id for child in children} == {sandbox.id}
        assert children.standstill_ms == 12.5
        assert children.view.children[0] == children[0].view

    def test_pages_of_the_ledger_become_one_list(self, api: ScriptedApi, rt: RunTools) -> None:
        sandbox = rt.sandboxes.create()
        entry = {
            "seq": 1,
            "at": "2026-01-01T00:00:00Z",
            "sandboxId": sandbox.id,
            "state": "running",
            "operation": None,
            "cause": "request",
            "actor": "key_1",
            "detail": {},
        }
        api.fixed[f"GET /v1/sandboxes/{sandbox.id}/why"] = [entry, entry | {"seq": 2}]
        assert [line.seq for line in sandbox.why()] == [1, 2]

    def test_console(self, api: ScriptedApi, rt: RunTools) -> None:
        sandbox = rt.sandboxes.create()
        api.fixed[f"GET /v1/sandboxes/{sandbox.id}/console"] = ["one", "two"]
        assert sandbox.console(2) == ["one", "two"]
        assert api.seen[-1].query == [("lines", "2")]


class TestFind:
    def test_list_goes_through_all_pages(self, api: ScriptedApi, rt: RunTools) -> None:
        made = [api.add(name=f"n{n}").id for n in range(5)]
        assert [sandbox.id for sandbox in rt.sandboxes.list()] == made
        assert len(api.seen) == 3

    def test_pages_are_fetched_as_they_are_used(self, api: ScriptedApi, rt: RunTools) -> None:
        for _ in range(5):
            api.add()
        next(rt.sandboxes.list())
        assert len(api.seen) == 1

    def test_filters_are_sent(self, api: ScriptedApi, rt: RunTools) -> None:
        list(
            rt.sandboxes.list(state=["paused", "stopped"], tags={"a": "b:c", "d": ""}, template="t")
        )
        assert set(api.seen[0].query) == {
            ("state", "paused"),
            ("state", "stopped"),
            ("tag", "a:b:c"),
            ("tag", "d:"),
            ("template", "t"),
            ("limit", "100"),
        }

    async def test_the_async_list(self, api: ScriptedApi, art: AsyncRunTools) -> None:
        made = [api.add().id for _ in range(3)]
        assert [sandbox.id async for sandbox in art.sandboxes.list()] == made

    def test_a_name_of_nobody(self, rt: RunTools) -> None:
        with pytest.raises(NotFound, match="nobody") as caught:
            rt.sandboxes.get("nobody")
        assert caught.value.hint

    @pytest.mark.parametrize("ref", ["a?b", "ü", "..", "a b"])
    def test_odd_references_stay_one_segment(
        self, api: ScriptedApi, rt: RunTools, ref: str
    ) -> None:
        with pytest.raises(NotFound, match="no sandbox"):
            rt.sandboxes.get(ref)

    @pytest.mark.parametrize("ref", ["", "a/b", "/"])
    def test_what_can_be_no_name_is_refused_here(
        self, api: ScriptedApi, rt: RunTools, ref: str
    ) -> None:
        with pytest.raises(InvalidRequest, match="neither"):
            rt.sandboxes.get(ref)
        assert api.seen == []


class TestExec:
    ARGV = ("printf", "%s|", "a b", "", "'\"\\", "$HOME `id`", "line\nline", "héllo ✓", "-n", "--")

    def test_arguments_arrive_unchanged(self, rt: RunTools) -> None:
        result = rt.sandboxes.create().exec(self.ARGV)
        assert result.stdout == "|".join(self.ARGV[2:]) + "|"

    def test_a_line_goes_to_a_shell(self, rt: RunTools) -> None:
        assert rt.sandboxes.create().exec("echo $((6*7)) | cat").stdout == "42\n"

    def test_bytes_go_in_and_come_out(self, rt: RunTools) -> None:
        every = bytes(range(256))
        result = rt.sandboxes.create().exec(["cat"], stdin=every)
        assert result.encoding == "base64"
        assert result.stdout_bytes == every

    def test_failing_is_no_error(self, rt: RunTools) -> None:
        result = rt.sandboxes.create().exec("kill -9 $$")
        assert (result.exit_code, result.signal) == (None, 9)

    def test_time_is_up(self, rt: RunTools) -> None:
        assert rt.sandboxes.create().exec(["sleep", "9"], timeout_ms=50).timed_out


def test_two_clients_share_no_connection(api: ScriptedApi) -> None:
    with RunTools(KEY, api.url) as one, RunTools(KEY, api.url) as other:
        one.sandboxes.create()
        one.close()
        assert other.sandboxes.create().state == "running"


class TestStdin:
    @pytest.mark.parametrize("stdin", ["hi ü\n", "\x01" * 2_000_000, b"\xff\x00", b"x" * 7_000_000])
    def test_it_arrives(self, rt: RunTools, stdin: str | bytes) -> None:
        sandbox = rt.sandboxes.create()
        data = stdin.encode() if isinstance(stdin, str) else stdin
        done = sandbox.exec("sha256sum", stdin=stdin)
        assert done.stdout.split()[0] == hashlib.sha256(data).hexdigest()

    def test_too_much_of_it_says_what_to_do(self, api: ScriptedApi, rt: RunTools) -> None:
        sandbox = rt.sandboxes.create()
        asked = len(api.seen)
        with pytest.raises(errors.TooLarge, match="stdin") as caught:
            sandbox.exec("cat", stdin=bytes(8 << 20))
        assert "file" in (caught.value.hint or "")
        assert len(api.seen) == asked
