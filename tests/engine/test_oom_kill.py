"""Who is killed, and what the log says; compaction moves pages and nobody notices."""

from __future__ import annotations

import pytest

from kmemlab import GFP_DMA, GFP_KERNEL, NULL, Machine
from kmemlab import reclaim_events as told
from kmemlab.compaction import CompactState, compaction_suitable, extfrag_index
from kmemlab.oom_kill import oom_badness, select_bad_process


def machine() -> Machine:
    m = Machine("linux-6.1", memory="64M")
    m.sysctl("watermark_boost_factor", 0)
    return m


def fill(m: Machine) -> None:
    with m.preempt_disable():
        while m.alloc_pages(0x2000, 0):
            pass


def test_the_largest_is_killed_unless_it_is_protected() -> None:
    m = machine()
    small, large, init = (
        m.process("small", "4M"),
        m.process("large", "8M"),
        m.process("init", "9M", oom_score_adj=-1000),
    )
    assert select_bad_process(m) is large
    assert oom_badness(m, init) is None
    favoured = m.process("favoured", "4M", oom_score_adj=200)
    assert oom_badness(m, favoured) == oom_badness(m, small) + 200 * m.totalram_pages() // 1000
    m.processes.remove(favoured)
    fill(m)
    assert m.alloc_pages(GFP_KERNEL, 0)
    assert m.processes == [small, init]
    assert large.rss == 0
    said = m.dmesg()
    assert "python invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0" in said
    assert f"[{large.pid:7d}]     0 {large.pid:5d}" in said
    assert f"Out of memory: Killed process {large.pid} (large) total-vm:9216kB, anon-rss:8192kB" in said
    assert m.check()


@pytest.mark.parametrize(
    "gfp", [GFP_KERNEL | 0x4000, GFP_KERNEL | 0x10000, GFP_KERNEL | GFP_DMA, GFP_KERNEL | 0x200000]
)
def test_nobody_is_killed_for(gfp: int) -> None:
    """RETRY_MAYFAIL, NORETRY, zone DMA and THISNODE get NULL."""
    m = machine()
    m.process("hog", "16M")
    fill(m)
    while m.alloc_pages(0x2001, 0):
        pass
    assert m.alloc_pages(gfp | 0x2000, 0) is NULL
    assert len(m.processes) == 1


def test_compaction_moves_pages_and_their_owner_keeps_them() -> None:
    m = machine()
    m.sysctl("min_free_kbytes", 512)
    process = m.process("p", "40M")
    pfns = sorted(process.pages)
    for pfn in pfns[::2]:  # every second page goes back
        process.pages.discard(pfn)
        m.lru.remove(pfn)
        m.__getattribute__("__free_pages")(m.memmap[pfn], 0)
    m.drain_all_pages()
    fill_large = []
    while page := m.alloc_pages(0x2000, 4):
        fill_large.append(page)
    rss = process.rss
    assert extfrag_index(m.zones[1], 4) > 500
    assert compaction_suitable(m.zones[1], 4, 0, 2) == "continue"
    page = m.alloc_pages(GFP_KERNEL, 4)
    assert page
    ends = [event for event in m.last_events() if isinstance(event, told.MmCompactionEnd)]
    assert ends[-1].status == "success"
    assert ends[-1].nr_migrated > 0
    assert process.rss == rss
    assert sorted(process.pages) != pfns[1::2]
    assert m.check()


def test_failed_runs_are_not_repeated_at_once() -> None:
    state = CompactState()
    assert not state.deferred(4)
    state.defer(4)
    assert [state.deferred(4) for _ in range(3)] == [True, False, False]
    state.defer(4)
    assert [state.deferred(4) for _ in range(5)] == [True, True, True, False, False]
    assert not state.deferred(3), "a smaller block was not tried"
    state.reset(4, allocated=True)
    assert not state.deferred(4)


def test_nobody_is_killed_for_memory_below_normal() -> None:
    """GFP_DMA32 and GFP_DMA get NULL where GFP_KERNEL has somebody killed."""
    for mask, killed in ((GFP_KERNEL | 0x4, 0), (GFP_KERNEL | 0x1, 0), (GFP_KERNEL, 1)):
        m = Machine("linux-6.1", memory="64M")
        m.sysctl("watermark_boost_factor", 0)
        m.process("victim", "32M")
        with m.preempt_disable():
            while m.alloc_pages(0x2000, 0) or m.alloc_pages(0x2001, 0):
                pass
        assert bool(m.alloc_pages(mask | 0x2000, 0)) == bool(killed)
        assert m.lru.stat["oom_kill"] == killed
