"""``/v1/run/ai-sdk`` and ``/v1/run/ag-ui``: agents behind existing front ends, as those ask for them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from runtools.errors import AlreadyDecided, Conflict, NotFound, QuotaExceeded, RunEnded
from runtools.platform.api import document
from runtools.platform.api.calls import call_of
from runtools.platform.api.frontends import service
from runtools.platform.api.frontends.ag_ui import Events
from runtools.platform.api.frontends.ai_sdk import HEADERS, Chunks
from runtools.platform.api.frontends.asked import message_id, of_ag_ui, of_chat
from runtools.platform.api.runs.routes import RUN_HEADERS, STREAM, follow, named
from runtools.sdk.shapes.frontends import AgUiRun, UiChat

router = APIRouter(prefix="/v1/run", tags=["runs"])

_Text = {"max_length": 64, "pattern": r"^[^\x00]*$"}
Agent = Annotated[str, Query(min_length=1, description="the agent's slug", **_Text)]
Project = Annotated[
    str | None, Query(description="id or name, where several projects have the slug", **_Text)
]
Chat = Annotated[str, Path(min_length=1, max_length=512, description="what `useChat` calls it")]


def _route(takes: type[Any]) -> dict[str, Any]:
    refusals = (NotFound, Conflict, AlreadyDecided, QuotaExceeded, RunEnded)
    return document.route(None, *refusals, takes=takes, streams=STREAM, headers=RUN_HEADERS)


def _resumed() -> dict[str, Any]:
    said = document.route(None, NotFound, streams=STREAM, headers=RUN_HEADERS)
    said["responses"][204] = {"description": "Nothing is under way in the chat"}
    return said


@router.post("/ai-sdk", **_route(UiChat))
async def ai_sdk(request: Request, agent: Agent, project: Project = None) -> Response:
    """What `useChat` of the AI SDK sends by itself, answered with its UI message stream. Each chat is a

    thread. A message to a run under way is said to it; decisions on calls that wait go on with their run.
    What was answered is not answered anew (`regenerate`): what an agent has done stays done.
    """
    call = call_of(request)
    asked = of_chat(call.take(UiChat))
    record, after = await service.take(call, agent, project, asked)
    call.subject = record.id
    message = message_id(record.id, after) if asked.news else asked.message
    tells = Chunks(record.id, message, calls=asked.calls)
    return follow(call, record, after, named(record) | HEADERS, "ai-sdk", tells)


@router.get("/ai-sdk/{chat}/stream", **_resumed())
async def resume(request: Request, chat: Chat, agent: Agent, project: Project = None) -> Response:
    """What `useChat({resume: true})` asks for: the message under way in a chat, from its beginning.

    204 where there is none.
    """
    call = call_of(request)
    found = await service.under_way(call, agent, project, chat)
    if found is None:
        return Response(status_code=204)
    record, after = found
    tells = Chunks(record.id, message_id(record.id, after))
    return follow(call, record, after, named(record) | HEADERS, "ai-sdk", tells)


@router.post("/ag-ui", **_route(AgUiRun))
async def ag_ui(request: Request, agent: Agent, project: Project = None) -> Response:
    """What clients of AG-UI send (`RunAgentInput`), answered with its events. Each of their threads is a

    thread here. `resume` answers interrupts: its payload says `approved`, and perhaps a `reason`.
    """
    call = call_of(request)
    body = call.take(AgUiRun)
    record, after = await service.take(call, agent, project, of_ag_ui(body))
    call.subject = record.id
    tells = Events(body.thread_id, body.run_id)
    return follow(call, record, after, named(record), "ag-ui", tells)
