"""Asking without taking: the answer is what the real call then gives, and the machine does not change."""

from __future__ import annotations

import random
from typing import Any

import pytest

from kmemlab import GFP_ATOMIC, GFP_DMA, GFP_HIGHUSER_MOVABLE, GFP_KERNEL, GFP_NOWAIT, NULL, Machine, events
from kmemlab.probe import largest, probe, verdicts
from tests.engine.calls import random_calls, state

MASKS = (GFP_HIGHUSER_MOVABLE, GFP_KERNEL, GFP_NOWAIT, GFP_ATOMIC, GFP_DMA)
FILES = ("/proc/buddyinfo", "/proc/zoneinfo", "/proc/pagetypeinfo")


def used(name: str, seed: int) -> Machine:
    """A recorded machine after some random use, sometimes nearly full."""
    m = Machine.from_recording(name)
    held: list[Any] = []
    list(random_calls(m, seed, 400, held))
    rng = random.Random(seed)
    while seed % 2 and (page := m.alloc_pages(GFP_ATOMIC | 0x2000, 0)):
        held.append((page, 0))
    for page, order in held if seed % 2 else ():
        if order == 0 and rng.random() < 0.3:
            m.__getattribute__("__free_pages")(page, 0)
    return m


@pytest.mark.parametrize("name", ["256M-a-21", "256M-normal-a-31", "128M-a-11"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_answer_is_what_the_call_gives(name: str, seed: int) -> None:
    """On another copy the call itself returns that frame, waits, or fails; nothing changes meanwhile."""
    m = used(name, seed)
    before = state(m), [m.cat(file) for file in FILES], m.snapshot(), m.dmesg()
    table = verdicts(m, MASKS)
    assert (state(m), [m.cat(file) for file in FILES], m.snapshot(), m.dmesg()) == before
    kinds = set()
    for gfp, row in table.items():
        for order, verdict in enumerate(row):
            twin = m.copy()
            page = twin.alloc_pages(gfp, order)
            waits = any(isinstance(event, events.LabReclaim) for event in twin.last_events())
            kinds.add(verdict.kind)
            assert verdict.kind == ("wait" if waits else "null" if page is NULL else "ok")
            if verdict.kind == "ok":
                assert (verdict.pfn, verdict.zone) == (page.pfn, page.zone.name)
                assert verdict.via
            assert verdict.tests
            for test in verdict.tests:
                assert test.enough == (test.free - test.unusable > test.mark + test.protection)
                assert not test.block or test.largest >= order
    assert len(kinds) >= 2 if seed % 2 else "ok" in kinds


def test_the_largest() -> None:
    """Three blocks of order 10 stand in the yard; with them gone it is order 9, and in the end nothing."""
    m = Machine.from_recording("256M-a-21")
    assert largest(m, GFP_DMA) == (1024, 10)
    for _ in range(3):
        m.alloc_pages(GFP_DMA, 10)
    assert largest(m, GFP_DMA) == (512, 9)
    while m.alloc_pages(GFP_DMA | 0x2000, 0):
        pass
    assert largest(m, GFP_DMA) is None


def test_words_for_where_it_lies() -> None:
    """This CPU's list, a refill of it, the free lists, another type's, and the reserve."""
    m = Machine.from_recording("256M-a-21")
    assert probe(m, GFP_KERNEL, 0).via == "CPU 0's list"
    assert probe(m, GFP_DMA, 0).via == "a refill of the CPU's list"
    assert probe(m, GFP_DMA, 5).via == "buddy lists"
    assert probe(m, GFP_DMA, 10).via == "stolen from Movable"


def test_an_order_that_does_not_exist() -> None:
    """Order 11 is NULL before any zone is looked at, and the learner's log stays empty."""
    m = Machine("linux-6.1", memory="64M")
    verdict = probe(m, GFP_KERNEL, 11)
    assert (verdict.kind, verdict.tests) == ("null", ())
    assert m.dmesg() == ""
