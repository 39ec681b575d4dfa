"""What fills memory beside the learner's own calls: files that were read or written, processes, swap, a shrinker.

Small stand-ins for mm/filemap.c, mm/page-writeback.c and mm/memory.c: only what reclaim can see of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kmemlab import compaction, mm_init, vmscan
from kmemlab import reclaim_events as events
from kmemlab.null import Null
from kmemlab.page_free import free_block
from kmemlab.sched import KSWAPD, TICK, run_softirq

__all__ = ["File", "Process", "WorkloadMachine", "twin_workload"]

READAHEAD = 0x112CCA  # GFP_HIGHUSER_MOVABLE | __GFP_NORETRY | __GFP_NOWARN: what filemap asks with
BUFFERS = 0x112CC0  # GFP_USER | __GFP_NORETRY | __GFP_NOWARN: the same for a block device
ANON = 0x100DCA  # GFP_HIGHUSER_MOVABLE | __GFP_ZERO: what a page fault asks with


class File:
    """A file of which ``pages`` lie in the page cache (first pfns)."""

    def __init__(self, m: Any, name: str) -> None:
        self.m, self.name = m, name
        self.pages: set[int] = set()

    def dropped(self, pfn: int) -> None:
        """Reclaim has taken a page."""
        self.pages.discard(pfn)

    def drop(self) -> int:
        """Throw the file out of the cache, what is dirty too; the number of pages."""
        return int(self.m._give_back(self))

    def __repr__(self) -> str:
        return f"<file {self.name}: {len(self.pages)} pages cached>"


class Process:
    """A process with anonymous memory: ``rss`` pages in memory, ``swapents`` on the swap device."""

    def __init__(self, m: Any, comm: str, pid: int, oom_score_adj: int) -> None:
        self.m, self.comm, self.pid, self.oom_score_adj = m, comm, pid, oom_score_adj
        self.pages: set[int] = set()
        self.swapents = 0
        self.dying = False

    @property
    def rss(self) -> int:
        """Pages in memory."""
        return len(self.pages)

    @property
    def total_vm(self) -> int:
        """Pages it has mapped: its memory and a little text."""
        return self.rss + self.swapents + 256

    @property
    def pgtables(self) -> int:
        """Pages of page tables: one for each 512 pages mapped, and three above."""
        return -(-self.total_vm // 512) + 3

    def swapped(self, pfn: int) -> None:
        """Reclaim has written a page to swap."""
        self.pages.discard(pfn)
        self.swapents += 1

    dropped = swapped

    def exit(self) -> None:
        """End: all its memory goes back."""
        self.m.lru.swap_free += self.swapents
        self.swapents = 0
        self.m._give_back(self)
        if self in self.m.processes:
            self.m.processes.remove(self)

    def __repr__(self) -> str:
        return f"<process {self.comm}/{self.pid}: rss {self.rss} pages>"


def end_page_writeback(m: Any, pages: frozenset[int]) -> None:
    """An I/O has ended: its pages are clean. Kernel: folio_end_writeback, mm/filemap.c."""
    m.lru.writeback -= pages


def _pages_of(what: str, size: Any) -> int:
    try:
        return mm_init.parse_size(size)
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from None


class WorkloadMachine:
    """The part of a ``Machine`` that other programs use."""

    __slots__ = ()  # its fields are slots of Machine

    kswapd_woken: tuple[int, int] | None

    def _start_workload(self: Any) -> None:
        self.lru = vmscan.Lru()
        self.files: list[File] = []
        self.processes: list[Process] = []
        self.next_pid = 80
        self.compact_states: dict[int, compaction.CompactState] = {}

    # --- the page cache ----------------------------------------------------------------------------

    def read_file(self: Any, name: str, size: str | int) -> File:
        """Read a file: its pages are kept in the page cache, clean. They can be taken back at any time.

        The pages of a block device ("/dev/vda") are taken as not movable. Kernel: mapping_gfp_mask; bdev_alloc.
        """
        file = File(self, name)
        self.files.append(file)
        gfp = BUFFERS if name.startswith("/dev/") else READAHEAD
        self._fill(file, _pages_of("read_file", size), gfp, "inactive_file")
        return file

    def write_file(self: Any, name: str, size: str | int) -> File:
        """Write a file: its pages are dirty until they have been written out."""
        file: File = self.read_file(name, size)
        self.lru.dirty |= file.pages
        return file

    def start_writeback(self: Any, pfns: Iterable[int]) -> None:
        """Begin to write dirty pages; they are clean when the I/O has ended."""
        pages = {pfn for pfn in pfns if pfn in self.lru.dirty}
        if not pages:
            return
        self.lru.dirty -= pages
        self.lru.writeback |= pages
        self.at(vmscan.WRITE_MS, end_page_writeback, frozenset(pages))

    # --- anonymous memory ------------------------------------------------------------------------------

    def process(self: Any, comm: str, size: str | int, *, oom_score_adj: int = 0) -> Process:
        """Start a process that uses ``size`` of memory. Errors: ValueError for an oom_score_adj beyond -1000..1000."""
        if not isinstance(oom_score_adj, int) or not -1000 <= oom_score_adj <= 1000:
            raise ValueError(f"process: oom_score_adj must be from -1000 to 1000, not {oom_score_adj!r}")
        process = Process(self, comm, self.next_pid, oom_score_adj)
        self.next_pid += 1
        self.processes.append(process)
        self._fill(process, _pages_of("process", size), ANON, "inactive_anon")
        return process

    def swapon(self: Any, size: str | int) -> None:
        """Add a swap device. Kernel: swapon, mm/swapfile.c."""
        pages = _pages_of("swapon", size)
        self.lru.swap_total += pages
        self.lru.swap_free += pages
        self.lru.failures = 0

    def _fill(self: Any, owner: Any, pages: int, gfp: int, kind: str) -> None:
        """Take pages one by one, as faults and reads do; stops where there are none. A reader whose readahead got none
        waits for the disk, so that kswapd can work, and asks once more."""
        self.lru.failures = 0
        for _ in range(pages):
            page = self.alloc_pages(gfp, 0)
            if isinstance(page, Null) and gfp in (READAHEAD, BUFFERS) and self.kswapd_woken and not self.lru.empty:
                self.msleep(TICK)
                page = self.alloc_pages(gfp, 0)
            if isinstance(page, Null) or (isinstance(owner, Process) and owner.dying):
                break
            owner.pages.add(page.pfn)
            page.zone.lru.add(page.pfn)
            self.lru.add(kind, page.pfn, owner)
        self.changes += 1

    def _give_back(self: Any, owner: Any) -> int:
        """Free all pages of a file or a process."""
        pfns, owner.pages = sorted(owner.pages), set()
        with self.aside():
            for pfn in pfns:
                self.lru.remove(pfn)
                page = self.memmap[pfn]
                page.refcount = 0
                free_block(self, page, 0)
        self.lru.failures = 0
        self.changes += 1
        return len(pfns)

    # --- kswapd, sums ----------------------------------------------------------------------------------

    def run_kswapd(self: Any, *, idle: bool = False) -> None:
        """kswapd works for whoever woke it, if the CPU is ``idle`` or its turn has come.

        On a machine without anything to reclaim it does so only while the CPU is idle: replays of such machines were
        recorded without a pause in which kswapd could have lowered a boost.
        """
        if self.kswapd_woken is None:
            return
        if not idle and not self.lru.empty and not self.kswapd_turn.has_come(self):
            return
        (order, highest), self.kswapd_woken = self.kswapd_woken, None
        if self.lru.empty and not idle:
            return
        before = self.lru.stat["pgsteal_kswapd"]
        self.trail.append((events.MmVmscanKswapdWake, order))
        with self.other_task(KSWAPD, 37), self.aside():
            vmscan.balance_pgdat(self, order, highest)
        got = self.lru.stat["pgsteal_kswapd"] - before
        self.trail.append((events.MmVmscanKswapdSleep, got, vmscan.pgdat_balanced(self, order, highest)))

    def compact_state(self: Any, zone: Any) -> compaction.CompactState:
        """What a zone remembers of failed compaction."""
        state: compaction.CompactState = self.compact_states.setdefault(zone.idx, compaction.CompactState())
        return state

    def compact_defer_reset(self: Any, zone: Any, order: int) -> None:
        """Compaction brought a block. Kernel: compaction_defer_reset."""
        self.compact_state(zone).reset(order, allocated=True)

    def compaction_ready(self: Any, order: int, highest: int) -> bool:
        """Kernel: compaction_ready, mm/vmscan.c."""
        return compaction.compaction_ready(self, order, highest)

    def compaction_zonelist_suitable(self: Any, plan: Any, alloc_flags: int) -> bool:
        """Kernel: compaction_zonelist_suitable, mm/compaction.c."""
        return compaction.compaction_zonelist_suitable(self, plan, alloc_flags)

    def reclaimable_pages(self: Any, zone: Any) -> int:
        """Kernel: zone_reclaimable_pages, mm/vmscan.c."""
        return vmscan.zone_reclaimable_pages(self, zone)

    def totalram_pages(self: Any) -> int:
        """Kernel: totalram_pages, include/linux/mm.h."""
        return sum(zone.managed for zone in self.zones)


def twin_workload(m: Any, twin: Any) -> None:
    """Give a copy of the machine its own files, processes and lists, and the timers that name them.

    The learner's own functions (timers, shrinkers) are left behind: they would act on the first machine.
    """
    owners: dict[Any, Any] = {}
    for owner in {*m.files, *m.processes, *(o for name in vmscan.LISTS for o in getattr(m.lru, name).values())}:
        its = owners[owner] = owner.__class__.__new__(owner.__class__)
        its.__dict__.update(owner.__dict__, m=twin, pages=set(owner.pages))
    twin.files = [owners[file] for file in m.files]
    twin.processes = [owners[process] for process in m.processes]
    twin.lru = vmscan.Lru()
    for name in vmscan.Lru.__slots__:
        value = getattr(m.lru, name)
        if name in vmscan.LISTS:
            value = value.__class__((pfn, owners[owner]) for pfn, owner in value.items())
        setattr(twin.lru, name, value.copy() if hasattr(value, "copy") and name not in vmscan.LISTS else value)
    twin.lru.shrinkers = []
    twin._timers = [timer for timer in m._timers if timer[2] is not run_softirq]
