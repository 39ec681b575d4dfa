"""Exercises of lesson 05 about blocks: cut a run, merge a block, keep memory whole, break it.

The truth is always the engine's: free lists after real frees, requests that got NULL.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache
from typing import Any

from kmemlab_widgets.questions import PASS, Check, CheckResult, ExerciseSpec, Mistake, comparisons, fail
from pages_lists import TOP, free_blocks, fresh, holds, line

from kmemlab import __GFP_MEMALLOC, __GFP_NOWARN, GFP_DMA, GFP_HIGHUSER, GFP_HIGHUSER_MOVABLE, GFP_KERNEL, Machine

Blocks = list[tuple[int, int]]
MASTER = GFP_DMA | __GFP_MEMALLOC | __GFP_NOWARN


# --- A: blocks ----------------------------------------------------------------------------------


@cache
def _empty() -> Machine:
    """A machine without the shelf, every page of its yard taken."""
    m = Machine("linux-6.1", memory="32M", without=("pcp",))
    while m.alloc_pages(MASTER, 0):
        pass
    return m


@cache
def cut(first: int, last: int) -> Blocks:
    """What the engine's lists hold when exactly the frames first..last-1 are free.

    Blocks look the same every 1,024 frames, so the run is moved into the part of the yard that is all memory.
    """
    m, move = _empty().copy(lazy=True), 1024 - (first & ~1023)
    for pfn in range(first + move, last + move):
        m.__free_pages(m.memmap[pfn], 0)
    return [(pfn - move, order) for pfn, order in free_blocks(m)]


@cache
def _random_runs() -> tuple[tuple[int, int], ...]:
    rng = random.Random(0)
    runs = [(1, 2), (1, 1025)]
    for _ in range(118):
        first = rng.choice((0, 1, 288, rng.randrange(1024), rng.randrange(1024)))
        runs.append((first, first + rng.choice((1, 2, 7, 40, rng.randrange(1, 700)))))
    return tuple(runs)


@cache
def _boot_maps() -> dict[tuple[int, int], Blocks]:
    """The free runs of the first zone of three machines at boot, and the blocks their lists hold of each."""
    maps: dict[tuple[int, int], Blocks] = {}
    for memory in ("8M", "12M", "16M"):
        run: Blocks = []
        for pfn, order in [*free_blocks(Machine("linux-6.1", memory=memory)), (-1, 0)]:
            if run and run[-1][0] + (1 << run[-1][1]) != pfn:
                maps[run[0][0], run[-1][0] + (1 << run[-1][1])] = run
                run = []
            run = [*run, (pfn, order)]
    return maps


def _true_blocks(first: int, last: int) -> Blocks:
    if (first, last) == (288, 4096):
        return free_blocks(fresh())
    return _boot_maps().get((first, last)) or cut(first, last)


def _greedy(first: int, last: int, cap: int = TOP, *, aligned: bool = True, fits: bool = True) -> Blocks:
    """Cut a run; the flags leave one rule out, to recognise who forgot it."""
    out = []
    while first < last and len(out) < 3000:
        order = cap
        while order and ((aligned and first & (1 << order) - 1) or (fits and first + (1 << order) > last)):
            order -= 1
        out.append((first, order))
        first += 1 << order
    return out


def _not_aligned(case: Any, got: Any, want: Any) -> str:
    pfn, order = next(block for block in got if block[0] & (1 << block[1]) - 1)
    return f"A block of order {order} cannot start at {pfn}: {pfn} is not a multiple of {1 << order:,}."


def _too_far(case: Any, got: Any, want: Any) -> str:
    pfn, order = got[-1]
    return f"Your last block ends at {pfn + (1 << order):,}, outside the run {case[0]}..{case[1] - 1}."


def _words_blocks(case: Any, got: Any, want: Any) -> tuple[str, str]:
    first, last = case
    wrong = next((pair for pair in zip(got, want, strict=False) if pair[0] != pair[1]), None)
    kernel = f"frames {first}..{last - 1}: the kernel's lists hold {want[:4]}{' ...' if len(want) > 4 else ''}"
    if wrong is None:
        return kernel, f"You give {len(got)} blocks, it should be {len(want)}."
    if first == 0 and wrong[0][0] == 0:
        return kernel, "Frame 0 is divisible by everything: cap the order, and mind the end of the run."
    return kernel, f"You say {wrong[0]}, the lists say {wrong[1]}."


BLOCKS = ExerciseSpec(
    letter="A",
    title="cut a run of frames into blocks",
    task="Cut the free frames first..last-1 into the largest legal blocks, ascending, as the kernel does at boot: a "
    "list of (frame, order). A block of order n starts at a multiple of 2^n, and no order is above 10.",
    signature="def blocks(first: int, last: int) -> list[tuple[int, int]]",
    starter="def blocks(first: int, last: int) -> list[tuple[int, int]]:\n    return [(first, 0)]\n",
    hints=[
        "Start at `first`. Which orders may a block have that begins there?",
        "Two limits: `first` must be a multiple of 2^order, and first + 2^order must not pass `last`.",
        "Take the largest order that keeps both (10 at most), go on behind that block, until `last` is reached.",
    ],
    returns=list,
    checks=comparisons(
        [
            ("the yard, frames 288 to 4095", "256M-a-21", lambda: [(288, 4096)]),
            ("from frame 0, which every power of two divides", "", lambda: [(0, 5), (0, 1), (0, 1030)]),
            ("what three machines have free at boot", "8M, 12M, 16M", lambda: list(_boot_maps())),
            ("120 runs, some from frame 0 or 1", "seed 0", _random_runs),
        ],
        _true_blocks,
        [
            Mistake(lambda first, last: _greedy(first, last, aligned=False), _not_aligned),
            Mistake(lambda first, last: _greedy(first, last, fits=False), _too_far),
            Mistake(
                lambda first, last: _greedy(first, last, cap=63), "Order 11 and more do not exist: 10 is the largest."
            ),
            Mistake(
                lambda first, last: [(pfn, 1 << order) for pfn, order in _greedy(first, last)],
                "You give pages, not orders: a block of 32 pages has order 5.",
            ),
            Mistake(
                lambda first, last: [(pfn, 0) for pfn in range(first, last)],
                "All of order 0 is legal, but not the largest: buddies that are both free are one block.",
            ),
        ],
        _words_blocks,
    ),
)


# --- B: merge -----------------------------------------------------------------------------------


@cache
def _histories() -> tuple[tuple[dict[int, int], int, int, dict[int, int]], ...]:
    """(free, pfn, order, free afterwards): blocks of orders 4 to 8 come and go on two zones of a small machine."""
    cases = []
    for seed in range(3):
        rng = random.Random(seed)
        m = Machine("linux-6.1", memory="32M")
        held: list[Any] = []
        for step in range(170):
            if (step < 120 and rng.random() < 0.6) or not held:
                page = m.alloc_pages(rng.choice((GFP_DMA, GFP_KERNEL)) | __GFP_NOWARN, rng.randint(4, 8))
                held += [page] if page else []
                continue
            page = held.pop(rng.randrange(len(held)))
            zone, order = page.zone.name, page.order
            before = dict(free_blocks(m, zone))
            m.__free_pages(page, order)
            cases.append((before, page.pfn, order, dict(free_blocks(m, zone))))
    return tuple(cases)


def _merged(
    free: dict[int, int], pfn: int, order: int, *,
    twin: Callable[[int, int], int] = lambda pfn, order: pfn ^ 1 << order, once: bool = False, any_size: bool = False,
    cap: int = TOP,
) -> dict[int, int]:  # fmt: skip
    """Merge with one rule changed, to recognise who changed it."""
    out = dict(free)
    while order < cap and (buddy := twin(pfn, order)) in out and (any_size or out[buddy] == order):
        del out[buddy]
        pfn, order = min(pfn, buddy), order + 1
        if once:
            break
    out[pfn] = order
    return out


_WRONG_MERGES: list[tuple[Callable[..., dict[int, int]], str]] = [
    (
        lambda free, pfn, order: _merged(free, pfn, order, twin=lambda p, o: p + (1 << o)),
        "You take pfn + size for the buddy. Block 288 of order 5: that would be 320, XOR says {buddy288}.",
    ),
    (
        lambda free, pfn, order: _merged(free, pfn, order, any_size=True),
        "The buddy's first frame is in `free`, but with another order: it was cut, so it is not whole.",
    ),
    (
        lambda free, pfn, order: _merged(free, pfn, order, once=True),
        "It merged once, and then stopped. The new block has a buddy too, and that one is free.",
    ),
    (
        lambda free, pfn, order: _merged(free, pfn, order, cap=63),
        "You merged past order 10. There is no larger block: two free ones stay two.",
    ),
    (
        lambda free, pfn, order: {**free, pfn: order},
        "You put the block on the list and merged nothing. Look for its buddy.",
    ),
]


def _check_merge(fn: Any) -> CheckResult:
    known = list(_WRONG_MERGES)
    first: CheckResult | None = None
    for free, pfn, order, want in _histories():
        given = dict(free)
        got = fn(given, pfn, order)
        if given != free:
            return fail("Your function changed `free`. Return a new dict and leave the caller's as it is.")
        known = [wrong for wrong in known if wrong[0](free, pfn, order) == got]
        if got != want and first is None:
            extra = sorted(set(got.items()) ^ set(want.items()))[:4]
            first = fail(
                f"You and the lists differ in {', '.join(map(str, extra))}.",
                f"block {pfn} of order {order} came back; its buddy is {pfn ^ 1 << order}",
            )
    if first is None:
        return PASS
    why = known[0][1].format(buddy288=288 ^ 32) if known else first.why
    return fail(why, first.kernel)


MERGE = ExerciseSpec(
    letter="B",
    title="give a block back",
    task="`free` is {frame: order} of a zone's free blocks. Give back the block `pfn` of this order: merge it with its "
    "buddy while that is free and of the same order, up to order 10, and return the new dict.",
    signature="def merge(free: dict[int, int], pfn: int, order: int) -> dict[int, int]",
    starter="def merge(free: dict[int, int], pfn: int, order: int) -> dict[int, int]:\n    return {**free, pfn: "
    "order}\n",
    hints=[
        "The buddy of a block differs from it in one bit of the frame number. In which?",
        "buddy = pfn ^ (1 << order). It can merge if it is in `free` with the same order.",
        "The merged block starts at pfn & buddy and has order + 1. Then look again: it has a buddy too.",
    ],
    returns=dict,
    checks=[Check("blocks of orders 4 to 8 coming back to two zones", _check_merge, "seeds 0-2, 32M", _histories)],
)


# --- F: keep memory whole -----------------------------------------------------------------------

_tries: list[int] = []  # scores of this session, best first


def _score(place: Callable[[str], int]) -> tuple[int, Machine]:
    """Blocks of order 9 left after a stream of requests; ``place("short" or "long")`` chooses each one's mask."""
    m, kept, users = fresh(), [], []
    for i in range(32_000):
        life = "short" if i % 16 else "long"
        page = m.alloc_pages(place(life), 0)
        if page:
            (users if life == "short" else kept).append(page)
    for page in users:
        m.__free_pages(page, 0)
    return blocks_of_order_9(m), m


def blocks_of_order_9(m: Machine) -> int:
    """How many blocks of order 9 the free lists hold or could be cut into."""
    counts = [(order, n) for zone in ("DMA", "DMA32") for order, n in enumerate(line(m, zone))]
    return sum(n << order - 9 for order, n in counts if order >= 9)


@cache
def reference() -> dict[str, int]:
    """Blocks of order 9 at the start, with types used as the kernel uses them, and without."""
    movable, plain = int(GFP_HIGHUSER_MOVABLE), int(GFP_HIGHUSER)
    return {
        "start": blocks_of_order_9(fresh()),
        "types": _score(lambda life: movable if life == "short" else int(GFP_KERNEL))[0],
        "plain": _score(lambda life: plain if life == "short" else int(GFP_KERNEL))[0],
    }


def _check_keep(fn: Any) -> CheckResult:
    masks = {}
    for life in ("short", "long"):
        mask = fn(life)
        if not 0 <= mask < 1 << 32:
            return fail(f"{mask} is not an allocation mask; return one such as GFP_KERNEL.")
        masks[life] = int(mask) | int(__GFP_NOWARN)
    score, m = _score(masks.__getitem__)
    held = sum(page.refcount > 0 and page.order >= 0 for page in m.memmap.values())
    if held < 2000:
        return fail(
            f"Only {held} of the 2,000 long-lived pages were served: a mask that fails is no way to keep order."
        )
    _tries.append(score)
    _tries.sort(reverse=True)
    del _tries[3:]
    ref = reference()
    kernel = f"{score} blocks of order 9 are left (at the start {ref['start']}, with types {ref['types']}, without "
    kernel += f"{ref['plain']}); your best: {', '.join(map(str, _tries))}"
    if score >= ref["types"]:
        return CheckResult(True, kernel)
    if masks["short"] == masks["long"] or score <= ref["plain"]:
        return fail(
            "Both kinds land in the same pageblocks. What tells the kernel that a page may be moved, or will go?",
            kernel,
        )
    return fail(
        "Better than mixing everything. Which type do the long-lived ones get, and which the short-lived?", kernel
    )


KEEP = ExerciseSpec(
    letter="F",
    title="keep memory whole",
    task="32,000 single pages are asked for; every sixteenth lives long, the others end. You only know this hint, "
    "'short' or 'long', and choose the mask for each. How many blocks of order 9 are left at the end?",
    signature="def keep_whole(life: str) -> int",
    starter="def keep_whole(life: str) -> int:\n    return GFP_KERNEL\n",
    hints=[
        "Each pageblock has a type. A request looks in the lists of its own type first.",
        "Two bits of the mask choose the type: __GFP_MOVABLE and __GFP_RECLAIMABLE.",
        "Give 'short' another type than 'long': GFP_HIGHUSER_MOVABLE is what a program's pages are asked with.",
    ],
    returns=(int, type(GFP_KERNEL)),
    checks=[Check("the stream of round 7, with your masks", _check_keep, "256M-a-21", reference)],
)


# --- G: the vandal ------------------------------------------------------------------------------


def _broken(order: int, held: list[int]) -> Any:
    """What the yard gives for ``order`` when exactly these frames of it are held: a page, or NULL."""
    m, keep = fresh(), set(held)
    pages = []
    while page := m.alloc_pages(MASTER, 0):
        pages.append(page)
    for page in pages:
        if page.pfn not in keep:
            m.__free_pages(page, 0)
    m.drain_all_pages()
    return m.alloc_pages(MASTER, order)


def _check_vandal(fn: Any) -> CheckResult:
    whole = free_blocks(fresh())
    for order in range(TOP, 3, -1):
        held = fn(list(whole), order)
        if strange := [p for p in held if not any(a <= p < a + (1 << o) for a, o in whole)]:
            return fail(f"Frame {strange[0]} is not free in the yard, so you cannot hold it.")
        page = _broken(order, held)
        if page:
            return fail(
                f"Nobody holds a page of frames {page.pfn}..{page.pfn + (1 << order) - 1}.",
                f"order {order}, {len(held)} held: {page}",
            )
        if len(set(held)) > holds(whole, order):
            return fail(
                "It works, with more than it takes. One page breaks an aligned block of this order; two in the same "
                "block are one too many.",
                f"order {order}: {len(set(held))} held, {holds(whole, order)} are enough",
            )
    return PASS


VANDAL = ExerciseSpec(
    letter="G",
    title="the vandal",
    task="`free` lists the yard's free blocks as (frame, order). Return the frames to hold so that no block of `order` "
    "can be had, as few as possible.",
    signature="def vandal(free: list[tuple[int, int]], order: int) -> list[int]",
    starter="def vandal(free: list[tuple[int, int]], order: int) -> list[int]:\n    return [pfn for pfn, _ in free]\n",
    hints=[
        "Which blocks of `free` are large enough to serve the request at all?",
        "A free block of order 7 holds eight blocks of order 4: each needs one held page.",
        "For each block with high >= order: range(pfn, pfn + (1 << high), 1 << order).",
    ],
    returns=list,
    checks=[Check("orders 10 to 4 in the yard, with the fewest pages", _check_vandal, "256M-a-21")],
)

EXERCISES = {"blocks": BLOCKS, "merge": MERGE, "keep_whole": KEEP, "vandal": VANDAL}
