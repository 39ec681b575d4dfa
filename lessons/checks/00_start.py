"""Questions and checks of lesson 00.

A question is a function of the machine as it is in the notebook at that moment; it gets a copy and may do
with it what it likes. Every number and every verdict below is computed by the engine.
"""

from __future__ import annotations

import random
from functools import cache
from typing import Any

from kmemlab_widgets.questions import (
    Choice,
    ExerciseSpec,
    Mistake,
    NumberQuestion,
    Question,
    comparisons,
)

from kmemlab import (
    __GFP_MEMALLOC,
    __GFP_NOWARN,
    GFP_DMA,
    GFP_KERNEL,
    NULL,
    Machine,
    conform,
)

MACHINE = "256M-a-21"
RECORDING = "128M-a-11"
KEPT = 296  # the first frame the puzzle keeps: the lowest free one of which frame % 16 == 8
PUZZLE_ORDER = 4
# The DMA line of a real 256 MiB machine under load, as its /proc/buddyinfo printed it.
LOADED = (2, 1, 2, 1, 2, 1, 2, 0, 0, 0, 0)


# --- reading the machine ------------------------------------------------------------------------


def _line(m: Machine) -> list[int]:
    """The eleven counts of zone DMA, read from /proc/buddyinfo as the learner reads them."""
    for line in m.cat("/proc/buddyinfo").splitlines():
        words = line.split()
        if words[3] == "DMA":
            return [int(word) for word in words[4:]]
    raise ValueError("this machine has no zone DMA")


def _pages(counts: list[int] | tuple[int, ...]) -> int:
    return sum(count << order for order, count in enumerate(counts))


def _show(counts: list[int] | tuple[int, ...]) -> str:
    return " ".join(map(str, counts))


def _mib(pages: int) -> str:
    return f"{pages * 4 / 1024:.1f} MiB"


def _frames(page: Any, order: int) -> str:
    return f"frames {page.pfn}-{page.pfn + (1 << order) - 1}" if order else f"frame {page.pfn}"


def _ask_64k(m: Machine) -> Any:
    return m.alloc_pages(GFP_DMA | __GFP_NOWARN, PUZZLE_ORDER)


def _free(m: Machine) -> int:
    """Free pages of the yard, those on the shelf too."""
    return _pages(_line(m)) + m.free_pcp("DMA")


# --- P0: the puzzle -----------------------------------------------------------------------------


def predict_p0(m: Machine, seed: int) -> Question:
    """13.9 MiB are free, 64 KiB are wanted."""
    free = _mib(_free(m))

    def outcome(m: Machine) -> str:
        page = _ask_64k(m)
        return "It returned NULL." if page is NULL else f"It returned {_frames(page, PUZZLE_ORDER)}."

    def held(m: Machine) -> str:
        held = _free(Machine.from_recording(MACHINE)) - _free(m)
        return f"Nothing leaks.\nWe hold {held} pages and know each of them. Look where they are."

    return Question(
        ask=f"The yard has {free} free. You ask for 64 KiB. What does the kernel return?",
        code="m.alloc_pages(GFP_DMA | __GFP_NOWARN, 4)",
        choices=[
            Choice(
                "page",
                f"a page: 64 KiB is far less than {free}",
                "Free memory is not just a number.\nWhat else is it? Look at the map: where are 16 free pages "
                "side by side?",
            ),
            Choice("leak", "NULL: memory is leaking", held),
            Choice(
                "sleep",
                "it sleeps until there is enough",
                "This request may not sleep.\n`GFP_DMA` has no sleep bit: lesson 01. "
                "And waiting would not help: enough is free already.",
            ),
            Choice(
                "run",
                "NULL: there is no run of 16 free pages that starts at a multiple of 16",
                lambda m: f"{outcome(m)}\nThere is such a run. Make a fresh machine and run the puzzle from the top.",
            ),
        ],
        answer=lambda m: "run" if _ask_64k(m) is NULL else "page",
        right=lambda m: f"{outcome(m)} Now see it on the map, and count.",
    )


# --- R1: which page comes first ---------------------------------------------------------------


def _shelf_head(m: Machine) -> int:
    """The first page of this CPU's list of single unmovable pages, in the zone that is asked first; -1 if none."""
    shelf = m.snapshot().zone(m.zonelist[0].name).pcps[m.cpu].lists.get(0, ())
    return shelf[0][0] if shelf else -1


def _lowest_free(m: Machine) -> int:
    return min(pfn for blocks in m.snapshot().zone(m.zonelist[0].name).free.values() for pfn in blocks)


def predict_r1(m: Machine, seed: int) -> Question:
    """Which page does the first request get?"""

    def which(m: Machine) -> str:
        head, lowest = _shelf_head(m), _lowest_free(m)
        pfn = m.alloc_pages(GFP_KERNEL, 0).pfn
        return {head: "last", lowest: "lowest", 0: "zero"}.get(pfn, "random")

    def got(m: Machine) -> int:
        return m.alloc_pages(GFP_KERNEL, 0).pfn

    return Question(
        ask="Which page do you get?",
        code="p = m.alloc_pages(GFP_KERNEL, 0)",
        choices=[
            Choice(
                "lowest",
                "the lowest free one",
                lambda m: (
                    f"There are free pages below it.\nThe lowest free frame of the zone is {_lowest_free(m)}, "
                    f"and the kernel gave {got(m)}. It likes a page that was used a moment ago: "
                    "that one may still be in the processor's cache."
                ),
            ),
            Choice("last", "the one that was freed last", lambda m: f"The kernel gave frame {got(m)}."),
            Choice(
                "random",
                "a random one",
                lambda m: (
                    f"Nothing here is left to chance.\nAsk a copy of this machine as often as you like: "
                    f"it gives frame {got(m)} each time."
                ),
            ),
            Choice(
                "zero",
                "frame 0",
                lambda m: f"Frame 0 is not free.\nThe firmware and the kernel keep it since boot. You get {got(m)}.",
            ),
        ],
        answer=which,
        right=lambda m: f"Frame {got(m)}: the head of this CPU's own list, where the page lies that was freed last.",
    )


# --- R2: reading buddyinfo ----------------------------------------------------------------------


def predict_r2(m: Machine, seed: int) -> NumberQuestion:
    """How many pages does a line of buddyinfo stand for?"""
    counts = _line(m)
    zone = m.snapshot().zone("DMA")
    pages = _pages(counts)
    column = "Column k counts blocks of 2^k pages, and the first column is order 0."
    wrong = {
        _pages([0, *counts]): f"That is twice too much.\n{column}",
        _pages(counts[1:]): f"That leaves out a factor of two.\n{column}",
        counts[-1] << len(counts) - 1: "That is the last column alone.\nThe smaller blocks are free too.",
        pages * 4: "That is in KiB.\nA page has 4 KiB.",
        zone.managed: f"That is `managed`.\n{zone.managed - _free(m)} of these pages are already in use.",
        sum(counts): "That is the number of blocks.\nA block in column k has 2^k pages.",
    }
    terms = " + ".join(f"{count} x {1 << order}" for order, count in enumerate(counts) if count)
    return NumberQuestion(
        ask="How many pages are free in zone DMA?",
        code=f"Node 0, zone DMA   {_show(counts)}",
        answer=lambda m: _pages(_line(m)),
        wrong=wrong,
        otherwise=f"Add it up once more.\n{column}",
        unit="pages",
        right=f"{terms} = {pages:,} pages, that is {_mib(pages)}.",
        # Before the first call the machine is exactly what was read out of the real kernel.
        recorded=m.recording is not None and m.calls == 0,
    )


# --- R3: a page that does not come home -------------------------------------------------------


def _four_and_back(m: Machine) -> tuple[list[int], list[int]]:
    before = _line(m)
    pages = [m.alloc_pages(GFP_DMA, 0) for _ in range(4)]
    for page in pages:
        m.__free_pages(page, 0)
    return before, _line(m)


def predict_r3(m: Machine, seed: int) -> Question:
    """Is the line the same after four pages were taken and given back?"""

    def told(m: Machine) -> str:
        before, after = _four_and_back(m)
        return f"Before `{_show(before)}`, after `{_show(after)}`"

    return Question(
        ask="Four pages are taken and all four given back. Is the DMA line of buddyinfo the same as before?",
        code="a = [m.alloc_pages(GFP_DMA, 0) for _ in range(4)]\nfor p in a:\n    m.__free_pages(p, 0)",
        choices=[
            Choice(
                "yes",
                "yes: what was taken was given back",
                lambda m: (
                    "They are free, but on another shelf.\nThis CPU keeps them for the next caller, and "
                    f"`/proc/buddyinfo` does not count its shelf. {told(m)}."
                ),
            ),
            Choice("no", "no", lambda m: f"Here it is the same: {told(m)}."),
        ],
        answer=lambda m: "yes" if len(set(map(tuple, _four_and_back(m)))) == 1 else "no",
        right=lambda m: f"{told(m)}: the pages lie on this CPU's shelf, which the file does not count.",
    )


# --- R4: why believe this lab -------------------------------------------------------------------

_SHARES = {"99": 0.99, "90": 0.90, "half": 0.5, "under1": 0.0}


@cache
def _without_shelf() -> Any:
    return conform(RECORDING, without=("pcp",))


def predict_r4(m: Any, seed: int) -> Question:
    """How far does the model get when one rule is taken away?"""

    def nearest(m: Any) -> str:
        result = _without_shelf()
        share = result.right_before_first_miss / result.total
        return min(_SHARES, key=lambda key: abs(_SHARES[key] - share))

    def first(m: Any) -> str:
        result = _without_shelf()
        return f"The first wrong page comes after {result.right_before_first_miss} of {result.total:,}."

    why = "One rule changes which page comes next, and then every list is different."
    return Question(
        ask="We take away one rule, the per-CPU shelf. How much of the recording does the model name correctly "
        "before its first wrong page?",
        code=f'conform("{RECORDING}", without=("pcp",))',
        choices=[
            Choice("99", "about 99 %", f"{why}\nHow often does a request go through that shelf?"),
            Choice("90", "about 90 %", f"{why}\nHow often does a request go through that shelf?"),
            Choice("half", "about half", f"{why}\nHow far do two kernels go together once one page differs?"),
            Choice("under1", "under 1 %", lambda m: f"It gets further.\n{first(m)}"),
        ],
        answer=nearest,
        right=lambda m: (
            f"{first(m)} {why} Over the whole recording it still hits {_without_shelf().predicted:,} "
            "frames, on lists that are no longer the kernel's."
        ),
        recorded=True,
    )


# --- P9: cure the yard --------------------------------------------------------------------------


def predict_p9(m: Machine, seed: int) -> Question:
    """One page is given back and the block of 16 is free: does the request succeed?"""
    first = KEPT >> PUZZLE_ORDER << PUZZLE_ORDER
    block = f"{first}-{first + (1 << PUZZLE_ORDER) - 1}"

    def give_back(m: Machine) -> tuple[Any, str]:
        before = m.free_pcp("DMA")
        m.__free_pages(m.memmap[KEPT], 0)
        shelf = f"{before} -> {m.free_pcp('DMA')} pages"
        return _ask_64k(m), shelf

    return Question(
        ask=f"One kept page, frame {KEPT}, sits in the middle of frames {block}; the other 15 are free and in the "
        "lists. You give it back and ask for 64 KiB again.",
        code=f"m.__free_pages(page_{KEPT}, 0)\nm.alloc_pages(GFP_DMA | __GFP_NOWARN, {PUZZLE_ORDER})",
        choices=[
            Choice(
                "page",
                f"frames {block}: now all 16 are free",
                lambda m: (
                    "So would every textbook say.\nR3 showed why not. Look for frame "
                    f"{KEPT} on the map: it lies on the shelf ({give_back(m)[1]})."
                ),
            ),
            Choice("null", "NULL", lambda m: f"Here the request gets {give_back(m)[0]!r}."),
        ],
        answer=lambda m: "null" if give_back(m)[0] is NULL else "page",
        right=lambda m: (
            f"Frame {KEPT} went to this CPU's shelf ({give_back(m)[1]}), not to the lists, "
            f"so the block {block} is not whole."
        ),
    )


PREDICTIONS = {
    "P0": predict_p0,
    "R1": predict_r1,
    "R2": predict_r2,
    "R3": predict_r3,
    "R4": predict_r4,
    "P9": predict_p9,
}


# --- Exercise A: can_cut ------------------------------------------------------------------------

Case = tuple[list[int], int]
MASTER = GFP_DMA | __GFP_MEMALLOC | __GFP_NOWARN  # no watermark in the way: only the lists decide


@cache
def _fresh() -> Machine:
    return Machine.from_recording(MACHINE)


@cache
def _puzzle_line() -> tuple[int, ...]:
    """The line after the puzzle: every sixteenth page of the yard is kept."""
    m = _fresh().copy()
    pages = []
    while page := m.alloc_pages(GFP_DMA | __GFP_MEMALLOC, 0):
        pages.append(page)
    for page in pages:
        if page.pfn % 16 != 8:
            m.__free_pages(page, 0)
    return tuple(_line(m))


def _yard(counts: tuple[int, ...]) -> Machine:
    """A machine whose zone DMA has these free blocks and nothing on the shelf."""
    if list(counts) == _line(_fresh()):
        return _fresh().copy()
    zone = _fresh().cat("/proc/zoneinfo").split("\nNode 0, zone    DMA32")[0]
    line = "Node 0, zone      DMA " + " ".join(f"{count:6d}" for count in counts)
    return Machine.from_procfs(buddyinfo=line + "\n", zoneinfo=zone + "\n")


@cache
def _served(counts: tuple[int, ...], order: int) -> Any:
    """What the engine gives for this order on this line: a page, or NULL."""
    return _yard(counts).alloc_pages(MASTER, order)


def truth(nr_free: list[int], order: int) -> bool:
    """True if the engine could cut the block."""
    return bool(_served(tuple(nr_free), order))


@cache
def _random_cases() -> tuple[Case, ...]:
    """200 lines that fit into the yard, one order each; short lines of few blocks and full ones."""
    rng = random.Random(0)
    cases = []
    for number in range(200):
        counts, left = [0] * 11, 1900
        for order in rng.sample(range(11), rng.randint(1, 4) if number >= 3 else 0):
            counts[order] = min(rng.choice((1, 2, 3, 9, 40)), left >> order)
            left -= counts[order] << order
        cases.append((counts, number % 11))
    return tuple(cases)


def _every_order(counts: tuple[int, ...] | list[int]) -> list[Case]:
    """The order of the puzzle first: the first case that fails is the one the learner sees."""
    return [(list(counts), order) for order in (PUZZLE_ORDER, *(k for k in range(11) if k != PUZZLE_ORDER))]


def _source(counts: list[int], order: int) -> int:
    """The order of the block the kernel cuts: the smallest that is large enough."""
    return next(k for k in range(order, len(counts)) if counts[k])


def _words(case: Any, got: bool, want: bool) -> tuple[str, str]:
    counts, order = case
    page = _served(tuple(counts), order)
    got_it = _frames(page, order) if want else "NULL"
    yes, no = ("yes", "no") if got else ("no", "yes")
    return f"{_show(counts)}, order {order}: {got_it}", f"You say {yes}, the kernel says {no}."


def _exact_only(case: Any, got: bool, want: bool) -> str:
    counts, order = case
    return (
        f"Order {order}: you say no, the kernel cut it out of the block of order {_source(counts, order)}. "
        "A larger block can be split."
    )


def _amount(case: Any, got: bool, want: bool) -> str:
    counts, order = case
    return (
        f"This line has {_pages(counts):,} free pages, and the kernel returned NULL for {1 << order}. "
        "The pages must be neighbours."
    )


def _blocks_as_pages(case: Any, got: bool, want: bool) -> str:
    return "You count blocks. A block in column k has 2^k pages, and one block that is large enough will do."


def _no_glue(case: Any, got: bool, want: bool) -> str:
    return (
        f"Order {case[1]} with smaller blocks only: small blocks are never glued together when somebody asks. "
        "They merged when they were freed, or not at all."
    )


MISTAKES = [
    Mistake(lambda nr_free, order: nr_free[order] > 0, _exact_only),
    Mistake(lambda nr_free, order: _pages(nr_free) >= 1 << order, _amount),
    Mistake(
        lambda nr_free, order: any(nr_free[order + 1 :]), "A block of exactly this order is fine: no split is needed."
    ),
    Mistake(lambda nr_free, order: any(nr_free), _no_glue),
    Mistake(
        lambda nr_free, order: any(nr_free[: order + 1]),
        "You look at the columns up to the order. Turn round: a block is cut out of a larger one.",
    ),
    Mistake(
        lambda nr_free, order: any(nr_free[max(order - 1, 0) :]),
        "You begin one column too early: a block of the order below is half of what is asked for.",
    ),
    Mistake(lambda nr_free, order: any(nr_free[order:10]), "The last column counts too: order 10 is the largest."),
    Mistake(lambda nr_free, order: sum(nr_free) >= 1 << order, _blocks_as_pages),
    Mistake(lambda nr_free, order: True, "You always say yes. Some of these requests got NULL."),
    Mistake(lambda nr_free, order: False, "You always say no. Most of these requests got a page."),
]

CAN_CUT = ExerciseSpec(
    letter="A",
    title="can this line serve it?",
    task="Given the eleven numbers of a buddyinfo line, return True if the free lists hold a block from which one "
    "of `order` can be cut. Only the lists count; watermarks come in lesson 05.",
    signature="def can_cut(nr_free: list[int], order: int) -> bool",
    starter="def can_cut(nr_free: list[int], order: int) -> bool:\n    ...\n",
    hints=[
        "Column k counts blocks of 2^k pages. Which columns hold blocks that are large enough?",
        "A block of order 5 is two of order 4, or four of order 3: a larger block serves a smaller request.",
        "Nothing else matters: not how many, not how much in all. Is there one block in the columns from `order` on?",
    ],
    returns=bool,
    checks=comparisons(
        [
            ("the yard of a fresh machine, orders 0 to 10", MACHINE, lambda: _every_order(_line(_fresh()))),
            ("the yard after the puzzle, orders 0 to 10", MACHINE, lambda: _every_order(_puzzle_line())),
            ("the yard of a machine under load, orders 0 to 10", "256M, its /proc", lambda: _every_order(LOADED)),
            ("200 random yards, one order each", "seed 0, 256M", _random_cases),
        ],
        truth,
        MISTAKES,
        _words,
    ),
)

EXERCISES = {"can_cut": CAN_CUT}
