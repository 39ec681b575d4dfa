"""Lesson 02: each wrong answer gets its own reason, right ones are accepted; typical wrong functions are told why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from kmemlab import __GFP_NOWARN, GFP_KERNEL, GFP_NOWAIT, Machine
from kmemlab.size_classes import LADDERS
from tests.lessons.sheet import Exercises, Questions
from tests.shreds import shred

OLD = b"correct horse battery staple/" + b"7" * 35


def secret() -> Machine:
    """The puzzle, up to the reply."""
    m = Machine("linux-6.1", cmdline="init_on_alloc=0")
    p = m.kmalloc(64, GFP_KERNEL)
    m.write(p, OLD)
    m.kfree(p)
    m.kmalloc(40, GFP_KERNEL)
    return m


def freed() -> Machine:
    m = Machine("linux-6.1")
    m.kfree(m.kmalloc(64, GFP_KERNEL))
    return m


MACHINES: dict[str, Callable[[], Machine]] = {
    "secret": secret,
    "who": freed,
    "kv": lambda: shred(Machine("linux-6.1", memory="64M")),
}
RIGHT: dict[str, Any] = {
    "secret": "56", "mydebian": "0", "who": "same", "ladder": ["8", "96", "128", "192", "256", "8192"], "top": "16384",
    "average": "25", "real": "2.1", "realloc": ["same", "moved", "same"], "zero": "pointer", "redzone": "64",
    "kv": ["kvmalloc", "page"], "wire": ["46", "22", "0"],
}  # fmt: skip
WRONG: list[tuple[str, Any, str]] = [
    ("secret", "0", "Who should have cleaned it?"),
    ("secret", "40", "`ksize` says 64."),
    ("secret", "64", "in* the free blocks"),
    ("mydebian", "56", "heap alloc:on"),
    ("mydebian", "64", "what this kernel was built with"),
    ("mydebian", "cpu", "No hardware clears memory."),
    ("who", "next", "65 do not fit into 64."),
    ("who", "cg", "kmalloc-cg-64"),
    ("who", "dma", "dma-kmalloc-64"),
    ("ladder", ["32", "96", "128", "192", "256", "8192"], "32 was the smallest in 2.6.11"),
    ("ladder", ["8", "128", "128", "192", "256", "8192"], "Between 64 and 128 there is one more rung."),
    ("ladder", ["8", "96", "128", "256", "256", "8192"], "Between 128 and 256 there is one more rung."),
    ("ladder", ["8", "96", "128", "192", "256", "4160"], "Nothing is cut to size."),
    ("top", "8193", "Pages are never cut."),
    ("top", "12288", "no blocks of three pages"),
    ("top", "0", "the end of the caches, not of `kmalloc`"),
    ("average", "50", "Half is the worst point of a tooth"),
    ("average", "5", "Try sizes just above an edge"),
    ("real", "25", "if all sizes were equally likely"),
    ("real", "40", "Real sizes are not spread evenly"),
    ("realloc", ["moved", "moved", "same"], "65 bytes already got 96."),
    ("realloc", ["same", "same", "same"], "97 do not fit into 96."),
    ("realloc", ["same", "moved", "moved"], "krealloc never moves down."),
    ("zero", "null", "Asking for nothing is no failure."),
    ("zero", "error", "only pointers and NULL"),
    ("zero", "smallest", "2.6.11 did that."),
    ("redzone", "50", "not behind your request"),
    ("redzone", "63", "63 is the last byte you own"),
    ("redzone", "never", "They are looked at when it is freed."),
    ("kv", ["kmalloc"], "Free is not the same as free in one piece."),
    ("kv", ["atomic"], "vmalloc has to sleep."),
    ("wire", ["54", "22", "0"], "8 by the free pointer"),
    ("wire", ["46", "30", "0"], "8 of these 30 are the free pointer."),
    ("wire", ["46", "22", "46"], "It zeroes what it hands out."),
]


class TestQuestions(Questions):
    """Predictions."""

    LESSON, RIGHT, WRONG = "02_size_classes", RIGHT, WRONG
    MACHINES = MACHINES


# --- exercises ----------------------------------------------------------------------------------------------


LADDER = LADDERS["linux-6.1"]


def by_bits(size: int) -> int | None:
    if size == 0:
        return 0
    if size > 4 << 20:
        return None
    for rung in (96, 192):
        if rung * 2 // 3 < size <= rung:
            return rung
    return max(8, 1 << (size - 1).bit_length())


def by_doubling(size: int) -> int | None:
    rungs = sorted([8 << n for n in range(20)] + [96, 192])
    return 0 if not size else next((rung for rung in rungs if rung >= size), None)


def powers_only(size: int) -> int | None:
    return None if size > 4 << 20 else max(8, 1 << (size - 1).bit_length()) if size else 0


def from_32(size: int) -> int | None:
    return max(32, by_bits(size) or 0) if 0 < size <= 4 << 20 else by_bits(size)


def whole_pages(size: int) -> int | None:
    return -(-size // 4096) * 4096 if 8192 < size <= 4 << 20 else by_bits(size)


def zeroed(m: Any, text: bytes) -> Any:
    p = m.kzalloc(max(1, len(text)), GFP_KERNEL)
    m.write(p, text)
    return p


def cleared(m: Any, text: bytes) -> Any:
    p = m.kmalloc(len(text) + 1, GFP_KERNEL)
    m.memset(p, 0, m.ksize(p))
    m.write(p, text)
    return p


def only_written(m: Any, text: bytes) -> Any:
    p = m.kmalloc(max(1, len(text)), GFP_KERNEL)
    m.write(p, text)
    return p


def only_asked(m: Any, text: bytes) -> Any:
    n = len(text) + 3
    p = m.kmalloc(n, GFP_KERNEL)
    m.memset(p, 0, n)
    m.write(p, text)
    return p


def leaking(m: Any, text: bytes) -> Any:
    m.kmalloc(10, GFP_KERNEL)
    return zeroed(m, text)


def in_one(m: Any, n: int) -> Any:
    return [(p, p + 64) for p in (m.kmalloc(4160, GFP_KERNEL) for _ in range(n))]


def in_two(m: Any, n: int) -> Any:
    return [(m.kmalloc(64, GFP_KERNEL), m.kmalloc(4096, GFP_KERNEL)) for _ in range(n)]


def in_an_array(m: Any, n: int) -> Any:
    headers = m.kcalloc(n, 64, GFP_KERNEL)
    return [(headers + 64 * i, m.kmalloc(4096, GFP_KERNEL)) for i in range(n)]


def in_a_cache(m: Any, n: int) -> Any:
    c = m.kmem_cache_create("buffer", 4160, 0, 0, None)
    return [(p, p + 64) for p in (m.kmem_cache_alloc(c, GFP_KERNEL) for _ in range(n))]


def overlapping(m: Any, n: int) -> Any:
    return [(p, p) for p in (m.kmalloc(4096, GFP_KERNEL) for _ in range(n))]


def careful(m: Any, vec: Any, item: int) -> bool:
    p = m.krealloc(vec.p, 8 * (vec.n + 1), GFP_NOWAIT | __GFP_NOWARN)
    if not p:
        return False
    vec.p = p
    m.write(p + 8 * vec.n, item.to_bytes(8, "little"))
    vec.n += 1
    return True


def doubling(m: Any, vec: Any, item: int) -> bool:
    if 8 * (vec.n + 1) > m.ksize(vec.p):
        p = m.krealloc(vec.p, 16 * max(1, vec.n), GFP_NOWAIT | __GFP_NOWARN)
        if not p:
            return False
        vec.p = p
    m.write(vec.p + 8 * vec.n, item.to_bytes(8, "little"))
    vec.n += 1
    return True


def careless(m: Any, vec: Any, item: int) -> bool:
    vec.p = m.krealloc(vec.p, 8 * (vec.n + 1), GFP_NOWAIT | __GFP_NOWARN)
    if not vec.p:
        return False
    m.write(vec.p + 8 * vec.n, item.to_bytes(8, "little"))
    vec.n += 1
    return True


def twice_freed(m: Any, vec: Any, item: int) -> bool:
    old = vec.p
    if not careful(m, vec, item):
        return False
    if old and old != vec.p:
        m.kfree(old)
    return True


def never_freed(m: Any, vec: Any, item: int) -> bool:
    p = m.kmalloc(8 * (vec.n + 1), GFP_NOWAIT | __GFP_NOWARN)
    if not p:
        return False
    if vec.n:
        m.write(p, m.read(vec.p, 8 * vec.n))
    vec.p = p
    m.write(p + 8 * vec.n, item.to_bytes(8, "little"))
    vec.n += 1
    return True


def best(sizes: list[int], k: int) -> list[int]:
    """The least waste, by trying every way to cut the sorted sizes in k groups."""
    count = sorted(Counter(-(-size // 8) * 8 for size in sizes).items())
    table: dict[tuple[int, int], tuple[int, list[int]]] = {(0, 0): (0, [])}
    for end in range(1, len(count) + 1):
        for used in range(1, k + 1):
            ways = [
                (cost + sum(n for _, n in count[start:end]) * count[end - 1][0], [*chosen, count[end - 1][0]])
                for (start, before), (cost, chosen) in table.items()
                if before == used - 1 and start < end
            ]
            if ways:
                table[end, used] = min(ways)
    return min(way for (end, _), way in table.items() if end == len(count))[1]


def merging(sizes: list[int], k: int) -> list[int]:
    """Begin with every size, drop the class that costs least, until k are left."""
    count = Counter(-(-size // 8) * 8 for size in sizes)
    classes = sorted(count)
    load = [count[c] for c in classes]
    while len(classes) > k:
        at = min(range(len(classes) - 1), key=lambda i: load[i] * (classes[i + 1] - classes[i]))
        load[at + 1] += load[at]
        del classes[at], load[at]
    return classes


def most_common(sizes: list[int], k: int) -> list[int]:
    up = [-(-size // 8) * 8 for size in sizes]
    return sorted({max(up), *(size for size, _ in Counter(up).most_common(k - 1))})[-k:]


GOOD: list[tuple[str, Callable[..., Any]]] = [
    ("given", by_bits), ("given", by_doubling), ("reply_buffer", zeroed), ("reply_buffer", cleared), ("build", in_two),
    ("build", in_an_array), ("build", in_a_cache), ("append", careful), ("append", doubling),
    ("classes", best), ("classes", merging),
]  # fmt: skip
BAD: list[tuple[str, Callable[..., Any], str]] = [
    ("given", lambda n: n, "No cache is cut to order"),
    ("given", powers_only, "but for two rungs"),
    ("given", from_32, "32 was the smallest of 2.6.11"),
    ("given", lambda n: by_bits(n) if n else 8, "0 bytes give `ZERO_SIZE_PTR`"),
    ("given", whole_pages, "20,481 bytes give 32,768"),
    ("given", lambda n: by_bits(n) if n <= 4 << 20 else 1 << (n - 1).bit_length(), "There is an end"),
    ("given", lambda n: by_bits(n) if n <= 131072 else None, "128 KiB was the end in 2.6.11"),
    ("reply_buffer", only_written, "On Debian's own boot line this would not have been seen."),
    ("reply_buffer", only_asked, "still holds an old"),
    ("reply_buffer", leaking, "nobody will ever free"),
    ("build", in_one, "4,160 bytes do not fit into 4,096"),
    ("build", overlapping, "overlap"),
    ("append", careless, "you put it over the only pointer you had"),
    ("append", twice_freed, "You freed it once more"),
    ("append", never_freed, "Blocks are left that nobody holds."),
    ("classes", lambda sizes, k: [8, 16, 32, 64], "The largest request is"),
    ("classes", lambda sizes, k: [4096] * k, "Which sizes cost most"),
    ("classes", most_common, "Which sizes cost most"),
    ("classes", lambda sizes, k: list(range(8, 8200, 8)), "are allowed"),
    ("classes", lambda sizes, k: [4097], "multiples of 8"),
]  # fmt: skip


class TestExercises(Exercises):
    """Exercises."""

    LESSON, GOOD, BAD = "02_size_classes", GOOD, BAD
