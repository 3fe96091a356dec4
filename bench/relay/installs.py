"""Fetches the peers into ``.venv-bench`` beside the repository's own environment, and nothing into the system.

The Rust routers and the profiler come from PyPI; nginx is the system's, or else the distribution's package, only
unpacked.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
ENVIRONMENT = REPOSITORY / ".venv-bench"
INSTALL_TIMEOUT_S = 300
VERSIONS = {"sglang-router": "0.3.2", "vllm-router": "0.1.17", "py-spy": "0.4.3"}
NGINX_PACKAGES = ("nginx", "nginx-core")  # where Debian, and where older Ubuntus keep the binary


class UnavailableError(Exception):
    """A contender cannot be installed or started on this machine; the message says why."""


def run(command: list[str | Path], *, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """A command's output; raises UnavailableError with the last lines of it when the command fails."""
    try:
        done = subprocess.run(
            command, cwd=cwd, env=env, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(f"{command[0]}: {error}") from error
    if done.returncode:
        last_lines = " | ".join((done.stderr or done.stdout).strip().splitlines()[-3:])
        raise UnavailableError(f"{Path(command[0]).name} ended with {done.returncode}: {last_lines}")
    return done.stdout + done.stderr


def from_pypi(package: str) -> Path:
    """The command of a package, installed from PyPI at the pinned version when it is not there yet."""
    python = ENVIRONMENT / "bin" / "python"
    if not python.exists():
        run([sys.executable, "-m", "venv", ENVIRONMENT])
    version = VERSIONS[package]
    installed = list(ENVIRONMENT.glob(f"lib/python*/site-packages/{package.replace('-', '_')}-{version}.dist-info"))
    if not installed:
        pip = _pip(python)
        run([*pip, f"{package}=={version}"])
    return ENVIRONMENT / "bin" / package


def _pip(python: Path) -> list[str | Path]:
    uv = Path(sys.executable).parent / "uv"
    if uv.exists():
        return [uv, "pip", "install", "--quiet", "--python", python]
    return [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]


def nginx() -> Path:
    """An nginx binary: the system's, or the distribution's package unpacked into ``.venv-bench/nginx``."""
    unpacked = ENVIRONMENT / "nginx" / "usr" / "sbin" / "nginx"
    for found in (shutil.which("nginx"), shutil.which("nginx", path="/usr/sbin"), unpacked):
        if found and Path(found).exists():
            return Path(found)
    downloads = ENVIRONMENT / "nginx"
    downloads.mkdir(parents=True, exist_ok=True)
    for package in NGINX_PACKAGES:
        try:
            run(["apt-get", "download", package], cwd=downloads)
        except UnavailableError as error:
            raise UnavailableError(f"no nginx on the PATH, and {error} (apt-get update may help)") from error
        for archive in downloads.glob(f"{package}_*.deb"):
            run(["dpkg-deb", "-x", archive, downloads])
            archive.unlink()
        if unpacked.exists():
            return unpacked
    raise UnavailableError(f"no nginx on the PATH and none in the packages {', '.join(NGINX_PACKAGES)}")
