"""Give the agent of examples/hello work and watch it: what it says, what it does, what came of it.

.venv/bin/python examples/agent.py ["what to do"]
"""

from __future__ import annotations

import sys

from runtools import RunTools

WORK = "Write a small web program, test it and start it."


def main() -> None:
    """Run it once."""
    with RunTools() as rt:
        for event in rt.agents.stream("hello", sys.argv[1] if sys.argv[1:] else WORK):
            data = event.data
            match event.type:
                case "text-delta":
                    print(data["text"], end="", flush=True)
                case "tool-call":
                    what = data["arguments"].get("command") or data["arguments"].get("path") or ""
                    print(f"\n  → {data['name']} {str(what).splitlines()[0] if what else ''}")
                case "tool-result":
                    print(f"    {data['output'].strip().splitlines()[-1]}")
                case "done":
                    print(f"\n{data['status']} after {data['iterations']} answers")
                case _:
                    pass


if __name__ == "__main__":
    main()
