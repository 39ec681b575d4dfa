"""Exercise B of lesson 01, a mask for every place; the lesson's other exercises in which a learner's code runs.

Every verdict comes from running: the check enters the place on a machine, allocates with the learner's mask and looks
at the log, at what was given, and at what is left for others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import flags_machines
import flags_recursion
import flags_ring
from kmemlab_widgets.questions import Check, CheckResult, ExerciseSpec, fail

from kmemlab import (
    __GFP_ATOMIC,
    __GFP_DIRECT_RECLAIM,
    __GFP_FS,
    __GFP_HIGH,
    __GFP_IO,
    __GFP_NOFAIL,
    __GFP_ZERO,
    HungTask,
    KernelBug,
    Machine,
    Stuck,
    show_gfp_flags,
)

FS, QUEUE = "fs.lock", "queue.lock"
BURST = 24  # pages that a caller wants who may sleep
BEYOND = 30  # pages that one who may not wants more than GFP_ATOMIC can give
SLACK = 8  # a refill of a CPU's list takes a batch
LATER = 400  # ms until somebody gives memory back on a dry machine: longer than 17 rounds of reclaim


@dataclass(frozen=True, slots=True)
class Place:
    """Where an allocation is made, and what its caller wants. ``flags_for`` gets one."""

    where: str = "process"
    lock: str = ""
    irqs_off: bool = False
    in_fs: bool = False
    in_io: bool = False
    must_not_fail: bool = False
    zeroed: bool = False
    can_retry_later: bool = False

    @property
    def words(self) -> str:
        """The place in words."""
        where = {"process": "process context", "softirq": "a softirq", "hardirq": "a hard interrupt"}[self.where]
        lock = {"": "", "rcu": "under rcu_read_lock"}.get(self.lock, f"holding a {self.lock}")
        also = [lock, "interrupts off" * self.irqs_off, f"inside a file system, {FS} held" * self.in_fs]
        return ", ".join(filter(None, [where, *also, f"inside the block layer, {QUEUE} held" * self.in_io]))


@cache
def places() -> tuple[Place, ...]:
    """The 40 places: 16 in which nobody may sleep, 24 in which a task may."""
    sleeping = [
        Place("process", lock, False, in_fs, in_io, must, zeroed, not must and zeroed)
        for lock in ("", "mutex")
        for in_fs, in_io in ((False, False), (True, False), (False, True))
        for must in (False, True)
        for zeroed in (False, True)
    ]
    atomic = [
        Place("process", "spinlock"), Place("process", "rcu"), Place("process", "", True),
        Place("process", "spinlock", in_fs=True), Place("softirq"), Place("softirq", "spinlock"),
        Place("hardirq"), Place("hardirq", "spinlock"),
    ]  # fmt: skip
    found = []
    for n, p in enumerate(atomic):
        rest = p.where, p.lock, p.irqs_off, p.in_fs, p.in_io
        found += [Place(*rest, n % 2 == 0, n % 4 == 1, False), Place(*rest, False, n % 4 == 2, True)]
    return (*found, *sleeping)


# --- going there ----------------------------------------------------------------------------------------------


@contextmanager
def entered(m: Machine, place: Place) -> Iterator[None]:
    """Be in a place until the end of the block."""
    with ExitStack() as stack:
        for lock, held in ((QUEUE, place.in_io), (FS, place.in_fs), ("a mutex", place.lock == "mutex")):
            if held:
                stack.enter_context(m.mutex_lock(lock))
        if place.where != "process":
            stack.enter_context(m.softirq() if place.where == "softirq" else m.hardirq())
        if place.lock == "spinlock":
            stack.enter_context(m.spin_lock("a spinlock"))
        if place.lock == "rcu":
            stack.enter_context(m.rcu_read_lock())
        if place.irqs_off:
            stack.enter_context(m.local_irq_save())
        yield


def _staged(machine: str) -> Machine:
    if machine != "dry":
        m = getattr(flags_machines, machine)().copy()
    else:
        dry, spare = flags_machines.dry()
        m = dry.copy()
        m.after(LATER, lambda: [m.__free_pages(m.memmap[pfn], 0) for pfn in spare])
    flags_machines.cache_behind(m, __GFP_FS, FS, QUEUE)  # an inode is written before it goes
    flags_machines.cache_behind(m, __GFP_IO, QUEUE)
    return m


@cache
def reserve(machine: str) -> int:
    """Pages that GFP_ATOMIC gets on one of the machines."""
    return flags_machines.reserve_of(_staged(machine))


# --- looking --------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Run:
    """What came of allocating in a place."""

    m: Machine
    place: Place
    mask: int
    machine: str
    may_sleep: bool = False
    wanted: int = 0
    pages: Any = ()
    error: Exception | None = None

    @property
    def name(self) -> str:
        return f"`{show_gfp_flags(self.mask)}`"

    @property
    def failed(self) -> bool:
        return len(self.pages) < self.wanted

    def log(self, word: str) -> str:
        """The first line of the log with that word."""
        return next((line for line in self.m.dmesg().splitlines() if word in line), "")


def _run(place: Place, mask: int, machine: str) -> _Run:
    m = _staged(machine)
    run = _Run(m, place, mask, machine)
    run.pages = []
    try:
        with entered(m, place):
            run.may_sleep = m.context.may_sleep
            run.wanted = BURST if run.may_sleep or machine == "idle" else reserve(machine) + BEYOND
            while len(run.pages) < run.wanted and (page := m.alloc_pages(mask, 0)):
                run.pages.append(page)
    except (Stuck, KernelBug) as error:
        run.error = error
    return run


def _slept(run: _Run) -> str:
    if run.mask & (__GFP_HIGH | __GFP_ATOMIC):
        return (
            f"{run.name} still has the sleep bit 0x400: it may sleep. The word ATOMIC takes nothing away, and it does "
            "not protect you."
        )
    free = ", though memory is free: the check asks what may happen, not what happens" * (run.machine == "idle")
    return f"Nobody may sleep here, and {run.name} has the sleep bit 0x400. The kernel complains{free}."


def _hung(run: _Run) -> str:
    if not isinstance(run.error, HungTask):
        return f"{run.name} never comes back: {str(run.error).split('. ')[0]}."
    if run.place.in_fs:
        return (
            f"{run.name} has __GFP_FS: reclaim called your file system's shrinker, and that wants {FS}, which you "
            "hold. The task waits for itself."
        )
    bits = "__GFP_FS, and a file system writes before it frees" if run.mask & __GFP_FS else "__GFP_IO"
    return f"{run.name} has {bits}: reclaim began I/O and wants {QUEUE}, which you hold. The task waits for itself."


def _warned(run: _Run) -> str:
    if run.mask & __GFP_NOFAIL and not run.may_sleep:
        return (
            "__GFP_NOFAIL waits as long as it takes, and nobody may wait here: the kernel warns, and the answer is "
            "NULL all the same. Check for NULL."
        )
    if run.mask & __GFP_ATOMIC and run.mask & __GFP_DIRECT_RECLAIM:
        return f"{run.name} asks for two things that exclude each other, to sleep and never to sleep: the kernel warns."
    return f"{run.name}: the kernel warns."


def _null(run: _Run) -> str:
    """Why NULL was wrong; nothing if it was right."""
    got, cache = len(run.pages), len(run.m.lru.inactive_file)
    why = "gave up after some rounds" if run.mask & __GFP_DIRECT_RECLAIM else "may not reclaim, and you may sleep"
    if run.may_sleep and run.machine == "dry":
        promise = f"NULL, and the caller cannot go on without: {run.name} {why}. Only __GFP_NOFAIL promises."
        return promise * run.place.must_not_fail
    if run.may_sleep:
        return f"NULL after {got} pages, with {flags_machines.mib(cache)} of page cache: {run.name} {why}."
    left = reserve(run.machine) - got
    if run.place.can_retry_later or left <= SLACK:
        return ""
    return (
        f"NULL after {got} pages, and nobody asks again later. The reserve still holds {left} for those who cannot "
        "wait: GFP_ATOMIC may take them."
    )


def _greedy(run: _Run) -> tuple[str, str]:
    """(why, kernel) if pages were taken that others need more."""
    if run.machine == "idle":
        return "", ""
    got, most = len(run.pages), reserve(run.machine)
    if not run.may_sleep:
        if got <= most + SLACK:
            return "", ""
        low = f"{run.name} took the last pages, {got - most} below GFP_ATOMIC's floor"
        return f"{low}: they are for code that frees memory.", ""
    want = most - BURST // 2
    others = flags_machines.reserve_of(run.m, want)
    if run.place.must_not_fail or others == want:
        return "", ""
    kernel = f"{len(run.pages)} pages given; then another driver's interrupt wanted {want} pages: NULL after {others}"
    return f"You may sleep here, so reclaim. {run.name} took emergency pages that an interrupt needed.", kernel


def _verdict(run: _Run) -> tuple[str, str]:
    """(why, kernel) of a run that went wrong, ("", "") if nothing did."""
    if line := run.log("BUG: sleeping function"):
        return _slept(run), f"{line}; {run.log('in_atomic()')}"
    if run.error is not None:
        return _hung(run), str(run.error).splitlines()[0]
    if line := run.log("WARNING:"):
        return _warned(run), line
    if run.failed and (why := _null(run)):
        return why, run.log("page allocation failure")
    if (found := _greedy(run))[0]:
        return found
    if run.place.zeroed:
        read = (run.m.read(run.m.page_address(page), len(flags_machines.STRANGER)) for page in run.pages)
        if dirty := next((found for found in read if any(found)), b""):
            return "The page was to be cleared: it holds a stranger's bytes. __GFP_ZERO clears it.", repr(dirty)
    return "", ""


@lru_cache(maxsize=2_000)
def judged(place: Place, mask: int, machine: str) -> tuple[str, str]:
    """(why, kernel) of allocating with ``mask`` in a place of a machine, ("", "") if all is well."""
    return _verdict(_run(place, mask, machine))


def _remark(masks: dict[Place, int]) -> str:
    """What works and is still more than was needed."""
    fs = [mask for place, mask in masks.items() if place.in_fs and place.lock != "spinlock"]
    plain = [mask for place, mask in masks.items() if place.lock in ("", "mutex") and not place.in_fs | place.in_io]
    said = []
    if any(not mask & __GFP_IO for mask in fs):
        said.append("inside a file system NOIO is wider than needed: I/O is not the danger there, NOFS is enough")
    if any(mask & __GFP_DIRECT_RECLAIM and not mask & __GFP_FS for mask in plain):
        said.append("outside of file systems reclaim may ask them: GFP_KERNEL")
    if any(mask & __GFP_NOFAIL and not place.must_not_fail for place, mask in masks.items()):
        said.append("__GFP_NOFAIL may wait for ever: not for a caller that can handle NULL")
    if any(mask & __GFP_ZERO and not place.zeroed for place, mask in masks.items()):
        said.append("__GFP_ZERO where nobody asked costs 4,096 bytes of writing a page")
    return "; ".join(said)


def _check(machine: str) -> Callable[[Callable[..., Any]], CheckResult]:
    def run(fn: Callable[..., Any]) -> CheckResult:
        masks = {}
        for place in places():
            mask = fn(place)
            if not isinstance(mask, int) or isinstance(mask, bool) or not 0 < mask < 1 << 32:
                return fail("Return a mask, such as GFP_KERNEL or GFP_KERNEL | __GFP_ZERO.", f"{place.words}: {mask!r}")
            masks[place] = int(mask)
            why, kernel = judged(place, int(mask), machine)
            if why:
                return fail(why, ": ".join(filter(None, [place.words, kernel])))
        return CheckResult(True, _remark(masks))

    return run


FLAGS_FOR = ExerciseSpec(
    letter="B",
    title="A mask for every place",
    task=(
        "Return the mask to allocate with. `ctx.where` is `process`, `softirq` or `hardirq`; `ctx.lock` is empty, "
        "`spinlock`, `mutex` or `rcu`; `ctx.irqs_off`; `ctx.in_fs` and `ctx.in_io`: a lock of the file system or of "
        "the block layer is held; `ctx.must_not_fail`: wait for ever rather than get NULL, where waiting is allowed; "
        "`ctx.zeroed`; `ctx.can_retry_later`: NULL does no harm."
    ),
    signature="flags_for(ctx) -> gfp",
    starter="def flags_for(ctx):\n    return GFP_KERNEL\n",
    hints=(
        "First of all: may a task sleep here? In an interrupt there is none of its own; under a spinlock others spin.",
        "It may not, and nobody asks again: the reserve is for that. It may: then reclaim, and leave the reserve.",
        "Whose lock do you hold? Reclaim must not come back to it: NOFS for a file system, NOIO for the block layer.",
        (
            "Not in process context, or interrupts off, or a spinlock, or rcu: GFP_ATOMIC (GFP_NOWAIT if it can be "
            "retried). Else NOIO, NOFS or KERNEL, and | __GFP_NOFAIL if it must not fail. Last | __GFP_ZERO."
        ),
    ),
    checks=[
        Check("40 places, nearly all memory free", _check("idle"), "6.1, 64 MiB", flags_machines.idle),
        Check("40 places, memory full of page cache", _check("full"), "6.1, 64 MiB, kswapd gave up",
              lambda: reserve("full")),
        Check("40 places, memory nearly gone", _check("dry"), "6.1, 64 MiB, half of the reserve left",
              lambda: reserve("dry")),
    ],
)  # fmt: skip

EXERCISES = {"flags_for": FLAGS_FOR, "driver": flags_ring.DRIVER, "write": flags_recursion.WRITE}
