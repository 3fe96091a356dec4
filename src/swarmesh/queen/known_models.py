"""Which model names mean something here: what workers serve, what is scaled, and what the catalog could have served."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import structlog

from swarmesh.core.errors import ModelNotFoundError, SwarmeshError
from swarmesh.core.fleet import Fleet
from swarmesh.core.ids import ModelName
from swarmesh.core.routing import default_model
from swarmesh.models.catalog import Catalog

NAME_CHARS_MAX: Final = 128
"""Of a name that is not known, how much is looked at and said back."""

log = structlog.get_logger("models")


class KnownModels:
    """Answers from the fleet; the catalog's file is read only for names nobody serves, and again when it changed."""

    def __init__(self, fleet: Fleet, home: Path) -> None:
        self._fleet = fleet
        self._catalog = Catalog(home)
        self._names: frozenset[str] = frozenset()
        self._stamp: tuple[int, int] | None = None
        self._scaled: frozenset[ModelName] = frozenset()
        self._all_scaled = False

    def resolve(self, name: str) -> tuple[ModelName, bool]:
        """The model a task asks for, the default for an empty name; and whether it is known though nobody serves it."""
        model = ModelName(name) if name else self._default()
        if self._fleet.of_model(model):
            return model, True
        return model, bool(model) and (model in self._scaled or model in self._catalog_names())

    def has(self, model: ModelName) -> bool:
        """Whether somebody serves it, or it is known though nobody does."""
        return self.resolve(model)[1]

    def scaled(self, models: Iterable[ModelName], *, all_of_them: bool) -> None:
        """Workers are started when somebody asks for these, or for whatever the catalog has."""
        self._scaled, self._all_scaled = frozenset(models), all_of_them

    def on_offer(self) -> list[ModelName]:
        """What may be asked for now: first what workers serve, then what one would be started for."""
        others = {ModelName(name) for name in self._catalog_names()} if self._all_scaled else set()
        served = list(self._fleet.models())
        return [*served, *sorted((self._scaled | others) - set(served))]

    def not_found(self, name: str, *, param: str) -> ModelNotFoundError:
        """What to tell whoever asked for a name that is not known; the hint has the nearest one that is."""
        known = {*self._fleet.models(), *self._scaled, *self._catalog_names()}
        near = next(iter(difflib.get_close_matches(name[:NAME_CHARS_MAX], sorted(known), n=1)), "")
        hint = f"Did you mean {near!r}?" if near else ""
        shown = name if len(name) <= NAME_CHARS_MAX else f"{name[:NAME_CHARS_MAX]}..."
        return ModelNotFoundError(f"no modelcell is called {shown!r}", hint=hint, param=param)

    def _default(self) -> ModelName:
        # While nobody serves anything, what is scaled is what there is; among several nobody can choose.
        only = next(iter(self._scaled)) if len(self._scaled) == 1 else ModelName("")
        return default_model(self._fleet) or only

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
