"""Threads: what is asked for and said in them."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from runtools.sdk.shapes.base import Request, Shape
from runtools.sdk.shapes.definitions import Label
from runtools.sdk.shapes.runs import Run, RunEvent, RunImage, Steering, Thread


class ThreadChange(Request, defer_build=True):
    """Another title of a thread; null: none."""

    title: Label | None


class ThreadMessage(Shape, defer_build=True):
    """Something that was said in a thread. ``summary``: what stands for all before it from then on."""

    role: Literal["user", "assistant", "summary"]
    text: str
    images: list[RunImage] = Field(default_factory=list)
    steering: Steering | None = None
    run_id: str
    seq: int
    at: datetime


class ThreadExport(Shape, defer_build=True):
    """All of a thread: its runs, the oldest first, and their logs one after the other."""

    thread: Thread
    runs: list[Run]
    events: list[RunEvent]
