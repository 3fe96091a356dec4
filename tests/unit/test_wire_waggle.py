"""Waggles as R-11 writes them, and what is not let in."""

from __future__ import annotations

import json

import msgspec
import pytest

from swarmesh.core.liveness import WorkerStatus
from swarmesh.wire.views import SpawnRequest
from swarmesh.wire.waggle import Alarm, Registration, Waggle, WaggleAnswer

EXAMPLE = b"""{"rustbee_id": "rustbee-123", "location": "mac.local", "modelcell": "qwen-0.5b", "load": 0.7,
 "vram_used": 2048, "quality": 0.95, "backend": "metal"}"""


def test_the_founding_example() -> None:
    waggle = msgspec.json.decode(EXAMPLE, type=Waggle)
    assert (waggle.rustbee_id, waggle.location, waggle.modelcell) == ("rustbee-123", "mac.local", "qwen-0.5b")
    assert (waggle.load, waggle.vram_used, waggle.quality, waggle.backend) == (0.7, 2048, 0.95, "metal")
    assert waggle.status is WorkerStatus.HEALTHY


def test_the_shortest_waggle_and_one_from_the_future() -> None:
    assert msgspec.json.decode(b'{"rustbee_id": "a"}', type=Waggle).load == 0.0
    assert msgspec.json.decode(b'{"rustbee_id": "a", "new_field": [1]}', type=Waggle).rustbee_id == "a"


def test_the_answer() -> None:
    answer = msgspec.json.encode(WaggleAnswer(acknowledged=True, status="healthy", next_waggle=30))
    assert json.loads(answer) == {"acknowledged": True, "status": "healthy", "next_waggle": 30}


@pytest.mark.parametrize(
    "wrong",
    [
        {"load": 1.1},
        {"load": -0.1},
        {"load": "0.5"},
        {"quality": 2},
        {"vram_used": -1},
        {"slots": -1},
        {"status": "sleepy"},
        {"location": "x" * 513},
    ],
)
def test_values_out_of_range(wrong: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(json.dumps({"rustbee_id": "a", **wrong}), type=Waggle)


@pytest.mark.parametrize("kind", [Waggle, Registration, Alarm])
@pytest.mark.parametrize("name", ["", "a b", "a\r\nset-cookie: x", "a\n", "../../etc", "-rf", "\u00e4", "x" * 129])
def test_a_name_that_would_do_harm_in_a_header_or_a_path(kind: type[msgspec.Struct], name: str) -> None:
    whole = {"rustbee_id": name, "modelcell": "m", "location": "http://a", "code": "c", "message": "m"}
    with pytest.raises(msgspec.ValidationError, match=r"rustbee_id"):
        msgspec.json.decode(json.dumps(whole), type=kind)


@pytest.mark.parametrize("api_key", ["a\r\nx: y", "a\n", "a b", "\u00e4", "\0"])
def test_a_key_that_would_do_harm_in_a_header(api_key: str) -> None:
    asked = {"type": "openai", "modelcell": "m", "url": "http://a", "api_key": api_key}
    with pytest.raises(msgspec.ValidationError, match=r"api_key"):
        msgspec.json.decode(json.dumps(asked), type=SpawnRequest)
