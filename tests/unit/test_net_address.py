"""Addresses: two forms, read strictly."""

from __future__ import annotations

import pytest

from swarmesh.core.errors import InvalidValueError
from swarmesh.net.address import Address, parse_address


@pytest.mark.parametrize(
    ("text", "address", "authority"),
    [
        ("unix:/run/a b.sock", Address(path="/run/a b.sock"), b"localhost"),
        ("http://box:8000", Address(host="box", port=8000), b"box:8000"),
        ("http://BOX", Address(host="box", port=80), b"box:80"),
        ("http://127.0.0.1:1/", Address(host="127.0.0.1", port=1), b"127.0.0.1:1"),
        ("http://[::1]:8500", Address(host="::1", port=8500), b"[::1]:8500"),
        ("http://box:1/api/v0/", Address(host="box", port=1, prefix="/api/v0"), b"box:1"),
    ],
)
def test_what_is_an_address(text: str, address: Address, authority: bytes) -> None:
    assert parse_address(text) == address
    assert address.authority == authority
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "box:8000",
        "https://box",
        "ftp://box",
        "http://",
        "http://:80",
        "http://box:99999",
        "http://box:x",
        "http://[::1",
        "http://user:secret@box",
        "http://:secret@box",
        "http://box/?a=b",
        "http://box/#top",
        "http://bo x",
        "http://box/a b",
        "http://box\r\nx: y/",
        "http://b\u00f6x",
        "http://" + "a" * 70,
        "http://a..b",
        "unix:relative.sock",
    ],
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(InvalidValueError, match="is no address") as raised:
        parse_address(text)
    assert "secret" not in raised.value.message
