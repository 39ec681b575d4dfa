"""Questions of lesson 01 on the words of a mask: zones, several kernels, reports, what programs ask with."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from kmemlab_widgets.questions import Choice, NumberQuestion, Question

from kmemlab import (
    __GFP_DIRECT_RECLAIM,
    __GFP_HIGHMEM,
    __GFP_NOWARN,
    GFP_ATOMIC,
    GFP_KERNEL,
    Machine,
    show_gfp_flags,
)
from kmemlab.failure_reader import read_failure_reports

RECORDINGS = Path(__file__).resolve().parent.parent / "recordings"
BITS_32 = "1024M-i386-e-313"


# --- zones ------------------------------------------------------------------------------------------------------


@cache
def left_over(mask: int) -> dict[str, int]:
    """Free pages by zone of the 32-bit machine, after single pages were taken with a mask until NULL."""
    m = Machine.from_recording(BITS_32)
    quiet = mask & ~__GFP_DIRECT_RECLAIM | __GFP_NOWARN
    while m.alloc_pages(quiet, 0):
        pass
    return {zone.name: zone.nr_free_pages for zone in m.zones}


def predict_lowmem(m: Any, seed: int) -> Question:
    """What GFP_KERNEL leaves on a 32-bit machine."""
    left = left_over(int(GFP_KERNEL))
    mib = sum(left.values()) / 256
    buckets = {"nothing": 1, "ten": 10, "much": 215}
    answer = min(buckets, key=lambda key: abs(buckets[key] - mib))
    return Question(
        ask="A 32-bit machine with 1 GiB. Pages are taken with GFP_KERNEL, without reclaim, until NULL. "
        "How much memory is "
        "still free?",
        choices=[
            Choice(
                "nothing",
                "nearly nothing",
                "A kernel pointer must work without a mapping.\nOnly the first 896 MiB have one.",
            ),
            Choice("ten", "about 10 MiB: the reserve", "The reserves are there too.\nWhich zone was never asked?"),
            Choice("much", "about 215 MiB"),
        ],
        answer=answer,
        right=f"{mib:.0f} MiB, of which {left['HighMem'] / 256:.1f} MiB are HighMem, untouched. GFP_HIGHUSER "
        "begins there and "
        "comes down: the word names the highest zone, the fallback goes downwards.",
    )


@cache
def fixed_up(calls: int) -> tuple[int, ...]:
    """In which of so many calls kmalloc(64, GFP_KERNEL|__GFP_HIGHMEM) brought a complaint; the cache is warm."""
    m = Machine("linux-6.1", memory="64M")
    for _ in range(55):
        m.kmalloc(64, GFP_KERNEL)
    heard = []
    for n in range(calls):
        before = m.dmesg().count("Fix your code")
        m.kmalloc(64, GFP_KERNEL | __GFP_HIGHMEM)
        if m.dmesg().count("Fix your code") > before:
            heard.append(n + 1)
    return tuple(heard)


def predict_highmem(m: Any, seed: int) -> Question:
    """How often kmalloc complains about __GFP_HIGHMEM."""
    heard = fixed_up(100)
    return Question(
        ask="`kmalloc(64, GFP_KERNEL|__GFP_HIGHMEM)`, a hundred times. A slab object needs an address, "
        "HighMem has none. How "
        "often does the kernel complain?",
        choices=[
            Choice("each", "each time", "The test stands where a slab needs pages.\nMost calls never get there."),
            Choice("some", "in one or two calls"),
            Choice("never", "never: the bit is taken away silently", "Go on calling.\nThe shelf of objects runs out."),
        ],
        answer="never" if not heard else "each" if len(heard) == 100 else "some",
        recorded=True,
        right=f"In the calls {' and '.join(map(str, heard))}: those needed a new slab. A test of two minutes "
        "would have "
        "passed in silence.",
    )


# --- one word, several kernels ---------------------------------------------------------------------------------------


def predict_d0(m: Any, seed: int) -> Question:
    """May 0xd0 sleep?"""
    old, new = show_gfp_flags(0xD0, "linux-2.6.11"), show_gfp_flags(0xD0, "linux-6.1")
    then, now = "GFP_KERNEL" in old, bool(0xD0 & __GFP_DIRECT_RECLAIM)
    return Question(
        ask="A driver from 2005 has the number 0xd0 in its source. May this request sleep?",
        choices=[
            Choice(
                "yes", "yes", f"In 2.6.11: {old}.\nIn 6.1 the bit that allows it is 0x400, and 0xd0 does not have it."
            ),
            Choice("no", "no", f"In 6.1: {new}.\nIn 2.6.11 the bit 0x10 was __GFP_WAIT."),
            Choice("depends", "it depends on the kernel it is compiled for"),
        ],
        answer="depends" if then != now else "yes" if now else "no",
        right=f"2.6.11: `{old}`, yes. 6.1: `{new}`, no: such a driver compiles, runs, and fails silently "
        "where it used to "
        "wait. Names are the interface, numbers are not.",
    )


# --- reports -------------------------------------------------------------------------------------------------------


def zone_of(report: str, name: str) -> Any:
    """A zone as a recorded report shows it."""
    return read_failure_reports((RECORDINGS / report).read_text())[0].zones[name]


def floor_of(min_pages: int) -> int:
    """Where GFP_ATOMIC stops, from min without boost."""
    half = min_pages - min_pages // 2
    return half - half // 4


def predict_which(m: Any, seed: int) -> Question:
    """Which test failed in DMA32, order 10."""
    zone = zone_of("order10_atomic.txt", "DMA32")
    low, order = zone.numbers["min"], 10
    rest, mark = zone.free - ((1 << order) - 1), floor_of(low)
    amount, block = rest > mark, bool(zone.blocks[order][0])
    return Question(
        ask="`order:10, mode:0xa20(GFP_ATOMIC)`. A zone gives a block if enough pages would be left, and "
        "if it has a block "
        "that large. Which test failed in DMA32?",
        choices=[
            Choice(
                "amount",
                "the amount: too few pages would be left",
                f"{zone.free:,} pages are free, min is {low}.\n{zone.free:,} - {(1 << order) - 1:,} = "
                f"{rest:,}, far above "
                f"{mark}.",
            ),
            Choice("block", "the block: none of order 10 is free"),
            Choice("both", "both", f"{rest:,} is above {mark}.\nThe amount is no trouble in DMA32."),
            Choice("none", "neither: it is a bug", "Look at the last column of the zone's line of blocks, 4096kB."),
        ],
        answer={(True, False): "block", (False, True): "amount", (False, False): "both", (True, True): "none"}[
            amount, block
        ],
        recorded=True,
        right=f"{zone.free:,} - {(1 << order) - 1:,} = {rest:,} > {mark}: enough. `0*4096kB`: no block of "
        f"order {order}. "
        f"{zone.free / 256:.1f} MiB are free, in pieces.",
    )


def predict_shelf(m: Any, seed: int) -> Question:
    """Why the pages on the CPU's own list did not help."""
    zone = zone_of("order0_atomic.txt", "DMA32")
    pages = zone.numbers["free_pcp"]
    return Question(
        ask=f"Order 0, and {pages} pages lie on per-CPU lists of this zone (`free_pcp`, and `local_pcp`: "
        "all of them on this "
        "CPU). Why did the request get NULL?",
        choices=[
            Choice(
                "other", "they belong to another CPU", "`local_pcp` is as large as `free_pcp`.\nThey are on this one."
            ),
            Choice("mark", "the watermark is tested first, and these pages do not count as free"),
            Choice(
                "sleep",
                "they are kept for those who may sleep",
                "The lists know types and orders, not callers.\nWhat stands before the list?",
            ),
            Choice("broken", "they are of no use: too small", "One page is what was asked for."),
        ],
        answer="mark" if refused_beside_shelf() else "other",
        recorded=True,
        right=(
            "The test of the zone stands before the list: a zone that is too low gives nothing, not even "
            "what lies ready."
        ),
    )


@cache
def refused_beside_shelf() -> int:
    """Pages on the CPU's list when GFP_ATOMIC gets NULL on the recorded machine."""
    m = Machine.from_recording("128M-a-11")
    while m.alloc_pages(GFP_ATOMIC | __GFP_NOWARN, 0):
        pass
    return int(m.zones[-1].pcp.count)


# --- what programs ask -----------------------------------------------------------------------------------------------


@cache
def asked() -> dict[str, int]:
    """How often each mask was asked with, in a recorded trace of small programs."""
    lines = (RECORDINGS / "masks_asked.txt").read_text().splitlines()
    return {name: int(count) for count, name in (line.split() for line in lines)}


def predict_share(m: Any, seed: int) -> NumberQuestion:
    """The share of GFP_ATOMIC in real requests."""
    counts = asked()
    atomic = sum(count for name, count in counts.items() if "GFP_ATOMIC" in name.split("|"))
    share = 100 * atomic / sum(counts.values())
    much = "Interrupts are many, requests in them are few.\nDrivers take their memory before."
    return NumberQuestion(
        ask=(
            f"{sum(counts.values()):,} requests of a running kernel were recorded. How many in a hundred "
            "were GFP_ATOMIC?"
        ),
        answer=round(share, 1),
        tolerance=0.6,
        unit="%",
        wrong={5: much, 10: much, 20: much, 25: much, 30: much, 50: much},
        otherwise="Most requests are pages for programs and GFP_KERNEL.\nThink of fewer.",
        recorded=True,
        right=(
            f"{share:.1f} %: {atomic} of {sum(counts.values()):,}. What must not fail is best asked for "
            "where one may sleep."
        ),
    )


PREDICTIONS = {
    "lowmem": predict_lowmem,
    "highmem": predict_highmem,
    "d0": predict_d0,
    "which": predict_which,
    "shelf": predict_shelf,
    "share": predict_share,
}
