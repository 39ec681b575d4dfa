"""Lesson 03: each wrong answer gets its own reason, right ones are accepted; typical wrong functions are told why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kmemlab import GFP_KERNEL, Machine
from tests.lessons.sheet import Exercises, Questions


def order() -> Machine:
    """Four objects, the second and the third freed."""
    m = Machine("linux-6.1", cmdline="slab_nomerge")
    c = m.kmem_cache_create("order", 256, 0, 0, None)
    a = [m.kmem_cache_alloc(c, GFP_KERNEL) for _ in range(4)]
    m.kmem_cache_free(c, a[1])
    m.kmem_cache_free(c, a[2])
    return m


def second() -> Machine:
    """Twenty objects, one of the full slab freed."""
    m = Machine("linux-6.1", cmdline="slab_nomerge")
    c = m.kmem_cache_create("second", 256, 0, 0, None)
    a = [m.kmem_cache_alloc(c, GFP_KERNEL) for _ in range(20)]
    m.kmem_cache_free(c, a[3])
    return m


def shuffled() -> Machine:
    """One slab of a shuffled cache used up, one object of the second."""
    m = Machine("linux-6.1", config=("SLAB_FREELIST_RANDOM",), cmdline="slab_nomerge")
    c = m.kmem_cache_create("shuffled", 256, 0, 0, None)
    for _ in range(c.objects + 1):
        m.kmem_cache_alloc(c, GFP_KERNEL)
    return m


def merged() -> Machine:
    m = Machine("linux-6.1")
    m.kmem_cache_create("conn", 60, 0, 0, None)
    m.kmem_cache_create("timer", 64, 0, 0, None)
    return m


def modules() -> Machine:
    m = Machine("linux-6.1")
    for name in ("tls_rec", "sched_ent", "nf_rule"):
        m.kmem_cache_create(name, 64, 0, 0, None)
    return m


MACHINES: dict[str, Callable[[], Machine]] = {
    "lifo": order, "notlifo": second, "shuffle": shuffled, "rows": merged, "merge": merged, "tell": modules,
}  # fmt: skip
STOP, SAYS = "stop", "report"
RIGHT: dict[str, Any] = {
    "read": "43.8", "blame": "row", "scullc": "same", "align20": "32", "align72": ["56", "32"],
    "ctor": ["0", "15", "15", "30", "30", "30", "45"], "lifo": ["2", "1", "4"], "notlifo": "own",
    "shuffle": ["12", "6", "8"], "freeall": "51", "keepone": "0", "random": "55", "rows": "joined",
    "merge": ["57", "33"], "destroy": "report", "double": [STOP, SAYS], "tell": "row",
}  # fmt: skip
WRONG: list[tuple[str, Any, str]] = [
    ("read", "42.0", "rounded for the table"),
    ("read", "45.9", "not 45.9 GiB"),
    ("read", "44831", "The last column is in KiB."),
    ("read", "7", "How large is one of them?"),
    ("scullc", "less", "lie unused at the slab's end"),
    ("scullc", "more", "at most one slab more"),
    ("scullc", "half", "Half is nearly possible"),
    ("align20", "24", "one object in four would be cut"),
    ("align20", "64", "halves the line"),
    ("align72", ["64", "32"], "64 would need 64 bytes each"),
    ("align72", ["56", "56"], "The flag forbids that"),
    ("align72", ["56", "42"], "96 is no multiple of 64"),
    ("ctor", ["15", "15", "15", "30", "30", "30", "45"], "create builds nothing but a description"),
    ("ctor", ["0", "1", "15", "30", "30", "30", "45"], "It ran for every object of the slab"),
    ("ctor", ["0", "16", "16", "16", "16", "16", "32"], "the stride is 264"),
    ("ctor", ["0", "15", "15", "16", "30", "30", "45"], "the whole of it is built"),
    ("ctor", ["0", "15", "15", "30", "0", "30", "45"], "a counter of calls"),
    ("ctor", ["0", "15", "15", "30", "30", "35", "45"], "as their last user left them"),
    ("ctor", ["0", "15", "15", "30", "30", "30", "30"], "knows nothing of what was built"),
    ("lifo", ["1", "2", "4"], "It is a stack."),
    ("lifo", ["4", "5", "6"], "The freed ones were put on its head."),
    ("notlifo", "freed", "went to the list of *its* slab"),
    ("notlifo", "new", "Nobody needs one."),
    ("shuffle", ["11", "6", "8"], "The cache was shuffled once"),
    ("freeall", "63", "Look at the shelves"),
    ("freeall", "0", "Slabs do go back."),
    ("freeall", "58", "right for the node's list"),
    ("freeall", "62", "Two more shelves keep empty slabs."),
    ("freeall", "40", "Three shelves keep empty slabs: the CPU's slab"),
    ("keepone", "59", "You count objects."),
    ("keepone", "937", "Objects are not pages."),
    ("keepone", "51", "each has a tenant"),
    ("random", "6", "is not a tenth of the pages"),
    ("random", "63", "lost all their 16 tenants by chance"),
    ("random", "30", "How likely is it"),
    ("rows", "two", "*after* merging"),
    ("rows", "one", "somebody with 64 bytes was here before"),
    ("rows", "both", "joins caches, not names"),
    ("merge", ["57", "56"], "56 is a stride of its own"),
    ("merge", ["57", "ctor"], "must not run on strangers' objects"),
    ("merge", ["57", "account"], "charged to a group of processes"),
    ("merge", ["57", "reclaim"], "pageblocks of their own"),
    ("destroy", "nothing", "Somebody holds a pointer to it."),
    ("destroy", "code", "Since 2.6.19 it returns nothing"),
    ("destroy", "stop", "Nothing is broken yet."),
    ("double", [SAYS, SAYS], "A list that is wrong cannot be repaired."),
    ("double", ["nothing", SAYS], "would point to itself"),
    ("double", [STOP, "nothing"], "F is the letter"),
    ("double", [STOP, STOP], "a headline, not the end"),
    ("tell", "tls_rec", "says nothing about who forgets"),
    ("tell", "sched_ent", "Nothing you have seen sets it apart."),
    ("tell", "nf_rule", "They all came before it grew."),
]


class TestQuestions(Questions):
    """Predictions."""

    LESSON, RIGHT, WRONG = "03_lookaside_caches", RIGHT, WRONG
    MACHINES = MACHINES


# --- exercises ----------------------------------------------------------------------------------------------


def by_the_rule(size: int, cpus: int) -> tuple[int, int]:
    """The kernel's search, written down again."""
    stride = -(-size // 8) * 8
    want = min(4 * (cpus.bit_length() + 1), 32768 // stride)
    while want > 1:
        for part in (16, 8, 4):
            for order in range(4):
                slab = 4096 << order
                if slab >= want * stride and slab % stride <= slab // part:
                    return order, slab // stride
        want -= 1
    order = next(n for n in range(11) if 4096 << n >= stride)
    return order, (4096 << order) // stride


def by_trying(size: int, cpus: int) -> tuple[int, int]:
    c = Machine("linux-6.1", memory="64M", cpus=cpus, cmdline="slab_nomerge").kmem_cache_create("x", size, 0, 0, None)
    return c.order, c.objects


def least_waste(size: int, cpus: int) -> tuple[int, int]:
    stride = -(-size // 8) * 8
    orders = range(4) if stride <= 32768 else range(4, 11)
    order = min((n for n in orders if 4096 << n >= stride), key=lambda n: ((4096 << n) % stride / (4096 << n), n))
    return order, (4096 << order) // stride


def tidy(m: Any, c: Any, obj: Any) -> None:
    m.write(obj, int(obj).to_bytes(8, "little") * 2 + bytes(8))
    m.kmem_cache_free(c, obj)


def field_by_field(m: Any, c: Any, obj: Any) -> None:
    for at, value in ((16, 0), (8, int(obj)), (0, int(obj))):
        m.write(obj + at, value.to_bytes(8, "little"))
    m.kmem_cache_free(c, obj)


def only_list(m: Any, c: Any, obj: Any) -> None:
    m.write(obj, int(obj).to_bytes(8, "little") * 2)
    m.kmem_cache_free(c, obj)


def too_late(m: Any, c: Any, obj: Any) -> None:
    m.kmem_cache_free(c, obj)
    m.write(obj, int(obj).to_bytes(8, "little") * 2 + bytes(8))


def constructor_after(m: Any, c: Any, obj: Any) -> None:
    c.ctor(obj)
    m.kmem_cache_free(c, obj)


def kept(m: Any, c: Any, obj: Any) -> None:
    m.write(obj, int(obj).to_bytes(8, "little") * 2 + bytes(8))


def stacks(history: list[tuple[str, int, int]]) -> tuple[int, int]:
    """A stack a slab, the CPU's slab, and a list of those that wait."""
    free: list[list[int]] = []
    cpu, waiting = -1, []
    for what, slab, index in history:
        if what == "alloc":
            if slab == len(free):
                free.append(list(range(15, -1, -1)))
            if slab != cpu:
                waiting = [s for s in waiting if s != slab]
                cpu = slab
            free[slab].remove(index)
        else:
            if slab != cpu and not free[slab]:
                waiting.insert(0, slab)
            free[slab].append(index)
    if cpu >= 0 and free[cpu]:
        return cpu, free[cpu][-1]
    return (waiting[0], free[waiting[0]][-1]) if waiting else (len(free), 0)


def free_now(history: list[tuple[str, int, int]]) -> list[tuple[int, int]]:
    free: list[tuple[int, int]] = []
    for what, slab, index in history:
        if what == "free":
            free.append((slab, index))
        elif (slab, index) in free:
            free.remove((slab, index))
    return free


def untouched(history: list[tuple[str, int, int]]) -> tuple[int, int]:
    last = max(slab for _, slab, _ in history)
    top = max(i for _, slab, i in history if slab == last)
    return (last, top + 1) if top < 15 else (last + 1, 0)


def queue(history: list[tuple[str, int, int]]) -> tuple[int, int]:
    return (free_now(history) or [untouched(history)])[0]


def one_stack(history: list[tuple[str, int, int]]) -> tuple[int, int]:
    return (free_now(history) or [untouched(history)])[-1]


def lowest(history: list[tuple[str, int, int]]) -> tuple[int, int]:
    return min([*free_now(history), untouched(history)])


def joins(size: int, align: int, flags: int, ctor: bool, s: Any) -> bool:
    """The rule of find_mergeable for one cache, written down again."""
    size = -(-size // 8) * 8
    line = 64
    while flags & 0x2000 and size <= line // 2:
        line //= 2
    align = max(align, line if flags & 0x2000 else 8)
    size = -(-size // align) * align
    kind = 0x4000 | 0x8000 | 0x20000 | 0x4000000
    return not ctor and size <= s.size < size + 8 and s.size % align == 0 and (flags ^ s.flags) & kind == 0


def without(part: str) -> Callable[..., bool]:
    """The rule with one part forgotten."""

    def wrong(size: int, align: int, flags: int, ctor: bool, s: Any) -> bool:
        if part == "loss":
            return joins(s.size, align, flags, ctor, s) and size <= s.size
        if part == "kind":
            flags = flags & 0x2000 | s.flags & 0x402C000
        return joins(size, align, flags & ~0x2000 if part == "line" else flags, ctor and part != "ctor", s)

    return wrong


def sorted_half(objects: list[Any]) -> list[Any]:
    return sorted(objects)[:500]


def by_page(objects: list[Any]) -> list[Any]:
    return sorted(objects, key=lambda p: (p >> 12, -p), reverse=True)[:500]


GOOD: list[tuple[str, Callable[..., Any]]] = [
    ("per_slab", by_the_rule), ("per_slab", by_trying), ("release", tidy), ("release", field_by_field),
    ("next_object", stacks), ("choose", sorted_half), ("choose", by_page), ("merges", joins),
]  # fmt: skip
BAD: list[tuple[str, Callable[..., Any], str]] = [
    ("per_slab", lambda size, cpus: (0, 4096 // (-(-size // 8) * 8)), "A slab may have 1, 2, 4 or 8 pages"),
    ("per_slab", lambda size, cpus: (by_the_rule(size, cpus)[0], (4096 << by_the_rule(size, cpus)[0]) // size),
     "100 bytes stand 104 apart"),
    ("per_slab", lambda size, cpus: (3, 32768 // (-(-size // 8) * 8)), "Not always eight pages"),
    ("per_slab", least_waste, "stops at the first order that is good enough"),
    ("per_slab", lambda size, cpus: by_the_rule(size, 1), "More CPUs want more objects"),
    ("release", only_list, "`users` is not as the constructor left it"),
    ("release", too_late, "use after free"),
    ("release", constructor_after, "The constructor belongs to the allocator."),
    ("release", kept, "Give the object back"),
    ("release", lambda m, c, obj: (tidy(m, c, obj), m.kmem_cache_free(c, obj)), "kernel BUG"),
    ("next_object", queue, "That is a queue."),
    ("next_object", lowest, "would need a search"),
    ("next_object", one_stack, "One stack for all slabs: right at first."),
    ("choose", lambda objects: sorted(objects)[::2], "keeps 8 tenants"),
    ("choose", lambda objects: objects[:500], "Who are neighbours?"),
    ("choose", lambda objects: objects[:100], "Return 500 different ones"),
    ("merges", lambda size, align, flags, ctor, s: size == s.size, "57 bytes join 64"),
    ("merges", without("loss"), "Smaller does not always join"),
    ("merges", without("ctor"), "shares with nobody"),
    ("merges", without("kind"), "do not mix with plain memory"),
    ("merges", without("line"), "The alignment comes first"),
]  # fmt: skip


class TestExercises(Exercises):
    """Exercises."""

    LESSON, GOOD, BAD = "03_lookaside_caches", GOOD, BAD
