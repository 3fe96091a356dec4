"""The part of a script's module that is ours: what scripts are given, and how their functions are asked.

Answers are looked at inside the language, while the clock runs: a list of ten million numbers would take seconds to be
handed out just to be refused. What is handed out is small: an answer as it should be, or what is wrong with it.
"""

from __future__ import annotations

from typing import Final

from swarmesh.core.script import Hook
from swarmesh.policy.answers import NUMBER_MAX, REASON_CHARS_MAX, WORKERS_MAX
from swarmesh.policy.mistake import LINE_CHARS_MAX

OURS: Final = "<swarmesh>"
"""What the language calls this part in its errors."""
PREFIX: Final = "swarmesh_"
CLOCK: Final = f"{PREFIX}clock"
SAY: Final = f"{PREFIX}say"

GIVEN: Final = """
def now():
    return struct(hour = 0, minute = 0, weekday = "", day = 1, month = 1, year = 1970, unix_s = 0.0)

def print(*values):
    pass
"""
"""For the type checker, after the script's own lines, so that theirs keep their numbers."""

BEFORE: Final = f"""
swarmesh_struct, swarmesh_decode, swarmesh_type, swarmesh_len = struct, json.decode, type, len
swarmesh_str, swarmesh_range, swarmesh_enumerate = str, range, enumerate
swarmesh_not_finite = (float("nan"), float("inf"), float("-inf"))

def now():
    return swarmesh_struct(**{CLOCK}())

def print(*values):
    {SAY}(" ".join([swarmesh_str(value)[:{LINE_CHARS_MAX}] for value in values])[:{LINE_CHARS_MAX}])

def swarmesh_kind(value):
    return "None" if value == None else swarmesh_type(value)

def swarmesh_article(kind):
    return kind if kind == "None" else ("an " if kind[0] in "aeio" else "a ") + kind

def swarmesh_shown(number):
    if -(1 << 64) < number and number < (1 << 64):
        return swarmesh_str(number)
    return "a number of more than 64 bits"

def swarmesh_reason(answer):
    if answer == None:
        return {{"value": answer}}
    if swarmesh_type(answer) != "string":
        return {{"kind": swarmesh_kind(answer)}}
    size = swarmesh_len(answer)
    return {{"value": answer}} if size > 0 and size <= {REASON_CHARS_MAX} else {{"kind": "string", "size": size}}

def swarmesh_count(answer):
    if answer == None:
        return {{"value": answer}}
    if swarmesh_type(answer) != "int":
        return {{"kind": swarmesh_kind(answer)}}
    if answer >= 0 and answer <= {WORKERS_MAX}:
        return {{"value": answer}}
    return {{"kind": "int", "item": swarmesh_shown(answer)}}

def swarmesh_wrong(item):
    kind = swarmesh_type(item)
    if kind == "float":
        return swarmesh_str(item).lstrip("+") if item in swarmesh_not_finite else ""
    if kind == "int":
        return "" if item <= {NUMBER_MAX} and item >= -{NUMBER_MAX} else swarmesh_shown(item)
    return "" if item == None else swarmesh_article(kind)

def swarmesh_numbers(answer, expected):
    if swarmesh_type(answer) != "list" and swarmesh_type(answer) != "tuple":
        return {{"kind": swarmesh_kind(answer)}}
    size = swarmesh_len(answer)
    if size != expected:
        return {{"kind": "list", "size": size}}
    for index in swarmesh_range(size):
        wrong = swarmesh_wrong(answer[index])
        if wrong:
            return {{"kind": "list", "index": index, "item": wrong}}
    return {{"value": answer}}
"""

_ASK: Final = {
    Hook.ADMIT: """
def swarmesh_ask_admit(line):
    task = swarmesh_decode(line)[0]
    return swarmesh_reason(admit(swarmesh_struct(**task)))
""",
    Hook.SCORE: """
def swarmesh_ask_score(line):
    task, workers = swarmesh_decode(line)
    ranked = [swarmesh_struct(rank = rank, **worker) for rank, worker in swarmesh_enumerate(workers)]
    return swarmesh_numbers(score(swarmesh_struct(**task), ranked), swarmesh_len(ranked))
""",
    Hook.PLACE: """
def swarmesh_ask_place(line):
    model, hosts = swarmesh_decode(line)
    answer = place(swarmesh_struct(**model), [swarmesh_struct(**host) for host in hosts])
    return swarmesh_numbers(answer, swarmesh_len(hosts))
""",
    Hook.SCALE: """
def swarmesh_ask_scale(line):
    model, stats = swarmesh_decode(line)
    return swarmesh_count(scale(swarmesh_struct(**model), swarmesh_struct(**stats)))
""",
}


def question(hook: Hook) -> str:
    """The name by which a hook is asked."""
    return f"{PREFIX}ask_{hook}"


def after(hooks: frozenset[Hook]) -> str:
    """The functions by which the hooks that a script defines are asked."""
    return "".join(_ASK[hook] for hook in Hook if hook in hooks)
