"""What a doctor looks at on one machine, one function per fact; none of them changes anything."""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Final

import msgspec

from swarmesh import __version__
from swarmesh.config.home import LONGEST_SOCKET_NAME, SOCKET_PATH_BYTES_MAX, Home
from swarmesh.config.settings import load_settings
from swarmesh.core.errors import SwarmeshError
from swarmesh.hosts.gpus import find_gpus
from swarmesh.hosts.memory import MIB, memory_mib
from swarmesh.wire.hosts import CheckView
from swarmesh.wire.spec import Backend

ENGINE_TIMEOUT_S: Final = 30.0
MEMORY_MIB_LOW: Final = 1024
DISK_MIB_LOW: Final = 1024
CPU_FEATURES: Final = ("avx", "avx2", "fma", "f16c", "avx512f", "amx_tile", "asimd", "asimddp", "sve")
"""What llama.cpp has fast paths for."""
_ASK_ENGINE: Final = """
import json, xllamacpp
devices = [{"name": d["name"], "description": d["description"]} for d in xllamacpp.get_device_info()]
print("ENGINE " + json.dumps(devices))
"""


class Verdict(StrEnum):
    """How bad it is."""

    OK = "ok"
    INFO = "info"
    WARN = "warn"
    FAIL = "fail"


class _Device(msgspec.Struct, frozen=True):
    name: str
    description: str


def check_machine(home: Home) -> list[CheckView]:
    """Every fact about this machine and this home on it, in the order they are shown.

    Blocks for as long as the engine takes to load, at most `ENGINE_TIMEOUT_S`, and must not be called from a loop.
    """
    checks: tuple[Callable[[Home], list[CheckView]], ...] = (
        _software,
        _cpu,
        _memory_and_gpus,
        _home,
        _sockets,
        _settings,
        _engine,
        _llama_server,
    )
    return [finding for check in checks for finding in check(home)]


def fact(what: str, verdict: Verdict, found: str, hint: str = "") -> CheckView:
    """One finding."""
    return CheckView(what=what, verdict=verdict, found=found, hint=hint)


def _software(_home: Home) -> list[CheckView]:
    return [
        fact("swarmesh", Verdict.OK, __version__),
        fact("python", Verdict.OK, f"{platform.python_version()} at {sys.executable}"),
        fact("platform", Verdict.OK, platform.platform()),
    ]


def _cpu(_home: Home) -> list[CheckView]:
    known = _cpu_flags()
    features = [feature for feature in CPU_FEATURES if feature in known]
    found = f"{os.cpu_count() or 1} cores, {' '.join(features) or 'features unknown'}"
    if platform.machine() in {"x86_64", "AMD64"} and known and "avx2" not in known:
        return [fact("cpu", Verdict.WARN, found, "Without AVX2 models run, but slowly.")]
    return [fact("cpu", Verdict.OK, found)]


def _cpu_flags() -> set[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        # An Apple processor has all that llama.cpp asks of it; there is no list to read.
        return {"asimd", "asimddp"} if platform.machine() == "arm64" else set()
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in {"flags", "Features"}:
            return set(value.split())
    return set()


def _memory_and_gpus(_home: Home) -> list[CheckView]:
    total_mib, available_mib = memory_mib()
    gpus = asyncio.run(find_gpus(total_mib, available_mib))
    low = available_mib < MEMORY_MIB_LOW
    memory = fact(
        "memory",
        Verdict.WARN if low else Verdict.OK,
        f"{available_mib:,} MiB available of {total_mib:,} MiB",
        "Only small models fit; stop something else, or add a machine." if low else "",
    )
    if not gpus:
        tools = [tool for tool in ("nvidia-smi", "rocm-smi") if shutil.which(tool)]
        seen = f"none, although {' and '.join(tools)} is installed" if tools else "none; models run on the CPU"
        return [memory, fact("gpu", Verdict.WARN if tools else Verdict.INFO, seen)]
    shown = [
        fact(
            f"gpu {gpu.index}",
            Verdict.OK,
            f"{gpu.name}, {gpu.backend}, {gpu.free_mib:,} MiB free of {gpu.total_mib:,} MiB",
        )
        for gpu in gpus
    ]
    return [memory, *shown]


def _home(home: Home) -> list[CheckView]:
    where = home.root
    while not where.exists() and where != where.parent:
        where = where.parent
    if not os.access(where, os.W_OK | os.X_OK):
        hint = "Let the login user write there." if _is_lent(home) else "Set SWARMESH_HOME."
        return [fact("home", Verdict.FAIL, f"{home.root} cannot be written", hint)]
    free_mib = shutil.disk_usage(where).free // MIB
    low = free_mib < DISK_MIB_LOW
    hint = "Free some space." if _is_lent(home) else "Free some space, or set SWARMESH_HOME to a larger disk."
    verdict = Verdict.WARN if low else Verdict.OK
    return [fact("home", verdict, f"{home.root}, {free_mib:,} MiB free", hint if low else "")]


def _is_lent(home: Home) -> bool:
    """Whether the home was made for a queen elsewhere, so that nobody here chose its place."""
    return home.host_name_file.exists()


def _sockets(home: Home) -> list[CheckView]:
    length = len(os.fsencode(home.sockets_dir)) + 1 + LONGEST_SOCKET_NAME
    found = f"{home.sockets_dir}, paths of up to {length} bytes of {SOCKET_PATH_BYTES_MAX}"
    if length > SOCKET_PATH_BYTES_MAX:
        place = "TMPDIR" if _is_lent(home) else "SWARMESH_HOME, or TMPDIR,"
        return [fact("sockets", Verdict.FAIL, found, f"Set {place} to a shorter path.")]
    return [fact("sockets", Verdict.OK, found)]


def _settings(home: Home) -> list[CheckView]:
    try:
        load_settings(home.config_file)
    except SwarmeshError as error:
        return [fact("settings", Verdict.FAIL, error.message, error.hint or f"Correct {home.config_file}.")]
    there = home.config_file.exists()
    return [fact("settings", Verdict.OK, str(home.config_file) if there else "defaults, no swarmesh.toml")]


def _engine(home: Home) -> list[CheckView]:
    # Where the owner's own llama-server does the work, the built-in engine is not needed.
    broken = Verdict.WARN if _set_llama_server(home) and _runnable(_set_llama_server(home)) else Verdict.FAIL
    # In a process of its own: a wheel made for another processor ends whoever imports it.
    try:
        asked = subprocess.run(
            [sys.executable, "-P", "-c", _ASK_ENGINE], capture_output=True, timeout=ENGINE_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return [fact("engine", broken, f"xllamacpp did not load within {ENGINE_TIMEOUT_S:g} s")]
    for line in asked.stdout.splitlines():
        if line.startswith(b"ENGINE "):
            devices = msgspec.json.decode(line.removeprefix(b"ENGINE "), type=list[_Device])
            names = ", ".join(f"{device.name} ({device.description})" for device in devices)
            return [fact("engine", Verdict.OK, f"xllamacpp, devices: {names or 'none'}")]
    said = asked.stderr.decode("utf-8", "replace").strip().splitlines()
    reason = said[-1][:300] if said else f"exit code {asked.returncode}"
    hint = "Reinstall xllamacpp, or set rustbee.llama_server in swarmesh.toml to a llama-server of your own."
    return [fact("engine", broken, f"xllamacpp cannot be used: {reason}", hint)]


def _llama_server(home: Home) -> list[CheckView]:
    setting = _set_llama_server(home)
    path = _runnable(setting or "llama-server")
    if setting and path:
        return [fact("llama-server", Verdict.OK, f"{path}, set in swarmesh.toml")]
    if setting:
        hint = f"Correct rustbee.llama_server in {home.config_file}, or take it out."
        return [fact("llama-server", Verdict.FAIL, f"rustbee.llama_server is {setting!r}, which cannot be run", hint)]
    found = path or f"not on the PATH; needed for {Backend.CUDA}, {Backend.ROCM} and {Backend.VULKAN} only"
    return [fact("llama-server", Verdict.OK if path else Verdict.INFO, found)]


def _set_llama_server(home: Home) -> str:
    """What the owner has set; empty also where the settings cannot be read, which is another finding."""
    try:
        return load_settings(home.config_file).rustbee.llama_server
    except SwarmeshError:
        return ""


def _runnable(program: str) -> str:
    return shutil.which(Path(program).expanduser()) or ""
