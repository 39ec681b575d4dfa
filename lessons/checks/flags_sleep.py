"""Questions of lesson 01, part 1: where code runs, the bit that allows sleeping, how deep a mask may drink.

Every verdict is the engine's: a machine is put into the place and asked.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from typing import Any

from kmemlab_widgets.questions import Box, BoxesQuestion, Choice, NumberQuestion, Question

from kmemlab import (
    __GFP_DMA,
    __GFP_FS,
    __GFP_HIGH,
    __GFP_IO,
    __GFP_NOWARN,
    GFP_ATOMIC,
    GFP_DMA,
    GFP_KERNEL,
    GFP_NOIO,
    GFP_NOWAIT,
    Machine,
)

CHECKED = ("DEBUG_ATOMIC_SLEEP",)
PLACES: dict[str, Callable[[Machine], Any]] = {
    "process": lambda m: nullcontext(),
    "mutex": lambda m: m.mutex_lock("lock"),
    "spinlock": lambda m: m.spin_lock("lock"),
    "rcu": lambda m: m.rcu_read_lock(),
    "bh off": lambda m: m.local_bh_disable(),
    "irqs off": lambda m: m.local_irq_save(),
    "timer": lambda m: m.softirq(),
    "interrupt": lambda m: m.hardirq(),
}
WORDS = {
    "process": "a process, nothing held",
    "mutex": "a process that holds a mutex",
    "spinlock": "a process that holds a spinlock",
    "rcu": "a process inside rcu_read_lock",
    "bh off": "a process with bottom halves off",
    "irqs off": "a process with interrupts off",
    "timer": "a timer's function",
    "interrupt": "an interrupt handler",
}


def fill(m: Machine) -> None:
    """Take what is free down to min, as somebody who does not wait."""
    with m.preempt_disable():
        while m.alloc_pages(__GFP_NOWARN, 0):
            pass


def full() -> Machine:
    """A machine on which nothing can be reclaimed: two processes, and somebody who took the rest down to min."""
    m = Machine("linux-6.1", memory="64M")
    m.sysctl("vm.watermark_boost_factor", 0)
    m.process("browser", "24M")
    m.process("editor", "8M")
    fill(m)
    return m


@cache
def said(place: str, *, memory: str = "plenty", config: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The complaints in the log after ``kmalloc(64, GFP_KERNEL)`` in a place."""
    m = full() if memory == "full" else Machine("linux-6.1", memory="64M", config=config)
    with PLACES[place](m):
        if memory == "full":
            m.alloc_pages(GFP_KERNEL, 0)
        else:
            m.kmalloc(64, GFP_KERNEL)
    return tuple(line for line in m.dmesg().splitlines() if line.startswith(("BUG", "WARNING")))


def speaks(**kwargs: Any) -> list[str]:
    """The places in which the kernel complains."""
    return [place for place in PLACES if said(place, **kwargs)]


# --- the puzzle -------------------------------------------------------------------------------------------


def predict_changed(m: Any, seed: int) -> Question:
    """What is different in the second half of the puzzle."""
    same = "Compare the two cells.\nThe same function, the same {}."
    return Question(
        ask="A thousand packets without a word, then this. What changed?",
        choices=[
            Choice("driver", "the driver: another path of its code", same.format("line of it, the same mask")),
            Choice("kernel", "the kernel: another version or setting", same.format("machine, never restarted")),
            Choice("size", "the size that is asked for", same.format("256 bytes")),
            Choice("memory", "how much memory was free"),
        ],
        answer="memory",
        recorded=True,
        right="Only that. With memory free, `kmalloc` finds an object on the CPU's own shelf and no question is asked. "
        "With memory gone the same call has to make some, and for that it sleeps.",
    )


# --- 1: eight places ------------------------------------------------------------------------------------------


def predict_places(m: Any, seed: int) -> Question:
    """Where the check speaks, with plenty of memory."""
    why = {
        "process": "A process may be put aside.\nNobody spins for it meanwhile.",
        "mutex": "A mutex may be held while sleeping.\nWhoever wants it sleeps too.",
    }
    return Question(
        ask=(
            "This kernel is built with `DEBUG_ATOMIC_SLEEP`, and memory is plenty. In which places does "
            "`kmalloc(64, GFP_KERNEL)` bring a complaint?"
        ),
        choices=[Choice(place, words, why.get(place, "")) for place, words in WORDS.items()],
        multi=True,
        answer=speaks(config=CHECKED),
        right=(
            "Six of eight, recorded in all but the mutex. The check asks what *may* happen, not what happens: it "
            "speaks even where no sleep was needed."
        ),
        note="all that apply; then run the next cell",
    )


def _report(place: str) -> str:
    """The two lines of a report that tell the place."""
    m = Machine("linux-6.1", memory="64M", config=CHECKED)
    with PLACES[place](m):
        m.kmalloc(64, GFP_KERNEL)
    lines = m.dmesg().splitlines()
    atomic, irqs = lines[1].split(", ")[:2]
    count, depth = lines[2].split(",")[0], lines[3].split(",")[0]
    return f"{atomic}, {irqs}; {count}; {depth}"


def predict_match(m: Any, seed: int) -> BoxesQuestion:
    """Six reports, six places."""
    places = speaks(config=CHECKED)
    order = random.Random(seed).sample(places, len(places))
    words = [WORDS[place].removeprefix("a process that ").removeprefix("a process ") for place in places]
    hint = {
        "spinlock": "The lowest byte of preempt_count counts spinlocks and preempt_disable.",
        "rcu": "RCU has a counter of its own.",
        "bh off": "Bottom halves off add 0x200: softirqs, counted by twos.",
        "irqs off": "preempt_count knows nothing of it; there is a field for it.",
        "timer": "A softirq that runs counts 0x100.",
        "interrupt": "A hard interrupt counts 0x10000, and interrupts are off in it.",
    }
    return BoxesQuestion(
        ask="Each report tells the place. Which is which?",
        boxes=[
            Box(label=f"`{_report(place)}`", answer=words[places.index(place)], options=words, otherwise=hint[place])
            for place in order
        ],
        recorded=True,
        right=(
            "preempt_count in hexadecimal: 1 a spinlock, 100 a softirq, 200 bottom halves off, 10000 a hard interrupt."
        ),
    )


def predict_debian(m: Any, seed: int) -> Question:
    """Debian's kernel on a full machine."""
    spoken = speaks(memory="full")
    silent = [place for place in WORDS if place not in (*spoken, "process", "mutex")]
    why = {
        "rcu": "The scheduler looks at preempt_count, and a reader does not raise it.\nIt slept, and not a word.",
        "irqs off": "Interrupts off do not raise preempt_count.\nIt slept, and not a word.",
    }
    return Question(
        ask=(
            "Debian's own kernel, without that check. With memory free it says nothing in any of these places. Now "
            "memory is full and `GFP_KERNEL` really sleeps. Where does the kernel complain?"
        ),
        choices=[Choice(place, WORDS[place], why.get(place, "")) for place in speaks(config=CHECKED)],
        multi=True,
        answer=spoken,
        recorded=True,
        right=(
            "`BUG: scheduling while atomic` in four. In the other two "
            f"({' and '.join(WORDS[place].removeprefix('a process ') for place in silent)}) the call slept, the "
            "protection was gone meanwhile, and nobody ever learns of it."
        ),
        note="all that apply; then run the next cell",
    )


# --- 2: the bit ---------------------------------------------------------------------------------------------------


def sleeps(mask: int) -> bool:
    """Whether the kernel with the check complains about a mask under a spinlock."""
    m = Machine("linux-6.1", memory="64M", config=CHECKED)
    with m.spin_lock("lock"):
        m.alloc_pages(mask | __GFP_NOWARN, 0)
    return bool(m.dmesg())


def predict_onebit(m: Any, seed: int) -> Question:
    """Which masks may sleep."""
    masks = {
        "io": (GFP_NOWAIT | __GFP_IO | __GFP_FS, "`GFP_NOWAIT|__GFP_IO|__GFP_FS`",
               "IO and FS say what reclaim may do if it may run.\nWithout 0x400 it never runs for you."),
        "noio": (GFP_NOIO, "`GFP_NOIO`", "NOIO takes IO and FS away, not the sleep.\nIt still has 0x400."),
        "dma": (GFP_DMA, "`GFP_DMA`", ("A zone bit and nothing else: no permission in it.\nWho may sleep "
                "writes `GFP_KERNEL|GFP_DMA`.")),
        "high": (__GFP_HIGH, "`__GFP_HIGH`", "It opens a part of the reserve.\nTo drink deeper is not to wait."),
    }  # fmt: skip
    return Question(
        ask="Which of these masks may sleep?",
        choices=[Choice(key, text, why) for key, (_, text, why) in masks.items()],
        multi=True,
        answer=[key for key, (mask, _, _) in masks.items() if sleeps(int(mask))],
        right=(
            "Only `GFP_NOIO` (0xc00). May it sleep? means: is `__GFP_DIRECT_RECLAIM` (0x400) in it? "
            "Nothing else counts."
        ),
        note="all that apply; then run the next cell",
    )


# --- 3: how deep ----------------------------------------------------------------------------------------------------


@cache
def stops(*masks: int) -> tuple[int, ...]:
    """Free pages of zone DMA at which each mask in turn gets NULL, on the recorded machine."""
    m = Machine.from_recording("256M-a-21")
    zone = m.zones[0]
    levels = []
    for mask in masks:
        while m.alloc_pages(mask | __GFP_DMA | __GFP_NOWARN, 0):
            pass
        levels.append(zone.nr_free_pages)
    return tuple(levels)


def predict_atomic(m: Any, seed: int) -> NumberQuestion:
    """Where GFP_ATOMIC stops in zone DMA."""
    nowait, atomic = stops(int(GFP_NOWAIT), int(GFP_ATOMIC))
    low = Machine.from_recording("256M-a-21").zones[0].wmark[0]
    half = low - low // 2
    return NumberQuestion(
        ask=f"Zone DMA: min is {low} pages. `GFP_NOWAIT` gets NULL when {nowait} are free. With how many "
        "free pages does "
        "`GFP_ATOMIC` get NULL?",
        answer=atomic,
        unit="pages free",
        wrong={
            0: "The last pages are for code that frees memory (`__GFP_MEMALLOC`).\nATOMIC stops before.",
            half: (
                f"__GFP_HIGH halves {low}.\nA request that cannot sleep gets another quarter off: {half} - {half // 4}."
            ),
            3
            * low
            // 8: f"Nearly: 3/8 of {low} is {3 * low / 8}.\nThe kernel rounds each step down for itself: {low} - "
            f"{low // 2} = {half}, {half} - {half // 4} = {half - half // 4}.",
            nowait: "That is where GFP_NOWAIT stops.\nGFP_ATOMIC has __GFP_HIGH besides.",
            low // 4: "A quarter of the *rest* goes, not a quarter of min.",
        },
        otherwise=f"Two steps: __GFP_HIGH takes half of {low} off, not sleeping takes a quarter off the rest.",
        right=(
            f"{low} - {low // 2} = {half}, {half} - {half // 4} = {atomic}. With {atomic + 1} free it still "
            "gets a page."
        ),
    )


@cache
def boosted(mask: int) -> int:
    """Free pages of zone DMA32 at which a mask gets NULL, on the recorded machine, whose boost grows meanwhile."""
    m = Machine.from_recording("256M-a-21")
    while m.alloc_pages(mask | __GFP_NOWARN, 0):
        pass
    return int(m.zones[-1].nr_free_pages)


def predict_bit200(m: Any, seed: int) -> Question:
    """GFP_ATOMIC without its bit 0x200, in the yard."""
    mine, other = stops(int(GFP_ATOMIC))[0], stops(int(GFP_NOWAIT | __GFP_HIGH))[0]
    return Question(
        ask="In 6.1 `GFP_ATOMIC` has a bit of its own, 0x200. Take it away: `GFP_NOWAIT|__GFP_HIGH`. Does "
        "this mask reach "
        "deeper into zone DMA, as deep, or less deep?",
        choices=[
            Choice("deeper", "deeper", "A bit less cannot be a right more."),
            Choice("same", "as deep"),
            Choice(
                "less",
                f"less deep: it stops at {stops(int(GFP_NOWAIT))[0]}",
                "The right comes from __GFP_HIGH, and from not sleeping.\n0x200 is not asked for either.",
            ),
            Choice(
                "half", "less deep: half of min", "Half is for masks with __GFP_HIGH that may sleep.\nThis one cannot."
            ),
        ],
        answer="same" if mine == other else "deeper" if other < mine else "less",
        right=lambda _: (
            f"The same: {other}. The bit counts elsewhere: an order-0 request with it ignores a "
            "*boosted* watermark. In "
            "DMA32, whose marks get a boost on the way down, this mask stops at "
            f"{boosted(int(GFP_NOWAIT | __GFP_HIGH))} "
            f"free pages, GFP_ATOMIC at {boosted(int(GFP_ATOMIC))}. Kernel 6.3 removed the bit."
        ),
    )


PREDICTIONS = {
    "changed": predict_changed,
    "places": predict_places,
    "match": predict_match,
    "debian": predict_debian,
    "onebit": predict_onebit,
    "atomic": predict_atomic,
    "bit200": predict_bit200,
}
