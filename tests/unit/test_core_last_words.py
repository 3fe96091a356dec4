"""What an engine printed before it ended: its owner reads it, nobody else."""

from __future__ import annotations

from core_hive import Hive
from swarmesh.core.commands import BreakStream, RaiseAlarm
from swarmesh.core.events import WorkerAlarmed, WorkerGone
from swarmesh.core.ids import WorkerId
from swarmesh.core.last_words import with_last_words, without_last_words


def test_last_words_are_put_on_and_taken_off() -> None:
    assert without_last_words(with_last_words("it ended", "two\nlines")) == "it ended"
    assert with_last_words("it ended", "") == without_last_words("it ended") == "it ended"


def test_what_an_engine_printed_last_is_not_for_those_whose_tasks_it_ran() -> None:
    hive = Hive("w", slots=2)
    hive.submit("ada's", key="ada")
    hive.submit("bob's", key="bob")
    end = with_last_words("the engine exited with code 1", "cannot parse 'a secret of ada'")
    out = hive.tell(WorkerAlarmed(WorkerId("w"), "engine_crashed", end))
    assert [command.message for command in out if isinstance(command, RaiseAlarm)] == [end]
    broken = [command.message for command in out if isinstance(command, BreakStream)]
    assert broken == ["the engine exited with code 1"] * 2
    gone = hive.tell(WorkerGone(WorkerId("w"), "its agent has ended:\nwith a secret"))
    assert "secret" not in repr([command for command in gone if not isinstance(command, RaiseAlarm)])
