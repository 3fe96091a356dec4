"""The books of hosts' memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmesh.core.errors import NotEnoughMemoryError
from swarmesh.core.events import GpuMemory, HostProbed
from swarmesh.core.ids import HostName, ModelName, WorkerId
from swarmesh.core.memory import MemoryBooks
from swarmesh.core.memory_pool import GPU_USABLE_SHARE, USABLE_SHARE, PoolFree, in_proportion

OAK, ELM = HostName("oak"), HostName("elm")
QWEN = ModelName("qwen")
TOTAL_MIB = 10_000
USABLE_MIB = int(TOTAL_MIB * USABLE_SHARE)
GPU_MIB = 20_000
GPU_USABLE_MIB = int(GPU_MIB * GPU_USABLE_SHARE)


def books(available_mib: int = TOTAL_MIB, gpus: int = 0) -> MemoryBooks:
    made = MemoryBooks()
    probe(made, available_mib, *[GPU_MIB] * gpus)
    return made


def probe(made: MemoryBooks, available_mib: int, *gpus_mib: int, host: HostName = OAK) -> None:
    gpus = tuple(GpuMemory(index, GPU_MIB, mib) for index, mib in enumerate(gpus_mib))
    made.probed(HostProbed(host, TOTAL_MIB, available_mib, gpus))


def free(made: MemoryBooks, host: HostName = OAK) -> int:
    return made.free(host)[0].free_mib


def gpus_free(made: MemoryBooks) -> list[int]:
    return [pool.free_mib for pool in made.free(OAK)[1:]]


def reserve(
    made: MemoryBooks, name: str, need_mib: int, gpus: tuple[int, ...] = (), host: HostName = OAK
) -> tuple[int, ...]:
    return made.reserve(WorkerId(name), QWEN, host, need_mib, gpus)


def refused(made: MemoryBooks, need_mib: int, gpus: tuple[int, ...] = ()) -> NotEnoughMemoryError:
    with pytest.raises(NotEnoughMemoryError) as error:
        reserve(made, "late", need_mib, gpus)
    return error.value


# Main memory


def test_both_sides_of_the_bound() -> None:
    made = books()
    refused(made, USABLE_MIB + 1)
    assert reserve(made, "w1", USABLE_MIB) == ()
    assert free(made) == 0


def test_a_host_that_was_never_probed_has_nothing() -> None:
    made = books()
    with pytest.raises(NotEnoughMemoryError, match="elm, which has 0 MiB free"):
        reserve(made, "w1", 0, host=ELM)
    assert made.free(ELM) == ()


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
    probe(made, 2_000)  # The host now shows the worker's memory itself.
    assert free(made) == 2_000


def test_promises_outlive_a_probe_and_end_with_the_worker() -> None:
    made = books()
    reserve(made, "w1", 5_000)
    probe(made, TOTAL_MIB)
    assert free(made) == USABLE_MIB - 5_000
    made.release(WorkerId("w1"))
    made.release(WorkerId("w1"))
    assert free(made) == USABLE_MIB


def test_free_is_never_negative() -> None:
    made = books()
    reserve(made, "w1", 8_000)
    probe(made, 100)
    assert free(made) == 0


def test_hosts_have_books_of_their_own() -> None:
    made = books()
    probe(made, TOTAL_MIB, host=ELM)
    reserve(made, "w1", USABLE_MIB)
    reserve(made, "w2", USABLE_MIB, host=ELM)
    assert made.of_host(HostName("ash")) is None


# GPUs


def test_every_pool_is_shown_with_what_it_has_left() -> None:
    made = books(gpus=2)
    reserve(made, "w1", 4_000, (1,))
    assert made.free(OAK) == (
        PoolFree("ram", USABLE_MIB, TOTAL_MIB),
        PoolFree("gpu 0", GPU_USABLE_MIB, GPU_MIB),
        PoolFree("gpu 1", GPU_USABLE_MIB - 4_000, GPU_MIB),
    )


def test_the_gpu_with_most_free_memory_takes_it_all() -> None:
    made = books()
    probe(made, TOTAL_MIB, 9_000, 15_000, 12_000)
    assert reserve(made, "w1", 12_000, (0, 1, 2)) == (1,)
    assert reserve(made, "w2", 12_000, (0, 1, 2)) == (2,)
    assert gpus_free(made) == [9_000, 3_000, 0]
    assert free(made) == USABLE_MIB


def test_of_equals_the_first_named_is_taken() -> None:
    assert reserve(books(gpus=2), "w1", 1, (1, 0)) == (1,)


def test_only_the_gpus_it_may_use_are_looked_at() -> None:
    made = books()
    probe(made, TOTAL_MIB, 5_000, 15_000)
    assert reserve(made, "w1", 5_000, (0,)) == (0,)
    refused(made, 1, (0,))


def test_what_no_gpu_holds_alone_is_spread_over_all_in_proportion_to_what_is_free() -> None:
    made = books()
    probe(made, TOTAL_MIB, 9_000, 0, 3_000)
    assert reserve(made, "w1", 10_000, (0, 1, 2)) == (0, 2)
    assert gpus_free(made) == [1_500, 0, 500]
    made.release(WorkerId("w1"))
    assert gpus_free(made) == [9_000, 0, 3_000]


def test_both_sides_of_the_bound_of_all_gpus_together() -> None:
    made = books()
    probe(made, TOTAL_MIB, 3, 5, 8)
    refused(made, 17, (0, 1, 2))
    assert reserve(made, "w1", 16, (0, 1, 2)) == (0, 1, 2)
    assert gpus_free(made) == [0, 0, 0]


def test_the_same_gpu_named_twice_is_one() -> None:
    made = books(gpus=1)
    refused(made, GPU_USABLE_MIB + 1, (0, 0))


def test_a_gpu_that_is_not_there_has_nothing_and_one_that_comes_back_has_its_promises() -> None:
    made = books(gpus=1)
    refused(made, 1, (3,))
    reserve(made, "w1", 4_000, (0,))
    made.settled(WorkerId("w1"))
    probe(made, TOTAL_MIB)  # Its driver does not answer.
    assert made.free(OAK) == (PoolFree("ram", USABLE_MIB, TOTAL_MIB),)
    refused(made, 1, (0,))
    probe(made, TOTAL_MIB, GPU_MIB)
    assert gpus_free(made) == [GPU_USABLE_MIB - 4_000]


@given(st.integers(0, 10**6), st.lists(st.integers(0, 10**6), min_size=1, max_size=9).filter(any))
def test_parts_add_up_and_none_is_above_its_weight(mib: int, weights: list[int]) -> None:
    parts = in_proportion(mib, weights)
    total = sum(weights)
    assert sum(parts) == mib
    for part, weight in zip(parts, weights, strict=True):
        assert abs(part - mib * weight / total) < 1
        assert part <= weight or mib > total


# Refusals


def test_a_refusal_says_need_and_have_and_who_holds_what() -> None:
    made = books()
    reserve(made, "w1", 6_000)
    error = refused(made, 4_000)
    assert error.message == "qwen needs 4000 MiB on oak, which has 3200 MiB free in main memory (held: w1 6000 MiB)"
    assert error.hint.startswith("Stop w1, which would make room; or use a smaller quantisation")


def test_a_refusal_names_every_gpu() -> None:
    made = books(gpus=2)
    reserve(made, "w1", 14_000, (1,))
    probe(made, TOTAL_MIB, 1_000, 6_000)
    assert refused(made, 8_000, (0, 1, 2)).message == (
        "qwen needs 8000 MiB on oak, which has 1000 MiB free on gpu 0 and 0 MiB free on gpu 1 (held: w1 14000 MiB)"
        " and 0 MiB free on gpu 2"
    )


@pytest.mark.parametrize(
    ("need_mib", "leavers"),
    [(1_100, "small"), (2_500, "middle"), (5_000, "large"), (7_500, "large and middle")],
)
def test_the_hint_names_the_fewest_and_smallest_that_would_make_room(need_mib: int, leavers: str) -> None:
    made = books()
    for name, mib in (("large", 5_000), ("small", 1_000), ("middle", 2_700)):
        reserve(made, name, mib)
    reserve(made, "filler", 200)
    assert free(made) == 300
    assert refused(made, need_mib).hint.startswith(f"Stop {leavers}, which")


def test_the_hint_does_not_send_anybody_away_for_nothing() -> None:
    made = books()
    reserve(made, "w1", 1_000)
    assert refused(made, USABLE_MIB + 1).hint.startswith("It would not fit with no rustbee there")
    probe(made, 3_000)
    hint = refused(made, 4_000).hint
    assert hint.startswith("Other programs hold 6200 MiB of ram there")


# Workers that were there before the queen


def test_a_worker_that_lives_is_booked_once_and_released_as_usual() -> None:
    made = books()
    for _ in range(2):
        made.restore(WorkerId("w1"), OAK, 4_000, ())
    assert free(made) == USABLE_MIB - 4_000
    made.release(WorkerId("w1"))
    assert free(made) == USABLE_MIB


def test_a_worker_that_has_its_promise_keeps_that_one() -> None:
    made = books(gpus=1)
    reserve(made, "w1", 4_000, (0,))
    made.restore(WorkerId("w1"), OAK, 9_000, ())
    assert (free(made), gpus_free(made)) == (USABLE_MIB, [GPU_USABLE_MIB - 4_000])


def test_nobody_who_lives_is_refused_and_nothing_is_promised_on_top() -> None:
    made = books()
    made.restore(WorkerId("w1"), OAK, USABLE_MIB, ())
    made.restore(WorkerId("w2"), OAK, 5_000, ())
    assert free(made) == 0
    made.release(WorkerId("w1"))
    assert free(made) == USABLE_MIB - 5_000


def test_a_worker_of_unknown_need_is_not_booked() -> None:
    made = books()
    made.restore(WorkerId("w1"), OAK, 0, ())
    assert free(made) == USABLE_MIB
    made.restore(WorkerId("w1"), OAK, 3_000, ())  # Now somebody knows.
    assert free(made) == USABLE_MIB - 3_000


def test_on_several_gpus_it_is_booked_by_their_sizes() -> None:
    made = MemoryBooks()
    made.probed(HostProbed(OAK, TOTAL_MIB, TOTAL_MIB, (GpuMemory(0, 30_000, 30_000), GpuMemory(1, 10_000, 10_000))))
    made.restore(WorkerId("w1"), OAK, 8_000, (0, 1))
    assert gpus_free(made) == [int(30_000 * GPU_USABLE_SHARE) - 6_000, int(10_000 * GPU_USABLE_SHARE) - 2_000]


def test_it_may_be_known_before_its_host_is_probed() -> None:
    made = MemoryBooks()
    made.restore(WorkerId("w1"), OAK, 4_000, ())
    made.restore(WorkerId("w2"), OAK, 4_000, (0, 1))
    assert made.free(OAK) == ()
    probe(made, TOTAL_MIB, GPU_MIB, GPU_MIB)
    assert (free(made), gpus_free(made)) == (USABLE_MIB - 4_000, [GPU_USABLE_MIB - 2_000] * 2)
