"""slub_debug's reports: the model commits the crime of a real kernel and must say the same lines.

Left out of the comparison: times, addresses above the page, pids, registers and call traces (the model has no
stack), the taint letters of the recorder's module, ages, and whose call sites they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kmemlab import GFP_KERNEL, KernelBug, Machine
from kmemlab.slab_machine import SlabPages
from kmemlab.slub_def import SLAB_POISON, SLAB_RED_ZONE, KmemCache

RECORDINGS = Path(__file__).parent / "recordings"
BOOT = "slub_debug=FZPU"
FZPU = 0x10D00  # the flags the recorder's cache was created with


class FromTheTop(SlabPages):
    """Slabs whose list begins at the ring's first place."""

    def start(self, m: Machine, n: int) -> int:
        return 0


def ring(s: KmemCache, *first: int) -> None:
    """Make fresh slabs hand out these objects first."""
    s.random_seq = [*first, *(i for i in range(s.objects) if i not in first)]


def machine(cmdline: str = BOOT) -> Machine:
    m = Machine("linux-6.1", memory="256M", cmdline=f"{cmdline} slab_nomerge")
    m.slab_pages = FromTheTop()
    return m


def cache(m: Machine, *first: int, name: str = "oracle-bug", flags: int = FZPU) -> KmemCache:
    s = m.kmem_cache_create(name, 100, 0, flags, None)
    assert isinstance(s, KmemCache)
    ring(s, *first)
    return s


NOISE = re.compile(
    r"^(oracle|crimes|tsc|clocksource|Hardware|RIP|RSP|R[ABCDS][XPI]|R\d\d|FS|CS|CR2|Code|Modules|PGD|PKRU)\b|"
    r"^ |^Call Trace|^#PF|^Oops|^---\[ end|^Kernel panic|^Kernel Offset|^kmemlab"
)
REPLACEMENTS = [
    (r"0x\(____ptrval____\)", "0xPTR"),
    (r"Slab 0x\w+", "Slab PTR"),
    (r"\bffff[0-9a-f]{9}([0-9a-f]{3})\b", r"PAGE\1"),
    (r"\b0xffff[0-9a-f]{9}([0-9a-f]{3})\b", r"0xPAGE\1"),
    (r"\((Not tainted|Tainted: [^)]*)\)", "(TAINT)"),
    (r"(Allocated|Freed) in .*", r"\1 in SITE"),
    (r"called from .*", "called from SITE"),
    (r"^CPU: .*", "CPU"),
    (r"WARNING: CPU: \d+ PID: \d+ at (.*)", r"WARNING at \1"),
    (r"for (non-canonical )?address:? (0x)?[0-9a-f]+", r"for \1address"),
]


def kernel_lines(text: str) -> list[str]:
    """What a report says, without what differs between two kernels."""
    lines = []
    for line in text.splitlines():
        line = re.sub(r"^\[\s*[\d.]+\] ?", "", line).rstrip()
        if not line or NOISE.search(line):
            continue
        for pattern, by in REPLACEMENTS:
            line = re.sub(pattern, by, line)
        lines.append(line)
    return lines


def recorded(name: str) -> list[str]:
    path = RECORDINGS / "dmesg" / f"{name}.txt"
    if not path.is_file():
        path = RECORDINGS.parents[2] / "lessons" / "recordings" / path.name  # a lesson shows it
    return kernel_lines(path.read_text(encoding="utf-8"))


def write_past(m: Machine) -> None:
    s = cache(m, 8, 19)
    p = m.kmem_cache_alloc(s, GFP_KERNEL)
    m.write(p + 100, b"AB")
    m.kmem_cache_free(s, p)


def write_before(m: Machine) -> None:
    s = cache(m, 3, 8)
    p = m.kmem_cache_alloc(s, GFP_KERNEL)
    m.write(p - 1, b"C")
    m.kmem_cache_free(s, p)


def use_after_free(m: Machine) -> None:
    s = cache(m, 3, 5)
    p = m.kmem_cache_alloc(s, GFP_KERNEL)
    m.kmem_cache_free(s, p)
    m.write(p + 10, b"\x55")
    assert m.dmesg() == ""  # nobody has noticed yet
    assert m.kmem_cache_alloc(s, GFP_KERNEL) != p


def double_free(m: Machine) -> None:
    s = cache(m, 15, 2)
    p = m.kmem_cache_alloc(s, GFP_KERNEL)
    m.kmem_cache_free(s, p)
    m.kmem_cache_free(s, p)


def wrong_cache(m: Machine) -> None:
    s, other = cache(m, 1), cache(m, 2, name="oracle-bug2")
    m.kmem_cache_free(other, m.kmem_cache_alloc(s, GFP_KERNEL))


def destroy_with_live(m: Machine) -> None:
    s = cache(m, 6, 17)
    m.kmem_cache_alloc(s, GFP_KERNEL)
    m.kmem_cache_destroy(s)


def _kmalloc_64(m: Machine, *order: int) -> Any:
    """kmalloc-64 with thirteen owners, and the fourteenth object as the record has it."""
    m.boot_slab()
    s = m.kmalloc_caches["normal", 64]
    ring(s, order[0], *[i for i in range(16) if i not in order][:13], order[1])
    first = m.kmalloc(50, GFP_KERNEL)
    for _ in range(13):
        m.kmalloc(50, GFP_KERNEL)
    m.kfree(first)  # its tenant before
    return m.kmalloc(50, GFP_KERNEL)


def kmalloc_overflow(m: Machine) -> None:
    p = _kmalloc_64(m, 1, 10)
    m.write(p + 64, b"\1\2")
    m.kfree(p)


def inner_pointer(m: Machine) -> None:
    p = _kmalloc_64(m, 8, 11)
    m.kfree(p + 8)


def destroy_without_debug(m: Machine) -> None:
    s = cache(m, 14, flags=0)
    m.kmem_cache_alloc(s, GFP_KERNEL)
    m.kmem_cache_destroy(s)


CRIMES: list[tuple[str, str, Callable[[Machine], None]]] = [
    ("slub_debug_write_past_object", BOOT, write_past),
    ("slub_debug_write_before_object", BOOT, write_before),
    ("slub_debug_use_after_free", BOOT, use_after_free),
    ("slub_debug_double_free", BOOT, double_free),
    ("slub_debug_free_to_wrong_cache", BOOT, wrong_cache),
    ("slub_debug_destroy_with_live_objects", BOOT, destroy_with_live),
    ("slub_debug_kmalloc_overflow", BOOT, kmalloc_overflow),
    ("slub_debug_kfree_inner_pointer", BOOT, inner_pointer),
    ("no_debug_destroy_with_live_objects", "", destroy_without_debug),
]


@pytest.mark.parametrize(("name", "cmdline", "crime"), CRIMES, ids=[c[0] for c in CRIMES])
def test_the_same_lines(name: str, cmdline: str, crime: Callable[[Machine], None]) -> None:
    m = machine(cmdline)
    crime(m)
    assert kernel_lines(m.dmesg()) == recorded(name)


def test_double_free_without_debugging_stops_the_kernel() -> None:
    m = machine("")
    s = cache(m, 1, flags=0)
    p = m.kmem_cache_alloc(s, GFP_KERNEL)
    m.kmem_cache_free(s, p)
    with pytest.raises(KernelBug) as stopped:
        m.kmem_cache_free(s, p)
    assert kernel_lines(str(stopped.value)) == recorded("no_debug_double_free")


def test_the_comparison_can_fail() -> None:
    m = machine()
    s = cache(m, 8, 19)
    p = m.kmem_cache_alloc(s, GFP_KERNEL)
    m.write(p + 101, b"B")
    m.kmem_cache_free(s, p)
    assert kernel_lines(m.dmesg()) != recorded("slub_debug_write_past_object")


# --- the kernel's own test of slub_debug (lib/slub_kunit.c): how many errors a check finds ------------------


def _victim(flags: int, *, free: bool) -> tuple[Machine, KmemCache, Any]:
    m = Machine("linux-6.1", memory="64M")
    s = m.kmem_cache_create("TestSlub", 64, 0, flags, None)
    p = m.kmem_cache_alloc(s, GFP_KERNEL)
    if free:
        m.kmem_cache_free(s, p)
    return m, s, p


def test_clobber_zone() -> None:
    m, s, p = _victim(SLAB_RED_ZONE, free=False)
    m.write(p + 64, b"\x12")
    assert m.validate_slab_cache(s) == 2


def test_next_pointer() -> None:
    m, s, p = _victim(SLAB_POISON, free=True)
    was = m.read(p + s.offset, 8)
    m.write(p + s.offset, bytes([was[0] ^ 0xFF]))
    assert m.validate_slab_cache(s) == 3  # the pointer, the list behind it, the count
    m.write(p + s.offset, was)
    assert m.validate_slab_cache(s) == 2  # the list is whole again, the count was made to fit the broken one
    assert m.validate_slab_cache(s) == 0


@pytest.mark.parametrize(
    ("flags", "offset", "byte"),
    [(SLAB_POISON, 0, 0x78), (SLAB_POISON, 50, 0x9A), (SLAB_RED_ZONE, 64, 0xAB)],
    ids=["first word", "50th byte", "redzone of a free object"],
)
def test_clobber_free_object(flags: int, offset: int, byte: int) -> None:
    m, s, p = _victim(flags, free=True)
    m.write(p + offset, bytes([byte]))
    assert m.validate_slab_cache(s) == 2
