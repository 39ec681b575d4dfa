"""Questions of lesson 03b: what a slab report says, and what two readings of slabinfo say."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from kmemlab_widgets.leak_hunt import LeakHunt
from kmemlab_widgets.questions import Box, BoxesQuestion, Choice, NumberQuestion, Question

from kmemlab import GFP_KERNEL, KernelBug, Machine
from kmemlab.slub_reader import SlabReport, read_slab_report

RECORDINGS = Path(__file__).resolve().parent.parent / "recordings"
HUNT = (2, 7)  # level and seed of the puzzle


@cache
def recorded(name: str) -> SlabReport:
    """A report of the real kernel, read."""
    return read_slab_report((RECORDINGS / f"slub_debug_{name}.txt").read_text(encoding="utf-8"))


@cache
def debug_shape(size: int) -> tuple[int, int]:
    """(stride, left guard) in bytes of objects of ``size`` under slub_debug=FZPU."""
    m = Machine("linux-6.1", memory="64M", cmdline="slub_debug=FZPU")
    c = m.kmem_cache_create("shape", size, 0, 0, None)
    return c.size, c.red_left_pad


# --- the puzzle -------------------------------------------------------------------------------------------


@cache
def hunt_kinds() -> dict[str, str]:
    """Driver -> what it does, in the hunt of the puzzle; "leak" for the one that forgets."""
    return {d.name: "leak" if d.guilty else d.kind for d in LeakHunt(*HUNT)._drivers}


GROWTH = {
    "constant": "It is the largest, and it does not grow.\nCompare the two readings.",
    "reclaimable": (
        "It grows, but it gives everything back when it is asked.\nLook at the third table: after drop_caches."
    ),
    "ratchet": "Many slabs, few objects: one tenant holds each of them.\nBut the number of its objects does not grow.",
    "steady": "It takes and gives back; its number stays where it is.\nCompare the two readings.",
}


def predict_growth(m: Any, seed: int) -> Question:
    """Which of the six rows is a leak?"""
    kinds = hunt_kinds()
    return Question(
        ask="Two readings ten minutes apart, and one after caches were dropped. Which driver forgets its objects?",
        choices=[Choice(name, f"`{name}`", GROWTH.get(kind, "")) for name, kind in kinds.items()],
        answer=next(name for name, kind in kinds.items() if kind == "leak"),
        right="It grows, and what has grown does not come back. Where in the driver? No row can tell.",
    )


# --- reading reports ----------------------------------------------------------------------------------------


def predict_past(m: Any, seed: int) -> BoxesQuestion:
    """Which bytes of the object?"""
    r = recorded("write_past_object")
    assert r.offset is not None
    return BoxesQuestion(
        ask="The range of the report and the address in its line `Object 0x...`: which bytes were damaged?",
        boxes=[
            Box(
                label="how many",
                answer=r.length,
                wrong={1: "Both ends of the range count.\n...66c to ...66d are two bytes."},
                otherwise="Last address minus first address plus one.",
            ),
            Box(
                label="the first, counted from the object's first byte",
                answer=r.offset,
                wrong={
                    1644: "That is counted from the slab's beginning.\nSubtract where the object begins.",
                    108: "That is counted from the left guard.\nThe object begins 8 bytes later, see its line.",
                    99: "Counted from 0, byte 99 is the last of 100.\nThe damage begins one later.",
                    101: "0x66c - 0x608.\nThe first byte of an object is number 0.",
                },
                otherwise="0x66c - 0x608, in decimal.",
            ),
        ],
        recorded=True,
        right=f"{r.length} bytes from byte {r.offset} on: the first two behind an object of 100.",
    )


def predict_owner(m: Any, seed: int) -> Question:
    """Whom to ask about an overflow."""
    r = recorded("write_past_object")
    return Question(
        ask="Whom do you ask first about this overflow?",
        choices=[
            Choice(
                "trace",
                f"`{r.caller}`, from the Call Trace",
                "The Call Trace shows who *found* it: the caller of the free.\nThe write was long before.",
            ),
            Choice("owner", f"`{r.allocated}`, from `Allocated in`", "Run on."),
            Choice(
                "check",
                "`check_object`, the function that complains",
                "That is the detective.\nIt compares the guard with 0xcc and reports.",
            ),
            Choice(
                "nobody",
                "nobody: the report cannot know",
                "It cannot prove it, but one line names whoever holds the pointer.\nAn overflow usually comes from the "
                "owner of the object before the guard.",
            ),
        ],
        answer="owner" if r.suspect == r.allocated else "trace",
        recorded=True,
        right="The owner of the object before the guard. The Call Trace names only the finder.",
    )


def predict_before(m: Any, seed: int) -> Question:
    """One byte before an object."""
    r = recorded("write_before_object")
    return Question(
        ask=f"Left guard, one byte, {-(r.offset or 0)} before the object; all other guards are intact. Who wrote it?",
        choices=[
            Choice(
                "left",
                "the left neighbour, past its end",
                "It would have had to cross its own right guard first.\nThat one is intact.",
            ),
            Choice("owner", "the owner of this object, at index -1", "Run on."),
            Choice(
                "free",
                "whoever freed it",
                "The free found it.\n`check_object` looks at the guards before the object goes back.",
            ),
        ],
        answer="owner" if r.suspect == r.allocated else "free",
        recorded=True,
        right="The owner: `p[-1]`. A neighbour's overflow has its own guard to break first.",
    )


def found_when(cmdline: str) -> str:
    """At which call a write after free is reported: "write", "next" or "never"."""
    m = Machine("linux-6.1", memory="64M", cmdline=cmdline)
    c = m.kmem_cache_create("late", 100, 0, 0, None)
    p = m.kmem_cache_alloc(c, GFP_KERNEL)
    m.kmem_cache_free(c, p)
    m.write(p + 10, b"U")
    if "Poison" in m.dmesg():
        return "write"
    for _ in range(c.objects):
        m.kmem_cache_alloc(c, GFP_KERNEL)
    return "next" if "Poison" in m.dmesg() else "never"


def predict_uaf(m: Any, seed: int) -> Question:
    """When a write after free is found."""
    return Question(
        ask="A driver frees an object and writes into it afterwards; the machine runs with "
        "`slub_debug=FZPU`. When does "
        "the kernel notice?",
        choices=[
            Choice(
                "write", "at the write", "A write is one instruction; no allocator sees it.\nKASAN would (at a price)."
            ),
            Choice("free", "at the free", "The free was correct.\nIt filled the object with poison, 6b 6b ... a5."),
            Choice("next", "when the object is allocated again", "Run on."),
            Choice("never", "never", "The poison is looked at once more.\nWho gets the object next?"),
        ],
        answer=found_when("slub_debug=FZPU"),
        recorded=True,
        right="At the next allocation of this object: its poison must be whole. That caller is innocent, and no line "
        "names the writer; begin at `Freed in`.",
    )


def predict_tenant(m: Any, seed: int) -> Question:
    """Two call sites and a call trace in one report."""
    r = recorded("kmalloc_overflow")
    return Question(
        ask="An overflow again, in a `kmalloc-64` this time. Three places are named. Whom do you ask?",
        choices=[
            Choice("owner", f"`{r.allocated}`, Allocated in", "Run on."),
            Choice(
                "freed",
                f"`{r.freed}`, Freed in",
                "That was the *previous* tenant of these 64 bytes.\nIt had given them up before the owner took them.",
            ),
            Choice(
                "trace",
                f"`{r.caller}`, Call Trace",
                "It called `kfree`, and that is where it was found.\nFound is not done.",
            ),
        ],
        answer="owner" if r.suspect == r.allocated else "trace",
        recorded=True,
        right=f"The owner, `{r.allocated}`. `{r.freed}` lived here before and is innocent.",
    )


def predict_inner(m: Any, seed: int) -> NumberQuestion:
    """An address inside an object."""
    kmalloc_64 = Machine("linux-6.1", memory="64M", cmdline="slub_debug=FZPU").find_cache("kmalloc-64")
    stride, pad = kmalloc_64.size, kmalloc_64.red_left_pad
    offset = (0x848 - pad) % stride
    return NumberQuestion(
        ask="`kfree(p)` was given `...848`. In this `kmalloc-64` under debugging an object stands every "
        f"{stride} bytes, "
        f"and each has {pad} bytes of guard before it. How many bytes inside its object does `p` point?",
        answer=offset,
        unit="bytes",
        wrong={
            72: f"You forgot the guard.\nSubtract its {pad} bytes first.",
            2120: "That is the place in the page.\nTake the guard off and divide by the stride; what is the rest?",
            2056: "Now divide by the stride.\nThe rest is what is asked.",
            0: "Then it would have been right to free it.",
        },
        otherwise=f"0x848 = 2,120. Take off {pad}, divide by {stride}: the rest.",
        recorded=True,
        right=f"{offset}: slot {(0x848 - pad) // stride} begins at {0x848 - offset:#x}. Somebody moved the "
        "pointer before "
        "freeing it, and the Call Trace names the place.",
    )


def predict_slot(m: Any, seed: int) -> NumberQuestion:
    """From an offset to an object's number."""
    stride, pad = debug_shape(100)
    return NumberQuestion(
        ask="A cache was destroyed with one object out: `Object ... @offset=1160`. Objects of 100 bytes "
        f"stand {stride} "
        f"apart here, {pad} bytes of guard before each. Which object, counted from 0?",
        answer=(1160 - pad) // stride,
        wrong={
            11: "104 is the stride without debugging.\nWith guards, tracks and padding it is 192.",
            7: "Counted from 1.\nThe first object is number 0.",
            1152: "Divide by the stride.",
        },
        otherwise=f"(1160 - {pad}) / {stride}",
        recorded=True,
        right=f"{(1160 - pad) // stride}. Below it stands who allocated it; without debugging that line and "
        "the address "
        "are missing.",
    )


NAMES = {
    "write_past_object": "write past the end",
    "write_before_object": "write before the beginning",
    "use_after_free": "use after free",
    "double_free": "double free",
    "free_to_wrong_cache": "free to the wrong cache",
    "kfree_inner_pointer": "kfree of an inner pointer",
    "destroy_with_live_objects": "destroy with an object out",
}


def trace_names(name: str) -> str:
    """Does the Call Trace name the culprit?"""
    r = recorded(name)
    return "yes" if r.suspect and r.suspect == r.caller else "no"


def predict_trace(m: Any, seed: int) -> BoxesQuestion:
    """For which crimes does the Call Trace name the culprit?"""
    late = "The trace shows who freed, and so who *found* it.\nThe write was earlier; ask `Allocated in`."
    wrong: dict[str, dict[str, str]] = {
        "write_past_object": {"yes": late},
        "write_before_object": {"yes": "Found at the free too.\nThe guard was broken long before."},
        "use_after_free": {"yes": "Found at the next allocation.\nThat caller only asked for memory."},
        "double_free": {"no": "The second free is the crime.\nIt is on the stack when it is found."},
        "free_to_wrong_cache": {
            "no": "The call with the wrong cache is being made.\nThe frame after `kmem_cache_free`."
        },
        "kfree_inner_pointer": {"no": "The call with the wrong pointer is being made.\nThe frame after `kfree`."},
        "destroy_with_live_objects": {"yes": "The trace shows who destroys.\nWho forgot is under `Allocated in`."},
    }
    return BoxesQuestion(
        ask="Does the Call Trace name the culprit?",
        boxes=[
            Box(label=words, answer=trace_names(name), options=("yes", "no"), wrong=wrong[name])
            for name, words in NAMES.items()
        ],
        recorded=True,
        right="Yes where the crime *is* the call. No where the call only found it.",
    )


def silent_overflow() -> str:
    """What the kernel says to two bytes past an object when nothing is debugged."""
    m = Machine("linux-6.1", memory="64M", cmdline="slab_nomerge")
    c = m.kmem_cache_create("plain", 100, 0, 0, None)
    a, b = (m.kmem_cache_alloc(c, GFP_KERNEL) for _ in "ab")
    try:
        m.write(a + 100, b"AB" * 4)
        m.kmem_cache_free(c, a)
        m.kmem_cache_free(c, b)
    except KernelBug:
        return "stop"
    return "report" if "BUG" in m.dmesg() else "nothing"


def predict_silent(m: Any, seed: int) -> Question:
    """The same overflow without debugging."""
    return Question(
        ask="Eight bytes past the end of a 100-byte object, on a machine without `slub_debug`; the object "
        "is freed. What "
        "does the kernel say?",
        choices=[
            Choice("nothing", "nothing", "Run on."),
            Choice(
                "report",
                "a report, only shorter",
                "There is no guard that could be looked at.\n104 bytes apart, the next object begins right there.",
            ),
            Choice(
                "stop",
                "it stops",
                (
                    "Only a damaged *free pointer* can stop it.\nThese eight bytes lie in the gap and in "
                    "the neighbour's first bytes."
                ),
            ),
        ],
        answer=silent_overflow(),
        right="Nothing. Four bytes fell into the gap, four are now the neighbour's first.",
    )


def fate_of_object() -> str:
    """What becomes of an object whose guard was found broken at its free."""
    m = Machine("linux-6.1", memory="64M", cmdline="slub_debug=FZPU")
    c = m.kmem_cache_create("broken", 100, 0, 0, None)
    p = m.kmem_cache_alloc(c, GFP_KERNEL)
    m.write(p + 100, b"!")
    m.kmem_cache_free(c, p)
    again = [m.kmem_cache_alloc(c, GFP_KERNEL) for _ in range(2 * c.objects)]
    return "reused" if p in again else "given up"


def predict_after(m: Any, seed: int) -> Question:
    """What happens to the damaged object."""
    return Question(
        ask="`FIX ...: Restoring Right Redzone`, `FIX ...: Object at ... not freed`. What becomes of the object?",
        choices=[
            Choice(
                "reused",
                "it is repaired and given to the next caller",
                "The guard is repaired, the object is not trusted.\nRead the second FIX line again.",
            ),
            Choice("given up", "it stays allocated for ever", "Run on."),
            Choice(
                "slab",
                "its whole slab is thrown away",
                (
                    "That is what happens after a *poison* error: all its objects are marked used.\nHere "
                    "the list was never wrong."
                ),
            ),
        ],
        answer=fate_of_object(),
        recorded=True,
        right="It is given up: one object leaked, the machine lives on.",
    )


PREDICTIONS = {
    "growth": predict_growth,
    "past": predict_past,
    "owner": predict_owner,
    "before": predict_before,
    "uaf": predict_uaf,
    "tenant": predict_tenant,
    "inner": predict_inner,
    "slot": predict_slot,
    "trace": predict_trace,
    "silent": predict_silent,
    "after": predict_after,
}
