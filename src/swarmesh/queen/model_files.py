"""Which machine has which model's files, and bringing them to where they are wanted."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Final, Protocol

import msgspec

from swarmesh.config.home import Home
from swarmesh.config.settings import load_settings
from swarmesh.core.errors import InvalidValueError, ModelNotFoundError, SwarmeshError
from swarmesh.models import hub
from swarmesh.models.catalog import Catalog, cell_of
from swarmesh.models.gguf import GgufHeader
from swarmesh.models.memory_estimate import MemoryEstimate, what_would_help
from swarmesh.models.modelcell import Modelcell, ModelKind, ModelSource
from swarmesh.models.shelf import ModelFiles, Shelf
from swarmesh.queen.model_copy import ModelCopies, Pause, Place
from swarmesh.queen.model_download import ModelDownloads
from swarmesh.queen.model_need import worker_estimate
from swarmesh.queen.paced_steps import OnStep, PacedSteps
from swarmesh.queen.spawning import size_of_slots
from swarmesh.wire.errors import ErrorBody, error_body
from swarmesh.wire.hosts import Copied, FitList, FitRequest, FitView, FoundList, FoundView
from swarmesh.wire.views import SpawnRequest

FIND_WAIT_S: Final = 10.0
"""What a machine gets to say whether it has a model; one that is slower counts as one that has not."""
ALL_GPUS: Final = "all gpus"
_GPU: Final = "gpu "


class HostDirectory(Protocol):
    """The machines of the swarm; see `swarmesh.queen.hosts.Hosts`."""

    def names(self) -> list[str]:
        """All of them, the queen's own first."""

    def reachable(self) -> list[str]:
        """Those that can be reached now, the queen's own first."""

    def taking_workers(self) -> list[str]:
        """Those of them that can be given a worker now."""

    def shelf(self, name: str) -> Shelf:
        """Its model files."""

    def proximity(self, name: str) -> float:
        """0.0 far to 1.0 near."""

    def free(self, name: str) -> Sequence[tuple[str, int, int]]:
        """Kind of memory (``ram``, ``gpu 0``), free MiB and total MiB."""


class Located(msgspec.Struct, frozen=True):
    """A modelcell, and the nearest place of its file; none for one that needs no file."""

    cell: Modelcell
    place: Place | None


class ModelFilesService:
    """The model files of the whole swarm.

    Every method may raise ``ModelNotFoundError`` for a modelcell that no machine knows, and what the connection to
    a machine that is needed raises.
    """

    def __init__(self, home: Home, hosts: HostDirectory, *, pause: Pause = asyncio.sleep) -> None:
        self._home = home
        self._hosts = hosts
        self._catalog = Catalog(home.root)
        self._downloads = ModelDownloads(self._catalog)
        self._copies = ModelCopies(pause=pause)

    async def cell(self, modelcell: str, on_step: OnStep) -> Modelcell:
        """The modelcell of that name; one named by an ``hf:`` reference is downloaded first, and has a name then.

        Its target is a path on the machine that has it, which need not be the queen's.
        """
        return (await self._locate(modelcell, on_step)).cell

    async def known_cell(self, modelcell: str) -> Modelcell:
        """As `cell`, and nothing is downloaded for it.

        Raises:
            ModelNotFoundError: Also when it was named by a reference, and has not been downloaded yet.
        """
        return (await self._locate(modelcell)).cell

    async def header(self, modelcell: str) -> GgufHeader:
        """What the modelcell's file says about itself, from wherever it is.

        Raises:
            InvalidValueError: The modelcell has no file.
            ModelFileError: The file cannot be served.
        """
        return (await self._measured(modelcell))[1]

    async def holders(self, modelcell: str, hosts: Sequence[str]) -> set[str]:
        """Those of these hosts that have the modelcell's file already."""
        place = (await self._locate(modelcell)).place
        if place is None:
            return set(hosts)
        others = [name for name in hosts if name != place.host]
        found: set[str] = set(hosts) - set(others)
        if others:
            found |= set(await self._find(await place.shelf.identify(modelcell, place.path), others))
        return found

    async def fit(self, request: FitRequest) -> FitList:
        """Where it fits, with which file, and what would help where it does not; the queen's own machine first.

        Raises:
            InvalidValueError: The modelcell has no file, or a number that makes no sense.
            ModelFileError: The file cannot be served.
        """
        located, header = await self._measured(request.modelcell)
        spawn = SpawnRequest(modelcell=request.modelcell, slots=request.slots, context=request.context)
        settings = await asyncio.to_thread(load_settings, self._home.config_file)
        slots, context_tokens = size_of_slots(header, settings.rustbee, spawn)
        need = worker_estimate(header, slots=slots, context_tokens=context_tokens)
        there = await self.holders(request.modelcell, self._hosts.reachable())
        taking, reachable = self._hosts.taking_workers(), self._hosts.reachable()
        views = [
            _fit_view(host, memory, need, file_there=host in there, closed="" if host in taking else why)
            for host in self._hosts.names()
            for why in ["draining" if host in reachable else "out of reach"]
            for memory in _with_all_gpus(self._hosts.free(host))
        ]
        return FitList(
            modelcell=located.cell.name,
            slots=slots,
            context=context_tokens,
            need_mib=need.total_mib,
            weights_mib=need.weights_mib,
            kv_cache_mib=need.kv_cache_mib,
            compute_mib=need.compute_mib,
            process_mib=need.process_mib,
            hosts=views,
        )

    async def ensure(self, modelcell: str, host: str, on_step: OnStep) -> str:
        """See to it that a host has the modelcell's file; the path there, empty for a modelcell without a file.

        Steps are ``download``, ``hash``, ``copy`` and ``check``; nothing is done twice, whoever asks at the same time.

        Raises:
            SwarmeshError: What ``ModelDownloads.fetch`` and ``ModelCopies.copy`` raise.
        """
        located = await self._locate(modelcell, on_step)
        if located.place is None:
            return ""
        if located.place.host == host:
            return located.place.path
        return (await self._bring(located.cell.name, located.place, host, on_step)).path

    async def copy(self, modelcell: str, to: str, on_step: OnStep) -> Copied:
        """Like `ensure`, and say what was done.

        Raises:
            InvalidValueError: The modelcell has no file.
            SwarmeshError: As `ensure`.
        """
        located = await self._locate(modelcell, on_step)
        place = _must_have_file(located)
        return await self._bring(located.cell.name, place, to, on_step)

    async def scan(self, host: str) -> FoundList:
        """Look through the usual places of one host, or of every one when ``host`` is empty."""
        names = [host] if host else self._hosts.names()
        shelves = [self._hosts.shelf(name) for name in names]
        outcomes = await asyncio.gather(*(_scan(shelf) for shelf in shelves))
        found: list[FoundView] = []
        errors: dict[str, ErrorBody] = {}
        for name, outcome in zip(names, outcomes, strict=True):
            if isinstance(outcome, SwarmeshError):
                errors[name] = error_body(outcome)
            else:
                found += [msgspec.structs.replace(view, host=name) for view in outcome]
        return FoundList(found=found, errors=errors)

    async def _bring(self, modelcell: str, place: Place, host: str, on_step: OnStep) -> Copied:
        target = self._hosts.shelf(host)
        model = await _identify(modelcell, place, on_step)
        path, sent_bytes, source = await target.find(model), 0, host
        if not path:
            place = await self._nearest(model, place, without=host)
            source = place.host
            sent_bytes = await self._copies.copy(model, place, host, target, on_step)
            path = await target.keep(model)
        return Copied(
            modelcell=modelcell,
            host=host,
            path=path,
            sha256=model.parts[0].sha256,
            size_bytes=model.size_bytes,
            sent_bytes=sent_bytes,
            source=source,
        )

    async def _nearest(self, model: ModelFiles, known: Place, *, without: str) -> Place:
        """The best place to copy from: the queen's own disk, else the host with the highest proximity."""
        local = self._hosts.names()[0]
        if known.host == local:
            return known
        others = [name for name in self._hosts.reachable() if name not in (without, known.host)]
        places = [known, *(self._place(name, path) for name, path in (await self._find(model, others)).items())]
        return max(places, key=lambda place: (place.host == local, self._hosts.proximity(place.host)))

    async def _find(self, model: ModelFiles, hosts: Sequence[str]) -> dict[str, str]:
        """Where the model is, by host; those that cannot say in time are left out."""
        return await _ask({name: self._hosts.shelf(name).find(model) for name in hosts})

    async def _locate(self, modelcell: str, on_step: OnStep | None = None) -> Located:
        """The modelcell and where its file is. Without ``on_step`` nothing is downloaded for it."""
        if modelcell.startswith(hub.SCHEME):
            return self._here(await self._from_hub(modelcell, on_step))
        try:
            cell = await asyncio.to_thread(self._catalog.get, modelcell)
        except ModelNotFoundError:
            located = await self._elsewhere(modelcell)
            if located is None:
                raise
            return located
        if cell.path is None or await asyncio.to_thread(cell.path.is_file):
            return self._here(cell)
        # Its file is gone from here: somebody else may have a copy, or the hub has it still.
        located = await self._elsewhere(modelcell)
        if located is not None:
            return located
        return self._here(await self._from_hub(cell.hub, on_step) if cell.hub else cell)

    def _here(self, cell: Modelcell) -> Located:
        path = cell.path
        return Located(cell, None if path is None else self._place(self._hosts.names()[0], str(path)))

    async def _from_hub(self, reference: str, on_step: OnStep | None) -> Modelcell:
        if on_step is not None:
            return await self._downloads.fetch(reference, on_step)
        hub.parse_reference(reference)
        cell = await self._downloads.known(reference)
        if cell is None:
            raise ModelNotFoundError(
                f"{reference} has not been downloaded yet.", hint=f"'swarmesh models copy {reference} --to localhost'"
            )
        return cell

    async def _elsewhere(self, modelcell: str) -> Located | None:
        """A modelcell of some other machine's catalog, the nearest one's."""
        paths = await _ask({name: self._hosts.shelf(name).path_of(modelcell) for name in self._hosts.reachable()[1:]})
        if not paths:
            return None
        host = max(paths, key=self._hosts.proximity)
        place = self._place(host, paths[host])
        header = await place.shelf.header(place.path)
        return Located(cell_of(header, name=modelcell, source=ModelSource.SCAN, added_at=0), place)

    async def _measured(self, modelcell: str) -> tuple[Located, GgufHeader]:
        located = await self._locate(modelcell)
        place = _must_have_file(located)
        return located, await place.shelf.header(place.path)

    def _place(self, host: str, path: str) -> Place:
        return Place(host, self._hosts.shelf(host), path)


async def _identify(modelcell: str, place: Place, on_step: OnStep) -> ModelFiles:
    steps = PacedSteps("hash", f"SHA-256 of {modelcell} on {place.host}", on_step)
    model = await place.shelf.identify(modelcell, place.path, steps.bytes)
    steps.done(model.size_bytes)
    return model


async def _ask(questions: dict[str, Awaitable[str]]) -> dict[str, str]:
    """Ask several hosts at once for a path; the answers that came in time and are not empty."""
    answers = await asyncio.gather(*map(_in_time, questions.values()))
    return {name: path for name, path in zip(questions, answers, strict=True) if path}


async def _in_time(question: Awaitable[str]) -> str:
    try:
        async with asyncio.timeout(FIND_WAIT_S):
            return await question
    except (SwarmeshError, TimeoutError):
        return ""


async def _scan(shelf: Shelf) -> list[FoundView] | SwarmeshError:
    try:
        return await shelf.scan()
    except SwarmeshError as error:
        return error


def _must_have_file(located: Located) -> Place:
    if located.place is None:
        cell = located.cell
        what = f"the class {cell.target}" if cell.kind is ModelKind.PYTHON_CLASS else f"served by {cell.target}"
        raise InvalidValueError(f"{cell.name!r} is {what}: it has no model file.", param="modelcell")
    return located.place


def _with_all_gpus(memories: Sequence[tuple[str, int, int]]) -> list[tuple[str, int, int]]:
    """Several GPUs can hold one model together."""
    gpus = [memory for memory in memories if memory[0].startswith(_GPU)]
    if len(gpus) < 2 or any(label == ALL_GPUS for label, _, _ in memories):
        return list(memories)
    return [*memories, (ALL_GPUS, sum(free for _, free, _ in gpus), sum(total for _, _, total in gpus))]


def _fit_view(
    host: str, memory: tuple[str, int, int], need: MemoryEstimate, *, file_there: bool, closed: str
) -> FitView:
    label, free_mib, total_mib = memory
    fits = need.total_mib <= free_mib and not closed
    return FitView(
        host=host,
        memory=label,
        fits=fits,
        need_mib=need.total_mib,
        free_mib=free_mib,
        total_mib=total_mib,
        file_there=file_there,
        would_help=closed or ("" if fits else what_would_help(need, available_mib=free_mib, total_mib=total_mib)),
    )
