"""The toolbox of a run: what its model may call, and what a call does.

Each call is known by run, turn and place, down to the sandbox: made again after a crash it is answered from
there, or goes on where it was. Calls that change files or work a desktop are made one after the other,
others side by side.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic_ai.tools import ToolDefinition

from runtools.errors import (
    NotFound,
    RateLimited,
    RunToolsError,
    SandboxStopped,
    Unavailable,
    WaitsForRoom,
)
from runtools.platform.agents.answer import CUT_OFF, INVALID
from runtools.platform.agents.book import Call
from runtools.platform.agents.link import Link
from runtools.platform.agents.tools import room
from runtools.platform.agents.tools.around import AROUND, Around
from runtools.platform.agents.tools.servers import Servers
from runtools.platform.agents.tools.shown import ServerTool
from runtools.platform.core.ports.worker import Assignment
from runtools.platform.core.runs import command_of, process_of
from runtools.platform.kit.clock import Backoff, Clock, within
from runtools.sdk.client import AsyncRunTools
from runtools.sdk.sandbox import AsyncSandbox
from runtools.sdk.shapes.definitions import BUILT_IN_TOOLS, Permission
from runtools.workbench import shell
from runtools.workbench.bench import Bench
from runtools.workbench.desktop import DESKTOP
from runtools.workbench.tool import Result, Tool
from runtools.workbench.toolset import TOOLS

OnOutput = Callable[[str], None]
Connect = Callable[[str], AsyncRunTools]
"""A client of the platform with a run's token."""

_TRIES = 5
_AT_ONCE = 16
_LONGEST_SECONDS = shell.MAX_SECONDS + 1200.0
"""What waits for longer waits for ever: a command ends before, also where its sandbox is made first."""
_STOP_SECONDS = 15.0
"""What ending a command may take: who has cancelled a run waits for no machine that does not answer."""
_NEW_SANDBOX = (
    "[the sandbox of this thread is gone; this one is new, and nothing of before is in it]"
)
_LEFT = "[its command may run on for now: it is ended as soon as its sandbox answers]"
_NO_OBJECT = "the arguments were no JSON object, or were cut off: call it again with all of them"
_CUT_OFF = (
    "the answer reached max_tokens before the arguments were whole, and nothing was done: it would be cut"
    " off there again. Write less at once: in smaller pieces, over several calls"
)
# As Anthropic (tools.3.custom.input_schema) and Google (function_declarations[3].parameters) say it.
_INDEX = re.compile(r"(?:tools\.|function_declarations\[)(\d+)")
_IN_ORDER = frozenset({"edit_file", "write_file", "delete_file", *DESKTOP})


@dataclass(frozen=True, slots=True)
class _FrontTool:
    """A tool of the run's front end, as the model is told of it."""

    name: str
    description: str
    schema: dict[str, Any]


class Toolbox:
    """The tools of one run.

    Args:
        connect: makes the client for the sandbox.
        sees: whether the model can look at pictures.

    Attributes:
        left: the commands that it could not end.
    """

    def __init__(
        self,
        link: Link,
        given: Assignment,
        lease: int,
        connect: Connect,
        around: Around,
        servers: Servers,
        clock: Clock,
        *,
        sees: bool,
    ) -> None:
        self._link = link
        self._given = given
        self._lease = lease
        self._client = connect(given.token)
        self._around = around
        self._servers = servers
        self._clock = clock
        self._sees = sees
        self.left: set[str] = set()
        self._inside = {**TOOLS, **(DESKTOP if given.has_desktop else {})}
        own = {*self._inside, *AROUND}
        brought = given.brought.tools.items()
        self._front = {
            name: _FrontTool(name, tool.description, _object(tool.parameters))
            for name, tool in brought
            if name not in own
        }
        self._sandbox: AsyncSandbox | None = None
        self._is_news = False  # whether the model takes the sandbox for that of its earlier runs
        self._placing = asyncio.Lock()
        self._changing = asyncio.Lock()
        self._slots = asyncio.Semaphore(_AT_ONCE)

    @property
    def definitions(self) -> list[ToolDefinition]:
        """The tools as models are told of them; what the agent may never call is not among them."""
        return [
            ToolDefinition(
                name=tool.name, description=tool.description, parameters_json_schema=tool.schema
            )
            for tool in self._offered.values()
        ]

    @property
    def names(self) -> list[str]:
        """What those are called, in their order."""
        return list(self._offered)

    @property
    def _offered(self) -> dict[str, Tool[Any, Any] | ServerTool | _FrontTool]:
        there: dict[str, Tool[Any, Any] | ServerTool | _FrontTool] = {**self._inside, **AROUND}
        there |= self._servers.tools
        there |= {name: tool for name, tool in self._front.items() if name not in there}
        return {name: tool for name, tool in there.items() if self.permission(name) != "deny"}

    @property
    def missing(self) -> list[str]:
        """Tools and servers that the agent names and that are not to be had."""
        tools = [name for name in self._given.agent.tools if name not in BUILT_IN_TOOLS]
        return [*tools, *self._servers.troubles]

    def permission(self, name: str) -> Permission:
        """Whether the agent may call a tool."""
        return permission(self._given.agent.permissions, name)

    def is_fronts(self, name: str, given: Mapping[str, Any]) -> bool:
        """Whether a call is for the front end that brought the tool along; it asks its user itself."""
        if name not in self._front or name in self._servers.tools or broken(given):
            return False
        return self.permission(name) != "deny"

    async def call(self, call: Call, on_output: OnOutput, *, begun: bool) -> Result:
        """Do what the model wants; whatever goes wrong is a result, and leaves no command behind.

        Args:
            on_output: told what a command writes, as it comes.
            begun: whether the call may have been made before.
        """
        tool: Tool[Any, Any] | None = self._inside.get(call.name) or AROUND.get(call.name)
        invalid = bool(broken(call.given))
        if tool is None and call.name not in self._servers.tools and not invalid:
            if (silent := self._servers.silent(call.name)) is not None:
                why = f"{silent} did not say which tools it has: {call.name[:80]} was not called"
                return Result(f"{why}. Go on without, or end and have it tried again", failed=True)
            there = ", ".join(self.names)
            return Result(f"there is no tool {call.name[:80]!r}; there are: {there}", failed=True)
        if invalid:
            return Result(broken(call.given), failed=True)
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(self._slots)
            if tool is None:
                return await self._servers.call(call.name, call.given, on_output, begun=begun)
            if call.name in _IN_ORDER:
                await stack.enter_async_context(self._changing)
            result = await self._patiently(tool, call, on_output, begun)
            if result.failed:
                await self.stop(call)
                return replace(result, text=self.told_of(call, result.text))
            return result
        raise AssertionError  # the stack swallows nothing

    def leave_out(self, said: str, *, all_of_them: bool) -> bool:
        """Offer tools that others have brought no more where a provider refuses them; False: none is.

        Args:
            said: the words of the provider, or of its client.
            all_of_them: leave out all of them where it names none: not every provider does.
        """
        brought = list(dict.fromkeys([*self._servers.tools, *self._front]))
        names = self._named(said, brought) or (brought if all_of_them else [])
        if not names:
            return False
        for name in names:
            self._front.pop(name, None)
        self._servers.leave_out(names, said)
        return True

    def _named(self, said: str, brought: list[str]) -> list[str]:
        """Which of them the words are about: what they name first, for a place in a schema may follow."""
        found = {one: re.search(rf"(?<![\w-]){re.escape(one)}(?![\w-])", said) for one in brought}
        places = {one: match.start() for one, match in found.items() if match is not None}
        if places:
            return [min(places, key=lambda one: places[one])]
        offered, index = self.names, _INDEX.search(said)
        if index is None or int(index[1]) >= len(offered):
            return []
        return [one for one in brought if one == offered[int(index[1])]]

    async def look(self) -> None:
        """Learn what the servers have."""
        await self._servers.look(self._place)

    async def stop(self, call: Call) -> None:
        """End the command that a call has left running, and what of it has not begun yet; where that cannot
        be said, it is among what is `left`.

        Where there is no sandbox, nothing runs.
        """
        command = self._command(call)
        if command is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_SECONDS):
                if await self._is_stopped(call):
                    return
        self.left.add(command)

    def told_of(self, call: Call, text: str) -> str:
        """Words about a call that was ended before its time, with what is to be said of its command."""
        return f"{text}\n{_LEFT}" if self._command(call) in self.left else text

    def _command(self, call: Call) -> str | None:
        return command_of(self._given.run.id, call.turn, call.index, call.name, call.given)

    async def _is_stopped(self, call: Call) -> bool:
        backoff = Backoff(self._clock, first=0.2, most=1.0)
        for _ in range(_TRIES):
            try:
                sandbox = await self._placed()
                if sandbox is not None:
                    await shell.stop(self._bench_in(sandbox, call, lambda _: None, begun=True))
            except (NotFound, SandboxStopped):
                return True  # it is gone with its sandbox
            except (Unavailable, RateLimited):
                await backoff.wait()
            except RunToolsError:
                return False
            else:
                return True
        return False

    async def close(self) -> None:
        """Close the connections, and end what serves this run alone."""
        await self._servers.close()
        await self._client.close()

    async def _patiently(
        self, tool: Tool[Any, Any], call: Call, on_output: OnOutput, begun: bool
    ) -> Result:
        backoff = Backoff(self._clock, first=0.5, most=8.0)
        left, is_waiting = _TRIES, False
        while True:
            try:
                if tool.name not in AROUND:
                    await room.waited(await self._place(), on_output, look=is_waiting)
                async with within(self._clock, _LONGEST_SECONDS):
                    if tool.name in AROUND:
                        return await tool.call(self._around, call.given)
                    bench = self._bench_in(await self._place(), call, on_output, begun=begun)
                    return self._told(await tool.call(bench, call.given))
            except WaitsForRoom:
                is_waiting = True  # nothing was begun: it is made once there is room
                continue
            except TimeoutError:
                return Result(f"{tool.name} came to no end, and was given up", failed=True)
            except (Unavailable, RateLimited) as error:
                left -= 1
                if not left:
                    return _failed(error)
            except RunToolsError as error:
                return _failed(error)
            begun = True
            await backoff.wait()

    def _told(self, result: Result) -> Result:
        if not self._is_news:
            return result
        self._is_news = False
        return replace(result, text=f"{_NEW_SANDBOX}\n{result.text}")

    def _bench_in(
        self, sandbox: AsyncSandbox, call: Call, on_output: OnOutput, *, begun: bool
    ) -> Bench:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        return Bench(
            sandbox,
            self._given.run.thread_id.replace("_", "-"),
            on_output=lambda piece: on_output(decoder.decode(piece)),
            act=process_of(self._given.run.id, call.turn, call.index),
            begun=begun,
            sees=self._sees,
        )

    async def _placed(self) -> AsyncSandbox | None:
        """The sandbox that the run has worked in, if there is one; none is made."""
        if self._sandbox is not None or self._given.run.sandbox_id is None:
            return self._sandbox
        return await self._client.sandboxes.get(self._given.run.sandbox_id)

    async def _place(self) -> AsyncSandbox:
        async with self._placing:
            if self._sandbox is None:
                placed = await self._link.place(self._given.run.id, self._lease)
                self._sandbox = await self._client.sandboxes.get(placed.sandbox_id)
                self._is_news = placed.replaced
            return self._sandbox


def _object(schema: dict[str, Any] | None) -> dict[str, Any]:
    return {"type": "object", **({"properties": {}} if schema is None else schema)}


def broken(given: Mapping[str, Any]) -> str:
    """Why nothing can be made of a call's arguments, in words for the model; empty: they are whole."""
    if INVALID not in given:
        return ""
    return _CUT_OFF if CUT_OFF in given else _NO_OBJECT


def permission(rules: Mapping[str, Permission], name: str) -> Permission:
    """What the rules say of a tool: the longest one that fits."""
    best, found = -1, "allow"
    for rule, may in rules.items():
        stem = rule.removesuffix("*")
        fits = name.startswith(stem) if rule.endswith("*") else name == rule
        weight = len(stem) * 2 + (not rule.endswith("*"))
        if fits and weight > best:
            best, found = weight, may
    return found  # type: ignore[return-value]


def _failed(error: RunToolsError) -> Result:
    return Result(f"{error.code}: {error}", failed=True)
