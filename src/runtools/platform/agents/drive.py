"""The loop: a run from where its log ends to its end, or to where it waits for a person.

Nothing is remembered between two steps but the log: each looks at what stands there and does what comes
next. So it makes no difference whether the last step was made by this worker, or by one that died.
"""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import Any, cast

from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.models.function import FunctionModel
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import ToolDefinition

from runtools.errors import RunToolsError
from runtools.platform.agents import compacting
from runtools.platform.agents.answer import Asked
from runtools.platform.agents.asking import ask, given_up
from runtools.platform.agents.book import Book
from runtools.platform.agents.carrying import carry_out
from runtools.platform.agents.held import Held, Means, ended, new_event, result_event
from runtools.platform.agents.history import History, plain_response
from runtools.platform.agents.limits import limits_of, out_of_time
from runtools.platform.agents.link import Link, LinkLost
from runtools.platform.agents.models.http import client
from runtools.platform.agents.points import reach
from runtools.platform.agents.reins import Broken, Reins, Why
from runtools.platform.agents.replay import earlier_runs, own_log
from runtools.platform.agents.tools.around import Around
from runtools.platform.agents.tools.servers import MOST_BYTES, Servers
from runtools.platform.agents.tools.toolbox import Toolbox
from runtools.platform.agents.trying import check_price, spent, with_spent
from runtools.platform.core.models import PROVIDERS, entry
from runtools.platform.core.ports.worker import Assignment, NewEvent
from runtools.platform.core.runs import OUTPUT_TOOL, command_of
from runtools.platform.kit.clock import Clock
from runtools.platform.kit.unbroken import to_its_end
from runtools.sdk.shapes.runs import Done, Message, RunError

CANCELLED = "cancelled: the run was ended while this was under way"
INTERRUPTED = "broken off: the user has said something, which follows"
OVER_TIME = "broken off: the time that the run may take is over"
_LAST_WORD_SECONDS = 2.0
"""What a worker that leaves a run has for saying what it has taken: it is waited for."""
_CHOSEN = (
    *("temperature", "top_p", "top_k", "presence_penalty", "frequency_penalty"),
    *("max_tokens", "thinking"),
)
"""What an agent may say of how its model answers, by the names of pydantic-ai's settings."""


class Drive:
    """One run under one lease.

    Args:
        reins: pulled by the worker when it is to be left.

    Attributes:
        leaving: set when it is.
    """

    def __init__(self, means: Means, run_id: str, lease: int, reins: Reins) -> None:
        self._means = means
        self._run_id = run_id
        self._lease = lease
        self._reins = reins
        self._poked = asyncio.Event()
        self.leaving = asyncio.Event()
        self._run: Held | None = None

    @property
    def goes_on(self) -> bool:
        """Whether it has come through all that is made ready: the run is driven."""
        return self._run is not None

    def leave(self, *, at_once: bool) -> None:
        """Go no further; unless it is to be at once, an answer under way may end."""
        self.leaving.set()
        if at_once or self._run is None or self._run.stream is None:
            self._reins.pull("leave")

    def poke(self) -> None:
        """Somebody has appended something, or wants a cancel: look."""
        self._poked.set()

    async def go(self) -> bool:
        """Take the run and drive it; False: it goes on, and was left.

        Raises:
            LinkLost: it is somebody else's, or the api cannot be reached.
        """
        began = self._means.clock.monotonic()
        given = await self._means.link.take(self._run_id, self._lease)
        reach("worker.taken")
        toolbox = _toolbox(self._means, given, self._lease)
        early = asyncio.create_task(self._hear_cancel(given))
        timed = asyncio.create_task(_keep_time(self._means.clock, given, self._reins))
        try:
            self._run = run = await _held(
                self._means, given, self._lease, self._reins, toolbox, began
            )
        except BaseException as error:
            is_over = isinstance(error, Exception) and not isinstance(error, LinkLost)
            ended_run = given if is_over else None
            await to_its_end(_put_away(toolbox, self._means.link, ended_run, self._lease))
            timed.cancel()
            raise
        finally:
            await to_its_end(ended([early]))
        self._poked.set()  # what was said meanwhile is looked at now
        helpers = [asyncio.create_task(self._listen(run)), timed]
        try:
            if given.run.cancel_requested:
                self._reins.pull("cancel")
            while not run.is_over and not self.leaving.is_set() and not await _step(run):
                pass
        except LinkLost:
            raise
        except Exception:
            await run.stop_calls()  # nobody will look after what they have left running
            raise
        finally:
            await to_its_end(_over(run, helpers))
        return run.is_over

    async def _hear_cancel(self, given: Assignment) -> None:
        """While all is made ready: servers of tools may take a minute, and wait for room before that."""
        try:
            while True:
                await self._poked.wait()
                self._poked.clear()
                news = await self._means.link.read(self._run_id, self._lease, given.run.last_seq)
                if news.cancel:
                    self._reins.pull("cancel")
        except Exception:
            # As one that is driven: who hears of no cancels must not go on.
            self._reins.pull("leave")
            raise

    async def _listen(self, run: Held) -> None:
        while True:
            await self._poked.wait()
            self._poked.clear()
            try:
                await run.look()
            except Exception:
                # Whatever it was: who no longer hears of cancels must not drive on.
                run.reins.pull("leave")
                raise


async def _over(run: Held, helpers: list[asyncio.Task[None]]) -> None:
    await ended(helpers)
    took = await given_up(run)
    if took and not run.is_over:
        with contextlib.suppress(LinkLost, RunToolsError, TimeoutError):
            async with asyncio.timeout(_LAST_WORD_SECONDS):
                await run.append(took)
    await run.toolbox.close()


async def _step(run: Held) -> bool:
    """Do what comes next; True: nothing does."""
    try:
        run.reins.check()
        return await _next(run)
    except Broken as broken:
        return await _broken(run, broken.why)


async def _next(run: Held) -> bool:
    book = run.book
    if book.open:
        if book.is_interrupted:
            raise Broken("interrupt")
        return await carry_out(run)
    if book.is_answered and not run.is_owed_a_result:
        await run.append([run.done("completed")], guarded=True)
        return book.ended
    if run.limit is not None:
        took = await given_up(run)
        end = run.done("limit_reached", limit=run.limit, usage=with_spent(run, took))
        await run.append([*took, end])
    elif compacting.is_full(run):
        await compacting.compact(run, book.turn + 1)
    else:
        await ask(run)
    return False


async def _broken(run: Held, why: Why) -> bool:
    """What was under way was broken off: leave nothing open, keep what was said."""
    if why == "leave":
        return True
    words = {"cancel": CANCELLED, "interrupt": INTERRUPTED, "limit": OVER_TIME}[why]
    await run.stop_calls()
    ahead = await run.drop_ahead()
    if ahead is not None:
        run.stream = ahead.stream  # which has said nothing
    said, ending = _half_said(run)
    events = [*run.closed(words), *said]
    run.stream = None
    if why == "interrupt":
        if events:
            await run.append(events)
        run.known = max(run.known, run.book.interrupts)
        run.reins.slacken(why)
        return False
    # Beside its end, at once: what was half said is never there alone, to be taken for an answer.
    if why == "cancel":
        await run.append([*events, run.done("cancelled", **ending)])
    else:
        limit = out_of_time(run.limits)
        await run.append([*events, run.done("limit_reached", limit=limit, **ending)])
    return True


def _half_said(run: Held) -> tuple[list[NewEvent], dict[str, Any]]:
    """What the model had said when it was broken off and what that took, and what `done` says of it."""
    stream, turn = run.stream, run.book.turn + 1
    if stream is None:
        return [], {}
    took = spent(run, stream.response, turn)
    ending: dict[str, Any] = {"usage": with_spent(run, took)}
    if not stream.text.strip():
        return took, ending
    wire = {"seen": run.known, "response": plain_response(stream.text)}
    said = Message(role="assistant", text=stream.text, turn=turn)
    message = new_event(f"t{turn}:message", "message", said, wire)
    return [message, *took], {**ending, "output": stream.text, "iterations": turn}


async def _keep_time(clock: Clock, given: Assignment, reins: Reins) -> None:
    """From its beginning: a server of tools may wait for room in its sandbox, however long."""
    most = limits_of(given.limits).max_seconds
    if most is not None:
        await clock.sleep(max(most - given.spent_seconds, 0))
        reins.pull("limit")


def _toolbox(means: Means, given: Assignment, lease: int) -> Toolbox:
    async def secret(name: str, server: str | None = None) -> str:
        return await means.link.secret(given.run.id, lease, name, server)

    around = Around(secret, means.outbound, search_url=means.search_url)
    http = partial(client, means.outbound, most=MOST_BYTES)
    brought, outbound, schemas = given.agent.mcp_servers, means.outbound, means.schemas
    servers = Servers(brought, http, outbound, schemas, secret, given.run.id, lease)
    sees = _sees(given)
    return Toolbox(means.link, given, lease, means.connect, around, servers, means.clock, sees=sees)


async def _put_away(toolbox: Toolbox, link: Link, given: Assignment | None, lease: int) -> None:
    """Close the toolbox; of a run that is over, end what an earlier lease has left running."""
    if given is not None:
        book = Book()
        with contextlib.suppress(LinkLost, RunToolsError):
            async for event in own_log(link, given.run.id, lease, given.log):
                book.take([event])
        await asyncio.gather(*(toolbox.stop(call) for call in book.open))
    await toolbox.close()


async def _held(
    means: Means, given: Assignment, lease: int, reins: Reins, toolbox: Toolbox, began: float
) -> Held:
    """All that is needed to go on."""
    access = given.model
    check_price(given)
    history = History(sees=_sees(given))
    extent = await earlier_runs(means.link, given, lease, history)
    model = means.build(access)
    if not given.run.cancel_requested:
        with contextlib.suppress(Broken):  # the first step finds why
            await reins.hold(toolbox.look())
    # The providers of the catalogue always say why an answer ends; servers of one's own may say just that.
    says_finish = access.provider in PROVIDERS and not isinstance(model, FunctionModel)
    asked = Asked(model, _settings(given), _parameters(given, toolbox), says_finish)
    run = Held(means, given, lease, reins, toolbox, asked, limits_of(given.limits), history, began)
    run.book.extent = extent
    await run.catch_up()
    return run


def _sees(given: Assignment) -> bool:
    """Whether the model can look at pictures; of one that nobody knows it is believed."""
    model = entry(given.model.provider, given.model.api_id)
    return model is None or model.images


def _settings(given: Assignment) -> ModelSettings:
    chosen = {name: getattr(given.agent, name) for name in _CHOSEN} | given.config
    settings = {name: value for name, value in chosen.items() if value is not None}
    settings = {**compacting.longest(given.model, settings.get("thinking")), **settings}
    # A run asks with the same beginning again and again: where a provider keeps it only on demand
    # (Anthropic), that is asked for. Others keep it by themselves, or have nothing of the kind.
    return cast(
        "ModelSettings",
        {"cache": True} | {name: settings[name] for name in _CHOSEN if name in settings},
    )


def _parameters(given: Assignment, toolbox: Toolbox) -> ModelRequestParameters:
    if given.output_schema is None:
        return ModelRequestParameters(function_tools=toolbox.definitions)
    output = ToolDefinition(
        name=OUTPUT_TOOL,
        description="Give the result of the whole run, once, when the work is done.",
        parameters_json_schema=_schema(given.output_schema),
        kind="output",
    )
    return ModelRequestParameters(
        function_tools=toolbox.definitions, output_mode="tool", output_tools=[output]
    )


def _schema(given: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", **given}


async def failure(means: Means, run_id: str, lease: int, error: Exception) -> bool:
    """End a run that cannot go on; False: nor can that be said, and the next worker finds it as it is."""
    if isinstance(error, RunToolsError):
        why = RunError(code=error.code, message=error.message, hint=error.hint)
    else:
        why = RunError(code="internal", message="the worker failed", hint="its log says where")
    with contextlib.suppress(LinkLost, RunToolsError):
        book = Book()
        async for event in own_log(means.link, run_id, lease, []):
            book.take([event])
        if book.ended:
            return True
        done = Done(
            status="failed",
            output=book.text or None,
            error=why,
            usage=book.usage,
            iterations=book.turn,
        )
        closed = [result_event(call, why.message, failed=True) for call in book.open]
        # Who was to end these has failed, and nobody knows how far it came.
        left = [command_of(run_id, one.turn, one.index, one.name, one.given) for one in book.open]
        events = [*closed, new_event("done", "done", done)]
        await means.link.append(run_id, lease, events, left=[one for one in left if one])
        return True
    return False
