"""Snapshots: frozen, shaped like /proc, every page in exactly one state."""

from __future__ import annotations

from collections import Counter
from copy import deepcopy

import pytest

from kmemlab import __GFP_RECLAIMABLE, GFP_HIGHUSER_MOVABLE, GFP_KERNEL, Machine, snapshot
from kmemlab.observe import PAGES_LISTED
from tests.engine.calls import random_calls


@pytest.fixture
def m() -> Machine:
    each = Machine(memory="64M", cpus=2)
    list(random_calls(each, 4, 800, []))
    return each


def state_of(zone, pfn: int) -> int:
    """The state byte of a frame."""
    at = 0
    for first, pages in zone.spans:
        if first <= pfn < first + pages:
            return zone.pages[at + pfn - first]
        at += pages
    raise AssertionError(pfn)


def test_numbers_are_the_zones(m: Machine) -> None:
    """What /proc says, the snapshot says."""
    snap = m.snapshot()
    assert (snap.kernel, snap.label, snap.calls, snap.cpu, snap.recorded) == ("linux-6.1", "64M", m.calls, m.cpu, False)
    for zone, seen in zip(m.zones, snap.zones, strict=True):
        assert seen.nr_free == tuple(zone.nr_free(order) for order in range(11))
        assert [seen.min, seen.low, seen.high, seen.boost] == [*zone.wmark, zone.watermark_boost]
        assert seen.nr_free_pages == sum(n << order for order, n in enumerate(seen.nr_free))
        for (order, mt), pfns in seen.free.items():
            assert pfns == tuple(zone.free_blocks(order, mt))
        assert sum(len(pfns) << order for (order, _), pfns in seen.free.items()) == seen.nr_free_pages
        for pcp, shown in zip(zone.pcps, seen.pcps, strict=True):
            assert (shown.count, shown.high, shown.batch) == (pcp.count, pcp.high, pcp.batch)
    assert snap.zone("DMA32") is snap.zones[1]
    with pytest.raises(KeyError, match="no zone 'Normal'; this machine has DMA, DMA32"):
        snap.zone("Normal")


def test_every_page_has_one_state(m: Machine) -> None:
    """The bytes cover the zone's memory; free, per-CPU and reserved pages are as many as the counters say."""
    for zone, seen in zip(m.zones, m.snapshot().zones, strict=True):
        states = Counter(byte & 15 for byte in seen.pages)
        assert len(seen.pages) == zone.present == sum(pages for _, pages in seen.spans)
        assert states[snapshot.FREE] == zone.free_pages()
        assert states[snapshot.PCP] == sum(pcp.count for pcp in zone.pcps)
        assert states[snapshot.RESERVED] == zone.present - zone.managed
        for (order, mt), pfns in seen.free.items():
            assert all(state_of(seen, pfn + (1 << order) - 1) == snapshot.FREE | mt << 4 for pfn in pfns)


def test_owned_pages_show_what_they_are_for() -> None:
    """Movable, reclaimable and kernel pages look different; freed ones look free; lost ones lost."""
    m = Machine(memory="64M")
    for gfp, shown in [
        (GFP_KERNEL, snapshot.UNMOVABLE), (GFP_HIGHUSER_MOVABLE, snapshot.MOVABLE),
        (GFP_KERNEL | __GFP_RECLAIMABLE, snapshot.RECLAIMABLE),
    ]:  # fmt: skip
        page = m.alloc_pages(gfp, 4)
        assert state_of(m.snapshot().zones[1], page.pfn + 15) == shown
        m.__free_pages(page, 4)
        assert state_of(m.snapshot().zones[1], page.pfn + 15) & 15 == snapshot.FREE
    block = m.alloc_pages(GFP_KERNEL, 4)
    m.__free_pages(block, 3)
    assert state_of(m.snapshot().zones[1], block.pfn + 8) == snapshot.LOST


def test_a_recording_shows_slab_and_reserved_pages() -> None:
    """A dumped kernel's own pages are in the picture."""
    m = Machine.from_recording("256M-a-21")
    snap = m.snapshot()
    assert snap.recorded
    states = Counter(byte & 15 for zone in snap.zones for byte in zone.pages)
    assert states[snapshot.SLAB] == sum(pages for zone in m.zones for _, pages in zone.slab)
    assert states[snapshot.MOVABLE] > 0
    assert states[snapshot.RESERVED] == sum(pages for zone in m.zones for _, pages in zone.reserved)


def test_snapshots_are_frozen_and_stay(m: Machine) -> None:
    """Later calls do not change what was seen."""
    snap = m.snapshot()
    before = deepcopy(snap)
    list(random_calls(m, 5, 200, []))
    assert snap == before
    with pytest.raises(AttributeError):
        snap.calls = 5
    assert m.snapshot() != snap
    assert m.snapshot() == m.snapshot()


def test_a_large_zone_is_not_listed_page_by_page() -> None:
    """Above 4 GiB a zone is shown by its shares: no bytes, quick."""
    snap = Machine(memory="64G").snapshot()
    assert snap.zone("Normal").present > PAGES_LISTED
    assert snap.zone("Normal").pages == b""
    assert sum(n << order for order, n in enumerate(snap.zone("Normal").nr_free)) == snap.zone("Normal").nr_free_pages
