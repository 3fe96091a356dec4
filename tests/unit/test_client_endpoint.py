"""Where the SDK finds its queen and its key."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from swarmesh.client.endpoint import Endpoint, find_endpoint
from swarmesh.config.home import QueenFile
from swarmesh.core.errors import ConfigError, QueenUnreachableError, UnauthorizedError


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    queen = QueenFile(url="http://127.0.0.1:8512", pid=1, started_at=1.0, version="0.1.0")
    (tmp_path / "queen.json").write_bytes(msgspec.json.encode(queen))
    (tmp_path / "admin.key").write_text("sk-home\n")
    return {"SWARMESH_HOME": str(tmp_path)}


def test_the_home_of_this_machine(environ: dict[str, str]) -> None:
    assert find_endpoint(None, None, environ) == Endpoint("http://127.0.0.1:8512", "sk-home")


def test_arguments_go_before_the_environment(environ: dict[str, str]) -> None:
    environ |= {"SWARMESH_URL": "http://box:1/", "SWARMESH_API_KEY": "sk-env"}
    assert find_endpoint(None, None, environ) == Endpoint("http://box:1", "sk-env")
    assert find_endpoint("http://other:2", "sk-arg", environ) == Endpoint("http://other:2", "sk-arg")


@pytest.mark.parametrize("url", ["http://localhost:9", "http://127.0.0.9:9", "http://[::1]:9"])
def test_the_homes_key_goes_to_loopback(environ: dict[str, str], url: str) -> None:
    assert find_endpoint(url, None, environ).key == "sk-home"


@pytest.mark.parametrize("url", ["http://127.0.0.1.evil.example", "https://box:8500", "http://10.0.0.7:8500"])
def test_the_homes_key_goes_nowhere_else(environ: dict[str, str], url: str) -> None:
    with pytest.raises(UnauthorizedError, match="no API key for"):
        find_endpoint(url, None, environ)


def test_the_homes_key_goes_to_the_homes_queen_on_any_address(environ: dict[str, str], tmp_path: Path) -> None:
    queen = QueenFile(url="http://10.0.0.7:8500", pid=1, started_at=1.0, version="0.1.0")
    (tmp_path / "queen.json").write_bytes(msgspec.json.encode(queen))
    assert find_endpoint("http://10.0.0.7:8500/", None, environ).key == "sk-home"


def test_no_queen_here(tmp_path: Path) -> None:
    with pytest.raises(QueenUnreachableError, match=str(tmp_path)):
        find_endpoint(None, None, {"SWARMESH_HOME": str(tmp_path)})


@pytest.mark.parametrize("url", ["box:8500", "ftp://box", "http://", "http://box:99999"])
def test_what_is_no_url(environ: dict[str, str], url: str) -> None:
    with pytest.raises(ConfigError, match="not the URL of a queennode"):
        find_endpoint(url, "sk", environ)
