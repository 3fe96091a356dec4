"""What ssh is told: everything that could harm is decided, and nothing is left to a shell."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from swarmesh.config.home import Home
from swarmesh.core.errors import ConfigError
from swarmesh.hosts.remote_command import REMOTE_COMMAND
from swarmesh.hosts.ssh_command import (
    connect_argv,
    forward_argv,
    learn_argv,
    quoted,
    reverse_forward,
    settings_argv,
    socket_forward,
    ssh_environment,
)
from swarmesh.hosts.ssh_target import SshTarget

HOME = Home(Path("/hive"))
MAC = SshTarget(name="mac", address="mac.home.arpa")


def options_of(argv: list[str]) -> dict[str, str]:
    pairs = [argv[at + 1].partition("=")[::2] for at, word in enumerate(argv) if word == "-o"]
    assert len({name for name, _ in pairs}) == len(pairs), "of two the first counts"
    return dict(pairs)


def test_a_connection_lends_nothing_and_asks_nobody() -> None:
    argv = connect_argv(MAC, HOME)
    options = options_of(argv)
    assert argv[:4] == ["ssh", "-T", "-x", "-a"]
    assert argv[-3:] == ["--", "mac.home.arpa", REMOTE_COMMAND]
    assert options["BatchMode"] == "yes"
    assert options["StrictHostKeyChecking"] == "yes"
    assert options["UserKnownHostsFile"] == '"/hive/ssh/known_hosts"'
    assert options["GlobalKnownHostsFile"] == "/dev/null"
    assert options["HostKeyAlias"] == "swarmesh-mac"
    for name in ("CheckHostIP", "UpdateHostKeys", "ForwardAgent", "ForwardX11", "PermitLocalCommand", "RequestTTY"):
        assert options[name] == "no"
    assert options["RemoteCommand"] == "none"
    assert options["ClearAllForwardings"] == "yes"
    assert options["StreamLocalBindMask"] == "0177"
    assert int(options["ServerAliveInterval"]) * (int(options["ServerAliveCountMax"]) + 1) == 5
    assert (options["ControlMaster"], options["ControlPath"], options["ControlPersist"]) == ("no", "none", "no")
    assert "IdentityFile" not in options
    assert not {"-F", "-p", "-l", "-i"} & set(argv), "the user's own configuration decides"


def test_what_the_user_has_set_is_passed_on() -> None:
    target = SshTarget(name="mac", address="mac", user="ann", port=2222, identity="/keys/my key")
    argv = connect_argv(target, HOME)
    assert argv[argv.index("-p") + 1] == "2222"
    assert argv[argv.index("-l") + 1] == "ann"
    assert options_of(argv)["IdentityFile"] == '"/keys/my key"'
    assert options_of(argv)["IdentitiesOnly"] == "yes"
    assert settings_argv(target) == ["ssh", "-G", "-p", "2222", "-l", "ann", "--", "mac"]


def test_a_session_can_be_asked_for_forwards() -> None:
    options = options_of(connect_argv(MAC, HOME, Path("/hive/run/h.ctl")))
    assert (options["ControlMaster"], options["ControlPath"]) == ("yes", '"/hive/run/h.ctl"')


def test_learning_a_key_logs_in_by_no_method() -> None:
    argv = learn_argv(MAC, Path("/aside/known_hosts"), ["ssh-ed25519", "rsa-sha2-512"])
    options = options_of(argv)
    assert options["StrictHostKeyChecking"] == "accept-new"
    assert options["UserKnownHostsFile"] == '"/aside/known_hosts"'
    assert options["PreferredAuthentications"] == "none"
    assert options["PubkeyAuthentication"] == "no"
    assert options["HostKeyAlgorithms"] == "^ssh-ed25519,rsa-sha2-512"
    assert argv[-3:] == ["--", "mac.home.arpa", REMOTE_COMMAND]
    assert "HostKeyAlgorithms" not in options_of(learn_argv(MAC, Path("/aside/known_hosts"), []))


def test_forwards_are_asked_of_the_connection_that_stands() -> None:
    argv = forward_argv(Path("/hive/run/100%.ctl"), socket_forward(Path("/a/l.sock"), "/b/r.sock"))
    assert argv == [
        *["ssh", "-F", "none", "-S", "/hive/run/100%%.ctl", "-O", "forward"],
        *["-L", "/a/l.sock:/b/r.sock", "--", "host"],
    ]
    assert forward_argv(Path("/c"), ["-L", "x"], cancel=True)[5:7] == ["-O", "cancel"]
    assert socket_forward(Path("/a:b/%h.sock"), "/c\\d") == ["-L", "/a\\:b/%%h.sock:/c\\\\d"]
    assert socket_forward(Path("/a"), "127.0.0.1:80") == ["-L", "/a:127.0.0.1:80"]
    assert reverse_forward("/b/q.sock", "127.0.0.1:8377") == ["-R", "/b/q.sock:127.0.0.1:8377"]
    assert reverse_forward("/b/q.sock", "/a/q.sock") == ["-R", "/b/q.sock:/a/q.sock"]


def test_paths_are_written_so_that_ssh_reads_them_back() -> None:
    assert quoted(Path("/a b/%d/x")) == '"/a b/%%d/x"'
    assert quoted(Path('/a"b\\c')) == '"/a\\"b\\\\c"'
    for path in ("/a/${HOME}", "/a\nb"):
        with pytest.raises(ConfigError):
            quoted(Path(path))


def test_messages_are_english_and_the_agent_is_found() -> None:
    environment = ssh_environment({"SSH_AUTH_SOCK": "/agent", "LANG": "de_DE", "LC_ALL": "de_DE"})
    assert environment["SSH_AUTH_SOCK"] == "/agent"
    assert environment["LC_ALL"] == "C"
    assert environment["SSH_ASKPASS_REQUIRE"] == "never"


def test_no_other_source_of_keys_is_asked_and_the_users_own_configuration_is_still_read() -> None:
    for argv in (connect_argv(MAC, HOME), learn_argv(MAC, Path("/k"), [])):
        words = [argv[at + 1] for at, word in enumerate(argv) if word == "-o"]
        assert words[-2:] == ["IgnoreUnknown=*", "KnownHostsCommand=none"], "none before them may be passed over"


@pytest.mark.skipif(shutil.which("ssh") is None, reason="there is no ssh here")
def test_ssh_takes_it_so(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("IgnoreUnknown UseKeychain\nUseKeychain yes\nKnownHostsCommand /bin/other %H\n")
    ssh, *words = connect_argv(MAC, HOME)
    argv = [ssh, "-F", str(config), "-G", *words]

    def said(argv: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)

    assert "/bin/other" in said([ssh, "-F", str(config), "-G", "mac"]).stdout
    run = said(argv)
    assert run.returncode == 0, run.stderr
    assert "/bin/other" not in run.stdout
    older = [word.replace("KnownHostsCommand=", "NotYetThought=") for word in argv]
    assert said(older).returncode == 0, "an ssh that does not know the option passes over it"
    misspelt = [word.replace("BatchMode=", "NotYetThought=") for word in argv]
    assert said(misspelt).returncode != 0, "and over nothing else of ours"
