"""Which model names mean something here: what workers serve, and what the catalog could have them serve."""

from __future__ import annotations

from pathlib import Path

import structlog

from swarmesh.core.errors import SwarmeshError
from swarmesh.core.fleet import Fleet
from swarmesh.core.ids import ModelName
from swarmesh.core.routing import default_model
from swarmesh.models.catalog import Catalog

log = structlog.get_logger("models")


class KnownModels:
    """Answers from the fleet; the catalog's file is read only for names nobody serves, and again when it changed."""

    def __init__(self, fleet: Fleet, home: Path) -> None:
        self._fleet = fleet
        self._catalog = Catalog(home)
        self._names: frozenset[str] = frozenset()
        self._stamp: tuple[int, int] | None = None

    def resolve(self, name: str) -> tuple[ModelName, bool]:
        """The model a task asks for, the default for an empty name; and whether it is known though nobody serves it."""
        model = ModelName(name) if name else default_model(self._fleet) or ModelName("")
        return model, bool(model) and (bool(self._fleet.of_model(model)) or model in self._catalog_names())

    def _catalog_names(self) -> frozenset[str]:
        try:
            found = self._catalog.path.stat()
            stamp = (found.st_mtime_ns, found.st_size)
        except OSError:
            stamp = (0, 0)
        if stamp != self._stamp:
            try:
                self._names = frozenset(cell.name for cell in self._catalog.list())
            except SwarmeshError as error:
                log.warning("catalog_unreadable", error=error.message)
            self._stamp = stamp
        return self._names
