"""Questions of lesson 04, rounds 1 to 3: who is asked first, what a drained pool does, who wakes.

Every number is what the engine does with a pool of numbered elements.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from kmemlab_widgets.questions import Box, BoxesQuestion, Choice, NumberQuestion, Question
from pools_machines import Parts

from kmemlab import GFP_ATOMIC, GFP_KERNEL, GFP_NOIO, GFP_NOWAIT, NULL, Machine, Stuck, show_gfp_flags


class Numbered(Parts):
    """A pool of elements "0", "1", "2" ...; ``freed`` counts those that went to ``free_fn``."""

    def __init__(self, m: Machine, min_nr: int) -> None:
        super().__init__(str)
        self.m, self.freed = m, 0
        self.pool = m.mempool_create(min_nr, self.alloc, self.free, None)

    def free(self, element: Any, pool_data: Any = None) -> None:
        """``free_fn``."""
        self.freed += 1

    def take(self, mask: int = GFP_KERNEL) -> Any:
        """One element."""
        return self.m.mempool_alloc(self.pool, mask)


def fresh(min_nr: int = 4) -> Numbered:
    """A pool on a machine of its own."""
    return Numbered(Machine("linux-6.1", memory="64M"), min_nr)


def drained(min_nr: int = 4) -> Numbered:
    """A pool whose reserve is out and whose allocator is broken."""
    parts = fresh(min_nr)
    parts.works = False
    for _ in range(min_nr):
        parts.take()
    parts.masks.clear()
    return parts


# --- the fire ---------------------------------------------------------------------------------------------------


@cache
def fire(reserve: int, writers: int = 1, pages: int = 200) -> tuple[str, float, int]:
    """All memory is dirty, a request structure is needed for each page written: (what happens, ms, tries).

    ``reserve`` is the pool's min_nr, 0 for none.
    """
    m = Machine("linux-6.1", memory="64M")
    m.sysctl("vm.watermark_boost_factor", 0)
    reqs = m.kmem_cache_create("request", 4096, 0, 0, None)
    tries = [0]

    def alloc_fn(gfp_mask: int, cache: Any) -> Any:
        tries[0] += 1
        return m.kmem_cache_alloc(cache, gfp_mask)

    pool = m.mempool_create(reserve, alloc_fn, m.mempool_free_slab, reqs) if reserve else None
    tries[0] = 0
    dirty = []
    while page := m.alloc_page(0x2000):
        dirty.append(page)
    while m.kmem_cache_alloc(reqs, 0x2000):
        pass  # what the pool's slab had left: others use the cache too
    del dirty[pages:]

    def writeback(k: Any) -> Any:
        while dirty:
            page = dirty.pop()
            if pool:
                req = yield from k.mempool_alloc(pool, GFP_NOIO)
            else:
                req = yield from k.kmem_cache_alloc(reqs, GFP_NOIO)
            yield from k.msleep(5)
            written.append(page)
            k.mempool_free(req, pool) if pool else k.kmem_cache_free(reqs, req)

    written: list[Any] = []
    for n in range(writers):
        m.spawn(writeback, f"kworker/u2:{n}")
    try:
        m.run()
    except Stuck:
        return ("stuck", m.now, tries[0])
    return ("killed" if m.lru.stat["oom_kill"] else "written", m.now, tries[0])


def predict_fire(m: Any, seed: int) -> Question:
    """The writer that needs memory to free memory."""
    return Question(
        ask="All memory is dirty. Whoever writes a page out needs a small request structure first, and "
        "asks for it with "
        "`GFP_NOIO`. What happens?",
        choices=[
            Choice(
                "null",
                "the writer gets NULL and gives up",
                "A single page for somebody who may sleep does not fail.\nIt loops.",
            ),
            Choice(
                "written",
                "kswapd frees a page, and it goes on",
                "Every page is dirty.\nkswapd too would have to wait for the writer.",
            ),
            Choice(
                "killed",
                "the OOM killer ends somebody",
                "GFP_NOIO has no __GFP_FS.\nFor such a request nobody is killed.",
            ),
            Choice("stuck", "nothing, for ever"),
        ],
        answer=fire(0)[0],
        right="To free memory it needs memory. Order 0 with leave to sleep is too small to fail: it loops. "
        "Memory is not "
        "short by much; how many request structures would save the machine? Come back in section 5.",
    )


# --- 1: who is asked first --------------------------------------------------------------------------------------------


def predict_first(m: Any, seed: int) -> NumberQuestion:
    """What is left in reserve after three allocations."""
    parts = fresh()
    for _ in range(3):
        parts.take()
    return NumberQuestion(
        ask="A pool with four elements in reserve. After three allocations, how many are left in reserve?",
        answer=parts.pool.curr_nr,
        unit="elements",
        wrong={
            1: "The pool asks the ordinary allocator first, always.\nThe reserve is for the day it says no.",
            7: "Filling happens at create, at resize and at free.\nAn allocation takes.",
            0: "Three were asked for, and none of them came from there.",
            3: "One was not enough either.\nWho is asked first?",
        },
        otherwise="Who is asked first, the allocator or the reserve?",
        recorded=True,
        right=f"{parts.pool.curr_nr}. First the shop, then the pantry.",
    )


def predict_mask(m: Any, seed: int) -> Question:
    """The mask the allocator sees at the first try."""
    parts = fresh()
    parts.masks.clear()
    parts.take(GFP_KERNEL)
    (mask,) = parts.masks
    return Question(
        ask="`mempool_alloc(pool, GFP_KERNEL)`. Which mask does `alloc_fn` get first?",
        choices=[
            Choice(
                "0xcc0",
                "0xcc0: the one it was given",
                "The first try must not wait.\nIt drops two bits and adds three.",
            ),
            Choice(f"{mask:#x}", f"{mask:#x}"),
            Choice(
                "0x800",
                "0x800: GFP_NOWAIT",
                "Close in spirit.\nIt keeps FS, and adds: do not dig, do not insist, do not shout.",
            ),
            Choice(
                "0xa20",
                "0xa20: GFP_ATOMIC",
                "That one digs in the emergency reserve.\nThe pool has a reserve of its own.",
            ),
        ],
        answer=f"{mask:#x}",
        recorded=True,
        right=f"`{show_gfp_flags(mask)}`: no sleep, no I/O; NOMEMALLOC, NORETRY and NOWARN are added. Try, "
        "but do not wait, "
        "do not dig, do not shout.",
    )


# --- 2: drain it ------------------------------------------------------------------------------------------


def predict_drain(m: Any, seed: int) -> BoxesQuestion:
    """Which elements come when the allocator fails."""
    parts = fresh()
    parts.works = False
    before = len(parts.masks)
    elements = [parts.take() for _ in range(4)]
    tries = (len(parts.masks) - before) // 4
    names = [str(n) for n in range(4)]
    return BoxesQuestion(
        ask="The reserve holds 0, 1, 2, 3, put in in this order. Now `alloc_fn` fails. Which element does "
        "each of four calls "
        "get, and how often is `alloc_fn` asked for each?",
        boxes=[
            *(
                Box(
                    label=f"call {i + 1}",
                    answer=element,
                    options=names,
                    otherwise="The reserve is a stack.\nThe last one put in comes out first.",
                )
                for i, element in enumerate(elements)
            ),
            Box(
                label="alloc_fn asked",
                answer=tries,
                unit="times a call",
                otherwise="With something in reserve it does not insist.\nOne soft try, then the reserve.",
            ),
        ],
        recorded=True,
        right=(
            f"{', '.join(elements)}: last in, first out. {tries} try each: with something in reserve it "
            "does not insist."
        ),
    )


@cache
def when_empty(mask: int) -> str:
    """What an empty pool does for a mask."""
    parts = drained()
    try:
        return "NULL" if parts.take(mask) is NULL else "an element"
    except Stuck:
        return "sleeps"


def predict_empty(m: Any, seed: int) -> BoxesQuestion:
    """What an empty pool does for three masks."""
    options = ("NULL", "sleeps", "an element")
    never = "`Never fails` is for callers who can wait."
    return BoxesQuestion(
        ask="The reserve is empty and `alloc_fn` still fails. What does each mask get?",
        boxes=[
            Box(label=f"`{name}`", answer=when_empty(int(mask)), options=options, wrong=wrong)
            for name, mask, wrong in (
                (
                    "GFP_ATOMIC",
                    GFP_ATOMIC,
                    {
                        "sleeps": f"{never}\nThis mask has no __GFP_DIRECT_RECLAIM.",
                        "an element": "There is none left.\nATOMIC digs in the page allocator, not here.",
                    },
                ),
                (
                    "GFP_NOWAIT",
                    GFP_NOWAIT,
                    {
                        "sleeps": "NOWAIT is its name.",
                        "an element": "There is none left, and nobody is waited for.",
                    },
                ),
                (
                    "GFP_KERNEL",
                    GFP_KERNEL,
                    {
                        "NULL": "A caller who may sleep is never told NULL.\nIt tries in earnest, then sleeps.",
                        "an element": "From where?\nIt waits until somebody gives one back.",
                    },
                ),
            )
        ],
        recorded=True,
        right="Soft try, reserve, hard try, sleep. Who may not sleep stops before the last two.",
    )


# --- 3: who wakes -----------------------------------------------------------------------------------------


@cache
def herd(waiters: int) -> tuple[int, int]:
    """(tasks that wake, tries) when one element comes back to so many waiters."""
    parts = drained()

    def waiter(k: Any) -> Any:
        yield from k.mempool_alloc(parts.pool, GFP_KERNEL)

    for n in range(waiters):
        parts.m.spawn(waiter, f"waiter-{n}")
    parts.m.run(until=100)
    parts.masks.clear()
    parts.m.mempool_free("0", parts.pool)
    parts.m.run(until=200)
    return len(parts.masks), len(parts.masks)


def predict_herd(m: Any, seed: int) -> Question:
    """How many wake for one element."""
    woken = herd(3)[0]
    return Question(
        ask="The pool is empty, three tasks wait. A fourth gives one element back. How many of the three wake up?",
        choices=[
            Choice("1", "one: whoever came first", "There is no line here.\nThe queue wakes everybody; one wins."),
            Choice("3", "all three"),
            Choice(
                "0",
                "none before their 5 seconds are over",
                "They look every 5 seconds by themselves.\nA free wakes them at once.",
            ),
        ],
        answer=str(woken),
        right=f"All {woken}, the last who came first. One gets the element, the others find nothing and sleep again: "
        f"{woken} tries of `alloc_fn` for one element. Do not rely on any order.",
    )


def predict_where(m: Any, seed: int) -> BoxesQuestion:
    """Where a freed element goes."""
    parts = drained()
    parts.m.mempool_free("0", parts.pool)
    empty = "the reserve" if parts.pool.curr_nr == 1 else "the allocator"
    filled = fresh()
    element = filled.take()
    filled.m.mempool_free(element, filled.pool)
    full = "the allocator" if filled.freed else "the reserve"
    options = ("the reserve", "the allocator", "a waiter")
    return BoxesQuestion(
        ask="`mempool_free(e, pool)`, min_nr is 4. Where does the element go?",
        boxes=[
            Box(
                label="0 in reserve",
                answer=empty,
                options=options,
                wrong={
                    "the allocator": "A pool first fills its pantry.\nOnly then it gives memory back.",
                    "a waiter": "Nobody is handed an element.\nIt goes to the reserve, and all who wait are woken.",
                },
            ),
            Box(
                label="4 in reserve",
                answer=full,
                options=options,
                wrong={
                    "the reserve": "It is full: min_nr is the most it keeps.",
                    "a waiter": "Nobody waits where the reserve is full.",
                },
            ),
        ],
        recorded=True,
        right="First the pantry, then the shop. A pool gives memory back only when its reserve is full.",
    )


PREDICTIONS = {
    "fire": predict_fire,
    "first": predict_first,
    "mask": predict_mask,
    "drain": predict_drain,
    "empty": predict_empty,
    "herd": predict_herd,
    "where": predict_where,
}
