"""Exercise of lesson 05: a driver's store that gives back what it took, also when it fails.

The engine keeps no bytes, so the check brings some: pages that nobody cleared hold what a stranger left there.
"""

from __future__ import annotations

import random
from typing import Any

from kmemlab_widgets.questions import PASS, Check, CheckResult, ExerciseSpec, fail
from pages_lists import fresh, line, pages_of

from kmemlab import (
    __GFP_MEMALLOC,
    __GFP_NORETRY,
    __GFP_NOWARN,
    __GFP_ZERO,
    GFP_ATOMIC,
    GFP_DMA,
    GFP_KERNEL,
    NULL,
    Machine,
)

ENOMEM = -12
_ZERO = int(__GFP_ZERO)  # out here: in a class body Python would mangle the name
STRANGER = b"somebody's secret. "


class Ram:
    """The bytes of the machine's pages. A page nobody cleared holds what its last owner wrote."""

    def __init__(self, m: Machine) -> None:
        self._m = m
        self._bytes: dict[int, bytearray] = {}
        self._zero = False
        m.events.subscribe(self._hear)

    def _hear(self, event: Any) -> None:
        if event.name == "lab_request":
            self._zero = bool(event.gfp_flags & _ZERO)
        elif event.name == "lab_return" and self._zero:
            for pfn in range(event.pfn, event.pfn + (1 << event.order)):
                self._bytes[pfn] = bytearray(4096)

    def _page(self, address: int) -> tuple[bytearray, int]:
        if 0 <= address < 1 << 32:
            raise ValueError(f"address {address:#x}: no page is mapped there; an allocation that fails returns 0")
        page = self._m.virt_to_page(address)
        fill = (STRANGER * (4096 // len(STRANGER) + 1))[:4096]
        return self._bytes.setdefault(page.pfn, bytearray(fill)), address & 4095

    def write(self, address: int, data: bytes) -> None:
        """Store bytes at an address, across pages."""
        while data:
            page, at = self._page(address)
            part = data[: 4096 - at]
            page[at : at + len(part)] = part
            address, data = address + len(part), data[len(part) :]

    def read(self, address: int, count: int) -> bytes:
        """Bytes at an address, across pages."""
        out = b""
        while len(out) < count:
            page, at = self._page(address + len(out))
            out += bytes(page[at : at + count - len(out)])
        return out


def _driver(fn: Any, m: Machine, order: int) -> Any:
    parts = fn(m, Ram(m), order)
    if not isinstance(parts, tuple) or len(parts) != 3 or not all(callable(part) for part in parts):
        return None
    return parts


_SHAPE = "Return three functions: write, read, trim."


def _owned(m: Machine) -> int:
    """Pages of the machine that are neither in the lists nor on a shelf."""
    return (
        sum(zone.managed for zone in m.snapshot().zones)
        - sum(pages_of(line(m, z.name)) for z in m.zones)
        - m.free_pcp()
    )


def _all_back(m: Machine, before: int, quantum: int) -> CheckResult:
    check = str(m.check())
    if "lost" in check:
        return fail(
            f"Freed with another order than asked for: {quantum - 1} of {quantum} pages of each quantum are lost.",
            check,
        )
    if (gone := _owned(m) - before) > 0:
        return fail(f"After trim {gone} pages are still in use: free every quantum once, with its order.", check)
    return PASS


def _check_healthy(fn: Any) -> CheckResult:
    for order in (0, 2, 3):
        m = fresh()
        before, quantum = _owned(m), 4096 << order
        if not (parts := _driver(fn, m, order)):
            return fail(_SHAPE)
        write, read, trim = parts
        text = bytes(range(1, 251)) * (2 * quantum // 250)
        first, second = text[: quantum + 100], text[quantum + 100 : quantum + 300]
        if (wrote := write(first)) != len(first) or write(second) != len(second):
            return fail(f"write returned {wrote}; it should return how many bytes it stored, {len(first)}.")
        if read(len(first) + len(second)) != first + second:
            return fail("read does not give back what was written: a second write goes on where the first one ended.")
        rest = read(2 * quantum)[len(first) + len(second) :]
        if len(rest) and any(rest):
            return fail(
                "Behind what was written the reader sees a stranger's bytes: ask for zeroed pages.", repr(rest[:19])
            )
        trim()
        if not (row := _all_back(m, before, 1 << order)).passed:
            return row
    return PASS


def _dry(seed: int) -> Machine:
    """A machine that will run dry in the middle of a write."""
    rng = random.Random(seed)
    m = fresh()
    while m.alloc_pages(GFP_KERNEL | __GFP_NORETRY | __GFP_NOWARN, rng.choice((0, 1, 2, 3))):
        pass
    pages = [page for page in m.memmap.values() if page.refcount > 0 and page.order == 2]
    for page in rng.sample(pages, 120):
        m.__free_pages(page, 2)
    return m


def _check_dry(fn: Any) -> CheckResult:
    for seed in range(3):
        m = _dry(seed)
        before = _owned(m)
        if not (parts := _driver(fn, m, 2)):
            return fail(_SHAPE)
        write, read, trim = parts
        small, huge = b"kept" * 1000, b"x" * (16384 * 4000)
        if write(small) != len(small):
            return fail("The machine has room for 4,000 bytes: one quantum.")
        middle = _owned(m)
        if (answer := write(huge)) != ENOMEM:
            return fail(f"The machine ran dry in the middle of a write: return -ENOMEM ({ENOMEM}), not {answer}.")
        if (kept := (_owned(m) - middle) // 4) > 0:
            return fail(f"The write failed, and {kept} of its quanta remain allocated: undo what this write took.")
        if read(len(small)) != small:
            return fail("A write that fails must leave what was stored before.")
        trim()
        if not (row := _all_back(m, before, 4)).passed:
            return row
    return PASS


def _check_yard(fn: Any) -> CheckResult:
    """Order 0 on a machine whose free memory is broken: it must not need neighbours."""
    m = fresh()
    pages = []
    while page := m.alloc_pages(GFP_DMA | __GFP_MEMALLOC | __GFP_NOWARN, 0):
        pages.append(page)
    while m.alloc_pages(GFP_ATOMIC | __GFP_MEMALLOC | __GFP_NOWARN, 0):
        pass
    for page in pages:
        if page.pfn % 2:
            m.__free_pages(page, 0)
    before = _owned(m)
    if not (parts := _driver(fn, m, 0)):
        return fail(_SHAPE)
    write, read, trim = parts
    text = b"neighbour? " * 50_000
    if m.alloc_pages(GFP_KERNEL | __GFP_NORETRY | __GFP_NOWARN, 1) is not NULL:
        return fail("The check itself failed, not your function. Please report it.")
    if write(text) != len(text):
        return fail(
            f"{len(text) // 4096 + 1} single pages are there, but no two side by side: ask for quanta, not for one "
            "large block."
        )
    if read(len(text)) != text:
        return fail("read does not give back what was written, over many quanta.")
    trim()
    return _all_back(m, before, 1)


SCULLP = ExerciseSpec(
    letter="E",
    title="a driver's store",
    task="LDD3's scullp: keep what is written in quanta of one order. write(data) goes on where the last one ended and "
    "returns len(data), or -12 (-ENOMEM) and keeps nothing of it; read(count) gives the first bytes; trim() gives "
    "every page back. `ram.write(address, data)` and `ram.read(address, count)` reach the bytes.",
    signature="def scullp(m, ram, order: int)",
    starter=(
        "def scullp(m, ram, order: int):\n    quanta = []\n\n    def write(data: bytes) -> int:\n        return -12\n\n"
        '    def read(count: int) -> bytes:\n        return b""\n\n    return write, read, quanta.clear  # trim\n'
    ),
    hints=[
        (
            "m.__get_free_pages(mask, order) returns an address or 0; m.free_pages(address, order) gives it back. A "
            "quantum has 4096 << order bytes."
        ),
        (
            "Keep the number of bytes stored; a write may begin in the middle of the last quantum. __GFP_ZERO in the "
            "mask, or get_zeroed_page for order 0, clears the page."
        ),
        (
            "When an allocation returns 0, free the quanta this write added, in a loop, and return -12 before a byte "
            "is counted."
        ),
    ],
    returns=tuple,
    checks=[
        Check("orders 0, 2, 3 on a healthy machine", _check_healthy, "256M-a-21"),
        Check("a machine that runs dry in the middle of a write", _check_dry, "seeds 0-2, 256M-a-21"),
        Check("order 0 where no two free pages are neighbours", _check_yard, "256M-a-21"),
    ],
    budget=20_000_000,
)

EXERCISES = {"scullp": SCULLP}
