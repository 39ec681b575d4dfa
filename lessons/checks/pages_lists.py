"""Questions of lesson 05, part 1: blocks, buddies, the shelf, and how few pages break a machine.

A question is a function of the machine as it is in the notebook at that moment; every number and every
verdict is computed by the engine, on copies.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from kmemlab_widgets.questions import Choice, NumberQuestion, Question

from kmemlab import (
    __GFP_NOWARN,
    GFP_DMA,
    GFP_HIGHUSER_MOVABLE,
    Machine,
)

MACHINE = "256M-a-21"
TOP = 10  # the largest order


# --- reading the machine ------------------------------------------------------------------------


@cache
def _started() -> Machine:
    return Machine.from_recording(MACHINE)


def fresh() -> Machine:
    """The real machine as it was read out."""
    return _started().copy()


def line(m: Machine, zone: str = "DMA") -> list[int]:
    """The eleven counts of a line of /proc/buddyinfo, read as the learner reads them."""
    for row in m.cat("/proc/buddyinfo").splitlines():
        words = row.split()
        if words[3] == zone:
            return [int(word) for word in words[4:]]
    raise ValueError(f"this machine has no zone {zone}")


def pages_of(counts: list[int]) -> int:
    """Free pages that a line stands for."""
    return sum(count << order for order, count in enumerate(counts))


def free_blocks(m: Machine, zone: str = "DMA") -> list[tuple[int, int]]:
    """(first frame, order) of the zone's free blocks, by address."""
    lists = m.snapshot().zone(zone).free
    return sorted((pfn, order) for (order, _), pfns in lists.items() for pfn in pfns)


def holds(blocks: list[tuple[int, int]], order: int) -> int:
    """How few held pages leave no block of this order: one in each aligned block of it."""
    return sum(1 << high - order for _, high in blocks if high >= order)


# --- the opening: how few pages? ----------------------------------------------------------------


def predict_guess(m: Any, seed: int) -> NumberQuestion:
    """A guess to keep: how few held pages refuse every 64 KiB request on this machine."""
    held = sum(page.refcount > 0 and page.order == 0 for page in m.memmap.values())
    return NumberQuestion(
        ask=f"We hold {held:,} pages. Choose the places better: how few held pages are enough to refuse every request "
        "for 64 KiB on a fresh machine of this kind?",
        vote=True,
        unit="pages",
        right="Kept. You will see it again at the end.",
        note="then read on",
    )


# --- R1: order and blocks -----------------------------------------------------------------------


def _blocks_of(m: Machine, order: int) -> tuple[list[int], int]:
    """Frames of the blocks an order gets until NULL, and the pages free in the lists then."""
    got = []
    while page := m.alloc_pages(GFP_DMA | __GFP_NOWARN, order):
        got.append(page.pfn)
    return got, pages_of(line(m))


def predict_r1(m: Machine, seed: int) -> NumberQuestion:
    """How many blocks of order 10 does the yard give?"""
    free, block = pages_of(line(m)), 1 << TOP
    got, left = _blocks_of(m.copy(), TOP)
    fewer = f"Look at the line: {len(got)} blocks of order {TOP} stand ready."
    whole = (
        f"{left} pages remain, but they make no block.\n"
        f"A block of order {TOP} starts at a multiple of {block:,} and is whole."
    )
    return NumberQuestion(
        ask=f"{free:,} pages are free in the yard. How many blocks of order {TOP} ({block:,} pages) do you get?",
        code=f"m.alloc_pages(GFP_DMA, {TOP})     # until NULL",
        answer=lambda m: len(_blocks_of(m, TOP)[0]),
        wrong={
            **dict.fromkeys(range(1, len(got)), fewer),
            **dict.fromkeys({len(got) + 1, round(free / block, 1), round(free / block, 2)}, whole),
            0: f"Nothing forbids order {TOP}.\nIt is the largest order there is.",
        },
        otherwise=f"A block has {block:,} pages; there are {free:,} in all. Where may a block begin?",
        unit="blocks",
        right=f"Frames {', '.join(map(str, sorted(got)))}; the next request is NULL with {left} pages still free.",
    )


# --- R2: split ----------------------------------------------------------------------------------


def _one_page(m: Machine) -> tuple[Any, list[tuple[int, int]]]:
    """The page an order-0 request gets, and the blocks that are new on the lists."""
    before = set(free_blocks(m))
    page = m.alloc_pages(GFP_DMA, 0)
    return page, [block for block in free_blocks(m) if block not in before]


def predict_r2(m: Machine, seed: int) -> Question:
    """Which block is cut for one page?"""
    blocks = free_blocks(m)
    types = m.snapshot().zone("DMA").pageblocks
    cut = min(blocks, key=lambda block: block[1])
    largest = max(pfn for pfn, order in blocks if order == TOP)
    strange = next(pfn for pfn, order in blocks if order == 9 and types[pfn] == 1)

    def which(m: Machine) -> str:
        pfn = _one_page(m)[0].pfn
        return next(f"{first}" for first, order in blocks if first <= pfn < first + (1 << order))

    def told(m: Machine) -> str:
        page, halves = _one_page(m)
        rest = ", ".join(f"{pfn} (order {order})" for pfn, order in halves)
        return f"Frame {page.pfn}; left over: {rest}."

    return Question(
        ask="One page is wanted, and no block of order 0 is there. Which block is cut?",
        code="p = m.alloc_pages(GFP_DMA, 0)",
        choices=[
            Choice(f"{cut[0]}", f"order {cut[1]} at frame {cut[0]}"),
            Choice(
                f"{largest}",
                f"order {TOP} at frame {largest}",
                "Large blocks are precious.\nThe kernel climbs from the wanted order and stops at the first "
                "list of its own type that is not empty.",
            ),
            Choice(
                f"{strange}",
                f"order 9 at frame {strange}",
                "That block is on a movable list, and ours is an unmovable request.\nIt happens too: round 7.",
            ),
        ],
        answer=which,
        right=told,
    )


# --- R3: buddies --------------------------------------------------------------------------------


def predict_r3(m: Machine, seed: int) -> Question:
    """Do two neighbours of equal size merge?"""

    def merged(m: Machine) -> bool:
        return any(order >= 6 and pfn in (288, 320) for pfn, order in free_blocks(m))

    def why(m: Machine) -> str:
        at_boot = m.snapshot().zone("DMA").managed - pages_of(line(fresh()))
        return (
            f"They are neighbours of equal size, but not twins.\nThe buddy of block 288 at order 5 is 288 XOR 32 = "
            f"{288 ^ 32}, below it, and its frames are in use since boot ({at_boot} pages of the zone are). "
            f"The buddy of 320 is {320 ^ 32}."
        )

    return Question(
        ask="Now frames 288-319 and 320-351 are free: two blocks of order 5, side by side. Do they merge into one "
        "block of order 6?",
        code="for pfn in (288, 320, 336, 304):\n    m.__free_pages(six[pfn], 4)",
        choices=[
            Choice("yes", "yes: free neighbours merge", why),
            Choice("no", "no", lambda m: "Here they did: look at the line."),
            Choice(
                "later",
                "not now, but when somebody asks for order 6",
                "Nothing is glued together when somebody asks.\nBlocks merge when they are freed, or not at all.",
            ),
        ],
        answer=lambda m: "yes" if merged(m) else "no",
        right=lambda m: f"The list of order 5 now has two blocks. {why(m).splitlines()[1]}",
    )


def _missing_buddy(m: Machine, first: int, last: int, order: int) -> int:
    """The frame of the block that would have to be free, with its size, for ``order`` to exist here."""
    run = [(pfn, k) for pfn, k in free_blocks(fresh()) if first <= pfn < last]
    buddies = [pfn ^ 1 << k for pfn, k in run]
    return buddies[0] if len(set(buddies)) == 1 and buddies[0] >> order == first >> order else -1


def predict_r3b(m: Machine, seed: int) -> NumberQuestion:
    """Which frame's block is missing for order 8?"""
    blocks = [(pfn, order) for pfn, order in free_blocks(fresh()) if pfn < 512]
    first, last = blocks[0][0], blocks[-1][0] + (1 << blocks[-1][1])
    buddies = ", ".join(f"{pfn} XOR {1 << order} = {pfn ^ 1 << order}" for pfn, order in blocks)
    return NumberQuestion(
        ask=f"In the fresh yard the run {first}-{last - 1} has {last - first} free pages, and no block of order 8. "
        "Which frame, if it became free with its block, would let order 8 exist?",
        answer=lambda m: _missing_buddy(m, first, last, 8),
        wrong={
            last: "That is behind the run.\nA block of order 8 begins at a multiple of 256: which one holds the run?",
            first: f"Frame {first} is free already.\nAsk for its buddy.",
            first - 1: f"The page before the run alone is too small.\nThe buddy of {first} at order "
            f"{blocks[0][1]} has {1 << blocks[0][1]} pages: where does it begin?",
            0: "Further up.\nA block of order 8 begins at a multiple of 256.",
        },
        otherwise=f"Take the first block of the run, {first}: its buddy is {first} XOR {1 << blocks[0][1]}.",
        unit="frame",
        right=f"{buddies}: the same block is the buddy of all of them, one after the other.",
    )


# --- R4: the shelf ------------------------------------------------------------------------------


def _held_singles(m: Machine) -> list[Any]:
    """The single pages of the yard that the notebook holds, in the order in which they were taken."""
    pages = [p for p in m.memmap.values() if p.refcount > 0 and p.order == 0 and p.zone.name == "DMA"]
    return sorted(pages, key=lambda p: p.pfn)


def _first_change(m: Machine) -> int:
    """After how many frees the line of the yard changes."""
    seen = line(m)
    for count, page in enumerate(_held_singles(m), 1):
        m.__free_pages(page, 0)
        if line(m) != seen:
            return count
    return 0


def predict_r4(m: Machine, seed: int) -> NumberQuestion:
    """After how many frees does buddyinfo change?"""
    many = len(_held_singles(m))
    first = _first_change(m.copy())
    high = m.snapshot().zone("DMA").pcps[0].high
    return NumberQuestion(
        ask=f"You hold {many} single pages of the yard and free them one by one. After how many frees does the line "
        "of `/proc/buddyinfo` change for the first time?",
        code="for p in sixty:\n    m.__free_pages(p, 0)",
        answer=_first_change,
        wrong={
            1: f"The first {first - 1} pages lie on the shelf.\n`/proc/buddyinfo` does not count it.",
            2: "Two free buddies on the shelf do not merge.\nMerging happens only in the lists.",
            many: "The shelf has a limit, `high`.\nSee /proc/zoneinfo, pagesets.",
            high + 1: f"Equal is enough.\nThe shelf gives back when it holds `high` ({high}) pages or more.",
            0: "It does change.\nThe shelf has a limit, `high`: see /proc/zoneinfo, pagesets.",
        },
        otherwise="How many pages may this CPU's shelf hold? /proc/zoneinfo, zone DMA, pagesets: `high`.",
        unit="frees",
        right=f"`high` of the yard is {high}: the {first}th free makes the shelf give pages back, the oldest first.",
    )


# --- R5: head or tail ---------------------------------------------------------------------------


def _last_held(m: Machine) -> Any:
    return next(p for p in m.memmap.values() if p.refcount > 0 and p.order == 4)


def predict_r5(m: Machine, seed: int) -> Question:
    """Does a freed block come back at once?"""
    page = _last_held(m)
    parent = page.pfn & ~31
    twin, uncle = page.pfn ^ 16, parent ^ 32

    def back(m: Machine) -> int:
        page = _last_held(m)
        m.__free_pages(page, 4)
        return m.alloc_pages(GFP_HIGHUSER_MOVABLE, 4).pfn

    def reason(m: Machine) -> str:
        return (
            f"Order 4 has no shelf, and the block's next larger buddy, {uncle} (order 5), is free: if the twin {twin} "
            f"comes home, a large block appears. So the kernel puts {page.pfn} last and gives {back(m)}."
        )

    return Question(
        ask=f"You hold frames {page.pfn}-{page.pfn + 15}. You give them back and ask for the same again. Do you get "
        f"{page.pfn}?",
        code="m.__free_pages(p, 4)\nm.alloc_pages(GFP_HIGHUSER_MOVABLE, 4)",
        choices=[
            Choice("yes", "yes: last in, first out", lambda m: f"Round 4 was the shelf.\n{reason(m)}"),
            Choice("no", "no: another block", lambda m: f"You get {back(m)}: it was put first."),
            Choice(
                "alone",
                "only if nobody else asks in between",
                lambda m: f"Nobody else asked, and yet it is {back(m)}.\nThis machine runs only your calls.",
            ),
        ],
        answer=lambda m: "yes" if back(m) == page.pfn else "no",
        right=reason,
    )


# --- R6: how few pages --------------------------------------------------------------------------


def predict_r6(m: Machine, seed: int) -> NumberQuestion:
    """How few held pages break every block of the largest order?"""
    blocks = free_blocks(m)
    need = {order: holds(blocks, order) for order in range(4, TOP + 1)}
    four_mib, sixty_four_kib = need[TOP], need[4]
    smaller = "That is for smaller blocks.\nLarge ones are rarer, and easier to break."
    return NumberQuestion(
        ask=f"{pages_of(line(m)):,} pages are free in the yard. How many single pages must you hold, at the places you "
        "choose, to make every 4 MiB request fail?",
        answer=lambda m: holds(free_blocks(m), TOP),
        wrong={
            **{n: smaller for order, n in need.items() if order != TOP},
            952: smaller,
            1: f"One page breaks one block.\nThe other {four_mib - 1} are whole.",
            0: f"{four_mib} blocks of order {TOP} stand ready.\nEach of them would serve the request.",
        },
        otherwise=f"A 4 MiB block is one of order {TOP}. How many are there, and what does it take to break one?",
        unit="pages",
        right=f"One page in each of the {four_mib} blocks: {four_mib * 4} KiB. For 64 KiB it takes {sixty_four_kib}.",
    )


PREDICTIONS = {
    "GUESS": predict_guess,
    "R1": predict_r1,
    "R2": predict_r2,
    "R3": predict_r3,
    "R3b": predict_r3b,
    "R4": predict_r4,
    "R5": predict_r5,
    "R6": predict_r6,
}
