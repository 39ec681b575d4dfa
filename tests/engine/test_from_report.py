"""Machines from a failure report: every number that is told, of several kernels' formats; what is missing is said."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from kmemlab import GFP_ATOMIC, GFP_KERNEL, Machine, Stuck
from kmemlab.mmzone import (
    MAX_ORDER,
    MIGRATE_HIGHATOMIC,
    MIGRATE_MOVABLE,
    MIGRATE_RECLAIMABLE,
    MIGRATE_UNMOVABLE,
    PAGEBLOCK_ORDER,
)
from tests.damage import damaged

V6 = """w: page allocation failure: order:4, mode:0xcc0(GFP_KERNEL), nodemask=(null),cpuset=/,mems_allowed=0
CPU: 1 PID: 7 Comm: w Not tainted 6.1.0-56-amd64 #1
Mem-Info:
Node 0 DMA free:2000kB boost:0kB min:228kB low:284kB high:340kB reserved_highatomic:0KB present:15992kB managed:15360kB free_pcp:0kB local_pcp:0kB
lowmem_reserve[]: 0 53 900 900 900
Node 0 DMA32 free:28672kB boost:2048kB min:2876kB low:3080kB high:3284kB reserved_highatomic:4096KB present:114560kB managed:66560kB free_pcp:604kB local_pcp:200kB
lowmem_reserve[]: 0 0 847 847 847
Node 0 Normal free:3000kB boost:0kB min:4000kB low:5000kB high:6000kB reserved_highatomic:0KB present:400000kB managed:390000kB free_pcp:40kB local_pcp:40kB
lowmem_reserve[]: 0 0 0 0 0
Node 0 DMA: 4*4kB (UM) 0*8kB 0*16kB 2*32kB (E) 0*64kB 1*128kB (U) 1*256kB (U) 1*512kB (M) 1*1024kB (U) 0*2048kB 0*4096kB = 2000kB
Node 0 DMA32: 10*4kB (UMEH) 3*8kB (H) 0*16kB 0*32kB 0*64kB 0*128kB 0*256kB 0*512kB 0*1024kB 2*2048kB (UM) 6*4096kB (UM) = 28736kB
Node 0 Normal: 750*4kB (UE) 0*8kB 0*16kB 0*32kB 0*64kB 0*128kB 0*256kB 0*512kB 0*1024kB 0*2048kB 0*4096kB = 3000kB
"""  # noqa: E501
V2_6 = """cp: page allocation failure. order:3, mode:0xd0
DMA free:2048kB min:20kB low:24kB high:28kB active:0kB inactive:0kB present:16384kB pages_scanned:0
protections[]: 0 880 1900
Normal free:9000kB min:3756kB low:4692kB high:5632kB active:0kB inactive:0kB present:901120kB pages_scanned:0
protections[]: 0 0 1020
HighMem free:400kB min:512kB low:640kB high:768kB active:0kB inactive:0kB present:131072kB pages_scanned:0
protections[]: 0 0 0
DMA: 0*4kB 0*8kB 0*16kB 0*32kB 0*64kB 0*128kB 0*256kB 0*512kB 0*1024kB 1*2048kB 0*4096kB = 2048kB
Normal: 2250*4kB 0*8kB 0*16kB 0*32kB 0*64kB 0*128kB 0*256kB 0*512kB 0*1024kB 0*2048kB 0*4096kB = 9000kB
HighMem: 100*4kB 0*8kB 0*16kB 0*32kB 0*64kB 0*128kB 0*256kB 0*512kB 0*1024kB 0*2048kB 0*4096kB = 400kB
"""


def test_every_number_is_loaded() -> None:
    m = Machine.from_report(V6)
    assert m.check()
    _, dma32, normal = m.zones
    assert [z.name for z in m.zones] == ["DMA", "DMA32", "Normal"]
    assert [(z.present, z.managed) for z in m.zones] == [(3998, 3840), (28640, 16640), (100000, 97500)]
    assert [z.nr_free_pages for z in m.zones] == [500, 7168, 750]
    assert (dma32.wmark, dma32.watermark_boost) == ([207, 258, 309], 512)
    assert normal.wmark == [1000, 1250, 1500]
    assert [z.lowmem_reserve for z in m.zones] == [[0, 53, 900, 900, 900], [0, 0, 847, 847, 847], [0] * 5]
    assert dma32.nr_reserved_highatomic == 1024
    assert (m.cpus, m.cpu) == (2, 0)
    assert [[pcp.count for pcp in z.pcps] for z in m.zones] == [[0, 0], [50, 101], [10, 0]]
    assert dma32.pcp.batch == 3
    assert "not which frames" in m.note
    assert "masks of 6.1" not in m.note


def test_blocks_by_order_and_type() -> None:
    """As many of each order as told; each letter has at least one, no other type has any."""
    m = Machine.from_report(V6)
    dma, dma32, _ = m.zones
    assert [dma.nr_free(order) for order in range(MAX_ORDER)] == [4, 0, 0, 2, 0, 1, 1, 1, 1, 0, 0]
    assert [dma32.nr_free(order) for order in range(MAX_ORDER)] == [10, 3, *[0] * 7, 2, 6]
    kinds = (MIGRATE_UNMOVABLE, MIGRATE_MOVABLE, MIGRATE_RECLAIMABLE, MIGRATE_HIGHATOMIC)
    assert [dma32.nr_free_of(0, mt) for mt in kinds] == [1, 7, 1, 1]
    assert [dma32.nr_free_of(1, mt) for mt in kinds] == [0, 0, 0, 3]
    assert [dma32.nr_free_of(10, mt) for mt in kinds] == [1, 5, 0, 0]
    assert [dma.nr_free_of(3, mt) for mt in kinds] == [0, 0, 2, 0]
    kept = {i for i, mt in enumerate(dma32.pageblock_mt) if mt == MIGRATE_HIGHATOMIC}
    assert len(kept) == dma32.nr_reserved_highatomic >> PAGEBLOCK_ORDER
    for order in range(2):
        assert {pfn >> PAGEBLOCK_ORDER for pfn in dma32.free_blocks(order, MIGRATE_HIGHATOMIC)} <= kept
        assert not {pfn >> PAGEBLOCK_ORDER for pfn in dma32.free_blocks(order, MIGRATE_MOVABLE)} & kept


def test_the_reserve_serves_only_whom_it_is_for() -> None:
    """Blocks of order 1 are HighAtomic only: GFP_ATOMIC may have one, GFP_NOWAIT may not."""
    text = V6.replace("2*2048kB (UM) 6*4096kB (UM)", "0*2048kB 0*4096kB")
    assert not Machine.from_report(text).alloc_pages(0x800, 1)
    m = Machine.from_report(text)
    page = m.alloc_pages(GFP_ATOMIC, 1)
    assert page
    assert m.zones[1].pageblock_mt[page.pfn >> PAGEBLOCK_ORDER] == MIGRATE_HIGHATOMIC


def test_a_report_of_2_6_11() -> None:
    """No managed, no boost, no types, three columns: of DMA, Normal and HighMem."""
    m = Machine.from_report(V2_6)
    assert m.check()
    assert m.kernel.name == "linux-6.1-i386"
    assert [(z.name, z.managed, z.watermark_boost, z.nr_free_pages) for z in m.zones] == [
        ("DMA", 4096, 0, 512), ("Normal", 225280, 0, 2250), ("HighMem", 32768, 0, 100),
    ]  # fmt: skip
    assert [z.lowmem_reserve for z in m.zones] == [[0, 880, 1900, 1900], [0, 0, 1020, 1020], [0, 0, 0, 0]]
    assert "masks are those of linux-2.6.11" in m.note
    assert not m.alloc_pages(0x800, 3)  # what 0xd0 asked for: no block of order 3 in Normal, DMA has 512 - 7 <= 5 + 880
    assert not m.alloc_pages(0x800, 2)
    assert m.alloc_pages(0x800, 0)


def test_the_models_own_reports() -> None:
    """A machine's report makes a machine with the same zones, whose report is the same."""
    for kernel in ("linux-6.1", "linux-6.1-i386"):
        m = Machine(kernel, memory="1G")
        while m.alloc_pages(GFP_ATOMIC | 2, 0):
            pass
        twin = Machine.from_report(m.dmesg())
        assert twin.check()
        for ours, theirs in zip(twin.zones, m.zones, strict=True):
            assert (ours.name, ours.wmark, ours.lowmem_reserve) == (theirs.name, theirs.wmark, theirs.lowmem_reserve)
            assert ours.nr_free_pages == theirs.nr_free_pages
            assert [ours.nr_free(n) for n in range(MAX_ORDER)] == [theirs.nr_free(n) for n in range(MAX_ORDER)]
        assert not twin.alloc_pages(GFP_ATOMIC | 2, 0)
        zone_lines = [line for line in m.dmesg().splitlines() if "free:" in line and "min:" in line]
        assert zone_lines == [line for line in twin.dmesg().splitlines() if "free:" in line and "min:" in line]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("page allocation failure", "failure", r"^no report: a line"),
        ("free:3000kB boost:0kB min:4000kB", "free:3000kB", r"^line 8: zone Normal: its line .* has no min:"),
        ("present:15992kB ", "", r"^line 4: zone DMA: .* has no present:"),
        ("lowmem_reserve[]: 0 0 847 847 847\n", "", r"^line 6: zone DMA32: the line 'lowmem_reserve"),
        ("Node 0 Normal: 750*4kB", "Node 0 Normals: 750*4kB", r"^line 8: zone Normal: its free lists"),
        (" 0*4096kB = 3000kB", " = 3000kB", r"^line 8: zone Normal: its free lists"),
        ("Node 0 Normal", "Node 1 Normal", r"^line 8: zone Node 1 Normal: the lab's machines have one node"),
        ("750*4kB (UE)", "750*4kB (UEC)", r"^line 8: zone Normal: blocks of type C"),
        ("min:2876kB", "min:1000kB", r"^line 6: zone DMA32: a watermark is below its boost 512"),
        ("750*4kB (UE)", "98000*4kB (UE)", r"^line 8: zone Normal: 98000 pages free, but only 97500 managed"),
        ("750*4kB (UE)", "60000*4kB (UE)", r"^line 8: zone Normal: the blocks of order 0 do not fit"),
        ("managed:15360kB", "managed:16000kB", r"^line 4: zone DMA: managed and present"),
        ("Node 0 Normal", "Node 0 HighMem", r"^line 8: zone HighMem: no machine of the lab has such a zone"),
    ],
)  # fmt: skip
def test_what_is_missing_is_named(old: str, new: str, said: str) -> None:
    assert old in V6
    with pytest.raises(ValueError, match=said) as error:
        Machine.from_report(V6.replace(old, new))
    assert "\n" not in str(error.value)


def test_a_headline_alone() -> None:
    with pytest.raises(ValueError, match=r"^line 2: no zone line such as"):
        Machine.from_report("boot\n" + V6.splitlines()[0])


def test_nofail_with_nobody_to_kill_is_stuck() -> None:
    """The request may not fail, and nothing can change: the learner is told, the call does not hang."""
    m = Machine.from_report(V6.replace("free:28672kB", "free:800kB").replace("free:2000kB", "free:200kB"))
    with pytest.raises(Stuck, match="nobody can be killed"):
        m.alloc_pages(GFP_KERNEL | 0x8000, 0)


@settings(max_examples=200, deadline=None)
@given(damaged([V6, V2_6]))
def test_any_text_may_be_odd(text: str) -> None:
    """Whatever is pasted: a machine that works, or one line that says what is wrong."""
    try:
        m = Machine.from_report(text)
    except ValueError as error:
        said = str(error)
    else:
        m.alloc_pages(GFP_ATOMIC, 0)
        m.alloc_pages(GFP_KERNEL, 4)
        assert m.check()
        return
    assert said.startswith(("no report", "line "))
    assert "\n" not in said
