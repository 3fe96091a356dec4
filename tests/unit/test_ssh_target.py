"""What is taken for a host, and what is refused before anything is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sshd_rig import make_key, missing
from swarmesh.core.errors import InvalidValueError
from swarmesh.hosts.ssh_target import SshTarget, checked_target, has_passphrase
from swarmesh.wire.hosts import HostAddRequest


def checked(address: str, **fields: Any) -> SshTarget:
    return checked_target(HostAddRequest(address=address, **fields))


@pytest.mark.parametrize(
    ("address", "name", "told", "user"),
    [
        ("mac", "mac", "mac", ""),
        ("mac.home.arpa", "mac", "mac.home.arpa", ""),
        ("Mac_Mini.local", "mac-mini", "Mac_Mini.local", ""),
        ("ann@mac.home.arpa", "mac", "mac.home.arpa", "ann"),
        ("192.168.1.20", "192-168-1-20", "192.168.1.20", ""),
        ("fe80::1", "fe80-1", "fe80::1", ""),
        ("ann@::1", "1", "::1", "ann"),
        ("a" * 63 + ".example", "a" * 32, "a" * 63 + ".example", ""),
    ],
)
def test_names_that_ssh_is_told(address: str, name: str, told: str, user: str) -> None:
    assert checked(address) == SshTarget(name=name, address=told, user=user)


@pytest.mark.parametrize(
    "address",
    [
        "-oProxyCommand=touch /tmp/x",
        "-v",
        "a b",
        " mac",
        "mac\n",
        "mac\x00",
        "$(x)",
        "a;b",
        "a|b",
        "a&b",
        "`x`",
        "a'b",
        'a"b',
        "a\\b",
        "a/b",
        "~x",
        "*",
        "%h",
        "m\u00e4c",
        "mac:22",
        "ann@",
        "@mac",
        "ann@-v",
        "-ann@mac",
        "a b@mac",
        "$(x)@mac",
        "ann@bob@mac",
        "ssh://mac",
        ".hidden",
        "x" * 256,
        "u" * 65 + "@mac",
    ],
)
def test_what_is_no_host_name_is_refused(address: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        checked(address)
    assert caught.value.param == "address"


@pytest.mark.parametrize("user", ["-l", "a b", "$(x)", "a;b", "root\n", "a@b", "x" * 65])
def test_what_is_no_user_name_is_refused(user: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        checked("mac", user=user)
    assert caught.value.param == "user"


def test_two_users_are_one_too_many() -> None:
    assert checked("ann@mac", user="ann").user == "ann"
    with pytest.raises(InvalidValueError, match=r"'ann'.*'bob'"):
        checked("ann@mac", user="bob")


@pytest.mark.parametrize("name", ["local", "any", "all", "Mac", "-a", "a.b", "../x", "a b", "x" * 33, "mac\n"])
def test_names_in_the_swarm_are_plain_and_not_taken(name: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        checked("mac", name=name)
    assert caught.value.param == "name"


@pytest.mark.parametrize("address", ["local", "any.example", "__", "_._"])
def test_a_name_that_cannot_be_made_is_asked_for(address: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        checked(address)
    assert caught.value.param == "name"
    assert "--name" in caught.value.hint
    assert checked(address, name="bee").name == "bee"


def test_an_identity_is_an_existing_file_and_is_never_shown(tmp_path: Path) -> None:
    key = tmp_path / "my key"
    key.write_text("a very private key")
    assert checked("mac", identity=str(key)).identity == str(key)
    for identity in (str(tmp_path / "none"), str(tmp_path), f"{key}\n", "${HOME}/key"):
        with pytest.raises(InvalidValueError) as caught:
            checked("mac", identity=identity)
        assert caught.value.param == "identity"
        assert caught.value.hint
        assert "private key" not in caught.value.message


@pytest.mark.skipif(bool(missing()), reason=missing())
def test_keys_with_a_passphrase_are_told_from_keys_without(tmp_path: Path) -> None:
    assert not has_passphrase(make_key(tmp_path / "plain"))
    assert has_passphrase(make_key(tmp_path / "locked", "a secret phrase"))
    assert not has_passphrase(make_key(tmp_path / "plain-rsa", kind="rsa"))
    assert has_passphrase(make_key(tmp_path / "locked-rsa", "a secret phrase", kind="rsa"))
    assert not has_passphrase(tmp_path / "none")
    pem = tmp_path / "pem"
    pem.write_text("-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n")
    assert has_passphrase(pem)
