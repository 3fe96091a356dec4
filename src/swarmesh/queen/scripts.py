"""The policy script while the queen runs: activated, watched, remembered, and shown."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import structlog

from swarmesh.config.home import Home, write_private
from swarmesh.core.commands import RaiseAlarm
from swarmesh.core.errors import NotFoundError
from swarmesh.core.ids import WorkerId
from swarmesh.core.script import Hook, ScriptFailedError
from swarmesh.core.swarm import Swarm
from swarmesh.policy.checking import check
from swarmesh.policy.mistake import Mistake, ScriptEndedError, ScriptInvalidError
from swarmesh.policy.script import SandboxedScript
from swarmesh.queen.said_log import SaidLog
from swarmesh.queen.script_file import Saved, ScriptFile, Stamp, may_watch
from swarmesh.queen.script_replay import replay
from swarmesh.store.store import Store
from swarmesh.wire.scripts import (
    ReplayView,
    ScriptChange,
    ScriptError,
    ScriptMistake,
    ScriptState,
    ScriptTrial,
    ScriptView,
)

LOOK_S: Final = 1.0
"""Between two looks at the file; a save is taken up that late."""
RETRY_S: Final = 30.0
"""Between two attempts to take up a script again that may only have been unlucky when the queen started."""
BAD_SAVE: Final = "policy_script_bad_save"

log = structlog.get_logger("scripts")


class _Kept(msgspec.Struct, frozen=True):
    """What is remembered: the script that decides, for the queen after this one."""

    name: str
    source: str
    path: str
    activated_at: float


class Scripts:
    """One script or none. When it is asked, and when it is given up, is the core's (`swarmesh.core.script_guard`)."""

    def __init__(self, home: Home, swarm: Swarm, store: Store, raise_alarm: Callable[[RaiseAlarm], None]) -> None:
        self._home = home
        self._swarm = swarm
        self._store = store
        self._raise_alarm = raise_alarm
        self._changing = asyncio.Lock()
        self._script: SandboxedScript | None = None
        self._kept: _Kept | None = None
        self._file = ScriptFile()
        self._stamp: Stamp | None = None
        self._retry_s: float | None = None
        """When to try again, in monotonic seconds, while the script is not loaded by no fault of its text."""
        self._is_closed = False
        self._bad_source = ""
        self._reason = ""
        self._unsaved: tuple[Mistake, ...] = ()
        self._watch: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Take up the script that decided when the queen was stopped."""
        self._kept = _read_kept(self._home.script_file)
        if self._kept is not None:
            error = await self._take_up_again(self._kept)
            if error is not None:
                self._alarm(error.code, f"the policy script cannot be taken up again: {error.message}")
        self._watch = asyncio.get_running_loop().create_task(self._look_again())

    async def close(self) -> None:
        """End the script's process; it is remembered."""
        if self._watch is not None:
            self._watch.cancel()
        self._is_closed = True  # Whoever is at a change now is not waited for: it comes to nothing.
        await self._use(None)

    def view(self) -> ScriptView:
        """What it is and how it does."""
        script, kept = self._script, self._kept
        if kept is None:
            return ScriptView(state=ScriptState.NONE)
        shown = ScriptView(
            state=ScriptState.OFF,
            name=kept.name,
            path=kept.path,
            reason=self._reason,
            watched=self._stamp is not None,
            gone=bool(kept.path) and self._file.is_gone,
            activated_at=kept.activated_at,
            unsaved=_shown(self._unsaved),
        )
        return shown if script is None else self._with_figures(shown, script)

    async def activate(self, change: ScriptChange) -> ScriptView:
        """Let a script decide from now on.

        Raises:
            ScriptInvalidError: It has mistakes; whatever decided before goes on.
            ScriptFailedError: Its process cannot be started.
        """
        async with self._changing:
            script = await self._checked(change.name, change.source)
            await self._take_up(script, change.path)
        return self.view()

    async def deactivate(self) -> None:
        """Let the built-in policy decide alone.

        Raises:
            NotFoundError: There is no script.
        """
        async with self._changing:
            if self._kept is None:
                raise NotFoundError("no policy script is active", hint="'swarmesh policy activate FILE' takes one up.")
            self._home.script_file.unlink(missing_ok=True)
            self._kept, self._stamp, self._unsaved, self._retry_s = None, None, (), None
            await self._use(None)
        log.info("script_deactivated")

    async def replay(self, trial: ScriptTrial) -> ReplayView:
        """What a script would have changed; the active one is not disturbed.

        Raises:
            ScriptInvalidError: It has mistakes.
        """
        return await replay(self._store, trial)

    async def look(self) -> None:
        """Take up what was saved since the last look."""
        async with self._changing:
            kept = self._kept
            if kept is None:
                return
            if self._retry_s is not None and time.monotonic() >= self._retry_s:
                await self._take_up_again(kept)
            saved = await self._file.read(kept.path, self._stamp) if kept.path else None
            if saved is None:
                return
            self._stamp, source = saved
            if source in {kept.source, self._bad_source}:
                return
            try:
                await self._take_up(await self._checked(kept.name, source), kept.path)
            except ScriptFailedError as error:
                self._keep_last(kept, source, error)

    async def _look_again(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self.look()
            except Exception:  # An outer edge: whatever came of one look, saves after it must not pass unseen.
                log.exception("look_failed")

    async def _checked(self, name: str, source: str) -> SandboxedScript:
        findings = await asyncio.to_thread(check, name, source)
        findings.demand_none()
        return await self._loaded(name, source)

    async def _loaded(self, name: str, source: str) -> SandboxedScript:
        return await asyncio.to_thread(SandboxedScript.open, name, source, said=SaidLog(name))

    async def _take_up_again(self, kept: _Kept) -> ScriptFailedError | None:
        """Load what is remembered; says why not, and sees to another attempt unless that would come to the same."""
        try:
            script = await self._loaded(kept.name, kept.source)
        except ScriptFailedError as error:
            is_lasting = isinstance(error, ScriptInvalidError) and not isinstance(error, ScriptEndedError)
            self._reason, self._retry_s = error.message, None if is_lasting else time.monotonic() + RETRY_S
            return error
        self._reason, self._retry_s = "", None
        await self._use(script)
        log.info("script_active_again", name=script.name)
        return None

    async def _take_up(self, script: SandboxedScript, path: str) -> None:
        try:
            saved = await self._saved_as(script, path)
            kept = _Kept(script.name, script.source, path if saved is not None else "", time.time())
            await asyncio.to_thread(self._remember, kept)
        except BaseException:
            await asyncio.to_thread(script.close)
            raise
        self._kept, self._bad_source, self._reason, self._unsaved, self._retry_s = kept, "", "", (), None
        self._stamp = saved[0] if saved is not None else None
        await self._use(script)
        log.info("script_active", name=script.name, hooks=sorted(hook.value for hook in script.hooks), path=kept.path)

    async def _saved_as(self, script: SandboxedScript, path: str) -> Saved | None:
        saved = await self._file.read(path, None) if may_watch(path) else None
        # Another machine's path, or a text that was sent from elsewhere: what lies here is not this script.
        return saved if saved is not None and saved[1] == script.source else None

    def _remember(self, kept: _Kept) -> None:
        try:
            write_private(self._home.script_file, msgspec.json.encode(kept))
        except OSError as error:
            raise ScriptFailedError(f"{kept.name} cannot be remembered: {error.strerror}") from error

    def _keep_last(self, kept: _Kept, source: str, error: ScriptFailedError) -> None:
        self._bad_source = source
        self._unsaved = error.mistakes if isinstance(error, ScriptInvalidError) else (Mistake(error.message),)
        self._alarm(BAD_SAVE, f"{kept.path} was saved with a mistake, the one before goes on: {error.message}")

    async def _use(self, script: SandboxedScript | None) -> None:
        before = script  # At the end of the queen nobody would ask it.
        if script is None or not self._is_closed:
            before, self._script = self._script, script
            self._swarm.set_script(script)
        if before is not None:
            await asyncio.to_thread(before.close)

    def _alarm(self, code: str, message: str) -> None:
        self._raise_alarm(RaiseAlarm(WorkerId(""), code, message))

    def _with_figures(self, shown: ScriptView, script: SandboxedScript) -> ScriptView:
        tally, guard = script.tally, self._swarm.scripted
        answered = max(1, tally.answered)
        return msgspec.structs.replace(
            shown,
            state=ScriptState.OFF if guard.is_off else ScriptState.ACTIVE,
            reason=guard.last_error if guard.is_off else "",
            hooks=tuple(hook.value for hook in Hook if hook in script.hooks),
            asked=tally.asked,
            failed=tally.failed,
            late=tally.late,
            mean_ms=round(tally.round_trip_us_sum / answered / 1_000, 3),
            max_ms=tally.round_trip_us_max / 1_000,
            cpu_max_ms=tally.cpu_us_max / 1_000,
            starts=tally.starts,
            errors=tuple(ScriptError(at, message) for at, message in reversed(script.errors)),
            warnings=_shown(script.warnings),
        )


def _shown(mistakes: tuple[Mistake, ...]) -> tuple[ScriptMistake, ...]:
    return tuple(ScriptMistake(each.message, each.line, each.column, each.text) for each in mistakes)


def _read_kept(path: Path) -> _Kept | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Kept)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        log.warning("script_forgotten", error=str(error))
        return None
