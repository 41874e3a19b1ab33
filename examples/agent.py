"""Give the agent of examples/hello work and watch it: what it says, what it does, what came of it.

.venv/bin/python examples/agent.py ["what to do"]
"""

from __future__ import annotations

import sys

from runtools import RunTools

WORK = "Write a small web program, test it and start it."


def main() -> int:
    """Run it once; 0: it has done it."""
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
                    print(f"    {(data['output'].strip().splitlines() or [''])[-1]}")
                case "done":
                    print(f"\n{data['status']} after {data['iterations']} answers")
                    if data["error"] is not None:
                        print(f"error: {data['error']['message']}", file=sys.stderr)
                    return 0 if data["status"] == "completed" else 1
                case _:
                    pass
    return 1


if __name__ == "__main__":
    sys.exit(main())
