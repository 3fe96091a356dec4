"""The example scripts, and those of the guide: all are right, and decide what they say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from swarmesh.core.script import Hook
from swarmesh.policy.checking import check
from swarmesh.policy.compiled import CALLS_DEEP_MAX, DECISION_CPU_MS, LOAD_CPU_MS, SAID_LINES_MAX, Compiled
from swarmesh.policy.confinement import MEMORY_MIB
from swarmesh.policy.moment import moment
from swarmesh.policy.samples import samples
from swarmesh.policy.script import ANSWER_S_MAX, LATE_S_MAX, SOURCE_BYTES_MAX
from swarmesh.queen.said_log import LINES_PER_MINUTE

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "examples" / "policies").glob("*.star"))
GUIDE = (ROOT / "docs" / "swarmintelligence.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```starlark\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)

TASK = dict(samples(Hook.SCORE)[0].arguments[0])  # type: ignore[call-overload]
MODEL, HOSTS = samples(Hook.PLACE)[0].arguments
NOON = {"hour": 12, "weekday": "monday"}
MIDNIGHT = {"hour": 0, "weekday": "sunday"}


def decide(source: str, hook: Hook, *arguments: Any, at: dict[str, Any] = NOON) -> Any:
    compiled = Compiled("x.star", source)
    compiled.moment = {**moment(0), **at}
    expected = len(arguments[1]) if hook in {Hook.SCORE, Hook.PLACE} else 0
    return compiled.ask(hook, msgspec.json.encode(arguments).decode(), expected)


def example(name: str) -> str:
    return (ROOT / "examples" / "policies" / f"{name}.star").read_text(encoding="utf-8")


def block(word: str) -> str:
    (found,) = [block for block in BLOCKS if word in block]
    return str(found)


def workers(*free: int, hosts: tuple[str, ...] = ("oak", "tower", "elm"), slots: int = 2) -> list[dict[str, Any]]:
    known = dict(samples(Hook.SCORE)[0].arguments[1][0])  # type: ignore[index]
    told = {**known, "slots": slots, "all_slots": slots * len(free), "all_slots_free": sum(free)}
    return [{**told, "host": host, "slots_free": each} for each, host in zip(free, hosts, strict=False) if each]


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_the_examples_are_right(file: Path) -> None:
    findings = check(file.name, file.read_text(encoding="utf-8"))
    assert (findings.mistakes, findings.warnings) == ((), ())


def test_there_are_three() -> None:
    assert len(EXAMPLES) == 3


def test_own_machines_come_first_at_night_only() -> None:
    source = example("own_machines_at_night")
    assert decide(source, Hook.SCORE, TASK, workers(1, 1, 1)) == [0, -1, -2]
    for hour in (22, 23, 0, 6):
        assert decide(source, Hook.SCORE, TASK, workers(1, 1, 1), at={"hour": hour}) == [0, 999, -2]
    assert decide(source, Hook.SCORE, TASK, workers(1, 1, 1), at={"hour": 7}) == [0, -1, -2]


def test_large_models_stay_off_the_laptop() -> None:
    source = example("small_models_on_the_laptop")
    assert decide(source, Hook.PLACE, MODEL, HOSTS) == [0.5, 0.5, 0.5]
    for name in ("Llama-3.3-70B-Instruct", "qwen2-72b"):
        assert decide(source, Hook.PLACE, {**MODEL, "name": name}, HOSTS) == [0.5, None, 0.5]  # type: ignore[dict-item]


def test_one_slot_is_kept_for_high_tasks() -> None:
    source = example("one_slot_for_high")
    low = {**TASK, "priority": "low"}
    assert decide(source, Hook.SCORE, low, workers(1, 1)) == [0, -1]
    assert decide(source, Hook.SCORE, low, workers(1)) == [None]
    assert decide(source, Hook.SCORE, TASK, workers(1)) == [0]
    assert decide(source, Hook.SCORE, low, workers(1, slots=1)) == [0], "a single slot cannot be kept free"
    assert decide(source, Hook.SCORE, low, workers(0, 1, slots=1)) == [None], "the full one is not in the list"
    assert decide(source, Hook.SCORE, TASK, workers(0, 1, slots=1)) == [0]
    assert decide(source, Hook.SCORE, low, workers(1, 1, slots=1)) == [0, -1]


def test_the_guide_has_scripts() -> None:
    assert len(BLOCKS) >= 5


@pytest.mark.parametrize("source", BLOCKS, ids=lambda source: source.split("(")[0].splitlines()[-1])
def test_the_scripts_of_the_guide_are_right(source: str) -> None:
    findings = check("guide.star", source)
    assert (findings.mistakes, findings.warnings) == ((), ())


def test_the_scripts_of_the_guide_do_what_it_says() -> None:
    low = {**TASK, "priority": "low"}
    closed, office = block("closed_at_night"), block("OFFICE")
    assert decide(closed, Hook.ADMIT, low) is None
    assert decide(closed, Hook.ADMIT, low, at=MIDNIGHT) == "low priority is served from six o'clock"
    assert decide(closed, Hook.ADMIT, TASK, at=MIDNIGHT) is None
    assert decide(office, Hook.ADMIT, {**TASK, "key": "key-0f3a9c21"}, at=MIDNIGHT) == "this key is for weekdays"
    assert decide(office, Hook.ADMIT, {**TASK, "key": "key-0f3a9c21"}) is None
    mixed = [
        {**each, "backend": backend} for each, backend in zip(workers(1, 1, 1), ("cpu", "cuda", "cpu"), strict=True)
    ]
    assert decide(block("LONG_TOKENS"), Hook.SCORE, {**TASK, "prompt_tokens": 3_000}, mixed) == [0, 99, -2]
    assert decide(block("LONG_TOKENS"), Hook.SCORE, TASK, mixed) == [0, -1, -2]
    stats = dict(samples(Hook.SCALE)[2].arguments[1])  # type: ignore[call-overload]
    qwen = {**MODEL, "name": "qwen"}  # type: ignore[dict-item]
    assert decide(block("def scale"), Hook.SCALE, qwen, stats) == 2
    assert decide(block("def scale"), Hook.SCALE, qwen, stats, at=MIDNIGHT) is None
    assert decide(block("def scale"), Hook.SCALE, MODEL, stats) is None
    # 16,000 of 24,000 MiB free, 5,000 wanted: less than half is left; the last has 40,000 of 48,000 and the file.
    assert decide(block("crowded"), Hook.PLACE, MODEL, HOSTS) == [None, None, 1.5]


def facts_of(heading: str) -> set[str]:
    section = GUIDE.split(f"\n### {heading}\n")[1].split("\n#")[0]
    rows = [row.split("|")[1] for row in section.splitlines() if row.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


def test_the_guide_names_every_fact() -> None:
    assert facts_of("task") == set(TASK)
    assert facts_of("workers") == {*samples(Hook.SCORE)[0].arguments[1][0], "rank"}  # type: ignore[index]
    assert facts_of("hosts") == set(HOSTS[0])  # type: ignore[index]
    assert facts_of("model") == set(MODEL)
    assert facts_of("stats") == set(samples(Hook.SCALE)[0].arguments[1])
    for name in moment(0):
        assert f"`.{name}`" in GUIDE or f"`now().{name}`" in GUIDE


def test_the_guide_names_every_limit() -> None:
    limits = GUIDE.split("\n## Limits\n")[1].split("\n## ")[0]
    assert f"| {DECISION_CPU_MS} ms |" in limits
    assert f"| {LOAD_CPU_MS} ms |" in limits
    assert f"| {ANSWER_S_MAX * 1_000:g} ms |" in limits
    assert f"after {LATE_S_MAX * 1_000:g} ms the call fails" in limits
    assert f"| {MEMORY_MIB} MiB |" in limits
    assert f"| {CALLS_DEEP_MAX} |" in limits
    assert f"| {SAID_LINES_MAX}, of 200 characters; {LINES_PER_MINUTE} lines a minute" in limits
    assert f"| {SOURCE_BYTES_MAX // 1024} KiB |" in limits


def test_the_guide_shows_a_mistake_as_it_is_shown() -> None:
    source = block("closed_at_night").replace("task.priority", "task.prio")
    (mistake,) = check("closed_at_night.star", source).mistakes
    assert mistake.picture in GUIDE
