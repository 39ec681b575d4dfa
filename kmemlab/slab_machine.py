"""The object floor of a machine: its slab caches, the bytes of its memory, who calls.

Boot options: slub_debug=[-FZPUTO][,cache...][;...], slab_nomerge, slub_max_order=, slub_min_objects=,
init_on_alloc=. Kernel: mm/slub.c (setup_slub_debug, parse_slub_debug_flags).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from kmemlab import slab_common, slub
from kmemlab.address import Address
from kmemlab.log import KernelLog
from kmemlab.memory import Memory
from kmemlab.mmzone import Page
from kmemlab.null import KernelBug, Null
from kmemlab.page_alloc import __alloc_pages as _alloc_pages
from kmemlab.page_free import __free_pages as _free_pages
from kmemlab.slub_bytes import Follow, show_freepointers, written
from kmemlab.slub_debug import chain
from kmemlab.slub_def import (
    SLAB_CONSISTENCY_CHECKS,
    SLAB_POISON,
    SLAB_RED_ZONE,
    SLAB_STORE_USER,
    SLAB_TRACE,
    KmemCache,
    Slab,
)

if TYPE_CHECKING:
    from kmemlab.machine import Machine

__all__ = ["SlabMachine", "SlabPages", "parse_slub_debug"]

_LETTERS = {
    "f": SLAB_CONSISTENCY_CHECKS, "z": SLAB_RED_ZONE, "p": SLAB_POISON, "u": SLAB_STORE_USER, "t": SLAB_TRACE,
}  # fmt: skip
_DEFAULT = SLAB_CONSISTENCY_CHECKS | SLAB_RED_ZONE | SLAB_POISON | SLAB_STORE_USER


class SlabPages:
    """Where slabs get their pages, and at which place of the ring a shuffled slab begins."""

    def alloc(self, m: Machine, gfp: int, order: int) -> Page | Null:
        """Pages for a slab; what the page allocator did becomes part of the call's story."""
        page = _alloc_pages(m, gfp, order)
        m.steps.append(tuple(m.trail))
        return page

    def free(self, m: Machine, page: Page, order: int) -> None:
        """Pages of a slab go back."""
        _free_pages(m, page, order)

    def start(self, m: Machine, n: int) -> int:
        """A place from 0 to n-1. Kernel: prandom_u32_max."""
        return m.prandom() % n


def parse_slub_debug(text: str) -> tuple[list[tuple[int, tuple[str, ...]]], int, bool]:
    """(flags and the caches they are for, flags for all, whether O is set) of ``slub_debug=text``.

    Errors: ValueError names the letter.
    """
    named: list[tuple[int, tuple[str, ...]]] = []
    everywhere, lean = 0, False
    for block in text.split(";"):
        letters, _, caches = block.partition(",")
        flags = 0
        for letter in letters.lower():
            if letter == "o":
                lean = True
            elif letter != "-":
                if letter not in _LETTERS:
                    raise ValueError(f"cmdline: slub_debug={text}: {letter!r} is none of F, Z, P, U, T, O and -")
                flags |= _LETTERS[letter]
        if not letters:
            flags = _DEFAULT
        if caches:
            named.append((flags, tuple(caches.split(","))))
        else:
            everywhere = flags
    return named, everywhere, lean


class SlabMachine(KernelLog):
    """The part of a ``Machine`` that deals in objects and bytes."""

    __slots__ = (
        "_slab_caches", "broken_lists", "call_site", "debug_caches", "freelist_random", "init_on_alloc",
        "kmalloc_caches", "kmalloc_plans", "large", "live", "memory", "misused_objects", "no_hash_pointers",
        "pages_only", "random_state", "rcu_slabs", "slab_errors", "slab_fast", "slab_nomerge", "slab_pages", "slabs",
        "slub_debug", "slub_debug_all", "slub_debug_lean", "slub_max_order", "slub_min_objects", "steps",
    )  # fmt: skip

    def _start_slab(self: Any, options: Mapping[str, str], seed: int) -> None:
        """An object floor without caches; they come when the first is asked for."""
        self.memory = Memory(self.kernel.page_offset, self._listen)
        self._slab_caches: list[KmemCache] = []
        self.slabs: dict[int, Slab] = {}  # pfn -> the slab it is part of
        self.live: dict[int, Slab] = {}  # address of an object somebody owns -> its slab
        self.large: dict[int, Page] = {}  # first pfn of a large kmalloc
        self.kmalloc_caches: dict[tuple[str, int], KmemCache] = {}
        self.kmalloc_plans: dict[int, dict[int, KmemCache]] = {}
        self.rcu_slabs: list[Slab] = []
        self.steps: list[Any] = []
        self.misused_objects: list[str] = []
        self.slab_pages = SlabPages()
        self.slab_errors = 0
        self.pages_only = False
        self.broken_lists = self.debug_caches = False
        self.call_site = "python"
        self.random_state = seed * 2 + 1
        self.freelist_random = "SLAB_FREELIST_RANDOM" in self.config
        self.slab_nomerge = "slab_nomerge" in options
        self.slub_debug, self.slub_debug_all, self.slub_debug_lean = parse_slub_debug(options.get("slub_debug", "-"))
        self.no_hash_pointers = "slub_debug" in options
        self.slub_max_order = int(options.get("slub_max_order", 3))
        self.slub_min_objects = int(options.get("slub_min_objects", 0))
        self.init_on_alloc = options.get("init_on_alloc", "1") not in ("0", "off", "n")
        self.slab_fast = self.init_on_alloc

    @property
    def slab_caches(self) -> list[KmemCache]:
        """Every slab cache, oldest first. Kernel: slab_caches, mm/slab_common.c."""
        if not self._slab_caches:
            self.boot_slab()
        return self._slab_caches

    def boot_slab(self: Any) -> None:
        """Create the caches of a booted kernel, if they are not there yet."""
        if not self._slab_caches:
            slab_common.boot_slab_caches(self, self._slab_caches)

    def prandom(self) -> int:
        """The next number of the machine's own sequence, 0 to 2**63 - 1; the same seed gives the same ones."""
        self.random_state = (self.random_state * 6364136223846793005 + 1442695040888963407) & (1 << 127) - 1
        return self.random_state >> 64

    # --- one call ------------------------------------------------------------------------------

    def begin_slab_call(self: Any) -> None:
        """A call takes the long way: its steps are written down."""
        self._has_objects()
        self.calls += 1
        self.steps = []

    def _has_objects(self: Any) -> None:
        if self.pages_only:
            raise TypeError("a lazy copy answers questions about pages only; m.copy() has the objects too")

    def end_slab_call(self: Any, call: tuple[Any, ...]) -> None:
        """The call is over: ``call`` is (cache, pointer, size asked, mask); a size below 0 means another call."""
        self.last_plan = (*call, self.steps)
        if self.events.subscribers:
            for make, *fields in self.steps:
                if make is slub.slab_step:  # not the notes of the page floor, which has told its own
                    self.events.emit(make(*fields))

    def alloc_fields(self, p: Any, size: int, given: int, gfp: int, s: KmemCache) -> tuple[Any, ...]:
        """The fields of the kmalloc and kmem_cache_alloc events."""
        return self.call_site, p or 0, size, given, gfp, -1, bool(s.flags & 0x4000000 or gfp & 0x400000)

    def lists_broken(self: Any) -> None:
        """A free list is no longer what the model wrote: from now on the bytes decide."""
        self.broken_lists = True
        self._listen()

    def note_bad_free(self, slab: Slab, wrong: list[Address]) -> None:
        """Objects were freed that nobody owns. The kernel does not see it; its lists are now wrong."""
        for p in wrong:
            what = "is free already" if slab.index_of(p) >= 0 else "is not the beginning of an object"
            self.misused_objects.append(f"{p} of {slab.cache.name} was freed and {what}")
            for freelist in (slab.freelist, *(c.freelist for c in slab.cache.cpu_slab if c.slab is slab)):
                if p in freelist[:-1]:
                    freelist[: freelist.index(p) + 1] = [Follow(p), p]  # p again, and what its bytes say
        self.lists_broken()

    # --- pointers ------------------------------------------------------------------------------

    def virt_to_slab(self: Any, p: int) -> Slab | None:
        """The slab an address lies in, None if it is none. Kernel: virt_to_slab, mm/slab.h."""
        self._has_objects()
        slabs: dict[int, Slab] = self.slabs
        return slabs.get(p - self.kernel.page_offset >> 12) if isinstance(p, int) else None

    def struct_page_of(self: Any, p: int) -> int:
        """Where the kernel would look for the struct page of any pointer."""
        frames = int(int(p or 0) - self.kernel.page_offset >> 12)
        return 0xFFFFEA0000000008 + frames * 64 & (1 << 64) - 1

    def ptr(self, p: int) -> str:
        """A pointer as ``%p`` prints it: hidden, unless the machine booted with slub_debug. Kernel: lib/vsprintf.c."""
        return f"0x{p:016x}" if self.no_hash_pointers else "0x(____ptrval____)"

    def free_objects_of(self: Any, slab: Slab) -> list[Address]:
        """The free objects of a slab, next one first, those on a CPU's list before those on its own."""
        if slab.cache.debug:
            return chain(self, slab)
        lists = [c.freelist for c in slab.cache.cpu_slab if c.slab is slab]
        return [p for each in (*lists, slab.freelist) for p in reversed(each) if not isinstance(p, Follow)]

    @contextmanager
    def caller(self, name: str) -> Iterator[None]:
        """Calls inside ``with m.caller("net_rx+0x40"):`` come from that place: events and reports name it."""
        before, self.call_site = self.call_site, str(name)
        try:
            yield
        finally:
            self.call_site = before

    # --- bytes -----------------------------------------------------------------------------------

    def _touch(self: Any, what: str, p: int, n: int) -> list[Slab]:
        """Check an access as the processor does; the slabs it meets. Errors: KernelBug, as an oops."""
        if not isinstance(n, int) or n < 0:
            raise ValueError(f"m.{what}: the number of bytes must not be {n!r}")
        if isinstance(p, Null) or (isinstance(p, int) and 0 <= p < 4096):
            text = f"BUG: kernel NULL pointer dereference, address: {int(p) if isinstance(p, int) else 0:016x}"
            raise KernelBug(self.oops(text))
        if not isinstance(p, int):
            raise TypeError(f"m.{what} wants an address, not {p!r}")
        first, last = (each - self.kernel.page_offset >> 12 for each in (p, p + max(0, n - 1)))
        slabs: dict[Slab, None] = {}
        for pfn in range(first, last + 1):
            if pfn < 0 or self.zone_of(pfn) is None:
                at = max(int(p), self.kernel.page_offset + (pfn << 12))
                raise KernelBug(self.oops(f"BUG: unable to handle page fault for address: {at:016x}"))
            if pfn in self.slabs:
                slabs[self.slabs[pfn]] = None
        for slab in slabs:
            show_freepointers(self, slab)
        return list(slabs)

    def read(self, p: int, n: int) -> bytes:
        """``n`` bytes from address ``p`` on, whoever owns them. Errors: KernelBug where there is no memory."""
        self._touch("read", p, n)
        return self.memory.read(p, n)

    def write(self: Any, p: int, data: bytes) -> None:
        """Write ``data`` at address ``p``: as in C nobody checks whose bytes they are."""
        slabs = self._touch("write", p, len(data))
        self.memory.write(p, bytes(data))
        for slab in slabs:
            written(self, slab)

    def memset(self: Any, p: int, byte: int, n: int) -> None:
        """Set ``n`` bytes from address ``p`` on to ``byte``. Kernel: memset, lib/string.c."""
        slabs = self._touch("memset", p, n)
        self.memory.fill(p, byte & 0xFF, n)
        for slab in slabs:
            written(self, slab)

    def find_cache(self, name: str | KmemCache) -> KmemCache:
        """The cache of that name (or one merged into it). Errors: ValueError."""
        if isinstance(name, KmemCache):
            return name
        for s in reversed(self.slab_caches):
            if name == s.name or name in s.aliases:
                return s
        raise ValueError(f"no slab cache {name!r}; m.cat('/proc/slabinfo') lists them")
