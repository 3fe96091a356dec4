"""The software that runs here, packed for other hosts: the same files, whether they came from a wheel or a checkout."""

from __future__ import annotations

import base64
import hashlib
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Final

import msgspec

import swarmesh
from swarmesh.core.errors import SwarmeshError

OURS: Final = "rustbee"
PACKAGE: Final = Path(swarmesh.__file__).parent
LOCK: Final = PACKAGE / "hosts" / "requirements.lock"
DIGEST_CHARACTERS: Final = 16
STAMP_FILE: Final = "software.json"
EPOCH: Final = (1980, 1, 1, 0, 0, 0)
"""The time of every file in a wheel made here, so that the same files give the same bytes."""
METADATA_KEPT: Final = ("METADATA", "entry_points.txt")
WHEEL_FILE: Final = b"Wheel-Version: 1.0\nGenerator: swarmesh\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


class SoftwareError(SwarmeshError):
    """What runs here cannot be packed for another host."""

    code = "software_not_packable"
    default_hint = "Install Swarmesh anew, with pip or from a checkout with 'make setup'."


class Software(msgspec.Struct, frozen=True, kw_only=True):
    """What a host gets. The digest covers our own files and the lock, so another one is another version."""

    digest: str
    wheel: Path
    pip: Path
    lock: Path


class _Stamp(msgspec.Struct, frozen=True):
    """Which files were packed, as far as a look at names, sizes and times shows, and into what."""

    stamp: str
    software: Software


def pack_software(directory: Path) -> Software:
    """Put the running package, pip and the lock into ``directory``; blocks, and does nothing when all is there.

    Raises:
        SoftwareError: A distribution is not installed as one, or its files cannot be read.
        OSError: The directory cannot be written.
    """
    try:
        ours, pip = distribution(OURS), distribution("pip")
    except PackageNotFoundError as error:
        raise SoftwareError(f"{error.name} is not installed beside this Python") from error
    stamp = _stamp_of(ours, pip)
    if (there := _read_stamp(directory)) and there.stamp == stamp:
        return there.software
    software = _pack(directory, ours, pip)
    _write(directory / STAMP_FILE, msgspec.json.encode(_Stamp(stamp, software), enc_hook=str))
    _remove_others(directory, software.digest)
    return software


def write_wheel(path: Path, files: Mapping[str, bytes], info: str) -> str:
    """Write a pure wheel, byte for byte the same for the same files; the digest of its record in hex.

    ``info`` is the name of its ``.dist-info`` directory. The record is a digest of the files that does not depend on
    how they are compressed here.
    """
    everything = {**files, f"{info}/WHEEL": WHEEL_FILE}
    lines = [f"{name},sha256={_base64_digest(data)},{len(data)}" for name, data in sorted(everything.items())]
    everything[f"{info}/RECORD"] = record = "\n".join([*lines, f"{info}/RECORD,,", ""]).encode()
    with zipfile.ZipFile(path, "w") as wheel:
        # The metadata comes last, as the format recommends.
        for name in sorted(everything, key=lambda name: (name.startswith(f"{info}/"), name)):
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.external_attr = 0o100644 << 16
            wheel.writestr(entry, everything[name], zipfile.ZIP_DEFLATED)
    return hashlib.sha256(record).hexdigest()


def _pack(directory: Path, ours: Distribution, pip: Distribution) -> Software:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(dir=directory, prefix=".new-"))
    try:
        info = f"{OURS}-{ours.version}.dist-info"
        wheel = new / f"{OURS}-{ours.version}-py3-none-any.whl"
        record = write_wheel(wheel, {**_package_files(), **_metadata(ours, info)}, info)
        pip_wheel = new / f"pip-{pip.version}-py3-none-any.whl"
        write_wheel(pip_wheel, _installed_files(pip), f"pip-{pip.version}.dist-info")
        lock = new / LOCK.name
        lock.write_bytes(LOCK.read_bytes())
        digest = hashlib.sha256(record.encode() + lock.read_bytes()).hexdigest()[:DIGEST_CHARACTERS]
        final = directory / digest
        shutil.rmtree(final, ignore_errors=True)  # Of an older pip, or its stamp was never written.
        new.rename(final)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return Software(digest=digest, wheel=final / wheel.name, pip=final / pip_wheel.name, lock=final / lock.name)


def _sources() -> Iterable[Path]:
    for path in sorted(PACKAGE.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path


def _package_files() -> dict[str, bytes]:
    return {path.relative_to(PACKAGE.parent).as_posix(): path.read_bytes() for path in _sources()}


def _metadata(ours: Distribution, info: str) -> dict[str, bytes]:
    texts = {name: ours.read_text(name) for name in METADATA_KEPT}
    if missing := [name for name, text in texts.items() if text is None]:
        raise SoftwareError(f"{OURS} {ours.version} is installed without its {', '.join(missing)}")
    found = {f"{info}/{name}": text.encode() for name, text in texts.items() if text is not None}
    for file in ours.files or ():
        if file.parent.name == "licenses" and file.parent.parent.name.endswith(".dist-info"):
            found[f"{info}/licenses/{file.name}"] = file.read_binary()
    return found


def _installed_files(pip: Distribution) -> dict[str, bytes]:
    """What its wheel had, without what the installation added: scripts, bytecode and notes of the installer."""
    info = f"pip-{pip.version}.dist-info"
    wanted = (f"{info}/METADATA", f"{info}/entry_points.txt", f"{info}/licenses/")
    found = {
        file.as_posix(): file.read_binary()
        for file in pip.files or ()
        if "__pycache__" not in file.parts and (file.parts[0] == "pip" or file.as_posix().startswith(wanted))
    }
    if "pip/__main__.py" not in found:
        raise SoftwareError(f"the files of pip {pip.version} are not known: it was not installed from a wheel")
    return found


def _stamp_of(ours: Distribution, pip: Distribution) -> str:
    facts = [f"{path.relative_to(PACKAGE)} {(at := path.stat()).st_size} {at.st_mtime_ns}" for path in _sources()]
    return hashlib.sha256("\n".join([*facts, ours.version, pip.version]).encode()).hexdigest()


def _read_stamp(directory: Path) -> _Stamp | None:
    try:
        stamp = msgspec.json.decode((directory / STAMP_FILE).read_bytes(), type=_Stamp, dec_hook=lambda to, of: to(of))
    except (OSError, msgspec.DecodeError):
        return None
    there = all(path.exists() for path in (stamp.software.wheel, stamp.software.pip, stamp.software.lock))
    return stamp if there else None


def _write(path: Path, data: bytes) -> None:
    new = path.with_suffix(".new")
    new.write_bytes(data)
    new.replace(path)


def _remove_others(directory: Path, digest: str) -> None:
    for path in directory.iterdir():
        if path.is_dir() and path.name != digest and not path.name.startswith(".new-"):
            shutil.rmtree(path, ignore_errors=True)


def _base64_digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
