"""Wheels for another machine, fetched here: what pip there would choose, named by what that machine is."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from swarmesh.core.errors import SwarmeshError
from swarmesh.hosts.said import plain

LEGACY: Final = {5: "manylinux1", 12: "manylinux2010", 17: "manylinux2014"}
"""Older names of what is now called after the minor version of glibc 2 (PEP 600)."""
OLDEST_GLIBC: Final = {"x86_64": 5, "i686": 5}
OLDEST_GLIBC_ELSEWHERE: Final = 17
"""Other machines got wheels with manylinux2014 only."""
MACS: Final = {
    "x86_64": ("x86_64", "intel", "fat64", "fat3", "universal2", "universal"),
    "arm64": ("arm64", "universal2"),
}
"""Architectures in the names of wheels that a Mac runs."""
LIMIT_S: Final = 1800
VERSION_PART_MAX: Final = 200
"""More than any part of a version that counts here has; a host that says more would have as many tags made."""
QUOTED_CHARS_MAX: Final = 50
MACHINE: Final = re.compile(r"[A-Za-z0-9_]+")
LINES_TOLD: Final = 4
UNREACHABLE: Final = re.compile(r"Retrying \(|Could not fetch URL|ConnectionError|Temporary failure")
NO_WHEEL: Final = re.compile(r"No matching distribution found for (\S+)")


class NoWheelError(SwarmeshError):
    """There is no wheel for this machine."""

    code = "host_wheel_unsupported"
    status = 502
    default_hint = "Every dependency needs a wheel for it; a Python of another version or build there may help."


class NoRegistryError(SwarmeshError):
    """No package registry can be reached."""

    code = "host_no_registry"
    status = 502
    default_hint = "One of both, the host or the queen's machine, has to reach a package registry once."


def platform_tags(system: str, machine: str, libc: tuple[str, str], macos: str) -> list[str]:
    """The platform tags of wheels that run there, the best first; see PEP 600, PEP 656 and the packaging tags page.

    Raises:
        NoWheelError: Nobody makes wheels for such a machine, or it is told in words that name none.
    """
    if not MACHINE.fullmatch(machine) or len(machine) > QUOTED_CHARS_MAX:
        raise NoWheelError(f"the host calls its machine {plain(machine, QUOTED_CHARS_MAX)!r}, which names none")
    match system, libc[0]:
        case "Linux", "glibc":
            return _manylinux(machine, _part(libc[1], 1))
        case "Linux", "musl":
            return [f"musllinux_1_{minor}_{machine}" for minor in range(_part(libc[1], 1), -1, -1)] + [
                f"linux_{machine}"
            ]
        case "Darwin", _ if machine in MACS:
            return _macs(machine, _part(macos, 0))
        case _:
            raise NoWheelError(
                f"no wheels are made for {plain(system, QUOTED_CHARS_MAX)} on {machine} "
                f"with the C library {plain(libc[0], QUOTED_CHARS_MAX) or 'unknown'}"
            )


async def fetch_wheels(
    lock: Path, python_version: Sequence[int], platforms: Sequence[str], directory: Path
) -> list[Path]:
    """The wheels of everything in the lock, below ``directory``, where they stay for the next host of this kind.

    Raises:
        NoWheelError: One is not made for that machine.
        NoRegistryError: None can be fetched.
    """
    python = ".".join(str(part) for part in python_version[:2])
    kind = f"py{python}-{platforms[0]}"
    final = await asyncio.to_thread(_place, directory, kind, lock)
    if not final.exists():
        new = Path(tempfile.mkdtemp(dir=directory, prefix=".new-"))
        try:
            await _download(lock, python, platforms, new)
            await asyncio.to_thread(_keep, new, final, kind)
        finally:
            await asyncio.to_thread(shutil.rmtree, new, ignore_errors=True)
    return sorted(final.glob("*.whl"))


def _place(directory: Path, kind: str, lock: Path) -> Path:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return directory / f"{kind}-{hashlib.sha256(lock.read_bytes()).hexdigest()[:8]}"


def _keep(new: Path, final: Path, kind: str) -> None:
    for old in final.parent.glob(f"{kind}-*"):
        if old != final:
            shutil.rmtree(old, ignore_errors=True)
    with contextlib.suppress(OSError):
        new.rename(final)  # Of two that fetched the same, one is first.


async def _download(lock: Path, python: str, platforms: Sequence[str], into: Path) -> None:
    argv = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--disable-pip-version-check",
        "--no-input",
        "--progress-bar",
        "off",
    ]
    # The lock names everything, under no condition; with its dependencies pip would decide conditions for this machine.
    argv += ["--no-deps", "--require-hashes", "--only-binary=:all:", "--retries", "1", "--timeout", "15"]
    argv += ["--python-version", python, "--implementation", "cp", "--dest", str(into), "--requirement", str(lock)]
    argv += [part for platform in platforms for part in ("--platform", platform)]
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(LIMIT_S):
            output, _ = await process.communicate()
    except TimeoutError:
        raise NoRegistryError(f"pip fetched no wheels within {LIMIT_S} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise _failure(output.decode("utf-8", "replace"), python, platforms[0])


def _failure(said: str, python: str, platform: str) -> SwarmeshError:
    last = " / ".join([line.strip() for line in said.splitlines() if line.strip()][-LINES_TOLD:])
    if UNREACHABLE.search(said):
        return NoRegistryError(f"no package registry can be reached: {last}")
    if match := NO_WHEEL.search(said):
        return NoWheelError(f"there is no wheel of {match[1]} for this host ({platform}, Python {python})")
    return NoRegistryError(f"the wheels cannot be fetched: {last}")


def _manylinux(machine: str, newest: int) -> list[str]:
    tags = []
    for minor in range(newest, OLDEST_GLIBC.get(machine, OLDEST_GLIBC_ELSEWHERE) - 1, -1):
        tags.append(f"manylinux_2_{minor}_{machine}")
        tags += [f"{LEGACY[minor]}_{machine}"] if minor in LEGACY else []
    return [*tags, f"linux_{machine}"]


def _macs(machine: str, newest: int) -> list[str]:
    tags = [f"macosx_{major}_0_{kind}" for major in range(newest, 10, -1) for kind in MACS[machine]]
    # Before macOS 11 no Mac had an ARM processor, but wheels for both were made already.
    old_kinds = ("universal2",) if machine == "arm64" else MACS[machine]
    return tags + [f"macosx_10_{minor}_{kind}" for minor in range(16, 3, -1) for kind in old_kinds]


def _part(version: str, index: int) -> int:
    """The number of a version that counts: of a C library only the minor one ever changes, of macOS the major one."""
    parts = version.split(".")
    number = parts[index] if index < len(parts) else ""
    if not re.fullmatch(r"[0-9]{1,3}", number) or int(number) > VERSION_PART_MAX:
        raise NoWheelError(f"the host's system calls itself version {plain(version, QUOTED_CHARS_MAX)!r}")
    return int(number)
