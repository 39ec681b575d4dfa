"""The memory report under "Mem-Info:": the counters, the node, each zone, its free blocks, and the sums.

Kernel: lib/show_mem.c; mm/page_alloc.c (show_free_areas). The model holds pages of the page cache and of processes
(all of them inactive), slab pages, page tables, what is dirty or under way to the disk, and swap. Slab pages that a
recording came with count as unreclaimable: their caches are not recorded. Rows a machine brought along from /proc are
added. Everything else (active and isolated pages, shmem, mapped, kernel stacks, huge pages, ...) is 0.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from kmemlab.mmzone import MAX_ORDER, PAGE_SHIFT, Zone
from kmemlab.slub_def import SLAB_RECLAIM_ACCOUNT
from kmemlab.vmscan import MAX_RECLAIM_RETRIES

if TYPE_CHECKING:
    from kmemlab.machine import Machine

__all__ = ["LETTERS", "show_free_areas", "show_mem"]

LETTERS = "UMEHI"  # U M E(reclaimable) H(ighAtomic) I(solate)


def show_mem(m: Machine, highest_zoneidx: int) -> list[str]:
    """The lines of a memory report for a request that may use zones up to ``highest_zoneidx``."""
    return [
        "Mem-Info:",
        *show_free_areas(m, highest_zoneidx),
        f"{sum(zone.present for zone in m.zones)} pages RAM",
        f"{sum(z.present for z in m.zones if z.name in ('HighMem', 'Movable'))} pages HighMem/MovableOnly",
        f"{sum(zone.present - zone.managed for zone in m.zones)} pages reserved",
        "0 pages hwpoisoned",
    ]


def show_free_areas(m: Machine, highest_zoneidx: int) -> list[str]:
    """Counters, node, zones, free blocks, page cache and swap; zones above ``highest_zoneidx`` are left out."""
    zones = [zone for zone in m.zones if zone.idx <= highest_zoneidx]
    rows = _rows(m)
    lines = [*_counters(rows, zones, sum(zone.nr_free_pages for zone in m.zones)), _node_line(m, rows)]
    for zone in zones:
        lines += [_zone_line(m, zone), "lowmem_reserve[]: " + " ".join(map(str, zone.lowmem_reserve))]
    lines += [_blocks_line(zone) for zone in zones]
    return [
        *lines,
        "Node 0 hugepages_total=0 hugepages_free=0 hugepages_surp=0 hugepages_size=2048kB",
        f"{rows['nr_file_pages']} total pagecache pages",
        f"{rows['nr_swapcached']} pages in swap cache",
        f"Free swap  = {_kb(m.lru.swap_free)}kB",
        f"Total swap = {_kb(m.lru.swap_total)}kB",
    ]


def _rows(m: Machine) -> Counter[str]:
    """The node's counters by the names of /proc/zoneinfo, in pages (kernel stacks in kB)."""
    lru = m.lru
    slab = sum(pages for zone in m.zones for _, pages in zone.slab)
    reclaimable = sum(bool(slab.cache.flags & SLAB_RECLAIM_ACCOUNT) for slab in m.slabs.values())
    return Counter(m.carried) + Counter({
        "nr_inactive_anon": len(lru.inactive_anon),
        "nr_inactive_file": len(lru.inactive_file),
        "nr_file_pages": len(lru.inactive_file),
        "nr_dirty": len(lru.dirty),
        "nr_writeback": len(lru.writeback),
        "nr_slab_reclaimable": reclaimable,
        "nr_slab_unreclaimable": len(m.slabs) - reclaimable + slab,
        "nr_page_table_pages": sum(process.pgtables for process in m.processes),
    })  # fmt: skip


def _counters(rows: Counter[str], zones: list[Zone], free: int) -> list[str]:
    free_pcp = sum(pcp.count for zone in zones for pcp in zone.pcps)
    table = (
        ("active_anon", "inactive_anon", "isolated_anon"),
        ("active_file", "inactive_file", "isolated_file"),
        ("unevictable", "dirty", "writeback"),
        ("slab_reclaimable", "slab_unreclaimable"),
        ("mapped", "shmem", "pagetables:page_table_pages"),
        ("sec_pagetables:sec_page_table_pages", "bounce"),
        ("kernel_misc_reclaimable",),
    )
    lines = []
    for names in table:
        pairs = [name.partition(":") for name in names]
        lines.append(" " + " ".join(f"{word}:{rows[f'nr_{row or word}']}" for word, _, row in pairs))
    lines.append(f" free:{free} free_pcp:{free_pcp} free_cma:{rows['nr_free_cma']}")
    return [lines[0][1:], *lines[1:]]


def _node_line(m: Machine, rows: Counter[str]) -> str:
    def kb(*names: str) -> str:
        return " ".join(f"{name}:{_kb(rows[f'nr_{name}'])}kB" for name in names)

    return (
        f"Node 0 {kb('active_anon', 'inactive_anon', 'active_file', 'inactive_file', 'unevictable')} "
        f"isolated(anon):{_kb(rows['nr_isolated_anon'])}kB isolated(file):{_kb(rows['nr_isolated_file'])}kB "
        f"{kb('mapped', 'dirty', 'writeback', 'shmem')} shmem_thp: {_kb(rows['nr_shmem_hugepages'])}kB "
        f"shmem_pmdmapped: {_kb(rows['nr_shmem_pmdmapped'])}kB "
        f"anon_thp: {_kb(rows['nr_anon_transparent_hugepages'])}kB writeback_tmp:{_kb(rows['nr_writeback_temp'])}kB "
        f"kernel_stack:{rows['nr_kernel_stack']}kB pagetables:{_kb(rows['nr_page_table_pages'])}kB "
        f"sec_pagetables:{_kb(rows['nr_sec_page_table_pages'])}kB "
        f"all_unreclaimable? {'yes' if m.lru.failures >= MAX_RECLAIM_RETRIES else 'no'}"
    )


def _zone_line(m: Machine, zone: Zone) -> str:
    lru, boost = m.lru, zone.watermark_boost
    own = {
        "zone_inactive_anon": sum(map(zone.spans_pfn, lru.inactive_anon)),
        "zone_inactive_file": sum(map(zone.spans_pfn, lru.inactive_file)),
        "zone_write_pending": sum(map(zone.spans_pfn, (*lru.dirty, *lru.writeback))),
    }

    def kb(word: str, row: str) -> str:
        return f"{word}:{_kb(m.carried.get(f'{zone.name}.nr_{row}', 0) + own.get(row, 0))}kB"

    marks = " ".join(f"{n}:{_kb(zone.wmark[i] + boost)}kB" for i, n in enumerate(("min", "low", "high")))
    pages = ("active_anon", "inactive_anon", "active_file", "inactive_file", "unevictable")
    return (
        f"Node 0 {zone.name} free:{_kb(zone.nr_free_pages)}kB boost:{_kb(boost)}kB {marks} "
        f"reserved_highatomic:{_kb(zone.nr_reserved_highatomic)}KB {' '.join(kb(n, f'zone_{n}') for n in pages)} "
        f"{kb('writepending', 'zone_write_pending')} present:{_kb(zone.present)}kB managed:{_kb(zone.managed)}kB "
        f"{kb('mlocked', 'mlock')} {kb('bounce', 'bounce')} free_pcp:{_kb(sum(p.count for p in zone.pcps))}kB "
        f"local_pcp:{_kb(zone.pcp.count)}kB {kb('free_cma', 'free_cma')}"
    )


def _blocks_line(zone: Zone) -> str:
    parts, total = [], 0
    for order in range(MAX_ORDER):
        count = zone.nr_free(order)
        total += count << order
        kinds = "".join(letter for mt, letter in enumerate(LETTERS) if zone.nr_free_of(order, mt))
        parts.append(f"{count}*{_kb(1 << order)}kB" + (f" ({kinds})" if count else ""))
    return f"Node 0 {zone.name}: {' '.join(parts)} = {_kb(total)}kB"


def _kb(pages: int) -> int:
    return pages << PAGE_SHIFT - 10
