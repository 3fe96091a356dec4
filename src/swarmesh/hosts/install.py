"""Looks at another host and puts the software of this queen there, or takes everything away again."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Final, TypeVar

import msgspec

from swarmesh.core.errors import SwarmeshError
from swarmesh.hosts.remote_process import RemoteProcess, RemoteShell
from swarmesh.hosts.said import UNREADABLE, plain, plain_step, plain_value
from swarmesh.hosts.software import Software
from swarmesh.hosts.ssh_errors import HostSetupError, HostSlowError, HostUnreachableError
from swarmesh.hosts.wheels import VERSION_PART_MAX, NoRegistryError, fetch_wheels, platform_tags
from swarmesh.wire.errors import RemoteError
from swarmesh.wire.hosts import Step, StepState

CHUNK_BYTES: Final = 1024 * 1024
LOOK_SILENCE_S: Final = 30.0
"""Between two lines of the program there, and until its first: connecting and a Python's start are in it."""
UNINSTALL_SILENCE_S: Final = 60.0
INSTALL_SILENCE_S: Final = 600.0
"""The program there tells what its pip tells, and pip says nothing while it fetches a large wheel or unpacks."""
PIP_THERE: Final = "pip.zip"
"""Not by its wheel's name: the wheel of pip that the lock names comes to lie beside it."""
OnStep = Callable[[Step], None]
VersionPart = Annotated[int, msgspec.Meta(ge=0, le=VERSION_PART_MAX)]
T = TypeVar("T")


class HostInstallError(HostUnreachableError):
    """The host does not go on with an installation."""

    code = "host_install_failed"
    default_hint = "See whether its disk or its way to the package registry is stuck; adding it again goes on."


class MachineFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a host is, as its Python sees it.

    Attributes:
        machine: What programs there run on: ``x86_64``, ``aarch64``, ``arm64``; of 32 bits when its Python is.
        libc: Name (``glibc`` or ``musl``) and version of the C library on Linux.
        macos: Version of macOS; empty elsewhere.
        root: Below which directory everything of Swarmesh lies there.
        ready: This version of the software is installed and starts.
        known_as: The name under which this hive used it last; empty when it never did.
    """

    python: str
    python_version: tuple[VersionPart, VersionPart, VersionPart]
    system: str
    machine: str
    libc: tuple[str, str]
    macos: str
    user_home: str
    root: str
    disk_free_mib: int
    ready: bool
    known_as: str = ""


class _Said(msgspec.Struct, frozen=True):
    """One line of the program there: a step, or what was asked for (a `MachineFacts`, or an empty object)."""

    step: Step | None = None
    done: msgspec.Raw = msgspec.Raw()


class _File(msgspec.Struct, frozen=True):
    """One file to send."""

    path: Path
    name: str
    size_bytes: int
    sha256: str


async def look(shell: RemoteShell, digest: str, *, hive: str = "") -> MachineFacts:
    """Facts about the host; ``digest`` is the software that might be there, ``hive`` who might have used it.

    Raises:
        HostSlowError: It says nothing for too long.
        SwarmeshError: The host cannot be reached or looked at.
    """
    process = await shell.start({"action": "probe", "digest": digest, "hive": hive})
    try:
        return _facts(await _done(process, LOOK_SILENCE_S))
    finally:
        await process.close()


async def install(
    shell: RemoteShell, software: Software, wheels_dir: Path, on_step: OnStep, *, hive: str
) -> MachineFacts:
    """Install this software there unless it is there and starts. Idempotent; what fails leaves nothing behind.

    The host fetches the packages that the software needs from the registry its own pip is set to. Where it reaches
    none, they are fetched here, for its kind of machine, and sent. The commands for use by hand there are set to this
    software and to ``hive``.

    Raises:
        SwarmeshError: ``host_disk_full``, ``host_no_registry``, ``host_wheel_unsupported``, ``host_install_failed``,
            or the host cannot be reached.
    """
    ours = [(software.lock, software.lock.name), (software.pip, PIP_THERE), (software.wheel, software.wheel.name)]
    order = {"action": "install", "digest": software.digest, "hive": hive}
    try:
        return await _install(shell, {**order, "registry": True}, ours, on_step)
    except RemoteError as error:
        if error.code != NoRegistryError.code:
            raise
        reason = error
    on_step(Step(step="registry", state=StepState.DONE, text="the host reaches no registry: the wheels come from here"))
    on_step(Step(step="registry", state=StepState.RUNNING, text="fetching the wheels for its kind of machine"))
    wheels = await _wheels_for(await look(shell, software.digest), software, wheels_dir, reason)
    files = [*ours, *((wheel, wheel.name) for wheel in wheels)]
    return await _install(shell, {**order, "registry": False}, files, on_step)


async def uninstall(shell: RemoteShell, hive: str, *, keep_models: bool) -> None:
    """Remove this hive's home there; with the last hive, everything that Swarmesh put there. Idempotent.

    Raises:
        SwarmeshError: ``host_in_use`` while a rustbee of the hive lives there, or the host cannot be reached.
    """
    process = await shell.start({"action": "uninstall", "hive": hive, "keep_models": keep_models})
    try:
        await _done(process, UNINSTALL_SILENCE_S)
    finally:
        await process.close()


async def _wheels_for(facts: MachineFacts, software: Software, wheels_dir: Path, reason: SwarmeshError) -> list[Path]:
    platforms = platform_tags(facts.system, facts.machine, facts.libc, facts.macos)
    try:
        return await fetch_wheels(software.lock, facts.python_version, platforms, wheels_dir)
    except NoRegistryError as error:
        raise NoRegistryError(f"{reason.message}; and on the queen's machine {error.message}") from error


async def _install(
    shell: RemoteShell, order: dict[str, object], paths: Sequence[tuple[Path, str]], on_step: OnStep
) -> MachineFacts:
    files = await asyncio.to_thread(lambda: [_file(path, name) for path, name in paths])
    named = [{"name": file.name, "size_bytes": file.size_bytes, "sha256": file.sha256} for file in files]
    process = await shell.start({**order, "files": named})

    async def note(step: Step) -> None:
        on_step(plain_step(step))
        if step.step == "send" and step.state is StepState.RUNNING:
            with contextlib.suppress(ConnectionError):  # It ended before it had all; its next line says why.
                await _send(process, files, on_step)

    try:
        while not (said := await _next(process, INSTALL_SILENCE_S)).done:
            if said.step is not None:
                await note(said.step)
        return _facts(said.done)
    except HostSlowError as error:
        raise HostInstallError(f"the installation stands still: {error.message}") from error
    finally:
        await process.close()


async def _send(process: RemoteProcess, files: Sequence[_File], on_step: OnStep) -> None:
    total_bytes, done_bytes = sum(file.size_bytes for file in files), 0
    for file in files:
        with file.path.open("rb") as source:
            while data := await asyncio.to_thread(source.read, CHUNK_BYTES):
                async with _answering(process, INSTALL_SILENCE_S):
                    await process.send(data)
                done_bytes += len(data)
                on_step(
                    Step(
                        step="send",
                        state=StepState.RUNNING,
                        text=file.name,
                        done_bytes=done_bytes,
                        total_bytes=total_bytes,
                    )
                )


async def _done(process: RemoteProcess, silence_s: float) -> msgspec.Raw:
    while True:
        said = await _next(process, silence_s)
        if said.done:
            return said.done


async def _next(process: RemoteProcess, silence_s: float) -> _Said:
    async with _answering(process, silence_s):
        return await process.read(_Said)


@asynccontextmanager
async def _answering(process: RemoteProcess, silence_s: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(silence_s):
            yield
    except TimeoutError as error:
        process.kill()
        raise HostSlowError(f"nothing was heard of the host for {silence_s:g} s") from error


def _facts(said: msgspec.Raw) -> MachineFacts:
    try:
        return plain_value(msgspec.json.decode(said, type=MachineFacts))
    except UNREADABLE as error:
        raise HostSetupError(f"the host says of itself what cannot be understood: {plain(str(error))}") from error


def _file(path: Path, name: str) -> _File:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return _File(path, name, path.stat().st_size, digest)
