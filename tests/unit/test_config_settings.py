"""`swarmesh.toml`: defaults, ranges, and a wrong key with the nearest right one."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarmesh.config.settings import Settings, load_settings
from swarmesh.core.errors import ConfigError
from swarmesh.core.policies import PolicyName


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "swarmesh.toml"


def test_no_file_means_the_defaults(file: Path) -> None:
    assert load_settings(file) == Settings()
    file.write_text("")
    assert load_settings(file) == Settings()


def test_the_default_queen_is_for_this_machine_only() -> None:
    queennode = Settings().queennode
    assert (queennode.host, queennode.port) == ("127.0.0.1", 8500)
    assert (queennode.streams_max, queennode.queue_max_per_key) == (2_000, 1_000)
    assert queennode.body_bytes_max == 10 * 1024 * 1024


def test_what_is_set_is_taken(file: Path) -> None:
    file.write_text('[queennode]\nport = 9000\nhost = "::1"\n[rustbee]\nslots = 8\n')
    settings = load_settings(file)
    assert (settings.queennode.port, settings.queennode.host, settings.rustbee.slots) == (9000, "::1", 8)
    assert settings.rustbee.context_tokens == Settings().rustbee.context_tokens


@pytest.mark.parametrize(
    ("text", "wrong", "right"),
    [
        ("[queennode]\nprot = 1\n", "'queennode.prot'", "'queennode.port'"),
        ("[queenode]\nport = 1\n", "'queenode'", "'queennode'"),
        ("[rustbee]\nslot = 1\n", "'rustbee.slot'", "'rustbee.slots'"),
        ("[rustbee]\ncontext = 1\n", "'rustbee.context'", "'rustbee.context_tokens'"),
        ("port = 1\n", "'port'", "Did you mean"),
        ('"" = 1\n', "''", "Did you mean"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_right_one(file: Path, text: str, wrong: str, right: str) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError) as raised:
        load_settings(file)
    assert f"unknown key {wrong}" in raised.value.message
    assert str(file) in raised.value.message
    assert right in raised.value.hint


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[queennode]\nport = 70000\n", "<= 65535 - at `$.queennode.port`"),
        ('[queennode]\nport = "1"\n', "Expected `int`"),
        ("[queennode]\nstreams_max = 0\n", ">= 1"),
        ("[rustbee]\norphan_ttl_s = 0\n", "> 0"),
        ("queennode = 5\n", "Expected `object`"),
        ("[queennode\n", "is not TOML"),
        ("a = 1\na = 2\n", "is not TOML"),
    ],
)
def test_a_wrong_value_says_where(file: Path, text: str, words: str) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError) as raised:
        load_settings(file)
    assert words in raised.value.message
    assert str(file) in raised.value.message


def test_a_file_that_cannot_be_read(file: Path) -> None:
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_settings(file)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_settings(file.parent)


def test_policies_are_chosen_for_the_swarm_and_for_modelcells(file: Path) -> None:
    file.write_text(
        '[routing]\npolicy = "foraging"\n[routing.modelcells]\ndemo = "nest-site"\n"q-0.5b" = "least-work"\n'
    )
    routing = load_settings(file).routing
    assert routing.policy is PolicyName.FORAGING
    assert routing.modelcells == {"demo": PolicyName.NEST_SITE, "q-0.5b": PolicyName.LEAST_WORK}
    assert Settings().routing.policy is PolicyName.SWARM


@pytest.mark.parametrize(
    ("text", "words", "hint"),
    [
        ('[routing]\npolicy = "swam"\n', "routing.policy: no policy is called 'swam'", "'swarm'"),
        ('[routing.modelcells]\ndemo = "forage"\n', "routing.modelcells.demo: no policy is called", "'foraging'"),
        ("[routing]\npolicy = 1\n", "$.routing.policy", ""),
        ("[routing]\nmodelcells = 1\n", "$.routing.modelcells", ""),
        ("[routing]\npolici = 1\n", "unknown key 'routing.polici'", "'routing.policy'"),
    ],
)
def test_a_wrong_policy_is_named_with_the_nearest_right_one(file: Path, text: str, words: str, hint: str) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError) as raised:
        load_settings(file)
    assert words in raised.value.message
    assert hint in raised.value.hint
