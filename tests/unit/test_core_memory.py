"""The books of hosts' memory."""

from __future__ import annotations

import pytest

from swarmesh.core.errors import NotEnoughMemoryError
from swarmesh.core.ids import HostName, ModelName, WorkerId
from swarmesh.core.memory import USABLE_SHARE, MemoryBooks

OAK, ELM = HostName("oak"), HostName("elm")
QWEN = ModelName("qwen")
TOTAL_MIB = 10_000
USABLE_MIB = int(TOTAL_MIB * USABLE_SHARE)


def books(available_mib: int = TOTAL_MIB) -> MemoryBooks:
    made = MemoryBooks()
    made.probed(OAK, TOTAL_MIB, available_mib)
    return made


def free(made: MemoryBooks, host: HostName = OAK) -> int:
    of_host = made.of_host(host)
    assert of_host is not None
    return of_host.free_mib


def reserve(made: MemoryBooks, name: str, need_mib: int, host: HostName = OAK) -> None:
    made.reserve(WorkerId(name), QWEN, host, need_mib)


def test_both_sides_of_the_bound() -> None:
    made = books()
    with pytest.raises(NotEnoughMemoryError):
        reserve(made, "w1", USABLE_MIB + 1)
    reserve(made, "w1", USABLE_MIB)
    assert free(made) == 0


def test_a_refusal_says_need_have_and_who_holds_what() -> None:
    made = books()
    reserve(made, "w1", 6_000)
    with pytest.raises(NotEnoughMemoryError) as refused:
        reserve(made, "w2", 4_000)
    assert refused.value.message == "qwen needs 4000 MiB on oak, which has 3200 MiB free (held: w1 6000 MiB)"
    assert refused.value.hint


def test_a_host_that_was_never_probed_has_nothing() -> None:
    with pytest.raises(NotEnoughMemoryError, match="elm, which has 0 MiB free"):
        reserve(books(), "w1", 1, ELM)


def test_the_host_may_have_less_than_the_books_say() -> None:
    made = books(available_mib=3_000)
    assert free(made) == 3_000
    reserve(made, "w1", 2_000)
    assert free(made) == 1_000


def test_a_promise_is_taken_off_what_the_host_shows_until_the_model_is_loaded() -> None:
    made = books(available_mib=5_000)
    reserve(made, "w1", 3_000)
    assert free(made) == 2_000
    made.settled(WorkerId("w1"))
    made.probed(OAK, TOTAL_MIB, 2_000)  # The host now shows the worker's memory itself.
    assert free(made) == 2_000


def test_promises_outlive_a_probe_and_end_with_the_worker() -> None:
    made = books()
    reserve(made, "w1", 5_000)
    made.probed(OAK, TOTAL_MIB, TOTAL_MIB)
    assert free(made) == USABLE_MIB - 5_000
    made.release(WorkerId("w1"))
    made.release(WorkerId("w1"))
    assert free(made) == USABLE_MIB


def test_free_is_never_negative() -> None:
    made = books()
    reserve(made, "w1", 8_000)
    made.probed(OAK, TOTAL_MIB, 100)
    assert free(made) == 0


def test_hosts_have_books_of_their_own() -> None:
    made = books()
    made.probed(ELM, TOTAL_MIB, TOTAL_MIB)
    reserve(made, "w1", USABLE_MIB)
    reserve(made, "w2", USABLE_MIB, ELM)
    assert made.of_host(HostName("ash")) is None
