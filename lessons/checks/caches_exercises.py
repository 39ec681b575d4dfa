"""Exercises of lesson 03: geometry, the constructor's contract, the next object, freeing well, merging."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from caches_life import place, thousand
from kmemlab_widgets.questions import PASS, Check, CheckResult, ExerciseSpec, Mistake, comparisons, fail

from kmemlab import GFP_KERNEL, SLAB_ACCOUNT, SLAB_HWCACHE_ALIGN, SLAB_RECLAIM_ACCOUNT, Machine
from kmemlab.slub_def import SLAB_NEVER_MERGE, calculate_alignment, calculate_order

RECORDINGS = Path(__file__).resolve().parent.parent / "recordings"


@cache
def requests() -> list[list[Any]]:
    """Recorded requests: size, align, flags, constructor, whom it joined (None: nobody), stride, order, objects."""
    with gzip.open(RECORDINGS / "cache_requests.gz") as file:
        rows: list[list[Any]] = json.load(file)["rows"]
    return rows


def up(n: int, to: int) -> int:
    """``n`` rounded up to a multiple of ``to``."""
    return -(-n // to) * to


# --- A: geometry --------------------------------------------------------------------------------------------


@cache
def machine_of(cpus: int) -> Machine:
    """A machine to create caches on."""
    return Machine("linux-6.1", memory="64M", cpus=cpus, cmdline="slab_nomerge")


@cache
def true_geometry(size: int, cpus: int) -> tuple[int, int]:
    """What the engine makes of it."""
    m = machine_of(cpus)
    c = m.kmem_cache_create("geometry", size, 0, 0, None)
    m.kmem_cache_destroy(c)
    return c.order, c.objects


def _recorded_sizes() -> list[tuple[int, int]]:
    return [(row[0], 1) for row in requests() if row[1:4] == [0, 0, 0] and row[7]]


def _random_sizes() -> list[tuple[int, int]]:
    rng = random.Random(8)
    return [(rng.choice((100, 512, 640, 1000)), 4), (100, 2)] + [
        (rng.randrange(8, 9000), rng.choice((1, 2, 4, 16))) for _ in range(60)
    ]


def _fit(size: int, order: int, step: int = 8) -> tuple[int, int]:
    return order, (4096 << order) // up(size, step)


def _least_waste(size: int, cpus: int) -> tuple[int, int]:
    stride = up(size, 8)
    orders = [n for n in range(11) if 4096 << n >= stride and (n < 4 or stride > 32768)]
    order = min(orders, key=lambda n: (((4096 << n) % stride) / (4096 << n), n))
    return _fit(size, order)


def _unrounded(size: int, cpus: int) -> tuple[int, int]:
    order = calculate_order(size, cpus)
    return _fit(size, order, 1)


GEOMETRY = ExerciseSpec(
    letter="A",
    title="How many fit",
    task="A plain cache (no flags, no constructor) on a machine with `cpus` CPUs: return the order of its "
    "slabs and how "
    "many objects one slab holds.",
    signature="per_slab(size, cpus) -> (order, objects)",
    starter="def per_slab(size, cpus):\n    return 0, 4096 // size\n",
    hints=(
        "The stride: the size rounded up to 8 bytes.",
        "Wanted are at least `4 * (cpus.bit_length() + 1)` objects, but not more than fit into eight pages.",
        (
            "From the smallest order that holds so many: the first one whose rest is at most a sixteenth "
            "of the slab, up to "
            "order 3. If there is none: an eighth, then a quarter; then with one object fewer, and so on."
        ),
        "Kernel: `calculate_order` and `calc_slab_order`, mm/slub.c",
    ),
    returns=tuple,
    checks=comparisons(
        [
            ("148 sizes a real kernel was asked for, 1 CPU", "6.1, recorded", _recorded_sizes),
            ("60 random sizes, 1 to 16 CPUs", "6.1", _random_sizes),
        ],
        true_geometry,
        [
            Mistake(lambda size, cpus: (0, 4096 // size), "A slab may have 1, 2, 4 or 8 pages, not only one."),
            Mistake(lambda size, cpus: _fit(size, 0), "A slab may have 1, 2, 4 or 8 pages, not only one."),
            Mistake(_unrounded, "Objects begin at multiples of 8: 100 bytes stand 104 apart."),
            Mistake(
                lambda size, cpus: _fit(size, 3),
                "Not always eight pages: a large free block is dearer than a small one.",
            ),
            Mistake(
                _least_waste,
                "Not the least waste: the search stops at the first order that is good enough, a rest of at most 1/16.",
            ),
            Mistake(
                lambda size, cpus: true_geometry(size, 1),
                "More CPUs want more objects a slab: 512 bytes give order 0 on one CPU, order 1 on four.",
            ),
        ],
        lambda case, got, want: (
            f"{case[0]} bytes on {case[1]} CPU: order {want[0]}, {want[1]} objects",
            f"You say {got}.",
        ),
    ),
)


# --- B: the constructor's contract -----------------------------------------------------------------------------

LIVE = 24  # objects of a run


def constructed(p: int) -> bytes:
    """A struct conn as its constructor leaves it: an empty list (two pointers to itself), no users."""
    return int(p).to_bytes(8, "little") * 2 + bytes(8)


def _used(m: Machine, objects: list[Any]) -> None:
    """Chain the objects up, count a user in each, fill the payload."""
    for i, p in enumerate(objects):
        after, before = objects[(i + 1) % len(objects)], objects[i - 1]
        m.write(
            p, int(after).to_bytes(8, "little") + int(before).to_bytes(8, "little") + b"\1" + bytes(7) + b"data" * 4
        )


def _at_free(m: Machine, event: Any, seen: dict[int, bytes]) -> None:
    """Keep what an object holds when it is freed for the first time."""
    if event.name == "kmem_cache_free" and event.ptr not in seen:
        seen[event.ptr] = m.read(event.ptr, 24)


def _contract(fn: Callable[..., Any]) -> CheckResult:
    m = Machine("linux-6.1", memory="64M", cmdline="slab_nomerge")
    built: list[Any] = []
    at_free: dict[int, bytes] = {}
    c = m.kmem_cache_create("conn", 96, 0, 0, lambda p: (built.append(p), m.write(p, constructed(p))))
    objects = [m.kmem_cache_alloc(c, GFP_KERNEL) for _ in range(LIVE)]
    _used(m, objects)
    ran = len(built)
    m.events.subscribe(lambda event: _at_free(m, event, at_free))
    for p in objects:
        fn(m, c, p)
    if left := [p for p in objects if p in m.live]:
        return fail("Give the object back at the end.", f"{len(left)} of {LIVE} objects are still in use")
    if m.misused_objects:
        return fail("One call of `kmem_cache_free` an object, no more.", m.misused_objects[0])
    for p in objects:
        if at_free[p] != constructed(p):
            return _not_restored(m, p, at_free[p])
    if len(built) != ran:
        return fail("The constructor belongs to the allocator.", f"it ran {len(built) - ran} times more")
    again = [m.kmem_cache_alloc(c, GFP_KERNEL) for _ in range(LIVE)]
    stale = [p for p in again if m.read(p, 24) != constructed(p)]
    if stale:
        return fail("The next owner does not find a constructed object.", f"{m.read(stale[0], 24).hex(' ')}")
    return CheckResult(True, f"{LIVE} objects, constructor ran {len(built)} times, all at the slab's birth")


def _not_restored(m: Machine, p: int, was: bytes) -> CheckResult:
    want, now = constructed(p), m.read(p, 24)
    if now == want:
        return fail("You wrote into an object after giving it away: use after free. Restore first, then free.", f"{p}")
    for field, start, end in (("list.next", 0, 8), ("list.prev", 8, 16), ("users", 16, 24)):
        if was[start:end] != want[start:end]:
            value = int.from_bytes(was[start:end], "little")
            return fail(
                f"`{field}` is not as the constructor left it. The next owner gets the object without a constructor.",
                f"at the free of {p}: {field} = {value:#x}",
            )
    return PASS


RELEASE = ExerciseSpec(
    letter="B",
    title="As it was built",
    task="`struct conn` (96 bytes): at 0 and 8 the list pointers `next` and `prev`, which the constructor "
    "lets point to the "
    "object itself; at 16 eight bytes `users`, 0. Give a used object back so that its next owner finds it constructed.",
    signature="release(m, c, obj) -> None",
    starter="def release(m, c, obj):\n    m.kmem_cache_free(c, obj)\n",
    hints=("Which bytes has the constructor written?", "An address as eight bytes: `int(obj).to_bytes(8, 'little')`"),
    checks=[Check(f"{LIVE} used objects, then the next owners", _contract, "6.1, 64 MiB")],
)


# --- C: the next object ------------------------------------------------------------------------------------------

PER_SLAB = 16
History = list[tuple[str, int, int]]


@cache
def histories(seed: int) -> tuple[tuple[History, tuple[int, int]], ...]:
    """(history, next object) at several moments of one random run; slabs are numbered as they appear."""
    rng, m = random.Random(seed), Machine("linux-6.1", memory="64M", cmdline="slab_nomerge")
    c = m.kmem_cache_create("history", 256, 0, 0, None)
    slabs: dict[int, int] = {}
    history: History = []
    live: list[Any] = []
    moments = []

    def number(p: Any) -> tuple[int, int]:
        pfn, index = place(m, p)
        return slabs.setdefault(pfn, len(slabs)), index

    for _ in range(rng.randrange(60, 120)):
        full = len(live) >= 3 * PER_SLAB
        if live and (full or rng.random() < 0.42):
            p = live.pop(rng.randrange(len(live)) if rng.random() < 0.7 else -1)
            history.append(("free", *number(p)))
            m.kmem_cache_free(c, p)
        else:
            want = number(p := m.kmem_cache_alloc(c, GFP_KERNEL))
            if len(history) > 5 and rng.random() < 0.3:
                moments.append((list(history), want))
            live.append(p)
            history.append(("alloc", *want))
    return tuple(moments)


TRUE_NEXT: dict[tuple[tuple[str, int, int], ...], tuple[int, int]] = {}


def true_next(history: History) -> tuple[int, int]:
    """The engine's answer, kept when the history was made."""
    return TRUE_NEXT[tuple(history)]


def _cases(seeds: range) -> Callable[[], list[tuple[History]]]:
    def make() -> list[tuple[History]]:
        found = [moment for seed in seeds for moment in histories(seed)]
        TRUE_NEXT.update((tuple(history), want) for history, want in found)
        return [(history,) for history, _ in found]

    return make


def _one_slab() -> list[tuple[History]]:
    cases = [
        (h[:n],)
        for h in ([("alloc", 0, i) for i in range(4)] + [("free", 0, 1), ("free", 0, 2), ("alloc", 0, 2)],)
        for n in (4, 5, 6, 7)
    ]
    TRUE_NEXT.update(zip((tuple(h) for (h,) in cases), ((0, 4), (0, 1), (0, 2), (0, 1)), strict=True))
    return cases


def _free_now(history: History) -> list[tuple[int, int]]:
    """Freed objects that are free now, oldest first."""
    free: list[tuple[int, int]] = []
    for what, slab, index in history:
        if what == "free":
            free.append((slab, index))
        elif (slab, index) in free:
            free.remove((slab, index))
    return free


def _never_used(history: History) -> tuple[int, int]:
    used = {(slab, index) for _, slab, index in history}
    last = max((slab for slab, _ in used), default=0)
    return next(((last, i) for i in range(PER_SLAB) if (last, i) not in used), (last + 1, 0))


def _lowest(history: History) -> tuple[int, int]:
    return min([*_free_now(history), _never_used(history)])


def _fifo(history: History) -> tuple[int, int]:
    return (_free_now(history) or [_never_used(history)])[0]


def _one_stack(history: History) -> tuple[int, int]:
    return (_free_now(history) or [_never_used(history)])[-1]


NEXT = ExerciseSpec(
    letter="C",
    title="The next object",
    task="A cache with 16 objects a slab, one CPU, no shuffle, at most three slabs. `history` lists what was done: "
    '`("alloc", slab, index)` and `("free", slab, index)`, slabs numbered from 0 as they appear. Return the '
    "`(slab, index)` of the next allocation.",
    signature="next_object(history) -> (slab, index)",
    starter="def next_object(history):\n    return history[-1][1:]\n",
    hints=(
        "Each slab has a stack of its own: what is freed goes on the stack of its slab.",
        "One slab is the CPU's. Allocations come from it until its stack is empty.",
        (
            "A full slab into which somebody frees goes to the head of the CPU's partial list; the head becomes the "
            "CPU's slab when the old one is used up. Only when that list is empty a new slab is built."
        ),
    ),
    returns=tuple,
    checks=comparisons(
        [
            ("one slab", "6.1, 64 MiB", _one_slab),
            ("10 random histories", "6.1, 64 MiB, seeds 1-10", _cases(range(1, 11))),
            ("10 more", "6.1, 64 MiB, seeds 11-20", _cases(range(11, 21))),
        ],
        true_next,
        [
            Mistake(_fifo, "That is a queue. The kernel keeps stacks: last freed, first given."),
            Mistake(_lowest, "The lowest address would need a search. The kernel takes the head of a list."),
            Mistake(
                _one_stack,
                lambda case, got, want: (
                    f"One stack for all slabs: right at first. Here object {got[1]} lies in slab "
                    f"{got[0]}, which is not the CPU's slab now; slab {want[0]} is."
                ),
            ),
        ],
        lambda case, got, want: (f"after {len(case[0])} calls, the last {case[0][-1]}: {want}", f"You say {got}."),
    ),
)


# --- D: free well ------------------------------------------------------------------------------------------------


def _freed_well(fn: Callable[..., Any]) -> CheckResult:
    m, c, objects = thousand()
    random.Random(4).shuffle(objects)
    chosen = list(fn(list(objects)))
    if len(chosen) != 500 or len(set(chosen)) != 500 or not set(chosen) <= set(objects):
        return fail(
            "Return 500 different ones of the 1,000 objects.", f"{len(chosen)} returned, {len(set(chosen))} different"
        )
    before = c.nr_slabs
    for p in chosen:
        m.kmem_cache_free(c, p)
    m.kmem_cache_shrink(c)
    back = before - c.nr_slabs
    kernel = f"{back} of {before} pages went back"
    if back >= 500 // PER_SLAB:
        return CheckResult(True, kernel)
    tenants = 500 / (c.nr_slabs or 1)
    return fail(
        f"Each page that is left keeps {tenants:.0f} tenants. Who are neighbours? Look at the addresses.", kernel
    )


FREE_WELL = ExerciseSpec(
    letter="D",
    title="Free well",
    task="1,000 objects of 256 bytes are in use; you get their addresses in no order. 500 must go. Choose "
    "them so that as "
    "many pages as possible come back.",
    signature="choose(objects) -> list of 500 of them",
    starter="def choose(objects):\n    return objects[::2]\n",
    hints=("16 objects lie in one page of 4,096 bytes.", "Sort."),
    returns=(list, tuple, set),
    checks=[Check("500 of 1,000, then shrink", _freed_well, "6.1, 64 MiB")],
)


# --- E: will it merge ----------------------------------------------------------------------------------------------


@cache
def booted() -> Machine:
    """A booted machine that may be asked to create caches."""
    return Machine("linux-6.1", memory="64M")


def existing(m: Machine) -> list[Any]:
    """The caches that take part in merging at all."""
    return [s for s in m.slab_caches if not (s.alone or s.ctor or s.flags & SLAB_NEVER_MERGE)]


@cache
def _joins(size: int, align: int, flags: int, ctor: bool, name: str) -> bool:
    m = booted().copy()
    m.slab_caches[:] = [s for s in m.slab_caches if s.name == name]
    return m.kmem_cache_create("new", size, align, flags, (lambda p: None) if ctor else None) is m.slab_caches[0]


def true_merge(size: int, align: int, flags: int, ctor: bool, s: Any) -> bool:
    """Would the engine let this request join cache ``s``, were it alone in the kernel?"""
    return _joins(size, align, flags, ctor, s.name)


def _by_name(name: str) -> Any:
    return next(s for s in existing(booted()) if s.name == name)


def _six() -> list[tuple[Any, ...]]:
    rows = [
        (57, 0, 0, False),
        (56, 0, 0, False),
        (64, 0, 0, True),
        (64, 0, int(SLAB_ACCOUNT), False),
        (64, 0, int(SLAB_RECLAIM_ACCOUNT), False),
        (33, 0, int(SLAB_HWCACHE_ALIGN), False),
    ]
    return [(*row, _by_name("vmap_area")) for row in rows]


def _recorded() -> list[tuple[Any, ...]]:
    joined = [row for row in requests() if row[4]][::3]
    alone = [row for row in requests() if not row[4] and row[5] and not row[2] & SLAB_NEVER_MERGE][::25]
    near = existing(booted())
    cases = [(*row[:3], bool(row[3]), _by_name(row[4])) for row in joined]
    cases += [(*row[:3], bool(row[3]), min(near, key=lambda s: abs(s.size - row[5]))) for row in alone]
    return cases


def _same(flags: int, s: Any) -> bool:
    return not (flags ^ s.flags) & (SLAB_ACCOUNT | SLAB_RECLAIM_ACCOUNT | 0xC000)


def _fits(size: int, align: int, flags: int, s: Any) -> bool:
    align = calculate_alignment(flags, align, up(size, 8))
    return 0 <= s.size - up(up(size, 8), align) < 8 and not s.size % align


MERGE = ExerciseSpec(
    letter="E",
    title="Will it merge",
    task="A request for a cache (`ctor`: has it a constructor?) and a cache `s` that exists, with the kernel's fields "
    "`s.size` (the stride), `s.align`, `s.flags`. Would the request join it? No `slab_nomerge`, no debugging.",
    signature="merges(size, align, flags, ctor, s) -> bool",
    starter="def merges(size, align, flags, ctor, s):\n    return size == s.size\n",
    hints=(
        (
            "First the stride of the request: rounded up to 8, then to its alignment (HWCACHE_ALIGN: whole lines, "
            "halves, quarters ...)."
        ),
        (
            "It must fit into the stride of `s`, and lose less than 8 bytes; and `s.size` must be a "
            "multiple of the alignment."
        ),
        (
            "Of the flags only those that choose the memory count: ACCOUNT, RECLAIM_ACCOUNT, CACHE_DMA, "
            "CACHE_DMA32 (0x8000)."
        ),
    ),
    returns=bool,
    checks=comparisons(
        [
            ("the six of the lesson", "6.1", _six),
            ("requests a real kernel was asked for", "6.1, recorded", _recorded),
        ],
        true_merge,
        [
            Mistake(lambda size, align, flags, ctor, s: size == s.size, "Not only the same size: 57 bytes join 64."),
            Mistake(
                lambda size, align, flags, ctor, s: size <= s.size and not ctor and _same(flags, s),
                "Smaller does not always join: less than 8 bytes may be lost. 56 beside 64 stays alone.",
            ),
            Mistake(
                lambda size, align, flags, ctor, s: _fits(size, align, flags, s) and _same(flags, s),
                "A cache with a constructor shares with nobody.",
            ),
            Mistake(
                lambda size, align, flags, ctor, s: _fits(size, align, flags, s) and not ctor,
                "Accounted, reclaimable and DMA memory do not mix with plain memory.",
            ),
            Mistake(
                lambda size, align, flags, ctor, s: _fits(size, align, 0, s) and _same(flags, s) and not ctor,
                "The alignment comes first: 33 bytes with HWCACHE_ALIGN have a stride of 64.",
            ),
        ],
        lambda case, got, want: (
            (
                f"size {case[0]}, align {case[1]}, flags {case[2]:#x}, constructor {case[3]}, beside {case[4].name} "
                f"(stride {case[4].size}): {'joins' if want else 'stays alone'}"
            ),
            f"You say {got}.",
        ),
    ),
)

EXERCISES = {"per_slab": GEOMETRY, "release": RELEASE, "next_object": NEXT, "choose": FREE_WELL, "merges": MERGE}
