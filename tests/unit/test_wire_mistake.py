"""What is wrong with a body, in words that a person understands, and what may stand there."""

from __future__ import annotations

from typing import Annotated

import msgspec
import pytest

from swarmesh.core.errors import InvalidValueError
from swarmesh.models import shelf
from swarmesh.wire import hosts, keys, scripts, waggle
from swarmesh.wire.body import decode_body
from swarmesh.wire.keys import KeyRequest
from swarmesh.wire.scripts import ScriptTrial
from swarmesh.wire.views import SpawnRequest

Label = Annotated[str, msgspec.Meta(pattern="^[a-z]+$", description="lower-case letters")]


class Part(msgspec.Struct):
    label: Label | None = None
    share: Annotated[float, msgspec.Meta(gt=0.0, lt=1.5)] = 1.0
    big: Annotated[int, msgspec.Meta(ge=-(2**63))] | None = None


class Whole(msgspec.Struct, forbid_unknown_fields=True):
    first: int
    second: str
    parts: list[Part] = []
    by_name: dict[str, Label] = {}
    either: int | str | None = None
    unnamed: Annotated[str, msgspec.Meta(pattern="^x$")] = "x"
    short: Annotated[str, msgspec.Meta(min_length=1, max_length=2000)] = "x"
    few: Annotated[list[int], msgspec.Meta(min_length=2)] = []


FORM = "it is not in the form that it must have"


@pytest.mark.parametrize(
    ("fields", "message", "hint"),
    [
        ({"parts": [{}, {"label": "A"}]}, f"parts[1].label: {FORM}", "It is lower-case letters."),
        ({"by_name": {"a": "A"}}, f"by_name[...]: {FORM}", "It is lower-case letters."),
        ({"unnamed": "y"}, f"unnamed: {FORM}", ""),
        (
            {"parts": [{"share": 0}]},
            "parts[0].share: must be more than 0",
            "It is a number, more than 0 and less than 1.5.",
        ),
        (
            {"parts": [{"share": 1.5}]},
            "parts[0].share: must be less than 1.5",
            "It is a number, more than 0 and less than 1.5.",
        ),
        (
            {"parts": [{"big": -(2**63) - 1}]},
            "parts[0].big: must be -9,223,372,036,854,775,808 or more",
            "It is a number, -9,223,372,036,854,775,808 or more.",
        ),
        ({"short": ""}, "short: must have at least 1 character", ""),
        ({"short": "x" * 2001}, "short: must have at most 2,000 characters", ""),
        ({"few": [1]}, "few: must have at least 2 elements", ""),
        ({"either": []}, "either: must be a whole number or a text or null, not a list", ""),
        ({"first": 1.5}, "first: must be a whole number, not a fraction", ""),
        ({"first": None}, "first: must be a whole number, not null", ""),
        ({"secnd": 1}, "secnd: there is no field `secnd`", "Did you mean `second`?"),
        (
            {"zzzz": 1},
            "zzzz: there is no field `zzzz`",
            "Its fields are first, second, parts, by_name, either, unnamed, short, few.",
        ),
    ],
)
def test_a_mistake_in_words(fields: dict[str, object], message: str, hint: str) -> None:
    with pytest.raises(InvalidValueError) as raised:
        decode_body(msgspec.json.Decoder(Whole), msgspec.json.encode({"first": 1, "second": "a", **fields}))
    assert (raised.value.message, raised.value.hint) == (message, hint)


def test_a_field_that_is_missing_is_told_with_the_others_that_are_needed() -> None:
    with pytest.raises(InvalidValueError) as raised:
        decode_body(msgspec.json.Decoder(Whole), b'{"second": "a"}')
    assert raised.value.message == "first: the field `first` is missing"
    assert raised.value.hint == "It needs first, second."


@pytest.mark.parametrize(
    ("kind", "body", "param", "hint"),
    [
        (KeyRequest, {"name": "a\nb"}, "name", "It is 1 to 64 characters, no line breaks or other control characters."),
        (KeyRequest, {"name": "a", "concurrency": -1}, "concurrency", "It is a number from 0 to 1,000,000,000."),
        (
            ScriptTrial,
            {"name": "", "source": ""},
            "name",
            "It is 1 to 128 characters, no line breaks or other control characters.",
        ),
        (ScriptTrial, {"name": "a", "source": "", "hours": 25}, "hours", "It is a number, more than 0 and 24 or less."),
        (
            SpawnRequest,
            {"modelcell": "m", "api_key": "a b"},
            "api_key",
            "It is up to 512 visible ASCII characters, no spaces.",
        ),
        (SpawnRequest, {"modelcell": "m", "slots": 0}, "slots", "It is a number from 1 to 4,096."),
    ],
)
def test_our_own_bodies_say_what_a_field_may_be(
    kind: type[msgspec.Struct], body: object, param: str, hint: str
) -> None:
    with pytest.raises(InvalidValueError) as raised:
        decode_body(msgspec.json.Decoder(kind), msgspec.json.encode(body))
    assert (raised.value.param, raised.value.hint) == (param, hint)
    assert "regex" not in raised.value.message


@pytest.mark.parametrize(
    "kind",
    [hosts.HostLabel, keys.Name, scripts.ScriptName, waggle.RustbeeName, shelf.Sha256, shelf.FileName, SpawnRequest],
)
def test_no_pattern_is_without_words(kind: object) -> None:
    _, components = msgspec.json.schema_components([kind])
    schemas = [msgspec.json.schema(kind), *components.values()]
    fields = [field for schema in schemas for field in (schema, *schema.get("properties", {}).values())]
    patterned = [field for field in fields if "pattern" in field]
    assert patterned
    assert all(field.get("description") for field in patterned)
