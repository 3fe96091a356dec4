"""Which wheels run on which machine."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest
from pip._vendor.packaging import _manylinux, _musllinux, tags

from swarmesh.hosts.bootstrap import _libc, _machine
from swarmesh.hosts.software import LOCK
from swarmesh.hosts.wheels import NoWheelError, platform_tags

UV_LOCK = Path(__file__).parents[2] / "uv.lock"
COMMON_HOSTS = [
    ("Linux", "x86_64", ("glibc", "2.28"), ""),
    ("Linux", "aarch64", ("glibc", "2.31"), ""),
    ("Darwin", "arm64", ("", ""), "14.5"),
    ("Darwin", "x86_64", ("", ""), "13.6.1"),
]


@pytest.mark.parametrize(
    ("machine", "macos"), [("arm64", "14.5"), ("arm64", "11.0"), ("x86_64", "13.6"), ("x86_64", "12.0")]
)
def test_macs_run_what_pip_says(machine: str, macos: str) -> None:
    version = (int(macos.partition(".")[0]), 0)
    assert platform_tags("Darwin", machine, ("", ""), macos) == list(tags.mac_platforms(version, machine))


def test_this_machine_runs_what_pip_says() -> None:
    if sys.platform != "linux":
        pytest.skip("the tags of a Mac are compared above")
    machine = _machine()
    name, version = _libc()
    ours = platform_tags("Linux", machine, (name, version), "")
    theirs = [*_manylinux.platform_tags([machine]), *_musllinux.platform_tags([machine]), f"linux_{machine}"]
    assert ours == theirs


def test_older_names_of_the_same_follow_the_new_ones() -> None:
    found = platform_tags("Linux", "x86_64", ("glibc", "2.17"), "")
    assert found[:2] == ["manylinux_2_17_x86_64", "manylinux2014_x86_64"]
    assert found[-3:] == ["manylinux_2_5_x86_64", "manylinux1_x86_64", "linux_x86_64"]
    assert "manylinux_2_16_aarch64" not in platform_tags("Linux", "aarch64", ("glibc", "2.36"), "")


def test_musl_is_no_glibc() -> None:
    expected = ["musllinux_1_2_aarch64", "musllinux_1_1_aarch64", "musllinux_1_0_aarch64", "linux_aarch64"]
    assert platform_tags("Linux", "aarch64", ("musl", "1.2.4"), "") == expected


@pytest.mark.parametrize(("system", "machine"), [("FreeBSD", "amd64"), ("Darwin", "ppc"), ("Linux", "x86_64")])
def test_a_machine_nobody_makes_wheels_for_is_named(system: str, machine: str) -> None:
    with pytest.raises(NoWheelError, match=f"{system} on {machine}"):
        platform_tags(system, machine, ("", ""), "")


@pytest.mark.parametrize("host", COMMON_HOSTS, ids=lambda host: f"{host[0]}-{host[1]}")
@pytest.mark.parametrize("python", ["311", "312", "313", "314"])
def test_every_dependency_has_a_wheel_for_common_hosts(
    host: tuple[str, str, tuple[str, str], str], python: str
) -> None:
    platforms = {*platform_tags(*host), "any"}
    wheels = {
        package["name"]: [wheel["url"].rpartition("/")[2] for wheel in package["wheels"]]
        for package in tomllib.loads(UV_LOCK.read_text())["package"]
        if "wheels" in package
    }
    names = re.findall(r"^(\S+)==", LOCK.read_text(), re.MULTILINE)
    lacking = [name for name in names if not any(_runs(wheel, python, platforms) for wheel in wheels[name])]
    assert not lacking


def _runs(wheel: str, python: str, platforms: set[str]) -> bool:
    pythons, abis, systems = (part.split(".") for part in wheel.removesuffix(".whl").split("-")[-3:])
    exact = f"cp{python}" in pythons and f"cp{python}" in abis
    stable = "abi3" in abis and any(int(tag[3:]) <= int(python[1:]) for tag in pythons if tag.startswith("cp3"))
    return bool(platforms & set(systems)) and (exact or stable or ("py3" in pythons and "none" in abis))


@pytest.mark.parametrize(
    ("system", "machine", "libc", "macos"),
    [
        ("Linux", "x86_64", ("glibc", "2.999999999"), ""),
        ("Linux", "x86_64", ("glibc", "2.201"), ""),
        ("Linux", "x86_64", ("glibc", "2"), ""),
        ("Linux", "x86_64", ("glibc", "2.x"), ""),
        ("Linux", "x86_64", ("glibc", "2.\u0663"), ""),
        ("Linux", "x86_64", ("musl", ""), ""),
        ("Linux", "x86_64", ("musl", "1.-1"), ""),
        ("Linux", "x86_64", ("musl", "1." + "9" * 10_000), ""),
        ("Darwin", "arm64", ("", ""), "99999999"),
        ("Darwin", "arm64", ("", ""), ""),
        ("Darwin", "arm64", ("", ""), "\x1b[2J14"),
        ("Linux", "../x", ("glibc", "2.36"), ""),
        ("Linux", "x86 --index-url=http://x", ("glibc", "2.36"), ""),
        ("Linux", "", ("glibc", "2.36"), ""),
        ("Linux", "x" * 10_000, ("glibc", "2.36"), ""),
        ("Linux\x1b" * 1_000, "x86_64", ("", "\x1b" * 1_000), ""),
    ],
)
def test_what_names_no_machine_is_refused(system: str, machine: str, libc: tuple[str, str], macos: str) -> None:
    with pytest.raises(NoWheelError) as caught:
        platform_tags(system, machine, libc, macos)
    assert len(caught.value.message) < 250
    assert "\x1b" not in caught.value.message


def test_a_version_with_more_behind_the_number_that_counts_is_one() -> None:
    assert platform_tags("Linux", "x86_64", ("musl", "1.2.4_git20230717"), "")[0] == "musllinux_1_2_x86_64"
    assert platform_tags("Linux", "x86_64", ("glibc", "2.38.9000"), "")[0] == "manylinux_2_38_x86_64"
