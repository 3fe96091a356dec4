"""`swarmesh hosts`."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli_shell import Shell, shell_at, terminal
from fake_queen import error, failed, finished, host, rustbee, step

HOSTS = "/v2/swarmesh/hosts"
OFF = error("host_unreachable", "mac cannot be reached: no route to host", "switch it on")["error"]


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Shell]:
    with shell_at(tmp_path, monkeypatch, capsys) as shell:
        yield shell


def test_add_tells_each_step_and_how_to_compare_the_key(shell: Shell) -> None:
    result = shell.run("hosts", "add", "mac.home.arpa")
    assert (result.code, result.out) == (0, "mac is connected: 8 cores, 16,384 MiB, Apple M4\n")
    assert result.err.splitlines() == [
        "  host key SHA256:abc (ED25519); compare it with the host's own, if you can",
        "    on the host itself, this shows the same: cat /etc/ssh/ssh_host_*_key.pub | ssh-keygen -lf -",
        "  mac is connected",
        "  next: swarmesh spawn rustbee --host mac --modelcell NAME",
    ]


def test_a_key_that_somebody_vouched_for_need_not_be_compared(shell: Shell) -> None:
    shell.queen.whence = "your own ssh knows it"
    result = shell.run("hosts", "add", "mac.home.arpa")
    assert result.code == 0
    assert "ssh-keygen" not in result.err


def test_adding_a_draining_host_says_how_it_takes_rustbees_again(shell: Shell) -> None:
    shell.queen.answers["POST", HOSTS] = [finished(host("mac", draining=True))]
    assert shell.run("hosts", "add", "mac").err == "  next: swarmesh hosts drain mac --resume\n"


def test_add_passes_its_options_on(shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["--name", "mini", "--user", "bee", "--port", "2222", "--identity", "key", "--proximity", "0.9"]
    result = shell.run("hosts", "add", "mac.home.arpa", *options, "--fingerprint", "SHA256:abc", "--json")
    assert result.code == 0
    assert (result.json["name"], result.json["total_mib"]) == ("mini", 16384)
    assert shell.queen.seen[0].body == {
        "address": "mac.home.arpa",
        "name": "mini",
        "user": "bee",
        "port": 2222,
        "identity": str(tmp_path / "key"),
        "proximity": 0.9,
        "fingerprint": "SHA256:abc",
    }


@pytest.mark.parametrize(
    "command",
    [
        ["--port", "0", "mac"],
        ["--port", "65536", "mac"],
        ["--proximity", "1.1", "mac"],
        ["--proximity", "-1", "mac"],
        [""],
    ],
)
def test_what_can_be_no_host_is_a_usage_error(shell: Shell, command: list[str]) -> None:
    result = shell.run("hosts", "add", *command)
    assert (result.code, result.out, shell.queen.seen) == (2, "", [])
    assert result.err.startswith("error: ")


@pytest.mark.parametrize("address", ["-oProxyCommand=true", "a b", "$(x)", "a;b"])
def test_names_that_are_none_are_the_queens_to_refuse(shell: Shell, address: str) -> None:
    shell.queen.answers["POST", HOSTS] = 400, error("invalid_value", f"{address!r} is no host name", "write it plainly")
    result = shell.run("hosts", "add", "--", address)
    assert (result.code, result.out) == (1, "")
    assert result.err == f"error: {address!r} is no host name\n  next: write it plainly\n"
    assert shell.queen.seen[0].body["address"] == address


def test_add_that_fails_in_the_middle_keeps_its_code(shell: Shell) -> None:
    shell.queen.answers["POST", HOSTS] = [step("key", "host key"), failed("host_unreachable", "it is off", "wake it")]
    result = shell.run("hosts", "add", "mac", "--json")
    assert (result.code, result.out) == (1, "")
    assert json.loads(result.err.splitlines()[-1])["error"]["code"] == "host_unreachable"


def test_add_whose_queen_leaves_is_exit_3(shell: Shell) -> None:
    shell.queen.answers["POST", HOSTS] = [step("key", "host key")]
    result = shell.run("hosts", "add", "mac")
    assert (result.code, result.out) == (3, "")
    assert "was cut off" in result.err
    assert "to send it again does no harm" in result.err


def test_ctrl_c_says_that_it_goes_on(shell: Shell) -> None:
    never = threading.Event()
    shell.queen.answers["POST", HOSTS] = [step("key", "host key"), never]
    with shell.start("hosts", "add", "mac") as process:
        assert process.stderr is not None
        assert process.stderr.readline() == b"  host key\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    never.set()
    assert (process.returncode, out) == (130, b"")
    assert err.splitlines()[-1] == b"the queennode goes on with it; run 'swarmesh hosts add' again to see how it went"


def test_steps_move_on_a_terminal(shell: Shell) -> None:
    sending = step("wheels", "sending wheels", state="running", done_bytes=3 * 1048576, total_bytes=4 * 1048576)
    done = step("wheels", "wheels are \x1b[31mthere")
    shell.queen.answers["POST", HOSTS] = [sending, done, finished(host("mac"))]
    with terminal() as seen:
        with shell.start("hosts", "add", "mac", stderr=seen.end) as process:
            out, _ = process.communicate(timeout=60)
        shown = seen.shown()
    assert (process.returncode, out) == (0, b"mac is connected: 8 cores, 16,384 MiB, Apple M4\n")
    assert "sending wheels [###############.....] 75%, 3.0 MiB of 4.0 MiB" in shown
    assert "  wheels are [31mthere" in shown, "what a host says commands no terminal"


def test_list(shell: Shell) -> None:
    gpu = host("x")["gpus"][0]
    shell.queen.hosts["box"] = host("box", gpus=[gpu, gpu], draining=True, rustbees=["rustbee-1", "rustbee-2"])
    shell.queen.hosts["mac"] = host("mac", status="unreachable", error=OFF, cpu_cores=0, total_mib=0, gpus=[])
    result = shell.run("hosts", "list")
    assert result.code == 0
    header, local, box, mac = (line.split("  ") for line in result.out.splitlines())
    assert [cell.strip() for cell in header if cell][:4] == ["host", "address", "status", "cores"]
    assert [cell.strip() for cell in local if cell][:3] == ["local", "localhost", "local"]
    cells = [cell.strip() for cell in box if cell]
    assert cells == ["box", "box.home.arpa", "connected, draining", "8", "8,500", "16,384", "2 x Apple M4", "2"]
    assert [cell.strip() for cell in mac if cell] == ["mac", "mac.home.arpa", "unreachable", "0"]
    assert result.err == "mac: mac cannot be reached: no route to host\n  next: switch it on\n"
    assert [view["name"] for view in shell.run("hosts", "list", "--json").json] == ["local", "box", "mac"]


def test_hints_about_a_host_name_it(shell: Shell) -> None:
    why = error("host_key_changed", "another key", "'swarmesh hosts remove NAME', then add it")["error"]
    shell.queen.hosts["mac"] = host("mac", status="unreachable", error=why)
    assert "next: 'swarmesh hosts remove mac', then add it\n" in shell.run("hosts", "show", "mac").err


def test_a_list_of_one_says_what_to_do(shell: Shell) -> None:
    assert "next: swarmesh hosts add ADDRESS" in shell.run("hosts", "list").err


def test_show(shell: Shell) -> None:
    home = "/home/bee/.swarmesh/hives/12ab"
    shell.queen.hosts["mac"] = host("mac", user="bee", port=2222, rustbees=["rustbee-1"], home=home)
    result = shell.run("hosts", "show", "mac")
    assert result.code == 0
    facts = dict(line.split(maxsplit=1) for line in result.out.splitlines())
    assert facts["address"] == "bee@mac.home.arpa"
    assert facts["status"] == "connected for 1m05s"
    assert facts["memory"] == "8,500 MiB free for rustbees, 9,000 available, 16,384 in all"
    assert facts["rustbees"] == "rustbee-1"
    assert facts["home"] == home
    assert "host key   SHA256:abc" in result.out
    assert "gpu 0      Apple M4, metal, 9,000 MiB free of 16,384 MiB" in result.out
    assert shell.run("hosts", "show", "mac", "--json").json["port"] == 2222
    missing = shell.run("hosts", "show", "box")
    assert (missing.code, missing.out) == (1, "")
    assert "no host is called 'box'" in missing.err


def test_remove(shell: Shell) -> None:
    shell.queen.hosts |= {"mac": host("mac"), "box": host("box")}
    result = shell.run("hosts", "remove", "mac", "--keep-models", "--grace", "5")
    assert (result.code, result.out) == (0, "mac is no host of this swarm any more\n")
    assert result.err == "  nothing of this hive is left on mac\n"
    assert shell.queen.seen[0].query == {"grace_s": "5", "keep_models": "true"}
    assert shell.run("hosts", "remove", "box", "--forget", "--json").json == {"name": "box", "removed": True}
    assert shell.queen.seen[-1].query == {"grace_s": "30", "forget": "true"}
    assert shell.run("hosts", "remove", "mac").code == 1


def test_drain_waits_until_it_is_empty(shell: Shell) -> None:
    shell.queen.hosts["mac"] = host("mac")
    result = shell.run("hosts", "drain", "mac", "--grace", "5")
    assert (result.code, result.out) == (0, "mac takes no new rustbees; none is left there\n")
    assert shell.queen.seen[0].query == {"grace_s": "5"}
    assert "--resume" in result.err
    shown = shell.run("hosts", "drain", "mac", "--json").json
    assert shown["draining"] is True
    resumed = shell.run("hosts", "drain", "mac", "--resume")
    assert (resumed.code, resumed.out) == (0, "mac takes rustbees again\n")
    assert shell.queen.hosts["mac"]["draining"] is False


def test_drain_of_a_host_that_does_not_empty(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swarmesh.cli.hosts.STOP_SLACK_S", -1.0)
    shell.queen.hosts["mac"] = host("mac", rustbees=["rustbee-1"])
    shell.queen.rustbees["rustbee-1"] = rustbee("rustbee-1", host="mac")
    result = shell.run("hosts", "drain", "mac", "--grace", "0")
    assert result.code == 1
    assert "rustbee-1" in result.err
    at_once = shell.run("hosts", "drain", "mac", "--no-wait")
    assert at_once.out == "mac takes no new rustbees; 1 is ending\n"


@pytest.mark.parametrize(
    ("rustbees", "words"), [(["rustbee-1"], "1 rustbee is"), (["rustbee-1", "rustbee-2"], "2 rustbees are")]
)
def test_drain_of_a_host_out_of_reach(shell: Shell, rustbees: list[str], words: str) -> None:
    shell.queen.hosts["m1"] = host("m1", status="unreachable", rustbees=rustbees)
    result = shell.run("hosts", "drain", "m1")
    assert (result.code, result.out) == (1, "")
    assert result.err == (
        f"error: m1 is out of reach; its {words} stopped when it is back\n  next: 'swarmesh hosts show m1' says why.\n"
    )
    as_json = shell.run("hosts", "drain", "m1", "--no-wait", "--json")
    assert (as_json.code, json.loads(as_json.err)["error"]["code"]) == (1, "host_unreachable")
    assert shell.run("hosts", "drain", "m1", "--resume").code == 0


def test_drain_of_a_host_out_of_reach_that_has_nothing(shell: Shell) -> None:
    shell.queen.hosts["m1"] = host("m1", status="unreachable")
    result = shell.run("hosts", "drain", "m1")
    assert (result.code, result.out) == (
        0,
        "m1 takes no new rustbees; it is out of reach, and none is known there\n",
    )


def test_doctor(shell: Shell) -> None:
    checks = [
        {"what": "python", "verdict": "ok", "found": "3.12.4"},
        {"what": "disk", "verdict": "fail", "found": "1 MiB free", "hint": "make room"},
    ]
    shell.queen.answers["GET", f"{HOSTS}/mac/checks"] = 200, {"checks": checks}
    result = shell.run("hosts", "doctor", "mac")
    assert result.code == 1
    assert "fail  disk    1 MiB free" in result.out
    assert "  next (disk): make room" in result.out
    as_json = shell.run("hosts", "doctor", "mac", "--json")
    assert (as_json.code, as_json.json[1]["hint"]) == (1, "make room")
    shell.queen.answers["GET", f"{HOSTS}/mac/checks"] = 200, {"checks": checks[:1]}
    assert shell.run("hosts", "doctor", "mac").code == 0
    assert shell.run("hosts", "doctor", "box").code == 1
