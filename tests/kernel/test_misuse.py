"""What a wrong call does, against what Debian's kernel did: silent where it was silent, its words where it spoke."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kmemlab import __GFP_COMP, __GFP_NOWARN, GFP_ATOMIC, GFP_KERNEL, NULL, KernelBug, Machine
from kmemlab.check import CheckResult

MISUSE = Path(__file__).resolve().parent / "recordings" / "misuse"
STAMP = re.compile(r"^\[ *[\d.]+\] ")


def recorded(name: str) -> list[str]:
    return [STAMP.sub("", line) for line in (MISUSE / f"{name}.txt").read_text().splitlines()]


def module_said(name: str) -> list[str]:
    return [line.removeprefix("crimes:").strip() for line in recorded(name) if line.startswith("crimes:")]


def kernel_said(lines: list[str]) -> list[str]:
    """Leave out what the model has no counterpart of: stack, registers, modules, hardware, the raw words."""
    keep = ("BUG:", "page:", "flags:", "page dumped", "Disabling", "WARNING:", "---", "kernel BUG")
    return [line for line in lines if line.startswith(keep)]


def alike(line: str) -> str:
    """A line without what is another kernel run's: process, CPU, frame numbers."""
    line = re.sub(r"process \w+", "process COMM", line)
    line = re.sub(r"PID: \d+", "PID: N", line)
    return re.sub(r"pfn:(0x)?[0-9a-f]+", lambda m: f"pfn:{m[1] or ''}PFN", line)


@pytest.fixture
def m() -> Machine:
    return Machine("linux-6.1", memory="256M")


def two_neighbours(m: Machine):
    """Two order-0 pages in use, one beside the other, the first at an even frame."""
    held = {page.pfn: page for page in (m.alloc_pages(GFP_KERNEL, 0) for _ in range(20))}
    first = next(pfn for pfn in sorted(held) if pfn % 2 == 0 and pfn + 1 in held)
    return held[first], held[first + 1]


def next_pages(m: Machine, count: int) -> list[int]:
    return [m.alloc_pages(GFP_KERNEL, 0).pfn for _ in range(count)]


def test_order_11_warns_once_and_is_null(m: Machine) -> None:
    """NOWARN is silent, the first plain request warns, the next ones are silent again; always NULL."""
    assert m.alloc_pages(GFP_KERNEL | __GFP_NOWARN, 11) is NULL
    assert m.dmesg() == ""
    assert m.alloc_pages(GFP_KERNEL, 11) is NULL
    report = m.dmesg()
    assert m.alloc_pages(GFP_KERNEL, 11) is NULL
    assert m.alloc_pages(GFP_ATOMIC, 31) is NULL
    assert m.dmesg() == report
    real = recorded("order11")
    assert [alike(x) for x in kernel_said(report.splitlines())] == [alike(x) for x in kernel_said(real)]
    assert [line.split("-> ")[1] for line in module_said("order11") if "->" in line] == ["NULL"] * 4
    assert m.check()


def test_a_page_freed_twice_is_silent(m: Machine) -> None:
    """Debian's kernel notices nothing: the count goes to -1, and the page is handed out once, next."""
    a = m.alloc_pages(GFP_KERNEL, 0)
    m.__free_pages(a, 0)
    assert a.refcount == 0
    m.__free_pages(a, 0)
    assert a.refcount == -1
    assert module_said("double_free_page")[2:4] == ["freed once, refcount 0", "freed twice, refcount -1"]
    assert m.dmesg() == ""
    assert next_pages(m, 3) == [a.pfn, a.pfn + 1, a.pfn + 2]
    frames = [int(line.split()[7], 16) for line in module_said("double_free_page") if "number" in line]
    assert [pfn - frames[0] for pfn in frames] == [0, 1, 2]
    assert "freed twice" not in m.dmesg()
    assert isinstance(m.check(), CheckResult)


def test_a_double_free_is_told_by_explain(m: Machine) -> None:
    """The kernel says nothing; the lab's own words are in explain()."""
    a = m.alloc_pages(GFP_KERNEL, 0)
    m.__free_pages(a, 0)
    m.__free_pages(a, 0)
    assert "freed twice: reference count 0 -> -1" in str(m.explain())


def test_debug_vm_stops_at_the_second_free() -> None:
    """A kernel built with DEBUG_VM stops with the recorded condition."""
    m = Machine("linux-6.1", memory="256M", config=("DEBUG_VM",))
    a = m.alloc_pages(GFP_KERNEL, 0)
    m.__free_pages(a, 0)
    with pytest.raises(KernelBug, match=r"VM_BUG_ON_PAGE\(page_ref_count\(page\) == 0\)"):
        m.__free_pages(a, 0)
    ours = [alike(x) for x in kernel_said(m.dmesg().splitlines()) if not x.startswith("flags:")]
    real = [alike(x) for x in kernel_said(recorded("checks_double_free_page")) if not x.startswith("flags:")]
    assert ours == real[: len(ours)]
    assert len(ours) == 4
    assert m.check()


def test_a_block_freed_twice_hands_out_its_inside(m: Machine) -> None:
    """Order 5 freed twice: its upper parts go back again, and the next page lies inside the free block: A + 1."""
    a = m.alloc_pages(GFP_KERNEL, 5)
    m.__free_pages(a, 5)
    assert m.check()
    m.__free_pages(a, 5)
    assert a.refcount == -1
    said = module_said("double_free_block_order5")
    block = int(re.search(r"pfn (\w+)", said[1])[1], 16)
    first = int(re.search(r"number 1 -> pfn (\w+)", "\n".join(said))[1], 16)
    got = next_pages(m, 1)
    assert got[0] - a.pfn == first - block == 1
    result = m.check()
    assert not result
    assert a.pfn + 1 in result.doubly_owned
    assert "handed out and on a free list" in str(result)


def test_too_large_an_order_beside_somebody_else(m: Machine) -> None:
    """Bad page state, word for word; nothing goes back, the neighbour stays whole and can be freed by its owner."""
    a, b = two_neighbours(m)
    before = m.check().free
    m.__free_pages(a, 1)
    assert (a.refcount, b.refcount) == (0, 1)
    assert "refcount A 0 B 1" in "\n".join(module_said("wrong_order_large"))
    ours, real = kernel_said(m.dmesg().splitlines()), kernel_said(recorded("wrong_order_large"))
    assert [alike(line) for line in ours] == [alike(line) for line in real]
    assert f"pfn:{b.pfn:05x}" in ours[0]
    assert f"pfn:{b.pfn:#x}" in ours[1]
    assert m.check().free == before
    following = next_pages(m, 30)
    assert a.pfn not in following
    assert b.pfn not in following
    m.__free_pages(b, 0)
    assert b.refcount == 0
    assert next_pages(m, 1) == [b.pfn]
    assert m.check().lost == ((a.pfn, 1),)
    assert f"pages {a.pfn}..{a.pfn} are lost" in str(m.check())


def test_too_small_an_order_loses_the_rest(m: Machine) -> None:
    """Silent; the first page is handed out next, the other three never again; check() names them."""
    a = m.alloc_pages(GFP_KERNEL, 2)
    m.__free_pages(a, 0)
    assert [m.memmap[a.pfn + i].refcount for i in range(4)] == [0, 0, 0, 0]
    assert "refcounts 0 0 0 0" in "\n".join(module_said("wrong_order_small"))
    assert m.dmesg() == ""
    following = next_pages(m, 6)
    assert following[0] == a.pfn
    assert not set(following) & {a.pfn + 1, a.pfn + 2, a.pfn + 3}
    assert m.check().lost == ((a.pfn + 1, 3),)
    c = m.alloc_pages(GFP_KERNEL | __GFP_COMP, 2)
    m.__free_pages(c, 0)
    assert c.refcount == 0
    assert next_pages(m, 1) == [c.pfn]
    assert m.check().lost == ((a.pfn + 1, 3), (c.pfn + 1, 3))
    assert "the rest is lost" not in m.dmesg()


def test_a_block_that_somebody_holds(m: Machine) -> None:
    """Only the last reference gives the first page back; the parts behind it go at once."""
    a = m.alloc_pages(GFP_KERNEL, 2)
    m.get_page(a)
    assert a.refcount == 2
    m.__free_pages(a, 2)
    counts = [m.memmap[a.pfn + i].refcount for i in range(4)]
    assert f"refcounts {' '.join(map(str, counts))} (the tail went back" in "\n".join(module_said("free_held_page"))
    m.put_page(a)
    assert a.refcount == 0
    assert "put_page(A): refcount 0" in module_said("free_held_page")
    m.drain_all_pages()
    assert not m.check().doubly_owned


def test_every_combination_of_zone_bits(m: Machine) -> None:
    """Which zone served each of the 16 combinations on Debian: every invalid one got a DMA page."""
    rows = re.findall(r"alloc_pages\((0x\w+)\((\S+)\), 0\) -> zone (\w+)", "\n".join(module_said("gfp_zonebits")))
    assert len(rows) == 17
    for mask, text, zone in rows:
        page = m.alloc_pages(int(mask, 16), 0)
        assert page.zone.name == zone, text
    assert m.check()


def test_the_silent_crimes_are_silent(m: Machine) -> None:
    """GFP_KERNEL in a wrong context works on Debian while memory is there: the recordings say so, so do we."""
    for path in sorted(MISUSE.glob("plenty_page_*.txt")):
        assert not [line for line in recorded(path.stem) if line.startswith(("BUG", "WARNING", "kernel BUG"))], path
    assert m.alloc_pages(GFP_KERNEL, 0)
    assert m.dmesg() == ""
