"""A script in its language: parsed, type checked, loaded, asked. Runs inside the script's own process.

`starlark` is Starlark as Rust has it: no files, no network, no clock, no `while`, no recursion without end; a script's
module is frozen after it was loaded, so that what it answers depends on what it is asked and on nothing before.
"""

from __future__ import annotations

import time
from typing import Final

import msgspec
import starlark

from swarmesh.core.script import Hook
from swarmesh.policy import prelude
from swarmesh.policy.answers import Odd, words
from swarmesh.policy.mistake import LINE_CHARS_MAX, Mistake
from swarmesh.policy.moment import Moment
from swarmesh.policy.starlark_error import SCRIPT, Lines

DECISION_CPU_MS: Final = 5
"""Of processor time, for one question."""
LOAD_CPU_MS: Final = 200
"""For a script's own top level."""
CALLS_DEEP_MAX: Final = 100
SAID_LINES_MAX: Final = 20
"""Of one call; later ones are counted."""
_NS_PER_MS: Final = 1_000_000
_CANCELLED: Final = "Evaluation cancelled"

_EXTENSIONS: Final = (
    starlark.LibraryExtension.StructType,
    starlark.LibraryExtension.RecordType,
    starlark.LibraryExtension.EnumType,
    starlark.LibraryExtension.Map,
    starlark.LibraryExtension.Filter,
    starlark.LibraryExtension.Partial,
    starlark.LibraryExtension.Json,
    starlark.LibraryExtension.Typing,
)
GLOBALS: Final = starlark.Globals.extended_by(list(_EXTENSIONS))
"""Not among them is `print`, which would write to this process's own output: scripts have one of ours."""


class RefusedError(Exception):
    """The script cannot be used.

    Attributes:
        mistakes: Why.
    """

    def __init__(self, *mistakes: Mistake) -> None:
        super().__init__(mistakes[0].words)
        self.mistakes = mistakes


class AskError(Exception):
    """The script gave no answer.

    Attributes:
        mistake: Why.
    """

    def __init__(self, mistake: Mistake) -> None:
        super().__init__(mistake.words)
        self.mistake = mistake


class Said:
    """What a script prints during one call."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._more = 0

    def add(self, text: str) -> None:
        """One line, as the script prints it."""
        if len(self._lines) < SAID_LINES_MAX:
            self._lines.append(text[:LINE_CHARS_MAX])
        else:
            self._more += 1

    def take(self) -> tuple[str, ...]:
        """All of it, once."""
        lines = (*self._lines, f"and {self._more:,} more lines") if self._more else tuple(self._lines)
        self._lines, self._more = [], 0
        return lines


class Allowance:
    """Processor time of one call; while a call waits for its turn on the processor, nothing of it is used."""

    def __init__(self, milliseconds: int) -> None:
        self._began_ns = time.thread_time_ns()
        self._end_ns = self._began_ns + milliseconds * _NS_PER_MS

    def is_spent(self) -> bool:
        """Whether there is none left; the language asks this every few microseconds."""
        return time.thread_time_ns() > self._end_ns

    def used_us(self) -> int:
        """How much was taken so far."""
        return (time.thread_time_ns() - self._began_ns) // 1_000


class Compiled:
    """A script that was loaded.

    Attributes:
        hooks: What it defines of what is ever asked.
        warnings: What looks wrong and does no harm.
        said: What it prints.
        cpu_us: What the last question took.
        moment: What it is told of the time; see `swarmesh.policy.moment`.

    Raises:
        RefusedError: It has mistakes.
    """

    def __init__(self, name: str, source: str) -> None:
        self.said = Said()
        self.cpu_us = 0
        self.moment: Moment = {}
        self._lines = Lines(name, source)
        self._begins = {hook: self._lines.defines(hook) for hook in Hook}
        ast = self._parse(source)
        self._check_types(source)
        self.warnings = (*self._lines.mistyped(), *self._lint(ast))
        module = self._load(ast)
        self.hooks = self._find_hooks(module)
        self._evaluate(module, _parse_ours(prelude.after(self.hooks)))
        self._frozen = module.freeze()

    def ask(self, hook: Hook, line: str, expected: int) -> object:
        """The answer of one hook to arguments in JSON.

        Raises:
            AskError: There is none.
        """
        allowance = Allowance(DECISION_CPU_MS)
        options = starlark.EvalOptions(check_cancelled=allowance.is_spent, max_callstack_size=CALLS_DEEP_MAX)
        begins = self._begins[hook]
        try:
            shape = self._frozen.call_with(options, prelude.question(hook), line).value
        except starlark.StarlarkError as error:
            raise AskError(self._explained(str(error), begins, DECISION_CPU_MS)) from error
        finally:
            self.cpu_us = allowance.used_us()
        if allowance.is_spent():
            raise AskError(self._lines.mistake(_too_long(DECISION_CPU_MS), begins))
        assert isinstance(shape, dict), "our part answers in dicts"
        if "value" in shape:
            return shape["value"]
        raise AskError(self._lines.mistake(words(hook, msgspec.convert(shape, Odd), expected), begins))

    def _parse(self, source: str) -> starlark.AstModule:
        try:
            return starlark.parse(SCRIPT, source, _dialect())
        except starlark.StarlarkError as error:
            raise RefusedError(self._lines.read(str(error))) from error

    def _check_types(self, source: str) -> None:
        ast = starlark.parse(SCRIPT, f"{source}\n{prelude.GIVEN}", _dialect())
        errors, _, _ = ast.typecheck(GLOBALS, {})
        if errors:
            raise RefusedError(*(self._lines.read(str(error)) for error in errors))

    def _lint(self, ast: starlark.AstModule) -> tuple[Mistake, ...]:
        return tuple(
            self._lines.mistake(
                lint.problem.replace(SCRIPT, self._lines.name),
                lint.resolved_location.span.begin.line + 1,
                lint.resolved_location.span.begin.column + 1,
            )
            for lint in ast.lint()
            if lint.severity != starlark.EvalSeverity.Disabled
        )

    def _load(self, ast: starlark.AstModule) -> starlark.Module:
        module = starlark.Module()
        module.add_callable(prelude.CLOCK, lambda: self.moment)
        module.add_callable(prelude.SAY, self.said.add)
        self._evaluate(module, _parse_ours(prelude.BEFORE))
        self._evaluate(module, ast)
        return module

    def _evaluate(self, module: starlark.Module, ast: starlark.AstModule) -> None:
        allowance = Allowance(LOAD_CPU_MS)
        options = starlark.EvalOptions(check_cancelled=allowance.is_spent, max_callstack_size=CALLS_DEEP_MAX)
        try:
            starlark.eval_with(options, module, ast, GLOBALS)
        except starlark.StarlarkError as error:
            raise RefusedError(self._explained(str(error), 0, LOAD_CPU_MS)) from error

    def _find_hooks(self, module: starlark.Module) -> frozenset[Hook]:
        hooks = frozenset(hook for hook in Hook if self._is_defined(module, hook))
        if not hooks:
            none = f"the script defines none of the functions that are asked: {', '.join(Hook)}"
            raise RefusedError(self._lines.mistake(none), *self._lines.mistyped())
        return hooks

    def _is_defined(self, module: starlark.Module, hook: Hook) -> bool:
        try:
            value = module[hook]
        except starlark.StarlarkError:
            return True  # A function is the only kind of value that cannot be handed out.
        if value is not None:
            raise RefusedError(self._lines.mistake(f"{hook} is not a function", self._begins[hook]))
        return False

    def _explained(self, error: str, otherwise: int, milliseconds: int) -> Mistake:
        message = _too_long(milliseconds) if _CANCELLED in error else ""
        return self._lines.read(error, otherwise, message)


def _too_long(milliseconds: int) -> str:
    return f"took more than {milliseconds} ms of processor time"


def _dialect() -> starlark.Dialect:
    dialect = starlark.Dialect.extended()
    dialect.enable_load = False
    dialect.enable_types = starlark.DialectTypes.ENABLE
    dialect.enable_top_level_stmt = True
    dialect.enable_f_strings = True
    return dialect


def _parse_ours(text: str) -> starlark.AstModule:
    return starlark.parse(prelude.OURS, text, _dialect())
