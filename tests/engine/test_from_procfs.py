"""Machines from a real machine's /proc: the numbers are right, what is not told there is said."""

from __future__ import annotations

from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from kmemlab import __GFP_NOWARN, GFP_ATOMIC, GFP_KERNEL, GFP_NOWAIT, Machine
from kmemlab.mmzone import MAX_ORDER
from kmemlab.procfs import ProcfsError

PROC = Path(__file__).resolve().parent.parent / "kernel" / "recordings" / "proc"
FILES = {name: (PROC / "256M" / "boot" / name).read_text() for name in ("buddyinfo", "zoneinfo")}
BIG = {name: (PROC / "4G-smp4" / "boot" / name).read_text() for name in ("buddyinfo", "zoneinfo")}


@pytest.mark.parametrize("files", [FILES, BIG], ids=["256M", "4G-smp4"])
def test_the_machine_works(files) -> None:
    """It gives pages, takes them back, keeps its books, and says what it does not know."""
    m = Machine.from_procfs(**files)
    free = m.check().free
    held = [(m.alloc_pages(gfp, order), order) for gfp in (GFP_KERNEL, GFP_ATOMIC, 0x100CCA) for order in range(9)]
    for page, order in held:
        m.__free_pages(page, order)
    assert m.check().free == free
    assert "Made from /proc" in m.note
    assert m.note in str(m.explain())


def test_no_two_free_buddies() -> None:
    """The kernel would have merged them, so the layout must not have any: buddyinfo stays what it was."""
    m = Machine.from_procfs(**BIG)
    for zone in m.zones:
        for order in range(MAX_ORDER - 1):
            pfns = {pfn for mt in range(5) for pfn in zone.free_blocks(order, mt)}
            assert not any(pfn ^ 1 << order in pfns for pfn in pfns)
            assert all(pfn % (1 << order) == 0 and zone.spans_pfn(pfn) for pfn in pfns)


def test_verdicts_are_the_real_machines() -> None:
    """NOWAIT goes down to the real machine's min mark."""
    m = Machine.from_procfs(**FILES)
    while m.alloc_pages(GFP_NOWAIT | __GFP_NOWARN, 0):
        pass
    zone = m.zones[1]
    assert zone.wmark[0] + zone.watermark_boost >= zone.nr_free_pages > zone.wmark[0] - 64


def test_files_that_do_not_belong_together() -> None:
    """Another machine's buddyinfo: the zones, or the pages, do not fit."""
    with pytest.raises(ProcfsError, match=r"buddyinfo has zones DMA, DMA32, Normal, zoneinfo DMA, DMA32"):
        Machine.from_procfs(buddyinfo=BIG["buddyinfo"], zoneinfo=FILES["zoneinfo"])
    wrong = FILES["buddyinfo"].replace(" \n", "9 \n")
    with pytest.raises(ProcfsError, match=r"buddyinfo: zone DMA: [0-9]+ pages free, but only 3840 managed"):
        Machine.from_procfs(buddyinfo=wrong, zoneinfo=FILES["zoneinfo"])
    strange = FILES["zoneinfo"].replace("zone   Normal", "zone  Abnormal")
    with pytest.raises(ProcfsError, match="zone Abnormal is not one of"):
        Machine.from_procfs(buddyinfo=FILES["buddyinfo"], zoneinfo=strange)
    boosted = FILES["zoneinfo"].replace("boost    0", "boost    99999", 1)
    with pytest.raises(ProcfsError, match="a watermark is below its boost"):
        Machine.from_procfs(buddyinfo=FILES["buddyinfo"], zoneinfo=boosted)


ODD = st.sampled_from(
    ["", "-1", "0", "1", "999999", "9" * 12, "9" * 30, "9" * 5000, "x", "1.5", "\n", "\t", "Node 0, zone", "(0, x)",
     "Node 1, zone DMA", "cpu: 0", ",", "١", "²", "   ", "protection: ()", "\x0c", "\x85"]
)  # fmt: skip


@settings(max_examples=250, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(["buddyinfo", "zoneinfo"]),
    changes=st.lists(st.tuples(st.integers(0, 8000), st.integers(0, 30), ODD), min_size=1, max_size=3),
    big=st.booleans(),
)
def test_any_text_may_be_odd(name: str, changes, big: bool) -> None:
    """Whatever is pasted: a machine that works, or one line that names the file."""
    files = dict(BIG if big else FILES)
    for at, gone, put in changes:
        at %= len(files[name]) + 1
        files[name] = files[name][:at] + put + files[name][at + gone :]
    try:
        m = Machine.from_procfs(**files)
    except ProcfsError as error:
        said = str(error)
    else:
        m.alloc_pages(GFP_KERNEL, 0)
        m.alloc_pages(GFP_ATOMIC, 4)
        assert m.check()
        m.cat("/proc/zoneinfo")
        return
    assert "\n" not in said
    assert said.startswith(("buddyinfo", "zoneinfo"))
    assert len(said) < 300
