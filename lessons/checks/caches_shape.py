"""Questions of lesson 03, part 1: the shape of a cache. The engine computes every number and verdict."""

from __future__ import annotations

from functools import cache
from typing import Any

from kmemlab_widgets.questions import Box, BoxesQuestion, Choice, NumberQuestion, Question

from kmemlab import GFP_KERNEL, SLAB_HWCACHE_ALIGN, Machine

SLABS, PER_SLAB = 11_476_662, 64  # the row of 2020


@cache
def small() -> Machine:
    """A machine to create caches on; nobody allocates here."""
    return Machine("linux-6.1", memory="64M", cmdline="slab_nomerge")


def shape(size: int, flags: int = 0, ctor: Any = None) -> tuple[int, int, int]:
    """(stride, order, objects in a slab) of a cache as the engine makes it."""
    m = small()
    c = m.kmem_cache_create("shape", size, 0, flags, ctor)
    m.kmem_cache_destroy(c)
    return c.size, c.order, c.objects


def slabs_for(n: int, own: bool) -> int:
    """Pages that ``n`` objects of 4,000 bytes take, from an own cache or from kmalloc."""
    m = Machine("linux-6.1", memory="64M")
    c = m.kmem_cache_create("scullc", 4000, 0, SLAB_HWCACHE_ALIGN, None) if own else m.find_cache("kmalloc-4k")
    before = c.nr_slabs
    for _ in range(n):
        _ = m.kmem_cache_alloc(c, GFP_KERNEL) if own else m.kmalloc(4000, GFP_KERNEL)
    return (c.nr_slabs - before) << c.order


# --- the puzzle -----------------------------------------------------------------------------------------


def predict_read(m: Any, seed: int) -> NumberQuestion:
    """GiB of one row of slabtop."""
    gib = round(SLABS * 4096 / 2**30, 2)
    rounded = "0.06K is 64 bytes, rounded for the table.\nCount slabs: one page each."
    unit = "The last column is in KiB.\nDivide it by 1,024 twice."
    return NumberQuestion(
        ask="How much memory does this row hold?",
        answer=gib,
        tolerance=0.44,
        unit="GiB",
        wrong={
            42: rounded,
            42.03: rounded,
            42.1: rounded,
            45.9: "45,906,648 KiB are not 45.9 GiB.\nDivide by 1,024 twice, not by 1,000.",
            46: "45,906,648 KiB are not 46 GiB.\nDivide by 1,024 twice, not by 1,000.",
            44831: unit,
            44000: unit,
            0.04: unit,
        },
        otherwise="The row names its slabs. How large is one of them? 64 objects of 64 bytes.",
        right=(
            f"{gib} GiB: {SLABS:,} slabs of one page. The objects' size in the table is rounded, the slabs are counted."
        ),
    )


def predict_blame(m: Any, seed: int) -> Question:
    """A vote; the end of the lesson comes back to it."""
    return Question(
        ask="`ebitmap_node` belongs to the SELinux code. Who leaks?",
        choices=[
            Choice("selinux", "the SELinux code: its name stands there"),
            Choice("some64", "some module with objects of 64 bytes"),
            Choice("row", "this line cannot tell"),
            Choice("nobody", "nobody: it is a cache and will shrink"),
        ],
        vote=True,
        right="Your vote is kept. At the end of this lesson you judge it yourself.",
    )


# --- 1: your own cache -------------------------------------------------------------------------------------


@cache
def scullc_pages() -> tuple[int, int]:
    """Pages of 1,000 quanta: (own cache, kmalloc)."""
    return slabs_for(1000, own=True), slabs_for(1000, own=False)


def predict_scullc(m: Any, seed: int) -> Question:
    """Own cache or kmalloc for 4,000 bytes."""

    def answer(_: Any) -> str:
        own, general = scullc_pages()
        return "same" if own == general else "less" if own < general else "more"

    stride, order, objects = shape(4000, SLAB_HWCACHE_ALIGN)
    return Question(
        ask="1,000 quanta of 4,000 bytes, from this cache or by `kmalloc(4000)`. Which needs fewer pages?",
        choices=[
            Choice(
                "less",
                "the own cache, about 2 % fewer",
                f"It saves {4096 - stride} bytes in each 4,096.\n{objects} still fit into {4 << order} "
                f"KiB: {objects} x "
                f"{stride:,} or {objects} x 4,096. The saved bytes lie unused at the slab's end.",
            ),
            Choice(
                "more",
                "kmalloc, fewer",
                "An own cache has its own pages, at most one slab more.\nHere both take 125 slabs.",
            ),
            Choice("same", "exactly the same", "Run it."),
            Choice(
                "half",
                "the own cache, half",
                "Half is nearly possible, but not at 4,000.\nThe curve below shows where.",
            ),
        ],
        answer=answer,
        recorded=True,
        right="The same: both cut eight objects out of eight pages. An own cache pays just above a class edge and "
        "nowhere else.",
    )


# --- 2: the line -----------------------------------------------------------------------------------------------


def predict_align20(m: Any, seed: int) -> Question:
    """The stride of small objects with HWCACHE_ALIGN."""
    return Question(
        ask="An object of 20 bytes in a cache with `SLAB_HWCACHE_ALIGN`; a cache line has 64. How far apart do the "
        "objects stand?",
        choices=[
            Choice(
                "24",
                "24 bytes",
                "24 is the stride without the flag.\nWith it, one object in four would be cut by a line.",
            ),
            Choice("32", "32 bytes", "Run it."),
            Choice(
                "64",
                "64 bytes",
                "It does not align to 64 whatever you store.\nIt halves the line while the object still fits twice.",
            ),
        ],
        answer=str(shape(20, SLAB_HWCACHE_ALIGN)[0]),
        right="32. Two share a line and none is split over two.",
    )


def predict_align72(m: Any, seed: int) -> BoxesQuestion:
    """Objects of 72 bytes in a page, without and with the flag."""
    plain, aligned = shape(72)[2], shape(72, SLAB_HWCACHE_ALIGN)[2]
    return BoxesQuestion(
        ask="Objects of 72 bytes: how many fit into one page?",
        boxes=[
            Box(
                label="plain",
                answer=plain,
                wrong={
                    32: "72 is a multiple of 8 already.\nNothing is rounded up here.",
                    64: "64 would need 64 bytes each.",
                },
                otherwise="4,096 divided by the stride. 72 needs no rounding.",
            ),
            Box(
                label="SLAB_HWCACHE_ALIGN",
                answer=aligned,
                wrong={
                    plain: (
                        "Then most of them would be cut by a line.\nThe flag forbids that: the stride "
                        "grows to whole lines."
                    ),
                    42: "96 is no multiple of 64.\nAbove half a line the stride is made of whole lines.",
                },
                otherwise="72 is more than one line of 64. The next whole number of lines?",
            ),
        ],
        recorded=True,
        right=f"{plain} and {aligned}: strides of 72 and 128.",
    )


# --- 3: the constructor -----------------------------------------------------------------------------------------


def constructor_counts(size: int = 256) -> list[int]:
    """How often a constructor has run after each of the seven moments of the lesson."""
    m, calls, counts = Machine("linux-6.1", memory="64M"), [], []
    c = m.kmem_cache_create("ctor_demo", size, 0, 0, calls.append)
    counts.append(len(calls))
    objects: list[Any] = []
    for n in (1, c.objects, c.objects + 1):
        while len(objects) < n:
            objects.append(m.kmem_cache_alloc(c, GFP_KERNEL))
        counts.append(len(calls))
    while objects:
        m.kmem_cache_free(c, objects.pop())
    counts.append(len(calls))
    objects = [m.kmem_cache_alloc(c, GFP_KERNEL) for _ in range(5)]
    counts.append(len(calls))
    while objects:
        m.kmem_cache_free(c, objects.pop())
    m.kmem_cache_shrink(c)
    m.kmem_cache_alloc(c, GFP_KERNEL)
    return [*counts, len(calls)]


def predict_ctor(m: Any, seed: int) -> BoxesQuestion:
    """The counts of the constructor."""
    sixteen = (
        "Almost: a slab of 256-byte objects holds 16.\nWith a constructor it holds 15: the free pointer may not "
        "lie in a constructed object, so the stride is 264."
    )
    empty = "create builds nothing but a description.\nThe first slab comes with the first allocation."
    per_call = "It does not run for each allocation.\nIt ran for every object of the slab when the slab was built."
    reused = "Used objects come back as their last user left them.\nNobody constructs them again."
    hints: list[dict[int, str]] = [
        {15: empty, 16: empty, 1: empty},
        {1: per_call, 16: sixteen, 0: "Somebody must have built the object you hold."},
        {16: sixteen, 1: per_call},
        {
            16: "One slab is used up.\nThe sixteenth object needs another one, and the whole of it is built.",
            32: sixteen,
        },
        {
            0: "This is a counter of calls, not of objects.\nAnd no destructor exists.",
            46: "Freeing runs nothing: no destructor exists.",
        },
        {35: reused, 36: reused, 20: reused, 21: reused},
        {
            30: "shrink gave the empty slabs back.\nA new page knows nothing of what was built in the old one.",
            31: per_call,
            36: per_call,
        },
    ]
    labels = (
        "after create",
        "after the 1st alloc",
        "after the 15th",
        "after the 16th",
        "after freeing all 16",
        "after 5 more allocs",
        "after free, shrink, one alloc",
    )
    other = "Think of slabs: 15 objects are built at once, when a page becomes a slab."
    boxes = [
        Box(label=label, answer=answer, wrong=hint, otherwise=other)
        for label, answer, hint in zip(labels, constructor_counts(), hints, strict=True)
    ]
    return BoxesQuestion(
        ask="Objects of 256 bytes, constructor `calls.append`. How often has it run?",
        boxes=boxes,
        recorded=True,
        right="It belongs to the slab's birth, not to the object's: 15 at a time.",
    )


PREDICTIONS = {
    "read": predict_read,
    "blame": predict_blame,
    "scullc": predict_scullc,
    "align20": predict_align20,
    "align72": predict_align72,
    "ctor": predict_ctor,
}
