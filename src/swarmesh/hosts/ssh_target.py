"""Which machine is meant: names that nothing they are given to can take for an option, a path or a command."""

from __future__ import annotations

import base64
import binascii
import contextlib
import ipaddress
import os
import re
from pathlib import Path
from typing import Final

import msgspec

from swarmesh.core.errors import InvalidValueError
from swarmesh.wire.hosts import HostAddRequest

ADDRESS_CHARS_MAX: Final = 255
USER_CHARS_MAX: Final = 64
NAME_CHARS_MAX: Final = 32
KEY_FILE_BYTES_MAX: Final = 64 * 1024
"""More than any private key takes."""
RESERVED_NAMES: Final = frozenset({"local", "any", "all"})
"""The queen's own machine, the queen's choice, and every machine."""
_ADDRESS: Final = re.compile(r"[A-Za-z0-9_:][A-Za-z0-9._:-]*")
_USER: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]*")
_UNSPEAKABLE: Final = re.compile(r"[\x00-\x1f\x7f]|\$\{")
"""Neither can be written into a value of ssh's configuration."""
_OPENSSH_KEY: Final = b"-----BEGIN OPENSSH PRIVATE KEY-----"
_HEAD_CHARS: Final = 64
"""Of base64: enough for the magic and the name of the cipher."""
_OPENSSH_MAGIC: Final = b"openssh-key-v1\0"


class SshTarget(msgspec.Struct, frozen=True, kw_only=True):
    """One machine as ``ssh`` is told of it; made by `checked_target`, or from a record of one.

    Attributes:
        name: In the swarm; the host's key is kept under it.
        address: A host name, an alias of the user's ssh configuration, or an IP address.
        user: Login name; the ssh configuration decides when empty.
        port: 0 leaves the choice to the ssh configuration.
        identity: Absolute path of a private key file here; ssh's own choice when empty.
    """

    name: str
    address: str
    user: str = ""
    port: int = 0
    identity: str = ""


def checked_target(request: HostAddRequest) -> SshTarget:
    """The machine somebody asked for. ``user@host`` is taken apart; the name is made from the address if none is given.

    Raises:
        InvalidValueError: A part of it is no such thing; ``param`` says which.
    """
    user, at, address = request.address.rpartition("@")
    _check_address(address if user or not at else "", request.address)
    if user and request.user and user != request.user:
        raise InvalidValueError(f"the address says user {user!r}, user says {request.user!r}", param="user")
    _check_user(user, "address")
    _check_user(request.user, "user")
    return SshTarget(
        name=_checked_name(request.name) if request.name else _name_from(address),
        address=address,
        user=request.user or user,
        port=request.port,
        identity=_checked_identity(request.identity) if request.identity else "",
    )


def has_passphrase(identity: Path) -> bool:
    """Whether a private key file is encrypted; False when it cannot be read."""
    try:
        with identity.open("rb") as file:
            text = file.read(KEY_FILE_BYTES_MAX)
    except OSError:
        return False
    if not text.startswith(_OPENSSH_KEY):
        return b"ENCRYPTED" in text[:200]
    with contextlib.suppress(binascii.Error, IndexError):
        blob = base64.b64decode(text.splitlines()[1][:_HEAD_CHARS])
        # After the magic: the length of the cipher's name, and the name.
        start = len(_OPENSSH_MAGIC) + 4
        return blob.startswith(_OPENSSH_MAGIC) and not blob.startswith(b"none", start)
    return False


def _check_address(address: str, given: str) -> None:
    if not _ADDRESS.fullmatch(address) or len(address) > ADDRESS_CHARS_MAX:
        raise InvalidValueError(
            f"{given!r} is no host name",
            hint="Use what you would tell ssh: a name, an alias of your ssh configuration, an address, or USER@HOST.",
            param="address",
        )
    if ":" not in address:
        return
    try:
        ipaddress.IPv6Address(address)
    except ValueError as error:
        raise InvalidValueError(
            f"{given!r} has a colon but is no IPv6 address", hint="Give the port by itself.", param="address"
        ) from error


def _check_user(user: str, param: str) -> None:
    if user and (not _USER.fullmatch(user) or len(user) > USER_CHARS_MAX):
        raise InvalidValueError(
            f"{user!r} is no login name",
            hint=f"At most {USER_CHARS_MAX} letters, digits, dots, dashes and underscores.",
            param=param,
        )


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name) or len(name) > NAME_CHARS_MAX:
        raise InvalidValueError(
            f"{name!r} is no name for a host",
            hint=f"At most {NAME_CHARS_MAX} lower-case letters, digits and dashes.",
            param="name",
        )
    if name in RESERVED_NAMES:
        raise InvalidValueError(f"{name!r} means something else already", hint="Choose another name.", param="name")
    return name


def _name_from(address: str) -> str:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        address = address.partition(".")[0]
    name = re.sub(r"[^a-z0-9]+", "-", address.lower()).strip("-")[:NAME_CHARS_MAX].rstrip("-")
    if not name or name in RESERVED_NAMES:
        raise InvalidValueError(f"no name can be made from {address!r}", hint="Give one with --name.", param="name")
    return name


def _checked_identity(identity: str) -> str:
    path = Path(os.path.abspath(Path(identity).expanduser()))  # noqa: PTH100 - a link may be meant to be followed late
    if _UNSPEAKABLE.search(str(path)):
        raise InvalidValueError("the identity's path cannot be told to ssh", hint="Move the file.", param="identity")
    if not path.is_file():
        raise InvalidValueError(
            f"{path} is no file", hint="Give the private key's file on the queen's machine.", param="identity"
        )
    return str(path)
