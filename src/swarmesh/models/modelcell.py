"""A modelcell: a model under the name people ask for it by."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from swarmesh.core.errors import InvalidValueError

MAX_NAME_CHARACTERS = 128
_NAME = re.compile(r"[a-z0-9][a-z0-9._:/-]*")
_CLASS_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)


class ModelKind(StrEnum):
    """What a modelcell's target is."""

    GGUF = "gguf"
    PYTHON_CLASS = "python_class"
    REMOTE = "remote"


class ModelSource(StrEnum):
    """How a modelcell came to be known."""

    BUILTIN = "builtin"
    FILE = "file"
    SCAN = "scan"
    HUB = "hub"
    COPY = "copy"
    """Copied here from another machine of the swarm."""


class Modelcell(msgspec.Struct, frozen=True, kw_only=True):
    """One model of this machine. What is not known is 0, empty or ``None``."""

    name: str
    kind: ModelKind
    target: str
    """An absolute file path, ``module:Class``, or the base URL of a running server, by ``kind``."""
    source: ModelSource
    added_at: float
    """Seconds since the epoch; 0 for what was there from the start."""
    size_bytes: int = 0
    sha256: str | None = None
    """Known only when somebody else computed it: hashing gigabytes to list them would be rude."""
    architecture: str = ""
    parameters: int = 0
    context_length: int = 0
    quantization: str = ""
    hub: str = ""
    """The ``hf:`` reference it was downloaded from, and can be again."""

    @property
    def path(self) -> Path | None:
        """The model file, ``None`` for a modelcell that has none."""
        return Path(self.target) if self.kind is ModelKind.GGUF else None


def check_name(name: str) -> str:
    """Give the name back when it can be a modelcell's.

    Raises:
        InvalidValueError: Too long, or with characters that would not survive a URL or a shell.
    """
    if len(name) > MAX_NAME_CHARACTERS:
        raise InvalidValueError(
            f"the modelcell name is {len(name)} characters long, the limit is {MAX_NAME_CHARACTERS}.", param="name"
        )
    if not _NAME.fullmatch(name):
        raise InvalidValueError(
            f"'{name}' cannot be a modelcell name.",
            hint="Use small letters, digits and . _ : / - and begin with a letter or digit, such as qwen-0.5b.",
            param="name",
        )
    return name


def check_class_path(target: str) -> str:
    """Give ``module:Class`` back when it is well formed; nothing is imported.

    Raises:
        InvalidValueError: It is not.
    """
    if not _CLASS_PATH.fullmatch(target):
        raise InvalidValueError(
            f"'{target}' does not name a Python class.",
            hint="Write MODULE:CLASS, such as my_tasks:Upper.",
            param="target",
        )
    return target


def check_url(url: str) -> str:
    """Give a server's base URL back, without a slash at the end.

    Raises:
        InvalidValueError: Not http or https, no host, or with a password in it, which every list would show.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise InvalidValueError(
            f"'{url}' is not the URL of a server.", hint="Write it like http://127.0.0.1:11434", param="url"
        )
    if "@" in urlsplit(url).netloc:
        raise InvalidValueError(
            "the URL has a user or password in it, which lists and logs would show.",
            hint="Give the key separately.",
            param="url",
        )
    return url.rstrip("/")
