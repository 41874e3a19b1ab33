from runtools import define_tool


def count(text: str) -> dict[str, int]:
    """Count the words and lines of a text.

    Args:
        text: what is counted.
    """
    return {"words": len(text.split()), "lines": len(text.splitlines())}


define_tool(name="word-count", description="Counts words.", actions={"count": count})
