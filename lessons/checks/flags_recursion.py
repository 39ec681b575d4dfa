"""Exercise C of lesson 01: a file system whose own allocation comes back to it, and how to cure that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flags_machines import KSWAPD_GAVE_UP, cache_behind, full, idle
from kmemlab_widgets.questions import Check, CheckResult, ExerciseSpec, fail

from kmemlab import (
    __GFP_DIRECT_RECLAIM,
    __GFP_FS,
    __GFP_IO,
    __GFP_NOWARN,
    GFP_ATOMIC,
    GFP_KERNEL,
    HungTask,
    KernelBug,
    Machine,
    Page,
    Stuck,
)

WRITES, STORMS = 100, 20  # every 20th write comes in a storm of packets
# Out here: in a class body Python would mangle the names.
_FS, _IO, _SLEEP, _FLOOD = int(__GFP_FS), int(__GFP_IO), int(__GFP_DIRECT_RECLAIM), GFP_ATOMIC | __GFP_NOWARN


class Illegal(Exception):
    """The writer did what it may not: (why, kernel)."""


class ToyFs:
    """A file system with one file. ``lock`` guards ``size``, the number of the file's blocks.

    Its shrinker takes ``lock`` too. ``pack`` is a library's function and allocates with GFP_KERNEL.
    """

    def __init__(self, m: Machine, *, busy: bool) -> None:
        self.lock, self.size = "fs.lock", 0
        self._m, self._busy = m, busy  # busy: another task writes as well
        self._packed, self._committed = set[int](), set[int]()
        self._traffic: list[Any] = []
        self._flooding = self.packing = self.storm = False  # packing: the library runs
        self.written, self.wide, self.null = 0, False, ""  # null: why a request failed
        cache_behind(m, _FS, self.lock)
        m.events.subscribe(self._hear)

    def pack(self, data: bytes) -> Any:
        """The packed data in a page of their own, or NULL. Not yours to change."""
        self.weather()
        self.packing = True
        page = self._m.alloc_pages(GFP_KERNEL, 0)
        self.packing = False
        if page:
            self._packed.add(page.pfn)
        self.weather()
        return page

    def commit(self, at: int, page: Any, packed: Any) -> None:
        """Make the two pages block number ``at`` of the file."""
        if not self._m.mutex_is_locked(self.lock):
            raise Illegal("commit changes the inode: hold fs.lock.", "fs.lock is free")
        if not isinstance(page, Page) or not isinstance(packed, Page):
            raise Illegal("commit wants two pages. NULL is to be tested before.", f"{page!r}, {packed!r}")
        if packed.pfn not in self._packed or page is packed or {page.pfn, packed.pfn} & self._committed:
            raise Illegal(
                "A block is made of two new pages: yours, and the one that fs.pack returned.", f"{page!r}, {packed!r}"
            )
        if at != self.size:
            raise Illegal(
                f"The inode changed meanwhile: it had {at} blocks when you looked, and has {self.size}. Your block "
                "went over another writer's. What was read before the lock was dropped is old.",
                f"block {at} overwritten",
            )
        self._committed |= {page.pfn, packed.pfn}
        self.size += 1
        self.written += 1

    def weather(self) -> None:
        """In a storm, an interrupt takes whatever GFP_ATOMIC gets; afterwards the pages go back.

        kswapd does not help: it stands in this file system's shrinker and waits for the lock.
        """
        self._m.lru.failures, self._m.kswapd_woken = KSWAPD_GAVE_UP, None
        if self.storm:
            self._m.irq(self._flood)
        else:
            while self._traffic:
                self._m.put_page(self._traffic.pop())

    def _flood(self) -> None:
        self._flooding = True
        while page := self._m.alloc_pages(_FLOOD, 0):
            self._traffic.append(page)
        self._flooding = False

    def _hear(self, event: Any) -> None:
        """While a page is allocated, another task may write, if the lock is free."""
        if self._flooding:
            return
        if event.name == "lab_context":
            self.wide |= event.gfp & (_SLEEP | _IO) == _SLEEP
        elif event.name == "lab_null":
            self.null = event.reason
        elif event.name == "lab_return" and self._busy and not self._m.mutex_is_locked(self.lock):
            self.size += 1


def _one(fn: Callable[..., Any], m: Machine, fs: ToyFs, number: int, *, storms: bool) -> bool:
    """One write; whether it was kept. Errors: Illegal."""
    before, flags = fs.written, m.context.flags
    fs.storm = storms and number % STORMS == 0
    fs.weather()
    answer = fn(m, fs, b"block %d" % number)
    fs.storm = False
    fs.weather()
    if m.mutex_is_locked(fs.lock):
        raise Illegal("write has returned, and fs.lock is still held.", f"write number {number}")
    if m.context.flags != flags:
        end = "its caller's scope has ended" if flags else "its own scope is still open"
        raise Illegal(
            f"write has returned, and {end}: restore takes what save returned.", f"flags {m.context.flags:#x}"
        )
    if not m.context.may_sleep:
        raise Illegal("write has returned, and what it entered has not ended.", m.context.words)
    if answer == 0 and fs.written == before:
        raise Illegal("write returned 0, and the file has no new block.", f"write number {number}")
    return fs.written == before + 1


def _complaint(m: Machine) -> CheckResult | None:
    if line := next((line for line in m.dmesg().splitlines() if "BUG:" in line), ""):
        return fail("fs.pack and a mutex may sleep, and you used them where nobody may.", line)
    return None


def _hung(error: Exception, fs: ToyFs) -> CheckResult:
    line = str(error).splitlines()[0]
    if not isinstance(error, HungTask):
        return fail("The machine stopped.", line)
    if not fs.packing:
        return fail("Your allocation reclaimed, and your shrinker waits for fs.lock, which you hold.", line)
    return fail(
        "The library's GFP_KERNEL reclaimed, and your shrinker waits for fs.lock. The mask of your own call does not "
        "reach into the library.",
        line,
    )


def _lost(lost: int, m: Machine, fs: ToyFs) -> CheckResult:
    why = fs.null or "nothing was committed"
    return fail(
        f"{lost} of {WRITES} writes are lost: {why}.", f"{len(m.lru.inactive_file)} pages of page cache are there"
    )


def _writes(stage: Callable[[], Machine], *, busy: bool, nested: bool) -> Callable[[Callable[..., Any]], CheckResult]:
    def run(fn: Callable[..., Any]) -> CheckResult:
        m = stage().copy()
        fs = ToyFs(m, busy=busy)
        scope = m.memalloc_nofs_save() if nested else 0
        try:
            kept = sum(_one(fn, m, fs, number, storms=not nested) for number in range(WRITES))
        except Illegal as error:
            return fail(*error.args)
        except (Stuck, KernelBug) as error:
            return _complaint(m) or _hung(error, fs)
        if nested:
            m.memalloc_nofs_restore(scope)
        return _result(kept, m, fs)

    return run


def _result(kept: int, m: Machine, fs: ToyFs) -> CheckResult:
    if row := _complaint(m):
        return row
    if kept < WRITES:
        return _lost(WRITES - kept, m, fs)
    return CheckResult(True, "NOIO is wider than needed: I/O does not want fs.lock. NOFS is enough" if fs.wide else "")


WRITE = ExerciseSpec(
    letter="C",
    title="Cure the recursion",
    task=(
        f"A file system: `fs.lock` is a mutex that guards `fs.size`, the number of blocks; the file system's shrinker "
        "takes it too. `fs.pack(data)` is a library's function: it returns a page or NULL, asks with GFP_KERNEL, and "
        "stays as it is. `fs.commit(at, page, packed)` makes two pages block number `at`. This write works on a quiet "
        f"machine. Let {WRITES} writes pass when memory is full of page cache. Return 0, or -12 (-ENOMEM) if the write "
        "is lost; none may be."
    ),
    signature="write(m, fs, data) -> int",
    starter=(
        "def write(m, fs, data):\n    with m.mutex_lock(fs.lock):\n        at = fs.size\n"
        "        page = m.alloc_pages(GFP_KERNEL, 0)\n        packed = fs.pack(data)\n"
        "        if not page or not packed:\n            return -12\n"
        "        fs.commit(at, page, packed)\n    return 0\n"
    ),
    hints=(
        "Who calls whom? write has the lock, the allocation reclaims, reclaim calls the shrinker: it wants the lock.",
        "A mask holds for one call. What holds for every call of a task, also in code that is not yours?",
        "`flags = m.memalloc_nofs_save()` ... `m.memalloc_nofs_restore(flags)`, on every way out.",
        "Or another order: what is needed is allocated before the lock is taken; the size is read after.",
    ),
    returns=int,
    checks=[
        Check(f"{WRITES} writes on a quiet machine, inside a caller's scope", _writes(idle, busy=False, nested=True),
              "6.1, 64 MiB", idle),
        Check(f"{WRITES} writes, memory full of page cache", _writes(full, busy=False, nested=False),
              "6.1, 64 MiB, kswapd gave up", full),
        Check("the same, and another task writes when the lock is free", _writes(full, busy=True, nested=False),
              "6.1, 64 MiB, kswapd gave up", full),
    ],
)  # fmt: skip
