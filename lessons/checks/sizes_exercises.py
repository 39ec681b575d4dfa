"""Exercises of lesson 02: the ladder, clean buffers, the expensive header, a growing vector, a better ladder."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache
from typing import Any

from kmemlab_widgets.questions import PASS, Check, CheckResult, ExerciseSpec, Mistake, comparisons, fail
from sizes_given import percent, small, traced

from kmemlab import __GFP_NOWARN, GFP_ATOMIC, GFP_KERNEL, NULL, KernelBug, Machine
import itertools

# --- A: the ladder ---------------------------------------------------------------------------------------


def true_given(size: int) -> int | None:
    """What the engine gives, None for NULL."""
    m = small()
    p = m.kmalloc(size, GFP_KERNEL | __GFP_NOWARN)
    if not p:
        return None
    have = m.ksize(p)
    m.kfree(p)
    return have


@cache
def _edges() -> tuple[tuple[int], ...]:
    powers = [1 << n for n in range(3, 23)]
    sizes = {0, 1, 65, 96, 97, 128, 129, 192, 193, *(p + d for p in powers for d in (-1, 0, 1)), 12_289, 20_481}
    return tuple((n,) for n in sorted(sizes) if n <= 4 << 20)


def _up(size: int, floor: int = 8) -> int:
    return max(floor, 1 << (size - 1).bit_length()) if size else 0


def _rungs(size: int) -> int:
    return 96 if 64 < size <= 96 else 192 if 128 < size <= 192 else _up(size)


LADDER = ExerciseSpec(
    letter="A",
    title="The ladder",
    task="Write the rule: how many bytes does Linux 6.1 give for `kmalloc(size)`? Return `None` where it gives NULL.",
    signature="given(size) -> int or None",
    starter="def given(size):\n    return size\n",
    hints=(
        "Which rungs are not powers of two? The slider shows them.",
        "What is given for 0 bytes? `m.ksize(m.kmalloc(0, GFP_KERNEL))`",
        "Above 8,192 bytes the page allocator gives 1, 2, 4, 8 ... pages. Where does it end?",
    ),
    returns=(int, type(None)),
    checks=comparisons(
        [
            ("1 to 300", "6.1, 64 MiB", lambda: [(n,) for n in range(1, 301)]),
            ("0, and both sides of every edge up to 4 MiB", "6.1, 64 MiB", _edges),
            ("above 4 MiB", "6.1, 64 MiB", lambda: [((4 << 20) + 1,), (5 << 20,), (8 << 20,)]),
        ],
        true_given,
        [
            Mistake(lambda n: n, "No cache is cut to order: the classes are few and fixed. Try 1, 65, 200."),
            Mistake(
                lambda n: _up(n) if n <= 4 << 20 else None,
                "Powers of two, but for two rungs: 65 gives 96, 129 gives 192.",
            ),
            Mistake(
                lambda n: max(32, _rungs(n)) if n and n <= 4 << 20 else 0 if not n else None,
                "32 was the smallest of 2.6.11. Today 1 byte gives 8.",
            ),
            Mistake(
                lambda n: (_rungs(n) if n <= 4 << 20 else None) or (8 if not n else None),
                "0 bytes give `ZERO_SIZE_PTR`: `ksize` 0, nothing to own.",
            ),
            Mistake(
                lambda n: (_rungs(n) if n <= 8192 else -(-n // 4096) * 4096) if n <= 4 << 20 else None,
                "Above 8,192 the pages come in powers of two: 20,481 bytes give 32,768, not 24,576.",
            ),
            Mistake(_rungs, "There is an end: 4,194,305 bytes give NULL."),
            Mistake(
                lambda n: _rungs(n) if n <= 131072 else None,
                "128 KiB was the end in 2.6.11. 131,073 bytes work today, up to 4 MiB.",
            ),
        ],
        lambda case, got, want: (
            f"kmalloc({case[0]:,}) gives {'NULL' if want is None else want}",
            f"You say {got}.",
        ),
    ),
)


# --- B: leave nothing behind ------------------------------------------------------------------------------


TEXTS = (b"hello", b"", b"220 mail.example.org ready\r\n", bytes(range(1, 97)), b"x" * 700)


def dirty(cmdline: str, seed: int) -> Machine:
    """A machine whose free objects are full of somebody's letters."""
    m, rng = Machine("linux-6.1", memory="64M", cmdline=cmdline, seed=seed), random.Random(seed)
    blocks = [m.kmalloc(rng.choice((16, 32, 64, 96, 128, 512, 1024, 2048)), GFP_KERNEL) for _ in range(300)]
    for p in blocks:
        m.write(p, b"SECRET" * 400 if m.ksize(p) >= 2400 else (b"SECRET" * 400)[: m.ksize(p)])
    for p in blocks:
        m.kfree(p)
    return m


def _leaves_nothing(cmdline: str) -> Callable[[Callable[..., Any]], CheckResult]:
    def run(fn: Callable[..., Any]) -> CheckResult:
        for seed, text in enumerate(TEXTS):
            m = dirty(cmdline, seed)
            live = set(m.live)
            p = fn(m, text)
            if not isinstance(p, int) or p not in m.live:
                return fail("Return the pointer of a block that you own.", f"you returned {p!r}")
            if m.ksize(p) < len(text):
                return fail(f"The block has {m.ksize(p)} bytes, the text {len(text)}.")
            got = m.read(p, m.ksize(p))
            if got[: len(text)] != text:
                return fail("The block does not begin with the text.", f"it holds {got[:24]!r}")
            rest = got[len(text) :]
            if any(rest):
                at = next(i for i, b in enumerate(rest) if b) + len(text)
                slack = (
                    f"Byte {at} still holds an old {got[at : at + 6]!r}. You own all {len(got)} bytes of the "
                    "block, and send them."
                )
                if "init_on_alloc=0" in cmdline:
                    slack += " On Debian's own boot line this would not have been seen."
                return fail(slack, f"ksize {len(got)}, text {len(text)}")
            if set(m.live) - live - {p}:
                return fail("There are blocks that nobody will ever free.", f"{len(set(m.live) - live) - 1} leaked")
        return PASS

    return run


BUFFER = ExerciseSpec(
    letter="E",
    title="Leave nothing behind",
    task="Return a block that holds `text` and then only zeros, up to the last byte of its `ksize`: it will be sent as "
    "a whole.",
    signature="reply_buffer(m, text) -> pointer",
    starter="def reply_buffer(m, text):\n    p = m.kmalloc(len(text), GFP_KERNEL)\n    m.write(p, text)\n    return "
    "p\n",
    hints=(
        "Which bytes of the block does nobody write?",
        "`kmalloc` of 0 bytes gives nothing to own: ask for at least one.",
        "One letter more does it: `kzalloc` clears the class, not only your request.",
    ),
    checks=[
        Check("memory full of old letters, Debian as built", _leaves_nothing(""), "6.1, 5 texts"),
        Check("the same with init_on_alloc=0", _leaves_nothing("init_on_alloc=0"), "6.1, 5 texts"),
    ],
)


# --- C: the expensive header --------------------------------------------------------------------------------


N = 1000


def pages_taken(build: Callable[..., Any]) -> tuple[int, str]:
    """(pages a build of 1,000 takes, what is wrong with it or "")."""
    m = Machine("linux-6.1", memory="64M")
    before = sum(zone.free_pages() for zone in m.zones)
    m.drain_all_pages()
    pairs = list(build(m, N))
    m.drain_all_pages()
    taken = before - sum(zone.free_pages() for zone in m.zones)
    if len(pairs) != N:
        return taken, f"{len(pairs)} pairs instead of {N}."
    spans = []
    for pair in pairs:
        header, payload = pair
        spans += [(int(header), int(header) + 64), (int(payload), int(payload) + 4096)]
    spans.sort()
    for (_, end), (start, _) in itertools.pairwise(spans):
        if start < end:
            return taken, "Two of your parts overlap."
    for start, end in spans:
        if not all(_owned(m, at) for at in (start, end - 1)):
            return taken, f"{start:016x} to {end:016x} is not all yours."
    return taken, ""


def _owned(m: Machine, at: int) -> bool:
    pfn = at - m.kernel.page_offset >> 12
    return pfn in m.slabs or any(first <= pfn < first + (1 << page.order) for first, page in m.large.items())


def _frugal(fn: Callable[..., Any]) -> CheckResult:
    taken, wrong = pages_taken(fn)
    if wrong:
        return fail(wrong)
    kernel = f"{taken} pages for {N} buffers"
    if taken >= 1900:
        return fail("4,160 bytes do not fit into 4,096: every block is 8,192 bytes, half of it empty.", kernel)
    if taken > 1200:
        return fail("Where do the bytes go? Ask `ksize` of each of your blocks.", kernel)
    note = "" if taken <= 1040 else "Good; splitting header and payload is better still."
    return CheckResult(True, kernel, note)


HEADER = ExerciseSpec(
    letter="B",
    title="The expensive header",
    task="1,000 buffers, each with 4,096 bytes of payload and 64 bytes of header. Take as few pages as you can. "
    "Return a list of `(header, payload)` pointers.",
    signature="build(m, n) -> list of (header, payload)",
    starter="def build(m, n):\n    blocks = [m.kmalloc(4160, GFP_KERNEL) for _ in range(n)]\n    return [(p, p + 64) "
    "for p in blocks]\n",
    hints=(
        "What does `ksize` say of a block of 4,160 bytes?",
        "Nothing says that header and payload must be one block.",
    ),
    returns=(list, tuple),
    checks=[Check(f"{N} buffers", _frugal, "6.1, 64 MiB")],
)


# --- D: append ------------------------------------------------------------------------------------------------


class Vec:
    """What the learner's function grows: ``p`` the block, ``n`` items of 8 bytes in it."""

    def __init__(self) -> None:
        self.p: Any = NULL
        self.n = 0


def _grow(m: Machine, append: Callable[..., Any], vec: Vec, items: int) -> list[bool]:
    return [bool(append(m, vec, (vec.n * 2654435761) % (1 << 63))) for _ in range(items)]


def _content(m: Machine, vec: Vec) -> bool:
    data = m.read(vec.p, 8 * vec.n) if vec.n else b""
    return all(data[8 * i : 8 * i + 8] == ((i * 2654435761) % (1 << 63)).to_bytes(8, "little") for i in range(vec.n))


def _appends(fn: Callable[..., Any]) -> CheckResult:
    m, vec = Machine("linux-6.1", memory="64M"), Vec()
    twice = "krealloc frees the old block itself when it moves. You freed it once more."
    try:
        _grow(m, fn, vec, 200)
    except KernelBug as bug:
        return fail(twice, str(bug).splitlines()[1])
    if vec.n != 200:
        return fail("`vec.n` must count the items.", f"200 appended, vec.n is {vec.n}")
    if not _content(m, vec):
        return fail("An item is not where it should be: item i at `vec.p + 8 * i`, 8 bytes, little end first.")
    if m.misused_objects:
        return fail(twice, m.misused_objects[0])
    if len(m.live) + len(m.large) != 1:
        return fail("Blocks are left that nobody holds.", f"{len(m.live) + len(m.large)} blocks live, 1 vector")
    return CheckResult(True, "200 items, 1 block")


def _survives(fn: Callable[..., Any]) -> CheckResult:
    m, vec = Machine("linux-6.1", memory="32M"), Vec()
    _grow(m, fn, vec, 60)
    hoard = []
    while p := m.kmalloc(4096, GFP_ATOMIC | __GFP_NOWARN):
        hoard.append(p)
    while p := m.kmalloc(512, GFP_ATOMIC | __GFP_NOWARN):
        hoard.append(p)
    while p := m.kmalloc(1024, GFP_ATOMIC | __GFP_NOWARN):
        hoard.append(p)
    before = vec.n
    told = _grow(m, fn, vec, 300)
    if all(told) or not vec.p:
        if not vec.p:
            return fail(
                "NULL came back, and you put it over the only pointer you had: all items are lost, the block leaks.",
                f"vec.p is NULL after {before} items",
            )
        return fail("Say `False` when there is no memory.", "300 appended to a full machine")
    if vec.n != before + sum(told) or not _content(m, vec):
        return fail("After a failure the old items must still be there, and `vec.n` must not count the failed one.")
    for p in hoard:
        m.kfree(p)
    if not all(_grow(m, fn, vec, 100)) or not _content(m, vec):
        return fail("Memory is back, and the vector does not go on.")
    return CheckResult(True, f"{before} items kept through {told.count(False)} refusals")


APPEND = ExerciseSpec(
    letter="D",
    title="Append",
    task="Grow a vector with `krealloc`: put `item` (8 bytes, little end first) behind the `vec.n` items at `vec.p`, "
    "count it, return `True`. When memory runs out keep everything as it was and return `False`. Use `GFP_NOWAIT`.",
    signature="append(m, vec, item) -> bool",
    starter="def append(m, vec, item):\n"
    "    vec.p = m.krealloc(vec.p, 8 * (vec.n + 1), GFP_NOWAIT)\n"
    '    m.write(vec.p + 8 * vec.n, item.to_bytes(8, "little"))\n    vec.n += 1\n    return True\n',
    hints=(
        "What does krealloc return when there is no memory, and what happens to the old block?",
        "Take its answer into a second variable first.",
    ),
    returns=bool,
    checks=[
        Check("200 items", _appends, "6.1, 64 MiB"),
        Check("memory runs out, comes back", _survives, "6.1, 32 MiB, GFP_NOWAIT"),
    ],
)


# --- E: a better ladder ---------------------------------------------------------------------------------------


def waste_of(classes: list[int], sizes: list[int]) -> float:
    """Percent of the given bytes not used when ``sizes`` come from ``classes``."""
    got = [min(c for c in classes if c >= size) for size in sizes]
    return percent(sum(got) - sum(sizes), sum(got))


@cache
def halves() -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The recorded sizes, shuffled and cut in two: one half to design with, one to be judged by."""
    sizes = [asked for asked, _ in traced()]
    random.Random(5).shuffle(sizes)
    return tuple(sizes[::2]), tuple(sizes[1::2])


POWERS = [1 << n for n in range(3, 14)]


def _designed(k: int) -> Callable[[Callable[..., Any]], CheckResult]:
    def run(fn: Callable[..., Any]) -> CheckResult:
        design, judge = (list(half) for half in halves())
        classes = sorted(set(fn(list(design), k)))
        if len(classes) > k:
            return fail(f"{len(classes)} classes, only {k} are allowed.")
        if not classes or not all(isinstance(c, int) and c > 0 and c % 8 == 0 for c in classes):
            return fail("Class sizes are multiples of 8, above 0.", f"{classes[:6]}")
        if classes[-1] < max(design):
            return fail(f"The largest request is {max(design):,} bytes; your largest class has {classes[-1]:,}.")
        ours, powers = waste_of(classes, judge), waste_of(POWERS, judge)
        kernel = (
            f"{k} classes: {ours} % wasted on the other half of the trace; kernel (13) {_kernel(judge)} %, powers "
            f"of two (11) {powers} %"
        )
        if ours > powers:
            return fail("Powers of two would waste less. Which sizes cost most: their count, or their bytes?", kernel)
        return CheckResult(True, kernel)

    return run


def _kernel(sizes: list[int]) -> float:
    got = [small().kmalloc_size_roundup(size) for size in sizes]
    return percent(sum(got) - sum(sizes), sum(got))


DESIGN = ExerciseSpec(
    letter="C",
    title="A better ladder",
    task="You get half of the sizes a real kernel asked for. Choose at most `k` class sizes, multiples of 8, that "
    "waste as little as possible. You are measured on the other half.",
    signature="classes(sizes, k) -> list of sizes",
    starter="def classes(sizes, k):\n    return [8 << n for n in range(14)][-k:]\n",
    hints=("`collections.Counter(sizes).most_common()`", "The largest size asked must fit."),
    returns=(list, tuple, set),
    checks=[Check(f"{k} classes", _designed(k), "half of a recorded trace") for k in (4, 7, 13)],
)

EXERCISES = {"given": LADDER, "build": HEADER, "classes": DESIGN, "append": APPEND, "reply_buffer": BUFFER}
