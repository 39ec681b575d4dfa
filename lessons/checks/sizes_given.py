"""Questions of lesson 02, part 1: what a request gets. Every number and every verdict is computed by the engine."""

from __future__ import annotations

import gzip
import random
import re
from functools import cache
from pathlib import Path
from typing import Any

from kmemlab_widgets.questions import Box, BoxesQuestion, Choice, Question

from kmemlab import (
    __GFP_DMA,
    __GFP_NOWARN,
    GFP_KERNEL,
    GFP_KERNEL_ACCOUNT,
    Machine,
)

RECORDINGS = Path(__file__).resolve().parent.parent / "recordings"
OLD = b"correct horse battery staple/" + b"7" * 35  # 64 bytes


def given(size: int) -> int:
    """What the engine gives for a size, in bytes; 0 for NULL."""
    m = small()
    p = m.kmalloc(size, GFP_KERNEL | __GFP_NOWARN)
    return m.ksize(p) if p else 0


@cache
def small() -> Machine:
    """A machine only to ask sizes of."""
    return Machine("linux-6.1", memory="64M")


@cache
def traced() -> tuple[tuple[int, int], ...]:
    """(asked, given) of every kmalloc in the recorded trace."""
    text = gzip.decompress((RECORDINGS / "kmalloc.trace.txt.gz").read_bytes()).decode()
    return tuple((int(a), int(b)) for a, b in re.findall(r"bytes_req=(\d+) bytes_alloc=(\d+)", text))


def percent(part: float, whole: float) -> float:
    """A share in percent, one digit."""
    return round(100 * part / whole, 1)


# --- 1: what was in it ------------------------------------------------------------------------------


def survivors(m: Machine, p: Any) -> int:
    """Bytes of the old text that the block at ``p`` still holds, all in their place."""
    got = m.read(p, 64)
    halves = ((0, 32), (32, 40), (40, 64))
    return sum(end - start for start, end in halves if got[start:end] == OLD[start:end])


def predict_secret(m: Machine, seed: int) -> Question:
    """How many of 64 old bytes does the next owner read?"""
    p = m.last_plan[1]
    left = survivors(m, p)
    return Question(
        ask="The reply asked for 40 bytes and got a block of 64. How many of the 64 old bytes does its owner read?",
        code="m.read(reply, 64)",
        choices=[
            Choice(
                "0",
                "0: the block is clean",
                "Who should have cleaned it?\n"
                "Neither `kfree` nor `kmalloc` did: this machine was booted with `init_on_alloc=0`.",
            ),
            Choice(
                "40",
                "40: as many as were asked for",
                "`ksize` says 64.\n"
                "The 24 bytes behind your 40 belong to you as well, and they are as dirty as the others.",
            ),
            Choice(
                "56", "56", "Count again what the kernel itself wrote.\nWhile a block is free it holds one pointer."
            ),
            Choice(
                "64",
                "64: nobody touched it",
                "Almost.\n"
                "While the block was free the kernel kept its list of free blocks *in* the free blocks:"
                " 8 bytes of this one.",
            ),
        ],
        answer=str(left),
        right=f"{left}. A free block holds the address of the next free one, scrambled, in 8 bytes at its middle.",
    )


def _as_built() -> int:
    m = Machine("linux-6.1", memory="64M")
    p = m.kmalloc(64, GFP_KERNEL)
    m.write(p, OLD)
    m.kfree(p)
    return survivors(m, m.kmalloc(40, GFP_KERNEL))


def predict_mydebian(m: Any, seed: int) -> Question:
    """The same on Debian as it is built."""
    return Question(
        ask="The same calls on a Debian 12 kernel as it is installed, without our boot option. Old bytes read?",
        choices=[
            Choice("64", "64", "The free pointer was written there too.\nAnd look at what this kernel was built with."),
            Choice(
                "56",
                "56, as before",
                "True for every kernel of the post's time.\nThis one says at boot: `mem auto-init: ... heap alloc:on`.",
            ),
            Choice("0", "0", "Run it."),
            Choice(
                "cpu",
                "it depends on the CPU",
                "No hardware clears memory.\nIt is one memset in the allocation path, or none.",
            ),
        ],
        answer=str(_as_built()),
        recorded=True,
        right="0: Debian builds its kernel with `init_on_alloc` on, so every object and every page is zeroed, asked or "
        "not. Upstream's default is off: count on nothing, ask with `kzalloc`.",
    )


# --- 2: who gets it -----------------------------------------------------------------------------------


def who_cases(seed: int) -> list[tuple[str, str, int, int]]:
    """(key, text, size, mask): the first is on the same rung of the same family."""
    size = random.Random(seed).choice((33, 40, 64)) if seed else 33
    return [
        ("same", f"kmalloc({size}, GFP_KERNEL)", size, int(GFP_KERNEL)),
        ("next", "kmalloc(65, GFP_KERNEL)", 65, int(GFP_KERNEL)),
        ("cg", "kmalloc(64, GFP_KERNEL_ACCOUNT)", 64, int(GFP_KERNEL_ACCOUNT)),
        ("dma", "kmalloc(64, GFP_KERNEL | __GFP_DMA)", 64, int(GFP_KERNEL | __GFP_DMA)),
    ]


def predict_who(m: Machine, seed: int) -> Question:
    """Which request gets the block just freed?"""
    block = m.last_plan[1]
    cases = who_cases(seed)

    def answer(m: Machine) -> str:
        for key, _, size, mask in cases:
            if m.copy().kmalloc(size, mask) == block:
                return key
        return "none"

    def served(key: str) -> str:
        twin = m.copy()
        p = next(twin.kmalloc(size, mask) for k, _, size, mask in cases if k == key)
        slab = twin.virt_to_slab(p)
        return f"`{slab.cache.name}`, slab at frame {slab.pfn}"

    return Question(
        ask=f"The 64 bytes at {block} were just freed. Which request gets exactly this block?",
        choices=[
            Choice("same", cases[0][1], "Run it on a copy."),
            Choice("next", cases[1][1], lambda _: f"65 do not fit into 64.\nThey come from {served('next')}."),
            Choice(
                "cg", cases[2][1], lambda _: f"Same size, other family.\nAccounted memory lives apart: {served('cg')}."
            ),
            Choice(
                "dma", cases[3][1], lambda _: f"Same size, other family.\nIt must lie in zone DMA: {served('dma')}."
            ),
        ],
        answer=answer,
        right="The mask picks the family, the size picks the rung. On one rung of one family, the block freed last is "
        "the first one given.",
    )


# --- 3: the ladder ----------------------------------------------------------------------------------------


def _hints(sizes: list[int]) -> list[dict[int, str]]:
    cut = "Nothing is cut to size."
    return [
        {32: "32 was the smallest in 2.6.11 and in the books; since then it is 8.", sizes[0]: "No cache is that fine."},
        {128: "Powers of two only? Between 64 and 128 there is one more rung.", 64: "It does not fit into 64."},
        {96: "96 is too small for it.", sizes[2]: "The classes are few, and fixed."},
        {256: "Between 128 and 256 there is one more rung.", 128: "It does not fit into 128."},
        {192: "192 is too small for it."},
        {4096: "It does not fit.", 4224: cut, sizes[5]: cut},
    ]


def predict_ladder(m: Any, seed: int) -> BoxesQuestion:
    """Six sizes and what they are given."""
    sizes = [1, 65, 100, 129, 200, 4160]
    if seed:
        spans = ((1, 9), (65, 97), (97, 129), (129, 193), (193, 257), (4097, 8000))
        sizes = [random.Random(seed + low).randrange(low, high) for low, high in spans]
    other = "Not a class of this kernel, or not the smallest that fits. The slider below shows them all."
    boxes = [
        Box(
            label=f"{size:,}",
            answer=given(size),
            unit="bytes",
            wrong={value: why for value, why in hints.items() if value != given(size)},
            otherwise=other,
        )
        for size, hints in zip(sizes, _hints(sizes), strict=True)
    ]
    return BoxesQuestion(
        ask="How many bytes does `kmalloc` of each size give?",
        boxes=boxes,
        recorded=True,
        right="Powers of two from 8 to 8,192, and two rungs between: 96 and 192.",
    )


def predict_top(m: Any, seed: int) -> Question:
    """One byte above the largest cache."""
    return Question(
        ask="The largest of these caches is `kmalloc-8k`. What does `kmalloc(8193)` give?",
        choices=[
            Choice("8193", "8,193 bytes", "Pages are never cut.\n`ksize` tells what you own."),
            Choice(
                "12288",
                "12,288 bytes: three pages",
                "The page allocator has no blocks of three pages.\nIt has 1, 2, 4, 8 ... (lesson 05).",
            ),
            Choice("16384", "16,384 bytes: four pages", "Run it."),
            Choice("0", "NULL", "8 KiB is the end of the caches, not of `kmalloc`.\nSlide on."),
        ],
        answer=str(given(8193)),
        recorded=True,
        right="Above 8,192 bytes `kmalloc` asks the page allocator, which knows powers of two only.",
    )


PREDICTIONS = {
    "secret": predict_secret,
    "mydebian": predict_mydebian,
    "who": predict_who,
    "ladder": predict_ladder,
    "top": predict_top,
}
