"""Reclaim: what is taken back, in which order, by whom; kswapd; swap, dirty pages; stress with check()."""

from __future__ import annotations

import random

import pytest

from kmemlab import GFP_ATOMIC, GFP_KERNEL, GFP_NOFS, GFP_NOIO, NULL, Machine, Stuck
from kmemlab import reclaim_events as told
from kmemlab.vmscan import allow_direct_reclaim, pgdat_balanced, zone_reclaimable_pages

NOWARN, NORETRY, MEMALLOC = 0x2000, 0x10000, 0x20000


def machine(memory: str = "64M") -> Machine:
    m = Machine("linux-6.1", memory=memory)
    m.sysctl("watermark_boost_factor", 0)
    return m


def full(m: Machine) -> None:
    """Take what is free down to the min watermark, as somebody who never sleeps; kswapd has no chance."""
    with m.preempt_disable():
        while m.alloc_pages(NOWARN, 0):
            pass


def test_the_oldest_pages_go_first() -> None:
    m = machine()
    old, young = m.read_file("old", "8M"), m.read_file("young", "8M")
    full(m)
    for _ in range(300):
        assert m.alloc_pages(GFP_KERNEL, 0)
    assert len(old.pages) < 2048
    assert len(young.pages) == 2048
    assert m.check()


def test_kswapd_stops_above_high() -> None:
    m = machine()
    m.read_file("big", "16M")
    full(m)
    assert not pgdat_balanced(m, 0, 2)
    assert m.alloc_pages(GFP_ATOMIC, 0)
    assert pgdat_balanced(m, 0, 2)
    assert m.lru.stat["pgsteal_kswapd"] > 0
    assert m.lru.stat["pgsteal_direct"] == 0
    assert m.kswapd_woken is None


def test_kswapd_waits_for_the_end_of_a_section() -> None:
    m = machine()
    m.read_file("big", "16M")
    full(m)
    with m.spin_lock("lock"):
        m.alloc_pages(GFP_ATOMIC, 0)
        assert m.kswapd_woken is not None
        assert m.lru.stat["pgsteal_kswapd"] == 0
    assert m.kswapd_woken is None
    assert m.lru.stat["pgsteal_kswapd"] > 0


def test_dirty_pages_are_written_first() -> None:
    m = machine()
    file = m.write_file("log", "16M")
    full(m)
    assert m.alloc_pages(GFP_ATOMIC | NOWARN, 0) is not NULL
    assert len(file.pages) == 4096, "nothing dirty can go at once"
    assert m.lru.writeback
    m.msleep(20)
    assert not m.lru.writeback
    m.alloc_pages(GFP_ATOMIC | NOWARN, 0)
    m.msleep(4)  # it has used much of the CPU, so it does not come before the caller rests
    assert len(file.pages) < 4096


def test_anonymous_memory_needs_swap() -> None:
    m = machine()
    process = m.process("browser", "16M", oom_score_adj=-1000)
    full(m)
    assert m.alloc_pages(GFP_KERNEL | NORETRY | NOWARN, 0) is NULL
    m.swapon("8M")
    assert m.alloc_pages(GFP_KERNEL, 0)
    assert process.swapents > 0
    assert process.rss + process.swapents == 4096
    assert m.lru.swap_free == 2048 - process.swapents
    before = m.lru.swap_free + process.swapents
    process.exit()
    assert m.lru.swap_free == before
    assert m.check()


def test_throttled_below_half_of_the_reserve() -> None:
    m = machine()
    m.read_file("big", "8M")
    while allow_direct_reclaim(m):
        with m.preempt_disable():
            assert m.alloc_pages(MEMALLOC | NOWARN, 0)
    assert m.alloc_pages(GFP_KERNEL, 0)
    assert any(isinstance(event, told.LabThrottle) for event in m.last_events())


@pytest.mark.parametrize("gfp", [GFP_NOFS, GFP_NOIO])
def test_nothing_will_ever_change(gfp: int) -> None:
    """Without __GFP_FS nobody is killed: the request would loop for ever, and that is said at once."""
    m = machine()
    process = m.process("hog", "16M")
    full(m)
    with pytest.raises(Stuck, match="nobody may be killed for it"):
        m.alloc_pages(gfp, 0)
    assert process.rss == 4096
    assert m.check()
    m.at(400, lambda m: process.exit())
    assert m.alloc_pages(gfp, 0), "a timer is set: something will change"


def test_nothing_to_reclaim_counts_what_is_free() -> None:
    m = machine()
    zone = m.zones[1]
    assert zone_reclaimable_pages(m, zone) == zone.nr_free_pages
    m.read_file("big", "8M")
    assert zone_reclaimable_pages(m, zone) == 2048


@pytest.mark.parametrize("seed", range(4))
def test_stress(seed: int) -> None:
    """Files, processes, requests of all kinds under pressure: no page is lost or owned twice."""
    rng, m = random.Random(seed), machine("32M")
    m.swapon("8M")
    files, processes, held = [], [], []
    for turn in range(300):
        x = rng.random()
        if x < 0.15:
            files.append((m.read_file if rng.random() < 0.7 else m.write_file)(f"f{turn}", rng.randrange(1, 400) << 12))
        elif x < 0.25:
            processes.append(
                m.process(f"p{turn}", rng.randrange(1, 500) << 12, oom_score_adj=rng.choice((0, 500, -300)))
            )
        elif x < 0.35 and files:
            files.pop(rng.randrange(len(files))).drop()
        elif x < 0.4 and processes:
            processes.pop(rng.randrange(len(processes))).exit()
        elif x < 0.75 or not held:
            mask = rng.choice((GFP_KERNEL, GFP_ATOMIC, GFP_NOFS, GFP_KERNEL | NORETRY, GFP_KERNEL | 0x4000)) | NOWARN
            try:
                page = m.alloc_pages(mask, rng.choice((0, 0, 0, 1, 2, 3, 5)))
            except Stuck:
                page = None
            held += [page] if page else []
        else:
            m.__getattribute__("__free_pages")(page := held.pop(rng.randrange(len(held))), page.order)
        m.msleep(rng.choice((0, 0, 1, 10)))
        assert m.check()
        assert m.copy().check()


def test_who_may_sleep_has_no_right_to_the_atomic_reserve() -> None:
    """GFP_KERNEL|GFP_ATOMIC brings a WARNING, once, and stops above a boost as GFP_KERNEL|__GFP_HIGH does."""
    m = Machine("linux-6.1", memory="64M")
    full(m)
    both = GFP_KERNEL | GFP_ATOMIC | NOWARN | NORETRY
    m.alloc_pages(both, 0)
    assert m.dmesg().count("mm/page_alloc.c:5118") == 1
    for zone in m.zones:
        zone.watermark_boost, zone.nr_free_pages = 1000, zone.wmark[0] // 2 + 1
    m.forget_plans()
    m.lru.failures = 16
    assert not m.alloc_pages(both, 0)
    assert m.alloc_pages(GFP_ATOMIC | NOWARN, 0)
