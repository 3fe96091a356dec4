"""``python -I -m swarmesh.policy.sandbox``: the process of one script.

It reads frames from its standard input, which is a socket, answers on the same, and ends with it.
"""

from __future__ import annotations

import os
import sys
from typing import Final, assert_never

from swarmesh.core.script import Hook
from swarmesh.policy.compiled import AskError, Compiled, RefusedError
from swarmesh.policy.confinement import ASK_S_MAX, LOAD_S_MAX, confine, end_after
from swarmesh.policy.frames import HEAD, Answer, Ask, Failure, Load, Loaded, Order, Refused, Report, frame, read_order
from swarmesh.policy.mistake import Mistake

_SOCKET: Final = 0


def main() -> None:
    """Until the other end is closed."""
    _warm_up()
    confine()
    compiled: Compiled | None = None
    while (order := _read()) is not None:
        match order:
            case Load():
                end_after(LOAD_S_MAX)
                compiled, report = _loaded(order)
            case Ask():
                assert compiled is not None, "nobody is asked who was not loaded"
                end_after(ASK_S_MAX)
                report = _answered(compiled, order)
            case _:
                assert_never(order)
        end_after(0)
        _write(frame(report))


def _warm_up() -> None:
    """Run something harmless: the language imports some modules only when they are used, which takes files."""
    compiled = Compiled("warm", "def admit(task):\n    print(now())\n")
    compiled.ask(Hook.ADMIT, "[{}]", 0)


def _loaded(order: Load) -> tuple[Compiled | None, Report]:
    try:
        compiled = Compiled(order.name, order.source)
    except RefusedError as error:
        return None, Refused(error.mistakes)
    except MemoryError:
        return None, Refused((Mistake("takes too much memory to be loaded", order.name),))
    hooks = tuple(hook.value for hook in Hook if hook in compiled.hooks)
    return compiled, Loaded(hooks, compiled.warnings, compiled.said.take())


def _answered(compiled: Compiled, ask: Ask) -> Report:
    compiled.moment = ask.moment
    try:
        value = compiled.ask(Hook(ask.hook), ask.arguments, ask.expected)
    except AskError as error:
        return Failure(ask.serial, error.mistake, compiled.said.take(), compiled.cpu_us)
    except MemoryError:
        return Failure(ask.serial, Mistake("took too much memory"), compiled.said.take(), compiled.cpu_us)
    assert value is None or isinstance(value, str | int | float | list), "our part has looked at it"
    return Answer(ask.serial, value, compiled.said.take(), compiled.cpu_us)


def _read() -> Order | None:
    head = _read_exactly(HEAD.size)
    if head is None:
        return None
    body = _read_exactly(HEAD.unpack(head)[0])
    return None if body is None else read_order(body)


def _read_exactly(size: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < size:
        data = os.read(_SOCKET, size - len(parts))
        if not data:
            return None
        parts += data
    return bytes(parts)


def _write(data: bytes) -> None:
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[os.write(_SOCKET, rest) :]
    except (BrokenPipeError, ConnectionResetError):
        sys.exit(0)  # Nobody is left to be told.


if __name__ == "__main__":
    main()
