"""The model ``demo``: a script that plays a model, without a network and without a mind.

It says so in its first words. What it does is real: it has the agent write a small web program in its
sandbox, test it, start it and fetch it, and says what came of it.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, DeltaToolCalls, FunctionModel

from runtools.platform.core.models import OFFLINE

PORT = 8000
_FOLDER = "/workspace/hello-web"
_PAUSE = 0.004  # between words, so that it reads like a stream

_APP = '''"""A web page that counts its visitors."""

from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import count

visits = count(1)


def page(number: int) -> str:
    noun = "visitor" if number == 1 else "visitors"
    return f"Hello from a sandbox! {number} {noun} so far.\\n"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = page(next(visits)).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


if __name__ == "__main__":
    HTTPServer(("0.0.0.0", PORT), Handler).serve_forever()
'''.replace("PORT", str(PORT))

_TEST = """import unittest

from app import page


class PageTest(unittest.TestCase):
    def test_one(self):
        self.assertIn("1 visitor so far", page(1))

    def test_many(self):
        self.assertIn("3 visitors so far", page(3))


if __name__ == "__main__":
    unittest.main()
"""

_FETCH = f"""for n in $(seq 50); do
  python3 - 2>/dev/null <<'end' && exit 0
import urllib.request
print(urllib.request.urlopen("http://127.0.0.1:{PORT}/").read().decode(), end="")
end
  sleep 0.2
done
echo nothing answers; exit 1"""


@dataclass(frozen=True, slots=True)
class Step:
    """What it says, and what it then wants done."""

    text: str
    calls: Sequence[tuple[str, dict[str, object]]] = ()


STEPS = (
    Step(
        "I am the demo model: a script, offline, and no AI. What I do is real all the same: I write a "
        "small web program in this sandbox, test it and start it. First the program and its tests.",
        [
            ("write_file", {"path": f"{_FOLDER}/app.py", "content": _APP}),
            ("write_file", {"path": f"{_FOLDER}/test_app.py", "content": _TEST}),
        ],
    ),
    Step(
        "Now I run the tests.",
        [("bash", {"command": f"cd {_FOLDER} && python3 -m unittest -v"})],
    ),
    Step(
        "I start it in the background.",
        [("bash", {"command": f"cd {_FOLDER} && exec python3 app.py", "background": True})],
    ),
    Step("And I fetch its page.", [("bash", {"command": _FETCH})]),
    Step("Where can you see it?", [("get_dev_url", {"port": PORT})]),
)


def demo() -> FunctionModel:
    """The model."""
    return FunctionModel(stream_function=_play, model_name=OFFLINE)


async def _play(messages: list[ModelMessage], _: AgentInfo) -> AsyncIterator[str | DeltaToolCalls]:
    since = _since_asked(messages)
    done = sum(isinstance(message, ModelResponse) for message in since)
    results = [
        part
        for message in since
        if isinstance(message, ModelRequest)
        for part in message.parts
        if isinstance(part, ToolReturnPart)
    ]
    step = STEPS[done] if done < len(STEPS) else Step(_farewell(results))
    for word in re.findall(r"\S+\s*", step.text):
        await asyncio.sleep(_PAUSE)
        yield word
    if step.calls:
        yield {
            place: DeltaToolCall(
                name=name, json_args=json.dumps(given), tool_call_id=f"demo_{len(messages)}_{place}"
            )
            for place, (name, given) in enumerate(step.calls)
        }


def _since_asked(messages: Sequence[ModelMessage]) -> Sequence[ModelMessage]:
    """What came since a person said something last."""
    for place in reversed(range(len(messages))):
        message = messages[place]
        if isinstance(message, ModelRequest) and any(
            isinstance(part, UserPromptPart) for part in message.parts
        ):
            return messages[place:]
    return messages


def _farewell(results: Sequence[ToolReturnPart]) -> str:
    """What came of it all, as the tools have said it."""
    said = [str(part.content) for part in results]
    fetched = next((text for text in reversed(said) if "Hello from a sandbox" in text), None)
    tested = next((text for text in said if "Ran 2 tests" in text and "OK" in text), None)
    last = said[-1] if said else "nothing"
    if fetched is None or tested is None:
        return f"Something went wrong. The last thing that a tool said was: {last}"
    page = next(line for line in fetched.splitlines() if "Hello" in line)
    address = last.split()[0] if last.startswith("http") else None
    where = f"You find it at {address}" if address else f"Where, nobody could say: {last}"
    return f"Done. Both tests pass, the program runs on port {PORT} and answers: “{page}” {where}"
