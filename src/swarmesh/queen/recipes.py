"""What a worker is started with when nobody is there to say it: as its owner wished, else as it went well before."""

from __future__ import annotations

from typing import Final

import msgspec

from swarmesh.core.errors import InvalidValueError
from swarmesh.core.ids import ModelName
from swarmesh.queen.spawning import FAKE_CLASS
from swarmesh.wire.spec import Backend, EngineKind, WorkerSpec
from swarmesh.wire.swarmscale import RustbeeChange, RustbeeWish
from swarmesh.wire.views import SpawnRequest

CONTEXT_MIN: Final = 256
OWN_TYPES = frozenset({Backend.CPU, Backend.VULKAN})
"""What nobody gets who did not ask for it, and who asked for it gets again. Other GPUs are what ``auto`` found on that
host, and will find on the next."""


class Recipes:
    """By model; `request` puts them together."""

    def __init__(self) -> None:
        self._wishes: dict[ModelName, RustbeeWish] = {}
        self._launches: dict[ModelName, SpawnRequest] = {}

    def wish(self, model: ModelName, wish: RustbeeWish | None) -> None:
        """What its owner wants every one to have; the empty name is for all that have no wish of their own."""
        if wish is None:
            self._wishes.pop(model, None)
        else:
            self._wishes[model] = wish

    def went_well(self, model: ModelName, launch: SpawnRequest) -> bool:
        """A worker that was started so got ready; whether that is news."""
        is_news = self._launches.get(model) != launch
        self._launches[model] = launch
        return is_news

    def launched(self, model: ModelName) -> SpawnRequest | None:
        """How one was last started that got ready."""
        return self._launches.get(model)

    def request(self, model: ModelName, otherwise: SpawnRequest | None = None) -> SpawnRequest:
        """What to start the next one with; ``otherwise`` is how one was started of which nothing is kept here."""
        launch = self._launches.get(model) or otherwise or SpawnRequest(modelcell=model)
        wish = self._wishes.get(model) or self._wishes.get(ModelName("")) or RustbeeWish()
        return msgspec.structs.replace(
            launch,
            type=launch.type if wish.type is Backend.AUTO else wish.type,
            slots=wish.slots or launch.slots,
            context=wish.context or launch.context,
            cellalloc=wish.cellalloc or launch.cellalloc,
        )


def wish_after(known: RustbeeWish | None, change: RustbeeChange) -> RustbeeWish:
    """What its owner wants after a change: what was not said stays as it was.

    Raises:
        InvalidValueError: The context is too small for any prompt, or the type is of servers that are never started.
    """
    said = {name: value for name, value in msgspec.structs.asdict(change).items() if value is not None}
    if said.get("type") is Backend.OPENAI:
        raise InvalidValueError(
            "type is openai, and such a server is adopted, never started",
            hint="'swarmesh spawn rustbee --url URL --modelcell NAME' adopts one.",
            param="rustbee.type",
        )
    if 0 < said.get("context", 0) < CONTEXT_MIN:
        raise InvalidValueError(
            f"context is {said['context']}, and the least is {CONTEXT_MIN}",
            hint="0 takes back what was said before.",
            param="rustbee.context",
        )
    return msgspec.structs.replace(known or RustbeeWish(), **{name: value or None for name, value in said.items()})


def launch_of(spec: WorkerSpec) -> SpawnRequest:
    """What would start its like again. A class is named with its host: nobody knows where else it can be imported."""
    is_class = spec.engine is EngineKind.PYTHON_CLASS
    class_path = spec.class_path if is_class else ""
    if spec.engine is EngineKind.FAKE:
        class_path = f"{FAKE_CLASS}:{spec.class_path}" if spec.class_path else FAKE_CLASS
    return SpawnRequest(
        modelcell=spec.modelcell,
        type=spec.backend if spec.backend in OWN_TYPES else Backend.AUTO,
        host=spec.host if class_path else "",
        slots=spec.slots,
        context=spec.context_tokens,
        cellalloc=spec.cellalloc_mib or None,
        class_path=class_path,
        python_path=spec.python_path[0] if spec.python_path else "",
    )
