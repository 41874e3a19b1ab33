"""How one template version stands, as it is kept on disk: the commit point of a build."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from pydantic import ValidationError

from runtools.platform.core.ports.host import BuildOrder, Built
from runtools.platform.host.templates.images import BASE, INITRD, KERNEL, RECORD, Image
from runtools.platform.host.templates.recipes import recipe_of
from runtools.platform.kit.files import write_atomic
from runtools.sdk.shapes.base import Shape
from runtools.sdk.shapes.templates import BuildState

_log = logging.getLogger(__name__)


class Record(Shape):
    """One version. Only where ``state`` is ready are its files complete."""

    order: BuildOrder
    state: BuildState = "building"
    size_bytes: int = 0
    error: str | None = None
    created_at: datetime
    finished_at: datetime | None = None

    def built(self, progress: float = 0.0, step: str = "") -> Built:
        """As the host port says it."""
        return Built(
            version_id=self.order.version_id,
            state=self.state,
            progress=1.0 if self.state == "ready" else progress,
            step=step or self.state,
            size_bytes=self.size_bytes,
            error=self.error,
        )

    def image(self, folder: Path) -> Image:
        """The files of this version, wherever its build stands."""
        return Image(
            version_id=self.order.version_id,
            slug=self.order.slug,
            version=self.order.version,
            folder=folder,
            base=folder / BASE,
            kernel=folder / KERNEL,
            initrd=folder / INITRD,
            size_bytes=self.size_bytes,
            rehearsal=recipe_of(self.order.recipe).rehearsal,
        )

    def keep(self, folder: Path) -> None:
        """Write it down, durably."""
        write_atomic(folder / RECORD, self.model_dump_json(indent=1).encode())


def read_records(folder: Path) -> Iterator[Record]:
    """Every version that was ever begun below a folder and is still there.

    One whose record is none is left alone, for a person to look at. What is out of sight is being removed.
    """
    for file in sorted(folder.glob(f"[!.]*/{RECORD}")):
        try:
            yield Record.model_validate_json(file.read_bytes())
        except ValidationError as exc:
            _log.error(
                "a template version is damaged and left alone: %s has %d faults",
                file,
                exc.error_count(),
            )
