"""Questions of lesson 02, part 2: what it costs and how it fails. The engine computes every number and verdict."""

from __future__ import annotations

from functools import cache
from typing import Any

from kmemlab_widgets.questions import Box, BoxesQuestion, Choice, NumberQuestion, Question
from sizes_given import OLD, percent, small, traced

from kmemlab import __GFP_NORETRY, __GFP_NOWARN, GFP_ATOMIC, GFP_KERNEL, KernelBug, Machine

# --- 4: waste --------------------------------------------------------------------------------------------


@cache
def average_waste(largest: int = 8192) -> float:
    """Percent of the given bytes that are not used when all sizes are equally likely."""
    sizes = range(1, largest + 1)
    got = [small().kmalloc_size_roundup(size) for size in sizes]
    return percent(sum(got) - sum(sizes), sum(got))


def predict_average(m: Any, seed: int) -> NumberQuestion:
    """The average over all sizes."""
    half = (
        "Half is the worst point of a tooth, not its average.\nOver a class the waste falls from one half to nothing."
    )
    low = "Too little.\nTry sizes just above an edge: 4,097, 2,049, 1,025."
    return NumberQuestion(
        ask="All sizes from 1 to 8,192 equally often: which share of the given bytes is never used?",
        answer=average_waste(),
        tolerance=3,
        unit="%",
        wrong={
            50: half,
            49: half,
            48: half,
            45: half,
            40: "Less: most sizes are in the large classes, far from their edges.",
            5: low,
            10: low,
            2: low,
            1: low,
            0: low,
        },
        otherwise="Not quite. Picture one tooth: it falls from nearly one half to nothing.",
        right=f"{average_waste()} %.",
    )


def predict_real(m: Any, seed: int) -> NumberQuestion:
    """The same share in a real kernel."""
    asked, got = (sum(column) for column in zip(*traced(), strict=True))
    pages = sum(a == 4096 for a, _ in traced())
    return NumberQuestion(
        ask=f"A real 6.1 kernel was traced while small programs ran: {len(traced())} calls of `kmalloc`, "
        f"{asked:,} bytes asked for. Which share of the given bytes was waste?",
        answer=percent(got - asked, got),
        tolerance=3,
        unit="%",
        wrong={
            25: f"That would hold if all sizes were equally likely.\n"
            f"{pages} of these {len(traced())} calls ask for exactly 4,096."
        },
        otherwise=f"Real sizes are not spread evenly: {pages} of {len(traced())} calls ask for exactly 4,096.",
        recorded=True,
        right=f"{percent(got - asked, got)} %: {asked:,} asked, {got:,} given. People who know the ladder ask on its "
        f"rungs.",
    )


# --- 5: krealloc --------------------------------------------------------------------------------------------


def predict_realloc(m: Any, seed: int) -> BoxesQuestion:
    """Three steps of one block."""
    twin = small().copy()
    p = twin.kmalloc(65, GFP_KERNEL)
    said = []
    for size in (96, 97, 8):
        q = twin.krealloc(p, size, GFP_KERNEL)
        said.append("same" if q == p else "moved")
        p = q
    wrong = [
        {"moved": "65 bytes already got 96.\nIt fits where it is."},
        {"same": "97 do not fit into 96.\nThe next rung is 128, in other pages."},
        {"moved": "krealloc never moves down.\nThe 120 bytes that are now spare stay yours until `kfree`."},
    ]
    labels = ("kmalloc(65), then krealloc to 96", "then to 97", "then to 8")
    options = ("same", "moved")
    return BoxesQuestion(
        ask="Does the block stay where it is?",
        boxes=[Box(label=a, answer=b, wrong=c, options=options) for a, b, c in zip(labels, said, wrong, strict=True)],
        recorded=True,
        right="It moves only when the block is too small; shrinking gives nothing back.",
    )


# --- 6: breaking it -------------------------------------------------------------------------------------------


def predict_zero(m: Any, seed: int) -> Question:
    """kmalloc(0)."""

    def answer(_: Any) -> str:
        p = small().kmalloc(0, GFP_KERNEL)
        if not p:
            return "null"
        try:
            small().read(p, 1)
        except KernelBug:
            return "pointer"
        return "smallest"

    return Question(
        ask="`kmalloc(0, GFP_KERNEL)` gives",
        choices=[
            Choice("null", "NULL", "NULL means that a request failed.\nAsking for nothing is no failure."),
            Choice("error", "an error", "`kmalloc` has no errors, only pointers and NULL."),
            Choice("pointer", "a pointer nobody may touch", "Run it."),
            Choice(
                "smallest", "the smallest block", "2.6.11 did that.\nSince then a touch of nothing is caught at once."
            ),
        ],
        answer=answer,
        recorded=True,
        right="`ZERO_SIZE_PTR`, address 16: not NULL, so the caller goes on; whoever touches it meets a page fault.",
    )


@cache
def first_report(size: int = 50) -> int:
    """The first byte behind ``size`` asked whose overwriting slub_debug reports."""
    for offset in range(size, 80):
        m = Machine("linux-6.1", memory="64M", cmdline="slub_debug=FZPU")
        p = m.kmalloc(size, GFP_KERNEL)
        m.write(p + offset, b"!")
        m.kfree(p)
        if "Redzone overwritten" in m.dmesg():
            return offset
    return -1


def predict_redzone(m: Any, seed: int) -> Question:
    """Which write behind 50 bytes is seen?"""
    return Question(
        ask="A machine booted with `slub_debug=FZPU` guards every object. Into `kmalloc(50)` one byte is written at "
        "50, at 63, at 64. At which of them does the kernel complain first?",
        choices=[
            Choice(
                "50",
                "50: the first byte not asked for",
                "The guard stands behind the block, not behind your request.\n"
                "Bytes 50 to 63 are slack: yours, though you did not ask for them.",
            ),
            Choice("63", "63", "63 is the last byte you own by `ksize`."),
            Choice("64", "64", "Run it."),
            Choice(
                "never",
                "never: only freed memory is watched",
                "There are guards on both sides of the block.\nThey are looked at when it is freed.",
            ),
        ],
        answer=str(first_report()),
        right=f"{first_report()}: 6.1 guards the class, not the request. An overflow into the slack is silent.",
    )


# --- 7: kvmalloc ------------------------------------------------------------------------------------------------


def kv_succeeds(m: Machine) -> list[str]:
    """Which of the four calls get memory. A NotImplementedError is where vmalloc would take over, and succeed."""
    calls = {
        "kmalloc": lambda: m.kmalloc(131072, GFP_KERNEL | __GFP_NORETRY | __GFP_NOWARN),
        "kvmalloc": lambda: m.kvmalloc(131072, GFP_KERNEL),
        "page": lambda: m.kvmalloc(4096, GFP_KERNEL),
        "atomic": lambda: m.kvmalloc(131072, GFP_ATOMIC | __GFP_NOWARN),
    }
    got = []
    for key, call in calls.items():
        try:
            if call():
                got.append(key)
        except NotImplementedError:
            got.append(key)
    return got


def predict_kv(m: Machine, seed: int) -> Question:
    """Four calls in broken memory."""
    free = sum(zone.nr_free_pages for zone in m.snapshot().zones) * 4 // 1024
    return Question(
        ask=f"{free} MiB are free, but no two neighbouring pages. Which calls get memory? (Tick all.)",
        multi=True,
        choices=[
            Choice(
                "kmalloc",
                "kmalloc(131072, GFP_KERNEL | __GFP_NORETRY)",
                "Free is not the same as free in one piece.\n128 KiB are 32 neighbouring pages.",
            ),
            Choice("kvmalloc", "kvmalloc(131072, GFP_KERNEL)"),
            Choice("page", "kvmalloc(4096, GFP_KERNEL)"),
            Choice(
                "atomic",
                "kvmalloc(131072, GFP_ATOMIC)",
                "vmalloc has to sleep.\nWith a mask that may not, `kvmalloc` is only `kmalloc`.",
            ),
        ],
        answer=lambda m: tuple(kv_succeeds(m)),
        recorded=True,
        right="`kvmalloc` asks for one piece first, politely; if there is none and the caller may sleep, it maps "
        "single pages in a row.",
    )


# --- 8: the puzzle again ---------------------------------------------------------------------------------------


def sent(length: int, cmdline: str) -> int:
    """Bytes of the secret in a reply of 10 bytes of which ``length`` are sent."""
    m = Machine("linux-6.1", memory="64M", cmdline=cmdline)
    p = m.kmalloc(64, GFP_KERNEL)
    m.write(p, OLD)
    m.kfree(p)
    reply = m.kmalloc(40, GFP_KERNEL)
    m.write(reply, b"220 hello\n")
    got = m.read(reply, length)
    return sum(
        end - max(10, start)
        for start, end in ((0, 32), (32, 40), (40, 64))
        if end <= length and got[max(10, start) : end] == OLD[max(10, start) : end]
    )


def predict_wire(m: Any, seed: int) -> BoxesQuestion:
    """What goes out on the wire."""
    off = "init_on_alloc=0"
    all64, only40, debian = sent(64, off), sent(40, off), sent(64, "")
    why64 = "64 in the block, 10 overwritten by the reply, 8 by the free pointer."
    return BoxesQuestion(
        ask="The reply writes 10 bytes of its own. How many bytes of the secret leave the machine when the driver "
        "sends",
        boxes=[
            Box(
                label="all 64 (init_on_alloc=0)",
                answer=all64,
                otherwise=why64,
                unit="bytes",
            ),
            Box(
                label="only the 40 it asked for (init_on_alloc=0)",
                answer=only40,
                wrong={
                    0: "The 30 bytes behind the reply's own 10 are inside the 40.",
                    30: "8 of these 30 are the free pointer.",
                },
                otherwise="40 sent, 10 are its own, 8 are the free pointer.",
                unit="bytes",
            ),
            Box(label="all 64, Debian as built", answer=debian, otherwise="It zeroes what it hands out.", unit="bytes"),
        ],
        right=f"{all64}, {only40} and {debian}.",
    )


PREDICTIONS = {
    "average": predict_average,
    "real": predict_real,
    "realloc": predict_realloc,
    "zero": predict_zero,
    "redzone": predict_redzone,
    "kv": predict_kv,
    "wire": predict_wire,
}
