"""/proc/slabinfo, /sys/kernel/slab, alloc_traces: numbers that agree with the cache; damaged text, one message."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmemlab import GFP_KERNEL, Machine
from kmemlab.procfs import ProcfsError
from kmemlab.slabinfo import SlabInfo, parse_slabinfo, slabinfo, slabinfo_line

REAL = Path(__file__).parents[1] / "kernel" / "recordings" / "proc" / "256M" / "load" / "slabinfo"
NUMBERS = st.integers(0, 10**9)
NAMES = st.text(st.sampled_from("abcXYZ019_-:.()"), min_size=1, max_size=30)


@given(st.builds(SlabInfo, NAMES, NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS))
def test_rows_round_trip(row: SlabInfo) -> None:
    head = "".join(slabinfo(Machine("linux-6.1", memory="8M")).splitlines(keepends=True)[:2])
    assert parse_slabinfo(head + slabinfo_line(row)) == [row]


@given(st.integers(0, 4000), st.text(max_size=5))
def test_damaged_text_is_one_message(at: int, junk: str) -> None:
    text = REAL.read_text(encoding="utf-8")
    said = "slabinfo: line 1"
    try:
        parse_slabinfo(text[:at] + junk + text[at + 3 :])
    except ProcfsError as error:
        said = str(error)
    assert said.startswith("slabinfo: line ")
    assert len(said.splitlines()) == 1


def test_free_objects_of_cpu_slabs_count_as_active() -> None:
    """What slabtop shows as 100 % active may be empty."""
    m = Machine("linux-6.1", memory="64M", cmdline="slab_nomerge")
    c = m.kmem_cache_create("conn", 256, 0, 0, None)
    objects = [m.kmem_cache_alloc(c, GFP_KERNEL) for _ in range(1000)]
    row = parse_slabinfo(m.cat("/proc/slabinfo"))[0]
    assert (row.name, row.active_objs, row.num_objs, row.num_slabs) == ("conn", 1008, 1008, 63)
    for p in objects:
        m.kmem_cache_free(c, p)
    row = parse_slabinfo(m.cat("/proc/slabinfo"))[0]
    assert (row.active_objs, row.num_objs, row.num_slabs) == (192 - 5 * 16, 192, 12)


def test_sysfs() -> None:
    m = Machine("linux-6.1", memory="64M", cmdline="slab_nomerge")
    c = m.kmem_cache_create("conn", 200, 0, 0x2000, lambda p: None)
    for p in [m.kmem_cache_alloc(c, GFP_KERNEL) for _ in range(60)][::2]:
        m.kmem_cache_free(c, p)

    def read(name: str) -> str:
        return m.cat(f"/sys/kernel/slab/conn/{name}").strip()

    assert (read("object_size"), read("slab_size"), read("align"), read("hwcache_align")) == ("200", "256", "64", "1")
    assert (read("ctor"), read("poison"), read("slabs")) == ("ctor", "0", "4 N0=4")
    assert read("slabs_cpu_partial") == "24(3) C0=24(3)"
    assert int(read("objects").split()[0]) + sum(s.objects - s.inuse for s in m.slab_snapshot(c).node_partial) == 64


def test_alloc_traces_count_who_holds_what() -> None:
    m = Machine("linux-6.1", memory="64M", cmdline="slub_debug=U,conn slab_nomerge")
    c = m.kmem_cache_create("conn", 64, 0, 0, None)
    kept = []
    with m.caller("net_rx+0x40"):
        kept += [m.kmem_cache_alloc(c, GFP_KERNEL) for _ in range(7)]
    with m.caller("accept+0x10"):
        kept += [m.kmem_cache_alloc(c, GFP_KERNEL) for _ in range(3)]
    m.kmem_cache_free(c, kept[0])
    rows = m.cat("/sys/kernel/debug/slab/conn/alloc_traces").splitlines()
    assert [row.split()[:2] for row in rows] == [["6", "net_rx+0x40"], ["3", "accept+0x10"]]
    with pytest.raises(ValueError, match="slub_debug=U,kmalloc-64"):
        m.cat("/sys/kernel/debug/slab/kmalloc-64/alloc_traces")
