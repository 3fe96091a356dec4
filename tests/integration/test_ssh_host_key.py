"""Keys of hosts: learned from a real sshd, kept, and held against what is known."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sshd_rig import SshdRig, make_key, missing
from swarmesh.config.home import Home
from swarmesh.hosts import host_key as host_key_module
from swarmesh.hosts.host_key import forget_host_key, learn_host_key
from swarmesh.hosts.remote_process import RemoteProcess
from swarmesh.hosts.ssh_command import known_hosts_file, settings_argv
from swarmesh.hosts.ssh_errors import (
    HostDeniedError,
    HostIdentityError,
    HostKeyChangedError,
    HostKeyUnknownError,
    HostSetupError,
    HostUnreachableError,
)
from swarmesh.hosts.ssh_shell import SshShell
from swarmesh.hosts.ssh_target import SshTarget

pytestmark = pytest.mark.skipif(bool(missing()), reason=f"no host over SSH: {missing()}")

ORDER = {"action": "probe", "digest": "0123456789abcdef"}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "a home, 100%d")
    home.make()
    return home


@pytest.fixture
async def sshd(tmp_path: Path) -> AsyncIterator[SshdRig]:
    rig = SshdRig(tmp_path / "far")
    await rig.start()
    yield rig
    await rig.stop()


@pytest.fixture
def users_known_hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the user's own ssh knows: in a file of the test's instead of ``~/.ssh/known_hosts``."""
    file = tmp_path / "users_known_hosts"

    def with_file(target: SshTarget) -> list[str]:
        ssh, *rest = settings_argv(target)
        return [ssh, "-o", f"UserKnownHostsFile={file}", *rest]

    monkeypatch.setattr(host_key_module, "settings_argv", with_file)
    return file


def key_of(path: Path) -> str:
    return " ".join(path.with_name(path.name + ".pub").read_text().split()[:2])


def fingerprint_of(path: Path) -> str:
    argv = ["/usr/bin/ssh-keygen", "-l", "-f", str(path)]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.split()[1]


def know(known_hosts: Path, text: str) -> None:
    known_hosts.write_text(text)


def hash_names(known_hosts: Path) -> None:
    argv = ["/usr/bin/ssh-keygen", "-q", "-H", "-f", str(known_hosts)]
    subprocess.run(argv, check=True, capture_output=True)
    assert "127.0.0.1" not in known_hosts.read_text()


async def renew_key(sshd: SshdRig) -> None:
    await sshd.stop()
    for name in ("host-key", "host-key.pub"):
        (sshd.directory / name).unlink()
    make_key(sshd.directory / "host-key")
    await sshd.start()


async def probed(shell: SshShell) -> bytes:
    process: RemoteProcess = await shell.start(ORDER)
    try:
        return await process.line()
    finally:
        await process.close()


async def test_a_key_is_learned_once_and_every_connection_is_held_to_it(sshd: SshdRig, home: Home) -> None:
    shell = SshShell(sshd.target(), home)
    with pytest.raises(HostKeyUnknownError):
        await probed(shell)
    learned = await learn_host_key(sshd.target(), home)
    assert learned.fingerprint == fingerprint_of(sshd.directory / "host-key")
    assert learned.key_type == "ssh-ed25519"
    assert not learned.known_to_user
    file = known_hosts_file(home)
    assert file.read_text() == f"swarmesh-far {key_of(sshd.directory / 'host-key')}\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(home.ssh_dir.stat().st_mode) == 0o700
    assert await learn_host_key(sshd.target(), home) == learned
    assert b"done" in await probed(shell)


async def test_learning_logs_nobody_in(sshd: SshdRig, home: Home) -> None:
    await learn_host_key(sshd.target(identity=""), home)
    assert list(sshd.login_home.iterdir()) == []


async def test_another_key_is_refused_and_the_kept_one_stays(sshd: SshdRig, home: Home) -> None:
    learned = await learn_host_key(sshd.target(), home)
    await learn_host_key(sshd.target(name="other"), home)
    kept = known_hosts_file(home).read_bytes()
    await renew_key(sshd)
    with pytest.raises(HostKeyChangedError) as caught:
        await learn_host_key(sshd.target(), home)
    assert learned.fingerprint in caught.value.message
    assert fingerprint_of(sshd.directory / "host-key") in caught.value.message
    with pytest.raises(HostKeyChangedError):
        await learn_host_key(sshd.target(), home, expected=fingerprint_of(sshd.directory / "host-key"))
    with pytest.raises(HostKeyChangedError):
        await probed(SshShell(sshd.target(), home))
    assert known_hosts_file(home).read_bytes() == kept
    forget_host_key("far", home)
    forget_host_key("far", home)
    assert known_hosts_file(home).read_text().startswith("swarmesh-other ")
    assert (await learn_host_key(sshd.target(), home)).fingerprint != learned.fingerprint
    assert known_hosts_file(home).read_text().count("\n") == 2


async def test_an_expected_fingerprint_has_to_be_the_one(sshd: SshdRig, home: Home) -> None:
    right = fingerprint_of(sshd.directory / "host-key")
    wrong = fingerprint_of(sshd.key)
    with pytest.raises(HostKeyChangedError, match="was expected"):
        await learn_host_key(sshd.target(), home, expected=wrong)
    assert not known_hosts_file(home).exists()
    assert (await learn_host_key(sshd.target(), home, expected=right)).fingerprint == right


async def test_a_key_the_user_knows_is_said_to_be_known(sshd: SshdRig, home: Home, users_known_hosts: Path) -> None:
    know(users_known_hosts, f"[127.0.0.1]:{sshd.port} {key_of(sshd.directory / 'host-key')}\n")
    hash_names(users_known_hosts)
    assert (await learn_host_key(sshd.target(), home)).known_to_user


async def test_a_key_the_user_has_marked_as_revoked_is_refused(
    sshd: SshdRig, home: Home, users_known_hosts: Path
) -> None:
    know(users_known_hosts, f"@revoked [127.0.0.1]:{sshd.port} {key_of(sshd.directory / 'host-key')}\n")
    with pytest.raises(HostKeyChangedError, match="marked as revoked"):
        await learn_host_key(sshd.target(), home)
    assert not known_hosts_file(home).exists()


async def test_a_key_the_user_knows_otherwise_is_refused_unless_named(
    sshd: SshdRig, home: Home, users_known_hosts: Path
) -> None:
    know(users_known_hosts, f"[127.0.0.1]:{sshd.port} {key_of(sshd.key)}\n")
    with pytest.raises(HostKeyChangedError, match="your own ssh knows it by " + re.escape(fingerprint_of(sshd.key))):
        await learn_host_key(sshd.target(), home)
    assert not known_hosts_file(home).exists()
    learned = await learn_host_key(sshd.target(), home, expected=fingerprint_of(sshd.directory / "host-key"))
    assert not learned.known_to_user


async def test_where_the_user_trusts_only_an_authority_the_key_has_to_be_named(
    sshd: SshdRig, home: Home, users_known_hosts: Path
) -> None:
    authority = f"@cert-authority [127.0.0.1]:{sshd.port} {key_of(sshd.key)}\n"
    know(users_known_hosts, authority)
    with pytest.raises(HostKeyUnknownError, match="authority") as caught:
        await learn_host_key(sshd.target(), home)
    assert "--fingerprint" in caught.value.hint
    assert not known_hosts_file(home).exists()
    right = fingerprint_of(sshd.directory / "host-key")
    assert (await learn_host_key(sshd.target(), home, expected=right)).fingerprint == right
    assert (await learn_host_key(sshd.target(), home)).fingerprint == right, "it is kept now"
    know(users_known_hosts, f"{authority}[127.0.0.1]:{sshd.port} {key_of(sshd.directory / 'host-key')}\n")
    assert (await learn_host_key(sshd.target(name="other"), home)).known_to_user


@pytest.mark.parametrize("slow", ["settings", "lines"])
async def test_what_the_user_knows_is_never_taken_for_nothing_when_it_cannot_be_seen(
    slow: str, sshd: SshdRig, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = tmp_path / "never"
    os.mkfifo(never)

    def hanging(target: SshTarget) -> list[str]:
        ssh, *rest = settings_argv(target)
        return ["cat", str(never)] if slow == "settings" else [ssh, "-o", f"UserKnownHostsFile={never}", *rest]

    monkeypatch.setattr(host_key_module, "settings_argv", hanging)
    monkeypatch.setattr(host_key_module, "LOOKUP_WAIT_S", 0.5)
    with pytest.raises(HostSetupError, match=r"did not say within 0\.5 s what your own ssh knows"):
        await learn_host_key(sshd.target(), home)
    assert not known_hosts_file(home).exists()


async def test_the_host_is_asked_for_the_kind_of_key_that_is_known(
    sshd: SshdRig, home: Home, users_known_hosts: Path
) -> None:
    await sshd.stop()
    ecdsa = make_key(sshd.directory / "ecdsa-key", kind="ecdsa")
    await sshd.start(HostKey=f"{sshd.directory / 'host-key'}\nHostKey {ecdsa}")
    know(users_known_hosts, f"[127.0.0.1]:{sshd.port} {key_of(ecdsa)}\n")
    learned = await learn_host_key(sshd.target(), home)
    assert learned.key_type == "ecdsa-sha2-nistp256"
    assert learned.known_to_user
    assert b"done" in await probed(SshShell(sshd.target(), home))


async def test_a_host_that_is_not_there_leaves_nothing_behind(sshd: SshdRig, home: Home) -> None:
    await sshd.stop()
    with pytest.raises(HostUnreachableError, match="refused"):
        await learn_host_key(sshd.target(), home)
    assert not home.ssh_dir.exists()


async def test_a_host_that_wants_a_password_says_so(sshd: SshdRig, home: Home) -> None:
    await sshd.stop()
    await sshd.start(PubkeyAuthentication="no", PasswordAuthentication="yes")
    await learn_host_key(sshd.target(), home)
    with pytest.raises(HostDeniedError, match="only password") as caught:
        await probed(SshShell(sshd.target(), home))
    assert "ssh-copy-id" in caught.value.hint


async def test_a_key_of_ours_that_others_can_read_is_the_reason(sshd: SshdRig, home: Home) -> None:
    await learn_host_key(sshd.target(), home)
    (sshd.directory / "user-key").chmod(0o644)
    with pytest.raises(HostIdentityError, match="too open"):
        await probed(SshShell(sshd.target(), home))
