"""Zones, pages, per-CPU lists and free lists: the data of the page allocator, and the sums made of it.

Kernel: include/linux/mmzone.h, include/linux/mm_types.h; watermark sums from mm/page_alloc.c,
the lagging counter from mm/vmstat.c.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

from kmemlab.gfp import MIGRATE_NAMES

__all__ = [
    "ALLOC_CPUSET",
    "ALLOC_HIGHATOMIC",
    "ALLOC_KSWAPD",
    "ALLOC_MIN_RESERVE",
    "ALLOC_NOFRAGMENT",
    "ALLOC_NON_BLOCK",
    "ALLOC_NO_WATERMARKS",
    "ALLOC_OOM",
    "ALLOC_RESERVES",
    "MAX_ORDER",
    "MIGRATE_HIGHATOMIC",
    "MIGRATE_ISOLATE",
    "MIGRATE_MOVABLE",
    "MIGRATE_PCPTYPES",
    "MIGRATE_RECLAIMABLE",
    "MIGRATE_TYPES",
    "MIGRATE_UNMOVABLE",
    "NR_PCP_LISTS",
    "PAGEBLOCK_NR_PAGES",
    "PAGEBLOCK_ORDER",
    "PAGE_ALLOC_COSTLY_ORDER",
    "PAGE_SHIFT",
    "PAGE_SIZE",
    "WMARK_HIGH",
    "WMARK_LOW",
    "WMARK_MIN",
    "WMARK_NAMES",
    "MemMap",
    "Page",
    "PerCpuPages",
    "Zone",
    "mod_free_pages",
    "mult_frac",
    "order_to_pindex",
    "pindex_to_order",
    "reduced_mark",
    "unusable_free",
]

PAGE_SHIFT = 12
PAGE_SIZE = 1 << PAGE_SHIFT
MAX_ORDER = 11  # exclusive: the largest block is order 10 (6.4 made the constant inclusive)
PAGEBLOCK_ORDER = 9
PAGEBLOCK_NR_PAGES = 1 << PAGEBLOCK_ORDER
PAGE_ALLOC_COSTLY_ORDER = 3

MIGRATE_UNMOVABLE, MIGRATE_MOVABLE, MIGRATE_RECLAIMABLE, MIGRATE_HIGHATOMIC, MIGRATE_ISOLATE = range(5)
MIGRATE_PCPTYPES = 3  # the types that have per-CPU lists, and that may merge across pageblocks
MIGRATE_TYPES = len(MIGRATE_NAMES)
NR_PCP_LISTS = 14

WMARK_MIN, WMARK_LOW, WMARK_HIGH = range(3)
WMARK_NAMES = ("min", "low", "high")

# Kernel: mm/internal.h. The low two bits choose the watermark.
ALLOC_NO_WATERMARKS = 0x4
ALLOC_OOM = 0x8
ALLOC_NON_BLOCK = 0x10
ALLOC_MIN_RESERVE = 0x20
ALLOC_CPUSET = 0x40
ALLOC_NOFRAGMENT = 0x100
ALLOC_HIGHATOMIC = 0x200
ALLOC_KSWAPD = 0x800
ALLOC_RESERVES = ALLOC_NON_BLOCK | ALLOC_MIN_RESERVE | ALLOC_HIGHATOMIC | ALLOC_OOM


class Page:
    """A page frame. The same frame is always the same object, as in the kernel's ``mem_map``.

    ``refcount`` is ``_refcount``. ``order`` is what the block was last handed out as, -1 if this
    model never handed it out. ``mt`` is the migratetype remembered while on a per-CPU list.
    Kernel: struct page, include/linux/mm_types.h.
    """

    __slots__ = ("gfp", "mt", "order", "pfn", "refcount", "zone")

    def __init__(self, pfn: int, zone: Zone, refcount: int) -> None:
        self.pfn = pfn
        self.zone = zone
        self.refcount = refcount
        self.order = -1
        self.mt = 0
        self.gfp = 0

    def __repr__(self) -> str:
        return f"<page pfn {self.pfn}>"

    def twin(self, zone: Zone) -> Page:
        """The same page of another machine."""
        page = Page(self.pfn, zone, self.refcount)
        page.order, page.mt, page.gfp = self.order, self.mt, self.gfp
        return page


class MemMap(dict[int, Page]):
    """``mem_map``, built lazily: ``memmap[pfn]`` makes the Page at its first use."""

    def __init__(self, make: Callable[[int], Page]) -> None:
        super().__init__()
        self.make = make

    def __missing__(self, pfn: int) -> Page:
        page = self[pfn] = self.make(pfn)
        return page

    def twin(self, zones: dict[Zone, Zone], make: Callable[[int], Page], *, lazy: bool = False) -> MemMap:
        """The same pages in the zones of another machine; if ``lazy``, each when it is first asked for."""
        if not lazy:
            twin = MemMap(make)
            for pfn, page in self.items():
                twin[pfn] = page.twin(zones[page.zone])
            return twin

        def fetch(pfn: int) -> Page:
            page = self.get(pfn)
            return make(pfn) if page is None else page.twin(zones[page.zone])

        return MemMap(fetch)


class PerCpuPages:
    """One CPU's free pages of one zone. ``lists[pindex]`` keeps its head at the end, where Python is cheap.

    ``count``, ``high`` and ``batch`` are in pages. Kernel: struct per_cpu_pages.
    """

    __slots__ = ("batch", "count", "cpu", "free_factor", "high", "lists", "vm_stat_diff")

    def __init__(self, cpu: int, high: int = 0, batch: int = 1) -> None:
        self.cpu = cpu
        self.count = 0
        self.high = high
        self.batch = batch
        self.free_factor = 0
        self.lists: list[list[Page]] = [[] for _ in range(NR_PCP_LISTS)]
        # This CPU's part of NR_FREE_PAGES that is not yet in the zone's counter.
        self.vm_stat_diff = 0

    def twin(self, memo: dict[int, Any]) -> PerCpuPages:
        """The same counts with empty lists."""
        twin = memo[id(self)] = PerCpuPages(self.cpu, self.high, self.batch)
        twin.count, twin.free_factor, twin.vm_stat_diff = self.count, self.free_factor, self.vm_stat_diff
        for pages, empty in zip(self.lists, twin.lists, strict=True):
            memo[id(pages)] = empty
        return twin


def order_to_pindex(migratetype: int, order: int) -> int:
    """Index of a per-CPU list: three types for each order 0-3, two lists for order 9.

    Kernel: order_to_pindex, mm/page_alloc.c.
    """
    if order == PAGEBLOCK_ORDER:
        return 12 + (migratetype == MIGRATE_MOVABLE)
    return MIGRATE_PCPTYPES * order + (migratetype if migratetype < MIGRATE_PCPTYPES else MIGRATE_MOVABLE)


def pindex_to_order(pindex: int) -> int:
    """The order of the blocks on per-CPU list ``pindex``. Kernel: pindex_to_order, mm/page_alloc.c."""
    return PAGEBLOCK_ORDER if pindex >= 12 else pindex // MIGRATE_PCPTYPES


class Zone:
    """One populated zone. All counts are pages.

    A free list is two dicts of first pfns: ``free_area[order][migratetype]``, whose *last* key is the list's
    head, and behind it ``free_tail[order][migratetype]``, whose last key is the list's tail. The first is
    empty only when the list is. ``buddy`` maps each listed block to ``order << 3 | migratetype``.
    ``run`` holds top-order movable blocks that nobody touched since boot: they stand behind the tail of
    their list without being stored one by one. Kernel: struct zone, include/linux/mmzone.h.
    """

    # Slots: more attributes than Python keeps in place without them, and every call reads some.
    __slots__ = (
        "boosted",
        "boot_free",
        "boot_run",
        "buddy",
        "counter_gap",
        "end_pfn",
        "free_area",
        "free_tail",
        "idx",
        "lowmem_reserve",
        "lru",
        "managed",
        "marks_changed",
        "max_reserved_highatomic",
        "merge_likely_below",
        "name",
        "nr_free_pages",
        "nr_reserved_highatomic",
        "pageblock_mt",
        "pcp",
        "pcp_batch_scale_max",
        "pcp_limit",
        "pcps",
        "present",
        "reclaim_active",
        "reserved",
        "run",
        "slab",
        "spanned",
        "spans",
        "split_from",
        "start_pfn",
        "stat_threshold",
        "tainted",
        "trail",
        "watermark_boost",
        "watermark_boost_factor",
        "whole_block",
        "wmark",
    )

    def __init__(self, name: str, idx: int, start_pfn: int, spanned: int, present: int, managed: int) -> None:
        self.name = name
        self.idx = idx
        self.start_pfn = start_pfn
        self.end_pfn = start_pfn + spanned
        self.spanned = spanned
        self.present = present
        self.managed = managed
        self.wmark = [0, 0, 0]
        self.watermark_boost = 0
        self.lowmem_reserve: list[int] = []
        self.nr_reserved_highatomic = 0
        self.boosted = False  # ZONE_BOOSTED_WATERMARK
        self.reclaim_active = False  # ZONE_RECLAIM_ACTIVE
        self.nr_free_pages = 0
        self.stat_threshold = 0
        self.counter_gap = 0  # a zone made from /proc: its counter and its lists were read at different moments
        self.free_area: list[list[dict[int, None]]] = [[{} for _ in range(MIGRATE_TYPES)] for _ in range(MAX_ORDER)]
        self.free_tail: list[list[dict[int, None]]] = [[{} for _ in range(MIGRATE_TYPES)] for _ in range(MAX_ORDER)]
        self.buddy: dict[int, int] = {}
        self.run = range(0)
        self.split_from = 0  # order of the block that the last request was cut from
        self.pcps: list[PerCpuPages] = []
        self.pcp: PerCpuPages = PerCpuPages(0)  # the list of the CPU that runs
        self.pcp_limit = 0  # nr_pcp_high of that list, kept by pcplist.update_limit
        self.pageblock_mt = bytearray()  # the machine's, shared by its zones
        self.lru: set[int] = set()
        self.merge_likely_below = MAX_ORDER - 2
        self.spans: list[tuple[int, int]] = []  # runs (first pfn, pages) where memory is
        self.reserved: list[tuple[int, int]] = []
        self.slab: list[tuple[int, int]] = []
        self.tainted = False  # the caller broke a rule: blocks may overlap
        self.boot_run = range(0)
        self.boot_free: dict[int, int] = {}  # first pfn -> order of what was free when the machine was made
        self.whole_block = True
        self.pcp_batch_scale_max = 5
        self.watermark_boost_factor = 15000
        self.max_reserved_highatomic = managed // 100 + PAGEBLOCK_NR_PAGES
        self.trail: list[tuple[Any, ...]] = []  # the machine's notes of the running call
        self.marks_changed: Callable[[], None] = lambda: None

    def __repr__(self) -> str:
        return f"<zone {self.name} {self.nr_free_pages} of {self.managed} pages free>"

    def __deepcopy__(self, memo: dict[int, Any]) -> Zone:
        """The zone in another machine; its per-CPU lists are left empty, for the machine to fill with its pages."""
        twin = memo[id(self)] = Zone.__new__(Zone)
        for name in Zone.__slots__:
            setattr(twin, name, getattr(self, name))
        twin.free_area = [[area.copy() for area in row] for row in self.free_area]
        twin.free_tail = [[tail.copy() for tail in row] for row in self.free_tail]
        twin.buddy, twin.lru = self.buddy.copy(), self.lru.copy()
        twin.wmark, twin.lowmem_reserve = [*self.wmark], [*self.lowmem_reserve]
        twin.pageblock_mt = copy.deepcopy(self.pageblock_mt, memo)
        twin.pcps = [pcp.twin(memo) for pcp in self.pcps]
        twin.pcp = twin.pcps[self.pcp.cpu] if self.pcps else PerCpuPages(0)
        twin.trail = memo.get(id(self.trail), [])
        return twin

    def free_blocks(self, order: int, migratetype: int) -> Iterator[int]:
        """First pfn of each block on one free list, head first."""
        yield from reversed(self.free_area[order][migratetype])
        yield from self.free_tail[order][migratetype]
        if order == MAX_ORDER - 1 and migratetype == MIGRATE_MOVABLE:
            yield from self.run

    def nr_free_of(self, order: int, migratetype: int) -> int:
        """Blocks on one free list."""
        count = len(self.free_area[order][migratetype]) + len(self.free_tail[order][migratetype])
        return count + len(self.run) if order == MAX_ORDER - 1 and migratetype == MIGRATE_MOVABLE else count

    def nr_free(self, order: int) -> int:
        """Blocks of this order on all lists (the row of /proc/buddyinfo)."""
        return sum(self.nr_free_of(order, mt) for mt in range(MIGRATE_TYPES))

    def add_to_free_list_tail(self, pfn: int, order: int, migratetype: int) -> None:
        """Put a block at the tail of its list."""
        top = order == MAX_ORDER - 1 and migratetype == MIGRATE_MOVABLE
        if top and self.run:
            self.store_run(len(self.run))  # the untouched blocks stand at the tail: they must come first
        area = self.free_area[order][migratetype]
        (self.free_tail[order][migratetype] if area else area)[pfn] = None
        self.buddy[pfn] = order << 3 | migratetype

    def del_from_free_list(self, pfn: int) -> int:
        """Take a listed block off its list, wherever it stands; returns its order."""
        entry = self.buddy.pop(pfn)
        order, migratetype = entry >> 3, entry & 7
        area = self.free_area[order][migratetype]
        if area.pop(pfn, 0) == 0:
            del self.free_tail[order][migratetype][pfn]
        elif not area:
            self.turn(order, migratetype)
        return order

    def turn(self, order: int, migratetype: int) -> None:
        """The head part of a list ran empty: let the tail part, turned round, be the head part."""
        tail = self.free_tail[order][migratetype]
        self.free_area[order][migratetype].update(dict.fromkeys(reversed(tail)))
        tail.clear()
        if self.run and order == MAX_ORDER - 1 and migratetype == MIGRATE_MOVABLE:
            self.store_run(64)

    def store_run(self, blocks: int) -> None:
        """Store the first ``blocks`` untouched top-order blocks on their list, one by one."""
        chunk, self.run = self.run[:blocks], self.run[blocks:]
        order = MAX_ORDER - 1
        for pfn in chunk:
            area = self.free_area[order][MIGRATE_MOVABLE]
            (self.free_tail[order][MIGRATE_MOVABLE] if area else area)[pfn] = None
            self.buddy[pfn] = order << 3 | MIGRATE_MOVABLE

    def free_pages(self) -> int:
        """The free counter with every CPU's pending part: what the lists really hold."""
        return self.nr_free_pages + sum(pcp.vm_stat_diff for pcp in self.pcps) - self.counter_gap

    def spans_pfn(self, pfn: int) -> bool:
        """Whether the frame lies between the zone's ends. Kernel: zone_spans_pfn."""
        return self.start_pfn <= pfn < self.end_pfn

    def has_block(self, order: int, alloc_flags: int) -> bool:
        """Whether a list open to the request holds a block of at least ``order``."""
        areas = self.free_area
        wide = alloc_flags & (ALLOC_HIGHATOMIC | ALLOC_OOM)
        for high in range(MAX_ORDER - 1, order - 1, -1):
            unmovable, movable, reclaimable, highatomic, _ = areas[high]
            if movable or unmovable or reclaimable or (wide and highatomic):
                return True
        return False

    def free_block_at(self, pfn: int) -> tuple[int, int, int] | None:
        """The listed block that holds ``pfn`` as (first pfn, order, migratetype), or None."""
        for order in range(MAX_ORDER):
            start = pfn >> order << order
            entry = self.buddy.get(start)
            if entry is not None and entry >> 3 >= order:
                return start, entry >> 3, entry & 7
        if self.run and self.run[0] <= pfn < self.run[-1] + (1 << MAX_ORDER - 1):
            return pfn >> MAX_ORDER - 1 << MAX_ORDER - 1, MAX_ORDER - 1, MIGRATE_MOVABLE
        return None


def mod_free_pages(zone: Zone, delta: int) -> None:
    """Change this CPU's part of NR_FREE_PAGES; fold it into the total when it outgrows the threshold.

    Kernel: __mod_zone_page_state, mm/vmstat.c.
    """
    pcp = zone.pcp
    diff = pcp.vm_stat_diff + delta
    if diff > zone.stat_threshold or -diff > zone.stat_threshold:
        zone.nr_free_pages += diff
        diff = 0
    pcp.vm_stat_diff = diff


def mult_frac(x: int, numerator: int, denominator: int) -> int:
    """``x * numerator / denominator`` as the kernel rounds it. Kernel: include/linux/math.h."""
    quotient, rest = divmod(x, denominator)
    return quotient * numerator + rest * numerator // denominator


def unusable_free(zone: Zone, order: int, alloc_flags: int) -> int:
    """Free pages that do not count for this request. Kernel: __zone_watermark_unusable_free."""
    unusable = (1 << order) - 1
    if not alloc_flags & ALLOC_RESERVES:
        unusable += zone.nr_reserved_highatomic
    return unusable


def reduced_mark(mark: int, alloc_flags: int) -> int:
    """What is left of a watermark after the request's rights to the reserves. Kernel: __zone_watermark_ok."""
    if alloc_flags & ALLOC_MIN_RESERVE:
        mark -= mark // 2
        if alloc_flags & ALLOC_NON_BLOCK:
            mark -= mark // 4
    if alloc_flags & ALLOC_OOM:
        mark -= mark // 2
    return mark
