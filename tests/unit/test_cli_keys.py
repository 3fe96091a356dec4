"""`swarmesh keys`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli_shell import Shell, shell_at
from fake_queen import error

KEYS = "/v2/swarmesh/keys"


def a_key(**more: Any) -> dict[str, Any]:
    return {
        "key_id": "key-1",
        "name": "laptop",
        "role": "client",
        "concurrency": 4,
        "tokens_per_minute": 20_000,
        "created_at": 1_700_000_000.0,
        **more,
    }


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Shell]:
    with shell_at(tmp_path, monkeypatch, capsys) as shell:
        yield shell


def test_create_prints_the_key_and_nothing_else_on_stdout(shell: Shell) -> None:
    shell.queen.answers["POST", KEYS] = 201, a_key(key="sk-swarmesh-new")
    options = ["--name", "laptop", "--concurrency", "4", "--tokens-per-minute", "20000"]
    result = shell.run("keys", "create", *options)
    assert (result.code, result.out) == (0, "sk-swarmesh-new\n")
    assert "key-1 is for laptop; keep it now, it is never shown again" in result.err
    body = {"name": "laptop", "role": "client", "concurrency": 4, "tokens_per_minute": 20_000}
    assert shell.queen.seen[0].body == body
    as_json = shell.run("keys", "create", "--name", "laptop", "--role", "admin", "--json")
    assert (as_json.json["key"], as_json.json["key_id"]) == ("sk-swarmesh-new", "key-1")
    assert shell.queen.seen[1].body == {"name": "laptop", "role": "admin", "concurrency": 0, "tokens_per_minute": 0}


def test_what_no_key_can_have_is_a_mistake_of_the_command_line(shell: Shell) -> None:
    for wrong in (["--role", "worker"], ["--concurrency", "-1"], ["--tokens-per-minute", "many"]):
        assert shell.run("keys", "create", "--name", "x", *wrong).code == 2
    assert shell.run("keys", "create").code == 2
    for name in ("", "two\nlines", "x" * 65):
        result = shell.run("keys", "create", "--name", name)
        assert result.code == 2
        assert "one line of 1 to 64 characters" in result.err
    assert shell.queen.seen == []


def test_list(shell: Shell) -> None:
    used = a_key(running=2, waiting=30, honeytokens=12_345)
    admin = a_key(key_id="admin", name="admin", role="admin", concurrency=0, tokens_per_minute=0)
    shell.queen.answers["GET", KEYS] = 200, {"keys": [admin, used]}
    result = shell.run("keys", "list")
    header, first, second = ([cell.strip() for cell in line.split("  ") if cell] for line in result.out.splitlines())
    assert header[:5] == ["id", "name", "role", "at once", "tokens per minute"]
    assert header[7] == "tokens", "those that were read count as well"
    assert first[:6] == ["admin", "admin", "admin", "0", "0", "0"]
    assert second[:8] == ["key-1", "laptop", "client", "4", "20,000", "2", "30", "12,345"]
    assert [view["honeytokens"] for view in shell.run("keys", "list", "--json").json] == [0, 12_345]


def test_revoke(shell: Shell) -> None:
    shell.queen.answers["DELETE", f"{KEYS}/key-1"] = 204, b""
    assert shell.run("keys", "revoke", "key-1").out == "key-1 opens nothing any more\n"
    assert shell.run("keys", "revoke", "key-1", "--json").json == {"key_id": "key-1", "revoked": True}


def test_revoke_by_name(shell: Shell) -> None:
    shell.queen.answers["DELETE", f"{KEYS}/laptop"] = 404, error("not_found", "there is no key 'laptop'", "keys list")
    shell.queen.answers["DELETE", f"{KEYS}/key-1"] = 204, b""
    shell.queen.answers["GET", KEYS] = 200, {"keys": [a_key(), a_key(key_id="key-2", name="tower")]}
    assert shell.run("keys", "revoke", "laptop").out == "key-1 opens nothing any more\n"
    assert shell.run("keys", "revoke", "laptop", "--json").json == {"key_id": "key-1", "revoked": True}
    shell.queen.answers["GET", KEYS] = 200, {"keys": [a_key(key_id="key-2", name="tower")]}
    result = shell.run("keys", "revoke", "laptop")
    assert (result.code, result.out) == (1, "")
    assert result.err == "error: no key has the id or name 'laptop'\n  next: 'swarmesh keys list' shows them.\n"
    assert '"code":"not_found"' in shell.run("keys", "revoke", "laptop", "--json").err
    assert shell.run("keys", "revoke", "").code == 2


def test_the_last_admin_key_stays(shell: Shell) -> None:
    shell.queen.answers["DELETE", f"{KEYS}/admin"] = 409, error("conflict", "it is the last", "make another first")
    result = shell.run("keys", "revoke", "admin")
    assert (result.code, result.err) == (1, "error: it is the last\n  next: make another first\n")
