"""Numbers of a part of the platform, as they cross from one part to another."""

from __future__ import annotations

from runtools.sdk.shapes.base import Shape


class Sample(Shape):
    """One number, with the labels that tell it from its siblings."""

    name: str
    labels: dict[str, str]
    value: float


class Family(Shape):
    """All samples of one metric."""

    name: str
    kind: str
    help: str
    samples: list[Sample]
