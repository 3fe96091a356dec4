"""What OpenSSH 9 says, and what it is taken for. The texts are its own, with other names."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from sshd_rig import make_key, missing
from swarmesh.hosts.remote_command import NO_PYTHON_MARK
from swarmesh.hosts.ssh_errors import HostUnreachableError, explain
from swarmesh.hosts.ssh_target import SshTarget

MAC = SshTarget(name="mac", address="mac.home.arpa", user="ann")
CHANGED = """\
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
IT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!
Someone could be eavesdropping on you right now (man-in-the-middle attack)!
It is also possible that a host key has just been changed.
The fingerprint for the ED25519 key sent by the remote host is
SHA256:Fj9I7EE3xFTqxWItO4k9emHA5PbwXvSZrEUxEXhrBK0.
Please contact your system administrator.
Add correct host key in /hive/ssh/known_hosts to get rid of this message.
Offending ED25519 key in /hive/ssh/known_hosts:1
  remove with:
  ssh-keygen -f "/hive/ssh/known_hosts" -R "swarmesh-mac"
Host key for swarmesh-mac has changed and you have requested strict checking.
Host key verification failed."""
UNKNOWN = """\
No ED25519 host key is known for swarmesh-mac and you have requested strict checking.
Host key verification failed."""
OPEN_KEY = """\
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@         WARNING: UNPROTECTED PRIVATE KEY FILE!          @
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
Permissions 0644 for '/keys/mac' are too open.
It is required that your private key files are NOT accessible by others.
This private key will be ignored.
Load key "/keys/mac": bad permissions
ann@mac.home.arpa: Permission denied (publickey)."""
NO_JUMP = """\
ssh: connect to host 127.0.0.1 port 1: Connection refused
kex_exchange_identification: Connection closed by remote host
Connection closed by UNKNOWN port 65535"""
NO_SSH = """\
kex_exchange_identification: Connection closed by remote host
Connection closed by 127.0.0.1 port 2298"""
GREETED = "Welcome to mac. Connection reset buttons are in the hall.\n"


@pytest.mark.parametrize(
    ("code", "said", "expected", "words"),
    [
        (255, CHANGED, "host_key_changed", "another key"),
        (255, UNKNOWN, "host_key_unknown", "no key of mac"),
        (255, "Host key verification failed.", "host_key_unknown", "no key of mac"),
        (255, "ssh: connect to host mac.home.arpa port 22: Connection refused", "host_unreachable", "refused"),
        (255, "ssh: connect to host mac.home.arpa port 22: No route to host", "host_unreachable", "no route"),
        (255, "ssh: connect to host mac port 22: Network is unreachable", "host_unreachable", "network is"),
        (255, "ssh: connect to host mac port 22: Connection timed out", "host_unreachable", "timed out"),
        (255, "Connection to 203.0.113.5 port 22 timed out", "host_unreachable", "timed out"),
        (255, "Connection timed out during banner exchange", "host_unreachable", "banner"),
        (
            *(255, "ssh: Could not resolve hostname nosuch.invalid: Name or service not known"),
            *("host_unreachable", "has no address"),
        ),
        (255, NO_JUMP, "host_unreachable", "connection refused"),
        (255, NO_SSH, "host_unreachable", "closed"),
        (255, "Connection closed by 192.0.2.7 port 22", "host_unreachable", "closed by 192.0.2.7"),
        (255, "ann@mac.home.arpa: Permission denied (publickey).", "host_denied", "none of our keys"),
        (255, "ann@mac: Permission denied (publickey,password,keyboard-interactive).", "host_denied", "password"),
        (255, "ann@mac: Permission denied (password).", "host_denied", "takes no keys, only password"),
        (255, GREETED + "ann@mac: Permission denied (publickey).", "host_denied", "none of our keys"),
        (
            *(255, "Received disconnect from ::1 port 22:2: Too many authentication failures"),
            *("host_denied", "none of our keys"),
        ),
        (
            *(255, "Unable to negotiate with ::1 port 22: no matching host key type found. Their offer: ssh-dss"),
            *("host_ssh_failed", "ssh-dss"),
        ),
        (255, "Connection to mac.home.arpa closed by remote host.", "host_lost", "closed"),
        (255, "client_loop: send disconnect: Broken pipe", "host_lost", "Broken pipe"),
        (255, "Timeout, server mac.home.arpa not responding.", "host_lost", "not responding"),
        (255, "Connection reset by 192.0.2.7 port 22", "host_lost", "reset"),
        (255, 'command-line line 0: Bad configuration option: "x"', "host_ssh_failed", "Bad configuration"),
        (255, "", "host_ssh_failed", "it said nothing"),
        (127, NO_PYTHON_MARK, "host_without_python", "3.11"),
        (127, "sh: something: not found", "host_command_failed", "something: not found"),
        (1, "Traceback\nOSError: no", "host_command_failed", "OSError: no"),
        (0, "", "host_command_failed", "exit code 0"),
        (-9, "whatever", "host_lost", "signal 9"),
    ],
)
def test_each_has_its_code(code: int, said: str, expected: str, words: str) -> None:
    error = explain(MAC)(code, said)
    assert isinstance(error, HostUnreachableError)
    assert error.code == expected
    assert error.status == 502
    assert error.message.count("mac") >= 1
    assert words in error.message
    assert error.hint


def test_a_host_that_wants_a_password_is_told_how_to_do_without() -> None:
    error = explain(MAC)(255, "ann@mac.home.arpa: Permission denied (password).")
    assert "never types passwords" in error.hint
    assert "ssh-copy-id ann@mac.home.arpa" in error.hint


@pytest.mark.parametrize(
    "said",
    [
        OPEN_KEY,
        'Load key "/keys/mac": error in libcrypto\nann@mac: Permission denied (publickey).',
        'Load key "/keys/mac": Permission denied\nann@mac: Permission denied (publickey).',
    ],
)
def test_a_key_of_ours_that_cannot_be_used_is_the_reason(said: str) -> None:
    named = SshTarget(name="mac", address="mac", identity="/keys/mac")
    error = explain(named)(255, said)
    assert error.code == "host_identity_bad"
    assert "chmod 600 /keys/mac" in error.hint
    assert explain(MAC)(255, said).code == "host_denied", "some other key of the user's, which another may replace"


@pytest.mark.skipif(bool(missing()), reason=missing())
def test_a_key_with_a_passphrase_is_the_reason(tmp_path: Path) -> None:
    key = make_key(tmp_path / "locked", "a secret phrase")
    error = explain(SshTarget(name="mac", address="mac", identity=str(key)))(
        255, "ann@mac: Permission denied (publickey)."
    )
    assert error.code == "host_identity_bad"
    assert "passphrase" in error.message
    assert f"ssh-add {key}" in error.hint


def test_what_is_quoted_is_bounded() -> None:
    assert len(explain(MAC)(255, "x" * 10_000).message) < 400


def test_only_what_may_pass_by_itself_is_tried_again_soon() -> None:
    def passing(code: int, said: str) -> bool:
        error = explain(MAC)(code, said)
        assert isinstance(error, HostUnreachableError)
        return error.passing

    assert passing(255, "ssh: connect to host mac port 22: Connection refused")
    assert passing(-9, "")
    assert not passing(255, CHANGED)
    assert not passing(255, "ann@mac: Permission denied (publickey).")
    assert not passing(127, NO_PYTHON_MARK)


@pytest.mark.parametrize(
    "piece",
    [
        "banner exchange",
        "Connection to ",
        "timed out",
        "Permission denied (",
        "No host key ",
        "Load key ",
        "are too open ",
    ],
)
def test_no_line_takes_long_to_read(piece: str) -> None:
    named = SshTarget(name="mac", address="mac", identity="/keys/mac")
    line = piece * (64 * 1024 // len(piece))
    began_s = time.process_time()
    for said in (line, "\n".join([line] * 50), "\n".join(line[at : at + 1024] for at in range(0, 64 * 1024, 1024))):
        explain(named)(255, said)
        explain(named)(255, f"{said}\nann@mac: Permission denied (publickey).")
    assert time.process_time() - began_s < 0.25


def test_only_the_last_lines_are_read() -> None:
    refused = "ssh: connect to host mac port 22: Connection refused"
    assert explain(MAC)(255, f"{refused}\n" + "hello\n" * 49).code == "host_unreachable"
    assert explain(MAC)(255, f"{refused}\n" + "hello\n" * 50).code == "host_ssh_failed"


def test_what_is_quoted_steers_no_terminal() -> None:
    error = explain(MAC)(1, "\x1b[2JOSError: no\x9b31m")
    assert error.message.endswith("[2JOSError: no 31m")
