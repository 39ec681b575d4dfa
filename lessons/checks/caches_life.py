"""Questions of lesson 03, part 2: where objects live, when pages go back, who shares. The engine answers."""

from __future__ import annotations

import random
from collections.abc import Iterable
from functools import cache
from typing import Any

from caches_shape import small
from kmemlab_widgets.questions import Box, BoxesQuestion, Choice, NumberQuestion, Question

from kmemlab import GFP_KERNEL, SLAB_ACCOUNT, SLAB_HWCACHE_ALIGN, SLAB_RECLAIM_ACCOUNT, KernelBug, Machine


def place(m: Machine, p: Any) -> tuple[int, int]:
    """(pfn of the slab, index in it) of an object."""
    slab = m.virt_to_slab(p)
    assert slab is not None
    return slab.pfn, slab.index_of(p)


def coming(m: Machine, name: str, n: int) -> list[tuple[int, int]]:
    """Where the next ``n`` objects of a cache would come from; asked of a copy."""
    twin = m.copy()
    c = twin.find_cache(name)
    return [place(twin, twin.kmem_cache_alloc(c, GFP_KERNEL)) for _ in range(n)]


# --- 4: which object next ---------------------------------------------------------------------------------


def predict_lifo(m: Machine, seed: int) -> BoxesQuestion:
    """Three allocations after two frees in one slab."""
    stack = "It is a stack.\nThe object freed last is still warm in the CPU's cache: it is given first."
    fresh = "Free objects of the CPU's slab are one list.\nThe freed ones were put on its head."
    hints: list[dict[int, str]] = [{1: stack, 4: fresh}, {2: stack, 5: fresh}, {6: fresh, 3: "Object 3 is in use."}]
    return BoxesQuestion(
        ask=(
            "Objects 0 to 3 are in use. Object 1 is freed, then object 2. Which objects do the next three calls return?"
        ),
        boxes=[
            Box(label=label, answer=index, wrong=hint, otherwise="Objects 1 and 2 are free, and all from 4 on.")
            for label, (_, index), hint in zip(("first", "second", "third"), coming(m, "order", 3), hints, strict=True)
        ],
        right="Last freed, first given; then the rest of the list.",
    )


def predict_notlifo(m: Machine, seed: int) -> Question:
    """A free into a slab that is not the CPU's."""
    c = m.find_cache("second")
    left = c.objects - 4

    def answer(m: Machine) -> str:
        (pfn, index), first = (
            coming(m, "second", 1)[0],
            min(s.pfn for s in m.slabs.values() if s.cache.name == "second"),
        )
        return "freed" if (pfn, index) == (first, 3) else "own" if index == 4 else "new"

    return Question(
        ask="20 objects are in use: slab 0 is full, 4 of slab 1 are taken and CPU 0 works on it. Object 3 of slab 0 is "
        "freed. What does the next call return?",
        choices=[
            Choice(
                "freed",
                "object 3 of slab 0, just freed",
                "Only within the CPU's own slab the last freed comes first.\nObject 3 went to the list of *its* slab, "
                "and that slab waits on the CPU's partial list until slab 1 is used up.",
            ),
            Choice("own", "object 4 of slab 1", "Run it."),
            Choice(
                "new",
                "an object of a new slab",
                f"Nobody needs one.\nSlab 1 has {left} free objects, and slab 0 now has one.",
            ),
        ],
        answer=answer,
        right="Object 4 of slab 1. Slab 0 waits in line.",
    )


def predict_shuffle(m: Machine, seed: int) -> BoxesQuestion:
    """The next objects of the second slab when Debian shuffles."""
    c = m.find_cache("shuffled")
    ring = c.random_seq or []
    drawn = (
        "Not drawn anew for each slab.\nThe cache was shuffled once; find this number in the first "
        "slab's order and read on."
    )
    return BoxesQuestion(
        ask="The second slab begins with the object shown last. Which three come next?",
        boxes=[
            Box(label=label, answer=index, otherwise=drawn)
            for label, (_, index) in zip(("next", "then", "then"), coming(m, "shuffled", 3), strict=True)
        ],
        right=f"The same ring of {len(ring)}, entered at another place. Who saw one slab knows the order of all.",
    )


# --- 5: freed, and still not free ---------------------------------------------------------------------------


def thousand() -> tuple[Machine, Any, list[Any]]:
    """A machine with 1,000 objects of 256 bytes."""
    m = Machine("linux-6.1", memory="64M", cmdline="slab_nomerge")
    c = m.kmem_cache_create("thousand", 256, 0, 0, None)
    return m, c, [m.kmem_cache_alloc(c, GFP_KERNEL) for _ in range(1000)]


def pages_back(freed: Iterable[int]) -> int:
    """Pages that go back when these of the 1,000 objects (by their turn) are freed."""
    m, c, objects = thousand()
    before = c.nr_slabs
    for i in freed:
        m.kmem_cache_free(c, objects[i])
    return (before - c.nr_slabs) << c.order


@cache
def freed_all() -> tuple[int, int, int, int, int]:
    """(slabs, pages back, kept by the CPU, on its partial list, on the node's) when all 1,000 are freed."""
    m, c, objects = thousand()
    slabs = c.nr_slabs
    for p in objects:
        m.kmem_cache_free(c, p)
    cpu = c.cpu_slab[0]
    return slabs, slabs - c.nr_slabs, int(cpu.slab is not None), len(cpu.partial), len(c.partial)


def predict_freeall(m: Any, seed: int) -> NumberQuestion:
    """Pages back when all are freed."""
    slabs, back, own, waiting, node = freed_all()
    return NumberQuestion(
        ask=f"1,000 objects of 256 bytes fill {slabs} pages. All are freed, in the order they came. How many of the "
        f"{slabs} pages come back to the page allocator?",
        answer=back,
        unit="pages",
        wrong={
            slabs: f"No object is left, and {own + waiting + node} pages are kept all the same.\nLook at the shelves: "
            f"the CPU's slab, its partial list, the node's list.",
            0: "Slabs do go back.\nAbove `min_partial` empty slabs on the node's list, the next empty one is freed.",
            slabs - node: f"You count `min_partial` = {node}: right for the node's list.\nThe CPU's own slab and those "
            f"on its partial list stay too.",
            slabs - 1: "Not only the CPU's own slab stays.\nTwo more shelves keep empty slabs.",
        },
        otherwise=(
            "Three shelves keep empty slabs: the CPU's slab, its partial list, and min_partial on the node's list."
        ),
        right=f"{back}. {own + waiting + node} stay: {own} slab of the CPU, {waiting} on its partial list, {node} on "
        f"the node's list.",
    )


@cache
def keep_one() -> tuple[int, int]:
    """(objects freed, pages back) when one object of each slab stays."""
    m, _, objects = thousand()
    seen: set[int] = set()
    freed = [i for i, p in enumerate(objects) if (pfn := place(m, p)[0]) in seen or seen.add(pfn)]
    return len(freed), pages_back(freed)


def predict_keepone(m: Any, seed: int) -> NumberQuestion:
    """Pages back when one object a slab stays."""
    freed, back = keep_one()
    objects = "You count objects.\nA page goes back only when its last object is freed."
    shelves = "Those were empty slabs.\nNow none is empty: each has a tenant."
    wrong = {58: objects, 59: objects, 937: "Objects are not pages.\n16 of them share one.", 62: objects, 63: objects}
    return NumberQuestion(
        ask=f"Again 1,000 objects. One in each page stays, the other {freed} are freed. Pages back?",
        answer=back,
        unit="pages",
        wrong={key: why for key, why in (wrong | {51: shelves, 12: shelves}).items() if key != back},
        otherwise="When does one page go back? Count for a single slab.",
        right=f"{back}. {freed} of 1,000 objects freed, not one page returned.",
    )


def predict_random(m: Any, seed: int) -> NumberQuestion:
    """Pages left when 900 of 1,000 are freed at random."""
    slabs = freed_all()[0]
    left = slabs - pages_back(random.Random(3).sample(range(1000), 900))
    tenth = (
        "A tenth of the objects is not a tenth of the pages.\nEach of the 100 survivors holds a page of "
        "its own, nearly."
    )
    return NumberQuestion(
        ask=f"900 of the 1,000, chosen at random, are freed. How many of the {slabs} pages are still held?",
        answer=left,
        tolerance=5,
        unit="pages",
        wrong={6: tenth, 7: tenth, 10: tenth, slabs: "Nearly.\nA few pages have lost all their 16 tenants by chance."},
        otherwise="100 objects are left, and 63 pages to live in. How likely is it that all 16 of a page are gone?",
        right=f"{left}: nine tenths of the objects, and hardly a page.",
    )


# --- 6: who shares ------------------------------------------------------------------------------------------


def predict_rows(m: Machine, seed: int) -> Question:
    """Rows in slabinfo after two creations."""

    def answer(m: Machine) -> str:
        names = {s.name for s in m.slab_caches}
        shared = m.find_cache("conn") is m.find_cache("timer")
        return "joined" if shared and not names & {"conn", "timer"} else "one" if shared else "two"

    def first(m: Machine) -> str:
        return m.find_cache("conn").name

    return Question(
        ask="Two caches were created on a booted kernel, `conn` (60 bytes) and `timer` (64). What does /proc/slabinfo "
        "gain?",
        choices=[
            Choice("two", "two rows", "slabinfo lists caches *after* merging.\nWhat looks alike is one cache."),
            Choice(
                "one",
                "one row, `conn`",
                (
                    "So it would be on a machine without any cache.\nThis one has booted: somebody with 64 "
                    "bytes was here before."
                ),
            ),
            Choice(
                "both",
                "one row, `conn+timer`",
                (
                    "The kernel joins caches, not names.\nThe row keeps the first one's; the others are "
                    "links in /sys/kernel/slab."
                ),
            ),
            Choice("joined", "no row at all", "Run it."),
        ],
        answer=answer,
        recorded=True,
        right=lambda m: f"None: both joined `{first(m)}`, which had a stride of 64 before you came.",
    )


def merge_cases(seed: int) -> list[tuple[str, str, int, int, bool, str]]:
    """(key, text, size, flags, constructor, why not) of six requests beside ``conn``."""
    size = random.Random(seed).choice((57, 58, 61)) if seed else 57
    return [
        ("57", f"{size} bytes, plain", size, 0, False, ""),
        (
            "56",
            "56 bytes, plain",
            56,
            0,
            False,
            "Less than 8 bytes may be lost.\n56 is a stride of its own, and has caches of its own.",
        ),
        (
            "ctor",
            "64 bytes with a constructor",
            64,
            0,
            True,
            "The size is not all that counts.\nA constructor must not run on strangers' objects.",
        ),
        (
            "account",
            "64 bytes, SLAB_ACCOUNT",
            64,
            SLAB_ACCOUNT,
            False,
            "Accounted objects are charged to a group of processes.\nThey merge among themselves only.",
        ),
        (
            "reclaim",
            "64 bytes, SLAB_RECLAIM_ACCOUNT",
            64,
            SLAB_RECLAIM_ACCOUNT,
            False,
            "Reclaimable slabs lie in pageblocks of their own (lesson 05).\nThey merge among themselves only.",
        ),
        ("33", "33 bytes, SLAB_HWCACHE_ALIGN", 33, SLAB_HWCACHE_ALIGN, False, ""),
    ]


def predict_merge(m: Machine, seed: int) -> Question:
    """Which requests join the group of ``conn``?"""

    def answer(m: Machine) -> list[str]:
        group = m.find_cache("conn")
        found = []
        for key, _, size, flags, constructor, _ in merge_cases(seed):
            ctor = (lambda p: None) if constructor else None
            if m.kmem_cache_create(f"case{key}", size, 0, flags, ctor) is group:
                found.append(key)
        return found

    return Question(
        ask="Which of these would join the group of `conn` too? (all that do)",
        multi=True,
        choices=[Choice(key, text, why) for key, text, _, _, _, why in merge_cases(seed)],
        answer=answer,
        recorded=True,
        right="Same stride within 8 bytes, same kind of memory, no constructor. The flag HWCACHE_ALIGN made 33 bytes "
        "a stride of 64, and that is all that is looked at.",
    )


# --- 7: break it ----------------------------------------------------------------------------------------------


def fate_of_destroy() -> str:
    """What becomes of a machine whose cache is destroyed with an object out."""
    m = small().copy()
    c = m.kmem_cache_create("doomed", 256, 0, 0, None)
    m.kmem_cache_alloc(c, GFP_KERNEL)
    before = m.dmesg()
    try:
        returned = m.kmem_cache_destroy(c)
    except KernelBug:
        return "stop"
    return "code" if returned is not None else "report" if m.dmesg() != before else "nothing"


def predict_destroy(m: Any, seed: int) -> Question:
    """Destroying a cache with an object in use."""
    return Question(
        ask="`kmem_cache_destroy(c)` while one object is still in use. What happens?",
        choices=[
            Choice(
                "nothing",
                "nothing: the object goes with it",
                "Somebody holds a pointer to it.\nThe kernel looks at every slab first, and speaks.",
            ),
            Choice(
                "code",
                "it returns an error code",
                (
                    "It did in the post's day: `int kmem_cache_destroy`.\nSince 2.6.19 it returns nothing; "
                    "it speaks in the log."
                ),
            ),
            Choice("report", "a report in the log; the cache stays", "Run it."),
            Choice(
                "stop",
                "the kernel stops",
                "Nothing is broken yet.\nThe memory stays with its owner, and the kernel goes on.",
            ),
        ],
        answer=fate_of_destroy(),
        recorded=True,
        right="A report, a warning, and the cache stays for ever. Read the log; there is no result to test.",
    )


def fate_of_double_free(cmdline: str) -> str:
    """What becomes of a machine on which an object is freed twice in a row."""
    m = Machine("linux-6.1", memory="64M", cmdline=cmdline)
    c = m.kmem_cache_create("twice", 256, 0, 0, None)
    p = m.kmem_cache_alloc(c, GFP_KERNEL)
    m.kmem_cache_free(c, p)
    before = m.dmesg()
    try:
        m.kmem_cache_free(c, p)
    except KernelBug:
        return "stop"
    return "report" if m.dmesg() != before else "nothing"


def predict_double(m: Any, seed: int) -> BoxesQuestion:
    """The same object freed twice in a row, on two machines."""
    options = ("nothing", "report", "stop")
    boxes = [
        Box(
            label="no boot option",
            answer=fate_of_double_free("slab_nomerge"),
            options=options,
            wrong={
                options[0]: "That was so without CONFIG_SLAB_FREELIST_HARDENED.\nDebian's list notices an object that "
                "would point to itself.",
                options[1]: (
                    "A list that is wrong cannot be repaired.\nWithout debugging nothing is known that "
                    "would help: BUG()."
                ),
            },
        ),
        Box(
            label="slub_debug=FZPU",
            answer=fate_of_double_free("slub_debug=FZPU"),
            options=options,
            wrong={
                options[0]: "F is the letter that looks at each free.\nIt speaks.",
                options[2]: "BUG in a report is a headline, not the end.\nThe free is refused, the list stays whole.",
            },
        ),
    ]
    return BoxesQuestion(
        ask="`kmem_cache_free(c, p)` twice in a row. Nothing, a report (life goes on), or does the kernel stop?",
        boxes=boxes,
        recorded=True,
        right="Without debugging the machine stops; with it there is a report and life goes on.",
    )


# --- the puzzle, solved ---------------------------------------------------------------------------------------


def predict_tell(m: Machine, seed: int) -> Question:
    """Three modules behind one row: who leaks?"""
    names = ("tls_rec", "sched_ent", "nf_rule")

    def answer(m: Machine) -> str:
        caches = [m.find_cache(name) for name in names]
        return (
            "row"
            if len({id(c) for c in caches}) == 1
            else max(zip(caches, names, strict=True), key=lambda c: c[0].nr_slabs)[1]
        )

    def first(m: Machine) -> str:
        return m.find_cache(names[0]).name

    return Question(
        ask="Three modules share the row that grew. Which of them leaks?",
        choices=[
            Choice(
                names[0],
                f"`{names[0]}`: it came first",
                lambda m: (
                    f"Not even the row says so: its name is `{first(m)}`.\nWho came first says nothing "
                    "about who forgets."
                ),
            ),
            Choice(names[1], f"`{names[1]}`", "Why this one?\nNothing you have seen sets it apart."),
            Choice(
                names[2],
                f"`{names[2]}`: it came last, then it grew",
                "They all came before it grew.\nThe row holds the objects of all three together.",
            ),
            Choice("row", "this row cannot tell", "Run the next cells."),
        ],
        answer=answer,
        right="It cannot: one cache, one row, one count for all. Take them apart first.",
    )


PREDICTIONS = {
    "lifo": predict_lifo,
    "notlifo": predict_notlifo,
    "shuffle": predict_shuffle,
    "freeall": predict_freeall,
    "keepone": predict_keepone,
    "random": predict_random,
    "rows": predict_rows,
    "merge": predict_merge,
    "destroy": predict_destroy,
    "double": predict_double,
    "tell": predict_tell,
}
