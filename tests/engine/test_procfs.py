"""The /proc files: rendered from a machine, read back (exactness against a real kernel: tests/kernel)."""

from __future__ import annotations

import pytest

from kmemlab import GFP_ATOMIC, GFP_HIGHUSER_MOVABLE, GFP_KERNEL, Machine
from kmemlab.procfs import NODE_STATS, ZONE_STATS, ProcfsError, parse_buddyinfo, parse_zoneinfo
from tests.engine.calls import random_calls


@pytest.fixture
def m() -> Machine:
    each = Machine("linux-6.1", memory="64M", cpus=2)
    list(random_calls(each, 2, 400, []))
    return each


def test_buddyinfo_counts_the_lists(m: Machine) -> None:
    """One row a zone, eleven columns, a blank at the end, the sum of all types."""
    text = m.cat("/proc/buddyinfo")
    assert all(line.endswith(" ") for line in text.splitlines())
    assert parse_buddyinfo(text) == {zone.name: [zone.nr_free(order) for order in range(11)] for zone in m.zones}


def test_pagetypeinfo_adds_up_to_buddyinfo(m: Machine) -> None:
    """The rows of the five types sum to buddyinfo's; the pageblocks to the zone."""
    lines = m.cat("/proc/pagetypeinfo").splitlines()
    for zone in m.zones:
        rows = [list(map(int, x.split()[6:])) for x in lines if f"zone {zone.name:>8s}, type" in x]
        assert len(rows) == 5
        assert [sum(column) for column in zip(*rows, strict=True)] == parse_buddyinfo(m.cat("/proc/buddyinfo"))[
            zone.name
        ]
        blocks = next(x for x in lines if x.startswith(f"Node 0, zone {zone.name:>8s} "))
        assert sum(map(int, blocks.split()[4:])) == -(-zone.end_pfn // 512) - zone.start_pfn // 512


def test_zoneinfo_has_the_zones_numbers(m: Machine) -> None:
    """Marks with boost, the lagging counter, each CPU's list; and it is read back."""
    m.zones[1].watermark_boost = 512
    zones = {zone.name: zone for zone in parse_zoneinfo(m.cat("/proc/zoneinfo"))}
    assert list(zones) == ["DMA", "DMA32", "Normal", "Movable", "Device"]
    for zone in m.zones:
        read = zones[zone.name]
        assert [read.values[name] for name in ("min", "low", "high")] == [w + zone.watermark_boost for w in zone.wmark]
        assert read.values["free"] == read.stats["nr_free_pages"] == zone.nr_free_pages
        assert read.protection == zone.lowmem_reserve
        assert [p["count"] for p in read.pcps] == [pcp.count for pcp in zone.pcps]
        assert read.values["threshold"] == zone.stat_threshold
    text = m.cat("/proc/zoneinfo")
    for row in (*NODE_STATS, *ZONE_STATS):
        assert f"\n      {row:<12s} " in text


def test_files_that_are_not_modelled_are_named(m: Machine) -> None:
    """cat of another file lists the ones there are; sysctl files are written as the kernel writes them."""
    with pytest.raises(ValueError, match="the model has /proc/buddyinfo, /proc/pagetypeinfo, /proc/zoneinfo"):
        m.cat("/proc/slabinf")
    assert m.cat("/proc/sys/vm/lowmem_reserve_ratio") == "256\t256\t32\t0\t0\n"
    assert m.cat("/proc/sys/vm/min_free_kbytes") == f"{m.sysctl('vm.min_free_kbytes')}\n"


def test_reading_changes_nothing(m: Machine) -> None:
    """cat, snapshot and check leave the machine as it was."""
    twin = m.copy()
    for path in ("buddyinfo", "pagetypeinfo", "zoneinfo"):
        m.cat(f"/proc/{path}")
    m.snapshot()
    m.check()
    for gfp, order in [(GFP_KERNEL, 0), (GFP_ATOMIC, 3), (GFP_HIGHUSER_MOVABLE, 5)]:
        assert m.alloc_pages(gfp, order).pfn == twin.alloc_pages(gfp, order).pfn


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "buddyinfo: line 1: no zone"),
        ("\n\n", "buddyinfo: line 1: no zone"),
        ("hello\n", "buddyinfo: line 1: expected 'Node 0, zone NAME' and counts: 'hello'"),
        ("Node 0, zone DMA 1 2 3\n", "buddyinfo: line 1: 3 orders, this kernel model has 11"),
        ("\nNode 1, zone DMA" + " 1" * 11, "buddyinfo: line 2: node 1: the model has one node"),
        ("Node 0, zone DMA" + " 1" * 10 + " " + "9" * 5000, "buddyinfo: line 1: '9999"),
        ("Node 0, zone DMA" + " 1" * 10 + " 99999999999999", "do not fit into any memory"),
        ("Node 0, zone DMA" + " 1" * 10 + " x", "buddyinfo: line 1: expected"),
    ],
    ids=range(8),
)  # fmt: skip
def test_wrong_buddyinfo_lines_are_named(text: str, said: str) -> None:
    """File, line, what is wrong: one line."""
    with pytest.raises(ProcfsError) as caught:
        parse_buddyinfo(text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


ZONE = "Node 0, zone      DMA\n  pages free     5\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "zoneinfo: line 1: no zone"),
        ("  pages free 5\n", "zoneinfo: line 1: expected 'Node 0, zone NAME'"),
        ("Node 3, zone DMA\n", "zoneinfo: line 1: node 3: the model has one node"),
        (ZONE, "zoneinfo: zone DMA (line 1): has no row 'high'"),
        (ZONE + "        low x\n", "zoneinfo: line 3: cannot be read: 'low x'"),
        (ZONE + "        low      -7\n", "zoneinfo: line 3: low: -7 is out of range"),
        (ZONE + "        low      " + "9" * 30, "zoneinfo: line 3: low: '999"),
        (ZONE + "        protection: (0, , 5)\n", "zoneinfo: line 3: protection: ' ' is not a number"),
    ],
    ids=range(8),
)
def test_wrong_zoneinfo_lines_are_named(text: str, said: str) -> None:
    """The same for zoneinfo, rows that are missing included."""
    with pytest.raises(ProcfsError) as caught:
        parse_zoneinfo(text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
