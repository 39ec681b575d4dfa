"""Shrinkers: how much they are asked for, when, in whose name, and what goes back."""

from __future__ import annotations

import pytest

from kmemlab import __GFP_MEMALLOC, __GFP_NOWARN, GFP_KERNEL, GFP_NOFS, SHRINK_STOP, Machine, events
from kmemlab.shrinker import SHRINK_BATCH, ShrinkControl, Shrinker, do_shrink_slab

MEMALLOC = __GFP_MEMALLOC | __GFP_NOWARN


class Cached:
    """A cache of 4 KiB objects and its shrinker; ``asked`` holds (mask, objects wanted)."""

    def __init__(self, m: Machine, count: int, answer=None) -> None:
        self.m, self.answer = m, answer
        self.cache = m.kmem_cache_create("cached", 4096, 0, 0, None)
        self.objects = [m.kmem_cache_alloc(self.cache, GFP_KERNEL) for _ in range(count)]
        self.asked: list[tuple[int, int]] = []
        self.shrinker = m.register_shrinker(lambda sc: len(self.objects), self.scan)

    def scan(self, sc: ShrinkControl) -> int:
        self.asked.append((sc.gfp_mask, sc.nr_to_scan))
        if self.answer is not None:
            return self.answer
        for _ in range(nr := min(sc.nr_to_scan, len(self.objects))):
            self.m.kmem_cache_free(self.cache, self.objects.pop(0))
        return nr


def full(m: Machine) -> None:
    while m.alloc_pages(__GFP_NOWARN, 0):
        pass


def test_it_is_asked_and_gives_back() -> None:
    m = Machine("linux-6.1", memory="64M")
    cached = Cached(m, 2000)
    full(m)
    assert m.alloc_pages(GFP_KERNEL, 0)
    assert len(cached.objects) < 2000
    assert m.lru.reclaimed_slab > 0
    assert {mask for mask, _ in cached.asked} == {GFP_KERNEL}
    assert max(nr for _, nr in cached.asked) <= SHRINK_BATCH
    assert m.check()


def test_what_it_allocates_is_not_the_story_of_the_call() -> None:
    m = Machine("linux-6.1", memory="64M")
    cached = Cached(m, 2000)
    inner = []
    m.register_shrinker(lambda sc: 4096, lambda sc: inner.append(m.alloc_pages(MEMALLOC, 0)) or 0)
    full(m)
    page = m.alloc_pages(GFP_KERNEL, 0)
    assert page
    assert inner
    assert cached.asked
    assert [note[1] for note in m.trail if note[0] is events.LabRequest] == [GFP_KERNEL]
    assert f"pfn {page.pfn}" in str(m.explain())


def test_the_share_is_that_of_the_priority() -> None:
    """10,000 objects at priority 6: twice the 64th part, in batches of 128; the rest waits."""
    asked = []
    s = Shrinker(lambda sc: 10_000, lambda sc: asked.append(sc.nr_to_scan) or sc.nr_to_scan)
    do_shrink_slab(s, ShrinkControl(GFP_KERNEL), 6)
    share = 2 * (10_000 >> 6)
    assert asked == [128, 128]
    assert s.nr_deferred == share - 256
    do_shrink_slab(s, ShrinkControl(GFP_KERNEL), 0)
    assert sum(asked[2:]) == 20_000 // 128 * 128


def test_a_small_cache_is_asked_late() -> None:
    """50 objects make no batch: they are asked for when their share is all of them."""
    asked = []
    s = Shrinker(lambda sc: 50, lambda sc: asked.append(sc.nr_to_scan) or 0)
    for priority in range(12, 1, -1):
        do_shrink_slab(s, ShrinkControl(GFP_KERNEL), priority)
    assert asked == []
    do_shrink_slab(s, ShrinkControl(GFP_KERNEL), 1)
    assert asked


def test_stop_ends_the_round() -> None:
    m = Machine("linux-6.1", memory="64M")
    cached = Cached(m, 2000, answer=SHRINK_STOP)
    full(m)
    m.process("victim", "1M")
    m.alloc_pages(GFP_KERNEL, 0)
    assert len(cached.objects) == 2000
    assert cached.shrinker.nr_deferred > 0


def test_it_sees_the_mask() -> None:
    m = Machine("linux-6.1", memory="64M")
    cached = Cached(m, 3000)
    m.lru.failures = 16  # kswapd has given up: the caller reclaims itself
    full(m)
    assert m.alloc_pages(GFP_NOFS, 0)
    assert cached.asked[0][0] == GFP_NOFS


def test_unregistered() -> None:
    m = Machine("linux-6.1", memory="64M")
    cached = Cached(m, 10)
    m.unregister_shrinker(cached.shrinker)
    assert m.lru.empty
    with pytest.raises(ValueError, match="no such shrinker"):
        m.unregister_shrinker(cached.shrinker)


def test_what_is_no_function() -> None:
    with pytest.raises(TypeError, match="scan_objects must be a function of one argument, sc, not 7"):
        Machine("linux-6.1", memory="64M").register_shrinker(lambda sc: 0, 7)
