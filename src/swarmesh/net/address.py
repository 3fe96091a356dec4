"""Where a process listens, as one string: ``unix:/path/to.sock`` or ``http://host:port``."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import msgspec

from swarmesh.core.errors import InvalidValueError

_PLAIN = re.compile(r'[!"$->A-~]+')  # Printable ASCII without blank, "#", "?" and "@".


class Address(msgspec.Struct, frozen=True):
    """A unix socket (``path``) or a TCP endpoint (``host``, ``port``).

    Attributes:
        prefix: Path put before every request target, from a URL such as ``http://box:8000/api``.
    """

    path: str = ""
    host: str = ""
    port: int = 0
    prefix: str = ""

    @property
    def authority(self) -> bytes:
        """What goes into the Host header."""
        if self.path:
            return b"localhost"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}".encode()

    def __str__(self) -> str:
        """The string form it was parsed from."""
        return f"unix:{self.path}" if self.path else f"http://{self.authority.decode()}{self.prefix}"


def parse_address(text: str) -> Address:
    """Read an address.

    Raises:
        InvalidValueError: It is neither of the two forms; https is not spoken here.
    """
    if text.startswith("unix:/"):
        return Address(path=text.removeprefix("unix:"))
    shown = text.rpartition("@")[2]  # What stands before it may be a secret.
    try:
        parts = urlsplit(text)
        port = parts.port
        (parts.hostname or "").encode("idna")  # What no resolver takes is found out here, not at the first task.
    except ValueError as error:
        raise InvalidValueError(f"{shown!r} is no address: {error}", param="url") from error
    if not _PLAIN.fullmatch(text) or parts.scheme != "http" or not parts.hostname:
        raise InvalidValueError(
            f"{shown!r} is no address of a server", hint="Use http://HOST:PORT or unix:/path/to.sock.", param="url"
        )
    return Address(host=parts.hostname, port=port or 80, prefix=parts.path.rstrip("/"))
