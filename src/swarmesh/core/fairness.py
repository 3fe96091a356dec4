"""Whose turn it is: keys that wait in one band of one model get equal shares of the work, whatever each asks for.

Deficit round robin. Each key has an account; in its turn it starts tasks until the account is used up, gets a quantum
for its next turn and goes to the end of the round. A task is charged with what it is expected to cost when it starts,
and the account is put right when the real cost is known, so whoever writes long answers waits for more turns. A debt
outlives the key's last waiting task, until as many turns have passed as it is worth; credit does not. Who comes (back)
stands at best where the key stands that has had least, what runs now left out: so a key that has all the slots when
others come counts with what it has. When nobody waits any more, nothing is remembered.

A turn is paid for by the work of the turn before, so every change costs O(1) amortised over the tasks; O(keys that
wait) when a key comes, or is given back more than a turn.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from heapq import merge
from typing import Final

from swarmesh.core.events import StreamEnded, TaskCancelled
from swarmesh.core.ids import KeyId, TaskId
from swarmesh.core.ledger import CHARS_PER_TOKEN, PREFILL_WEIGHT, predicted_work
from swarmesh.core.task import Task

QUANTUM: Final = 16.0
"""Token-equivalents of one turn, about the smallest tasks there are. More lets a key start several small ones in a row;
less costs turns that nobody uses: a task of n token-equivalents is worth n / QUANTUM of them."""

Holds = Callable[[Task], bool]
"""Whether a task may not run now however many slots are free: its key is at its limit."""


def expected_work(task: Task) -> float:
    """What a task is charged with when it starts, in token-equivalents."""
    return predicted_work(task.prompt_chars / CHARS_PER_TOKEN, task.max_tokens)


def real_work(task: Task, event: StreamEnded | TaskCancelled) -> float | None:
    """What it has cost in the end, in the same unit; None when nobody knows.

    Where the engine has not said, what was shown is the least that it wrote, and what was expected is the least it
    costs: nobody gets more for hanging up before the end.
    """
    if event.shown_tokens > 0 and (isinstance(event, TaskCancelled) or not event.completion_tokens):
        return max(expected_work(task), event.shown_tokens + PREFILL_WEIGHT * task.prompt_chars / CHARS_PER_TOKEN)
    if isinstance(event, TaskCancelled):
        return None
    if not event.prompt_tokens and not event.completion_tokens:
        return None
    prompt_tokens = event.prompt_tokens or task.prompt_chars / CHARS_PER_TOKEN
    return event.completion_tokens + PREFILL_WEIGHT * prompt_tokens


@dataclass(slots=True)
class Account:
    """One key in one band: what is left of its turn, and its tasks in the order they came.

    Attributes:
        interactive: Tasks that were let in within the limits of the key, so that no limit holds them.
        durable: Tasks that wait also while the key is at its limit.
    """

    left: float = QUANTUM
    interactive: OrderedDict[TaskId, tuple[int, Task]] = field(default_factory=OrderedDict)
    durable: OrderedDict[TaskId, tuple[int, Task]] = field(default_factory=OrderedDict)

    def line_of(self, task: Task) -> OrderedDict[TaskId, tuple[int, Task]]:
        """Where a task stands, or would."""
        return self.durable if task.durable else self.interactive

    @property
    def is_empty(self) -> bool:
        """Nobody waits here."""
        return not self.interactive and not self.durable

    def is_held(self, holds: Holds) -> bool:
        """Whether its durable tasks may not run now."""
        return bool(self.durable) and holds(next(iter(self.durable.values()))[1])

    def has_ready(self, holds: Holds) -> bool:
        """Whether anything here may run now."""
        return bool(self.interactive) or (bool(self.durable) and not self.is_held(holds))

    def ready(self, holds: Holds) -> Iterator[Task]:
        """What may run now, in the order it came."""
        if self.is_held(holds):
            yield from (task for _, task in self.interactive.values())
            return
        for _, task in merge(self.interactive.values(), self.durable.values(), key=_serial):
            yield task

    def held(self, holds: Holds) -> Iterator[Task]:
        """What may not run now."""
        if self.is_held(holds):
            yield from (task for _, task in self.durable.values())


@dataclass(slots=True)
class _Load:
    tasks: int = 0
    work: float = 0.0


class Running:
    """What the keys have running of one model that was submitted to one band: how many tasks, and how much work."""

    def __init__(self) -> None:
        self._loads: dict[KeyId, _Load] = {}

    def add(self, key_id: KeyId, work: float) -> None:
        """One more task."""
        load = self._loads.get(key_id)
        if load is None:
            load = self._loads[key_id] = _Load()
        load.tasks += 1
        load.work += work

    def remove(self, key_id: KeyId, work: float) -> None:
        """One task less, with the work it was added with."""
        load = self._loads[key_id]
        load.tasks -= 1
        load.work -= work
        if not load.tasks:
            del self._loads[key_id]

    def work_of(self, key_id: KeyId) -> float:
        """What the tasks of a key that run are expected to cost in all."""
        load = self._loads.get(key_id)
        return load.work if load is not None else 0.0

    def __contains__(self, key_id: object) -> bool:
        """Whether anything of that key runs."""
        return key_id in self._loads


class Turns:
    """The tasks of one model that wait in one band."""

    def __init__(self, holds: Holds, running: Running) -> None:
        self._holds = holds
        self._running = running
        self._returned: OrderedDict[TaskId, Task] = OrderedDict()
        """Those that had a slot already, before all others."""
        self._round: OrderedDict[KeyId, Account] = OrderedDict()
        """Accounts in the order of their turns; the first has something left, and a task that may run."""
        self._parked: dict[KeyId, Account] = {}
        """Accounts that came to their turn with tasks of which none may run, or with none but some that run."""
        self._size = 0

    def push(self, task: Task, serial: int) -> None:
        """Put a task behind all others of its key; ``serial`` rises with each."""
        account = self._account(task.key_id)
        if self._round.get(task.key_id) is not account:
            self._come_back(task.key_id, account)
        account.line_of(task)[task.task_id] = serial, task
        self._size += 1
        self._turn()

    def push_front(self, task: Task) -> None:
        """Put a task before all others of all keys: it had its turn."""
        self._returned[task.task_id] = task
        self._returned.move_to_end(task.task_id, last=False)
        self._size += 1

    def remove(self, task: Task) -> bool:
        """Take a task out; False when it does not wait here."""
        if self._returned.pop(task.task_id, None) is None and not self._remove_in_turn(task):
            return False
        self._size -= 1
        if not self._size:
            self._round.clear()
            self._parked.clear()
        self._turn()
        return True

    def ready(self) -> Iterator[Task]:
        """What may run now, in the order it will be served if all costs what is expected; nothing is changed."""
        yield from (task for task in self._returned.values() if not self._holds(task))
        yield from self._in_turn()

    def held(self) -> Iterator[Task]:
        """What may not run now."""
        yield from (task for task in self._returned.values() if self._holds(task))
        for account in (*self._round.values(), *self._parked.values()):
            yield from account.held(self._holds)

    def everyone(self) -> Iterator[Task]:
        """All that wait, in no order that means anything."""
        yield from self._returned.values()
        for account in (*self._round.values(), *self._parked.values()):
            for line in (account.interactive, account.durable):
                yield from (task for _, task in line.values())

    def pay(self, key_id: KeyId, work: float) -> None:
        """Take work off a key's account, or give it back when it is negative; call while anybody waits here.

        For a task that starts call it before the task is added to those that run, for one that ended before it is
        removed.
        """
        account = self._account(key_id)
        account.left -= work
        if key_id in self._round or account.left <= 0:  # A debt is worked off turn by turn, also while nothing waits.
            self._round[key_id] = account
            self._parked.pop(key_id, None)
            self._even_out(account)
        else:
            self._parked[key_id] = account
        self._turn()

    def look_again(self, key_id: KeyId) -> bool:
        """The limits of a key have changed, or how near it is to them; whether any task of it may run now."""
        account = self._parked.get(key_id)
        if account is not None and account.has_ready(self._holds):
            self._come_back(key_id, account)
        account = self._round.get(key_id)
        self._turn()
        freed = account is not None and bool(account.durable) and account.has_ready(self._holds)
        return freed or any(task.key_id == key_id and not self._holds(task) for task in self._returned.values())

    def left_of(self, key_id: KeyId) -> float | None:
        """What is left of a key's turn, below 0 when it owes turns; None while it has no place in the round."""
        account = self._round.get(key_id)
        return None if account is None else account.left

    def __len__(self) -> int:
        """How many tasks wait here."""
        return self._size

    def _account(self, key_id: KeyId) -> Account:
        account = self._round.get(key_id) or self._parked.get(key_id)
        if account is not None and not (account.is_empty and account.left > 0 and key_id not in self._running):
            return account
        return Account(self._level() - self._running.work_of(key_id))

    def _level(self) -> float:
        """What a key has left that has had as little as any other here, and has nothing running."""
        ready = ((key_id, account) for key_id, account in self._round.items() if account.has_ready(self._holds))
        return max((account.left + self._running.work_of(key_id) for key_id, account in ready), default=QUANTUM)

    def _come_back(self, key_id: KeyId, account: Account) -> None:
        # Turns that passed while nothing of it could run are not made up for.
        account.left = min(account.left, self._level() - self._running.work_of(key_id))
        self._parked.pop(key_id, None)
        self._round.pop(key_id, None)
        self._round[key_id] = account
        self._even_out(account)

    def _even_out(self, account: Account) -> None:
        # Whoever has more than a turn left takes it in turns with those who have as much: the others have less.
        excess = account.left - QUANTUM
        for other in self._round.values() if excess > 0 else ():
            other.left -= excess

    def _remove_in_turn(self, task: Task) -> bool:
        account = self._round.get(task.key_id) or self._parked.get(task.key_id)
        return account is not None and account.line_of(task).pop(task.task_id, None) is not None

    def _turn(self) -> None:
        """Go on to the next key whose turn it can be."""
        passed = 0
        while self._round:
            key_id, account = next(iter(self._round.items()))
            if account.left <= 0:
                account.left += QUANTUM
                self._round.move_to_end(key_id)
                passed += 1
                if passed > len(self._round):  # A whole round in debt: pass all those that would be the same.
                    if not self._raise_all():
                        return
                    passed = 0
            elif account.has_ready(self._holds):
                return
            else:
                del self._round[key_id]
                if not account.is_empty or key_id in self._running:
                    self._parked[key_id] = account

    def _raise_all(self) -> bool:
        """Let as many rounds pass as nobody has a turn in; whether somebody has one then."""
        ready = [key_id for key_id, account in self._round.items() if account.has_ready(self._holds)]
        if not ready:
            return False  # No turn passes while it can be nobody's.
        rounds = min(rounds_in_debt(account.left) for account in self._round.values())
        if len(ready) == 1:
            # Who waits alone is served anyway; what it has running still counts when somebody comes.
            rounds = rounds_in_debt(self._round[ready[0]].left + self._running.work_of(ready[0]))
        for account in self._round.values():
            account.left += rounds * QUANTUM
        return any(account.left > 0 for account in self._round.values())

    def _in_turn(self) -> Iterator[Task]:
        # Plays the rounds ahead. The first one reads the accounts as it goes: most callers want only the first task.
        following: list[tuple[float, Iterator[Task]]] = []
        for account in self._round.values():
            yield from _play(account.left, account.ready(self._holds), following)
        while following:
            rounds = min(rounds_in_debt(left) for left, _ in following)
            present = [(left + rounds * QUANTUM, tasks) for left, tasks in following]
            following = []
            for left, tasks in present:
                yield from _play(left, tasks, following)


def rounds_in_debt(left: float) -> int:
    """Rounds a key sits out before it has anything left."""
    return 0 if left > 0 else int(-left // QUANTUM) + 1


def _play(left: float, tasks: Iterator[Task], following: list[tuple[float, Iterator[Task]]]) -> Iterator[Task]:
    """One key's turn, as it would be; those who are not through with their tasks go on to the next round."""
    while left > 0:
        task = next(tasks, None)
        if task is None:
            return
        yield task
        left -= expected_work(task)
    following.append((left + QUANTUM, tasks))


def _serial(entry: tuple[int, Task]) -> int:
    return entry[0]
