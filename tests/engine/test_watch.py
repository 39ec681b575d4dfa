"""A mask's floor is where the engine refuses it; a curve says what the machine did, and leaves it alone."""

from __future__ import annotations

import random

import pytest

from kmemlab import (
    __GFP_HIGH,
    __GFP_MEMALLOC,
    __GFP_NOMEMALLOC,
    __GFP_NOWARN,
    GFP_ATOMIC,
    GFP_DMA,
    GFP_HIGHUSER,
    GFP_KERNEL,
    GFP_NOFS,
    GFP_NOWAIT,
    Machine,
)
from kmemlab.page_alloc import plan_for, zone_watermark_fast
from kmemlab.page_slowpath import gfp_to_alloc_flags
from kmemlab.watermarks import MOST, Marks, Run, Watch, floor_of

MASKS = [
    int(mask)
    for mask in (
        GFP_KERNEL, GFP_NOFS, GFP_NOWAIT, GFP_ATOMIC, GFP_KERNEL | __GFP_HIGH, GFP_NOWAIT | __GFP_HIGH,
        GFP_ATOMIC | __GFP_NOMEMALLOC, GFP_DMA | GFP_NOWAIT, GFP_DMA | GFP_ATOMIC, GFP_HIGHUSER, 0x8C0, 0x200,
    )
]  # fmt: skip


def full(memory: str = "64M", **how: object) -> Machine:
    """A machine whose memory is full of clean page cache."""
    m = Machine("linux-6.1", memory=memory, **how)
    m.read_file("backup.tar", memory)
    return m


@pytest.mark.parametrize("gfp", MASKS)
def test_the_floor_is_the_engines_test(gfp: int) -> None:
    """One page above the floor the zone's watermark test is passed, at the floor it is not."""
    rng = random.Random(gfp)
    for name in ("256M-a-21", "256M-normal-a-31"):
        m = Machine.from_recording(name)
        for zone in m.zones:
            for order in (0, 0, 3, 9):
                zone.wmark = sorted(rng.randrange(1 << rng.randrange(14)) for _ in range(3))
                zone.watermark_boost = rng.choice((0, 512, 922))
                zone.lowmem_reserve = [rng.randrange(300) for _ in range(5)]
                zone.nr_reserved_highatomic = rng.choice((0, 512))
                m.forget_plans()
                plan, floor = plan_for(m, gfp, order), floor_of(zone, gfp, order)
                if zone not in plan.zones:
                    assert floor is None
                    continue
                for free in (floor, floor + 1):
                    zone.nr_free_pages = free
                    zone_watermark_fast(zone, plan, gfp_to_alloc_flags(gfp, order))
                    assert m.trail[-1][7] is (free > floor), f"{zone.name} {gfp:#x} order {order} at {free}"


def test_memalloc_has_no_floor() -> None:
    zone = Marks("DMA32", 1, (411, 513, 615), watermark_boost=922)
    assert floor_of(zone, GFP_KERNEL | __GFP_MEMALLOC) == 0
    assert floor_of(zone, GFP_KERNEL | __GFP_MEMALLOC | __GFP_NOMEMALLOC) == 411 + 922
    assert floor_of(zone, GFP_ATOMIC) == 155, "GFP_ATOMIC is tested again without the boost"
    assert floor_of(zone, GFP_ATOMIC, 1) == 1333 - 666 - 166 + 1
    assert floor_of(zone, GFP_DMA) is None
    assert floor_of(Marks("HighMem", 2, (1, 2, 3), highmem=True), GFP_KERNEL, highmem=True) is None


@pytest.mark.parametrize("gfp", [GFP_NOWAIT, GFP_ATOMIC, GFP_NOWAIT | __GFP_HIGH, GFP_NOWAIT | __GFP_MEMALLOC])
def test_a_machine_stops_at_the_floor(gfp: int) -> None:
    """Page after page from zone DMA until NULL: the level is the floor, and the curve says so."""
    m = Machine.from_recording("256M-a-21")
    watch = Watch(m, "DMA").begin()
    zone = watch.zone
    zone.stat_threshold = 0
    while m.alloc_pages(GFP_DMA | gfp | __GFP_NOWARN, 0):
        pass
    run = watch.run()
    assert zone.nr_free_pages == floor_of(zone, GFP_DMA | gfp)
    assert run.refusal is not None
    assert (run.refusal.asked, run.refusal.tested, run.refusal.enough) == (run.samples[-1].asked, True, False)
    assert run.refusal.free == zone.nr_free_pages
    if not gfp & __GFP_MEMALLOC:  # which may go below, and then finds no block
        assert run.refusal.need == zone.nr_free_pages


def play(m: Machine, seed: int) -> list[int]:
    """Calls of several kinds; what they returned."""
    rng, held, said = random.Random(seed), [], []
    for _ in range(6000):
        if rng.random() < 0.3 and held:
            m.__free_pages(*held.pop(rng.randrange(len(held))))
        else:
            order = rng.choice((0, 0, 0, 1, 3, 4))
            page = m.alloc_pages(rng.choice((GFP_KERNEL, GFP_NOWAIT, GFP_ATOMIC)) | __GFP_NOWARN, order)
            said.append(page.pfn if page else -1)
            held += [(page, order)] if page else []
    return said


def test_sums_against_the_machine() -> None:
    """Every count of the curve is the machine's; watched or not, it does the same."""
    m = full()
    plain, stat = m.copy(), dict(m.lru.stat)
    watch = Watch(m, "DMA32").begin()
    said = play(m, 7)
    assert said == play(plain, 7)
    assert m.cat("/proc/zoneinfo") == plain.cat("/proc/zoneinfo")
    run = watch.run()
    last = run.samples[-1]
    assert (last.asked, last.got) == (len(said), sum(pfn >= 0 for pfn in said))
    assert last.kswapd == m.lru.stat["pageoutrun"] - stat["pageoutrun"] > 0
    assert last.direct == m.lru.stat["allocstall"] - stat["allocstall"] > 0
    assert last.free == watch.zone.nr_free_pages
    assert (last.min, last.high) == (watch.zone.wmark[0] + last.boost, watch.zone.wmark[2] + last.boost)
    assert sum(asked for *_, asked, _ in run.requests) == last.asked
    assert sum(got for *_, got in run.requests) == last.got
    if run.refusal:
        assert said[run.refusal.asked - 1] == -1
        assert -1 not in said[: run.refusal.asked - 1]


def test_a_long_curve_keeps_its_ends() -> None:
    """At most 2,000 samples; of each group of requests the lowest and the highest level, as read after each call."""
    m = full()
    watch = Watch(m, "DMA32").begin()
    free = [watch.zone.nr_free_pages]
    for _ in range(5000):
        m.alloc_pages(GFP_KERNEL | __GFP_NOWARN, 0)
        free.append(watch.zone.nr_free_pages)
    run: Run = watch.run()
    assert watch.width > 1
    assert 500 < len(run.samples) <= MOST
    for first in range(watch.width, 5000, watch.width):
        group = [sample.free for sample in run.samples if first <= sample.asked < first + watch.width]
        read = free[first : first + watch.width]
        assert (min(group), max(group)) == (min(read), max(read))
    assert all(sample.free == free[sample.asked] for sample in run.samples)


def test_nobody_listens_after_stop() -> None:
    m = Machine("linux-6.1", memory="64M")
    watch = Watch(m, "DMA32").begin()
    m.alloc_pages(GFP_KERNEL, 0)
    watch.stop()
    watch.stop()
    assert not m.events
    m.alloc_pages(GFP_KERNEL, 0)
    assert watch.run().samples[-1].asked == 1
    watch.begin()
    watch.begin()
    m.alloc_pages(GFP_KERNEL, 0)
    assert watch.run().samples[-1].asked == 2


def test_an_unknown_zone() -> None:
    with pytest.raises(ValueError, match=r"zone='Normal': this machine has DMA, DMA32"):
        Watch(Machine("linux-6.1", memory="64M"), "Normal")
