"""Which queen to talk to, and with which key."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

import msgspec

from swarmesh.config.home import Home, QueenFile, find_home, read_queen_file
from swarmesh.core.errors import ConfigError, QueenUnreachableError, UnauthorizedError


class LentHomeError(QueenUnreachableError):
    """This home belongs to a queennode on another machine."""

    code = "lent_home"
    default_hint = "Give this command on her machine; here, 'swarmesh rustbee' starts, lists and stops rustbees."


class Endpoint(msgspec.Struct, frozen=True):
    """Base URL without a slash at its end, and the API key."""

    url: str
    key: str


def find_endpoint(url: str | None, key: str | None, environ: Mapping[str, str]) -> Endpoint:
    """The queen that is named, else the one that ``environ`` names, else the one of the home directory.

    The home's own key goes to the home's own queen and to loopback only; any other machine has to be given a key.

    Raises:
        QueenUnreachableError: None is named and none runs with this home.
        LentHomeError: None is named, and the one of this home is on another machine.
        UnauthorizedError: There is no key for it.
        ConfigError: The URL is none.
    """
    home = find_home(environ)
    url = url or environ.get("SWARMESH_URL")
    queen = read_queen_file(home.queen_file) if url else own_queen(home)
    url = url or (queen.url if queen else "")
    if not url:
        raise QueenUnreachableError(f"no queennode runs with the home {home.root}")
    url = check_url(url)
    key = key or environ.get("SWARMESH_API_KEY") or ""
    if not key and (_is_loopback(url) or (queen is not None and queen.url.rstrip("/") == url)):
        key = read_admin_key(home)
    if not key:
        raise UnauthorizedError(f"there is no API key for {url}", hint="Set SWARMESH_API_KEY.")
    return Endpoint(url, key)


def own_queen(home: Home) -> QueenFile | None:
    """What this machine's queen left in the home; None when there is none.

    Raises:
        LentHomeError: What is there is the way to a queen on another machine, to whom this one lends itself.
    """
    note = read_queen_file(home.queen_file)
    if note is not None and note.url.startswith("unix:"):
        raise LentHomeError(f"the home {home.root} belongs to a queennode on another machine")
    return note


def read_admin_key(home: Home) -> str:
    """The key the queen made for this home's owner; empty when there is none."""
    try:
        return home.admin_key_file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def check_url(url: str) -> str:
    """Give a queen's URL back without a slash at its end.

    Raises:
        ConfigError: It is not http(s)://HOST[:PORT].
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ConfigError(f"{url!r} is not the URL of a queennode", hint="Write it like http://127.0.0.1:8500")
    return url.rstrip("/")


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
