"""Reports that overtake each other."""

from __future__ import annotations

from swarmesh.core.ids import WorkerId
from swarmesh.queen.report_order import ReportOrder
from swarmesh.wire.waggle import Registration, Waggle


def waggle(number: int, rustbee_id: str = "a") -> Waggle:
    return Waggle(rustbee_id=rustbee_id, number=number)


def registration(number: int, nonce: str) -> Registration:
    return Registration(rustbee_id="a", modelcell="m", location="unix:/x", nonce=nonce, number=number)


def test_an_older_report_is_no_news() -> None:
    order = ReportOrder()
    assert [order.is_news(waggle(number)) for number in (1, 3, 2, 3, 4)] == [True, True, False, True, True]
    assert order.is_news(waggle(1, "b")), "each has numbers of its own"
    assert order.is_news(waggle(0)), "the shortest waggle anybody may send has none"


def test_a_new_life_counts_anew() -> None:
    order = ReportOrder()
    assert order.is_news(registration(1, "first"))
    assert order.is_news(waggle(9))
    assert not order.is_news(registration(8, "first"))
    assert order.is_news(registration(1, "second"))
    assert order.is_news(waggle(2))


def test_who_is_gone_is_forgotten() -> None:
    order = ReportOrder()
    order.is_news(waggle(9))
    order.forget(WorkerId("a"))
    assert order.is_news(waggle(1))
