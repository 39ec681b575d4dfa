"""Sleeping where one must not: what two recorded kernels said, context by context and call by call."""

from __future__ import annotations

import contextlib
import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kmemlab import GFP_ATOMIC, GFP_KERNEL, KernelBug, Machine

RECORDED = Path(__file__).parent / "recordings" / "misuse.json.gz"
ROWS = {row["file"].removesuffix(".txt"): row for row in json.loads(gzip.decompress(RECORDED.read_bytes()))}
SECTIONS: dict[str, Callable[[Machine], Any]] = {
    "process": lambda m: contextlib.nullcontext(),
    "spinlock": lambda m: m.spin_lock("lock"),
    "rawspinlock": lambda m: m.spin_lock("raw lock"),
    "preempt": lambda m: m.preempt_disable(),
    "rcu": lambda m: m.rcu_read_lock(),
    "bh": lambda m: m.local_bh_disable(),
    "irqoff": lambda m: m.local_irq_save(),
    "timer": lambda m: m.softirq(),
    "tasklet": lambda m: m.softirq(),
    "timer_idle": lambda m: m.softirq(idle=True),
    "hrtimer": lambda m: m.hardirq(),
    "irq_work": lambda m: m.hardirq(),
}
CALLS: dict[str, Callable[[Machine], Any]] = {
    "page": lambda m: m.alloc_pages(GFP_KERNEL, 0),
    "kmalloc": lambda m: m.kmalloc(100, GFP_KERNEL),
    "cache_create": lambda m: m.kmem_cache_create("crimes-ctx", 200, 0, 0, None),
    "cache_destroy": lambda m: m.kmem_cache_destroy(m.find_cache("crimes-d")),
}
CASES = [
    (kernel, call, where)
    for kernel in ("plenty", "checks") for call in CALLS for where in SECTIONS if f"{kernel}_{call}_{where}" in ROWS
]  # fmt: skip


def said(lines: list[str]) -> list[str]:
    """What is compared: without process numbers, names, kernel options, and what follows a stop."""
    out = []
    for line in lines:
        if line.startswith("Kernel panic"):
            break
        out.append(re.sub(r"pid: \d+, name: \S+", "pid: N, name: C", line))
    return out


def log_of(m: Machine) -> list[str]:
    kinds = ("BUG:", "in_atomic", "preempt_count:", "RCU nest", "kmem_cache_create", "kernel BUG")
    return [line for line in m.dmesg().splitlines() if line.startswith(kinds)]


def test_how_many() -> None:
    assert len(CASES) == 84


@pytest.mark.parametrize(("kernel", "call", "where"), CASES, ids=lambda part: part)
def test_with_memory_there(kernel: str, call: str, where: str) -> None:
    """Debian is silent wherever it need not sleep; a kernel with the checks speaks at once."""
    row = ROWS[f"{kernel}_{call}_{where}"]
    config = ("DEBUG_ATOMIC_SLEEP", "DEBUG_VM") if kernel == "checks" else ()
    m = Machine("linux-6.1", memory="64M", config=config, cmdline="slab_nomerge")
    m.kmem_cache_create("crimes-d", 300, 0, 0, None)
    stopped = False
    count = int(re.search(r"preempt_count=([0-9a-f]+)", row["module_said"][0])[1], 16)
    interrupted = count > 0xFF and count & 1 and where != "timer_idle"  # the recorder had preemption off just then
    with m.preempt_disable() if interrupted else contextlib.nullcontext(), SECTIONS[where](m):
        try:
            CALLS[call](m)
        except KernelBug:
            stopped = True
    assert stopped == (row["oops"] or row["panic"])
    assert said(log_of(m)) == said(row["kernel_said"])


def short_of_memory() -> Machine:
    """Less than half of the reserve left, and a process that can be killed."""
    m = Machine("linux-6.1", memory="128M")
    m.sysctl("watermark_boost_factor", 0)
    m.process("hog", "60M")
    while sum(zone.nr_free_pages for zone in m.zones) > sum(zone.wmark[0] for zone in m.zones) // 2:
        assert m.alloc_pages(0x22000, 0)  # __GFP_MEMALLOC | __GFP_NOWARN
    return m


@pytest.mark.parametrize(
    "where", ["process", "spinlock", "rawspinlock", "preempt", "bh", "tasklet", "timer", "hrtimer"]
)
def test_when_it_must_really_sleep(where: str) -> None:
    """Debian speaks now, once, with the scheduler's own 1 in the count; then somebody is killed and life goes on."""
    m, row, got = short_of_memory(), ROWS[f"short_page_{where}"], []

    def ask() -> None:
        got.append(m.alloc_pages(GFP_KERNEL, 0))

    if where == "timer":
        m.after(5, ask)
        m.msleep(10)
    else:
        with SECTIONS[where](m):
            ask()
    assert got[0]
    kinds = ("BUG: scheduling", "python invoked", "Out of memory", "timer:", "WARNING")
    ours = [line for line in m.dmesg().splitlines() if line.startswith(kinds)]
    # The recorder's module itself went on with a count that had underflowed: these warnings are about its loading.
    theirs = [line for line in row["kernel_said"] if not re.search("timer_delete_sync|do_one_initcall", line)]
    assert [shape(line) for line in ours] == [shape(line) for line in theirs]
    assert m.context.plain


def shape(line: str) -> str:
    """A line without names, numbers and sizes that differ from boot to boot; the counts of BUG lines stay."""
    line = re.sub(r"(insmod|python)/\d+/", "C/N/", line).replace("insmod", "C").replace("python", "C")
    line = re.sub(r"timer: .* preempt", "timer: F preempt", line)
    line = re.sub(r"PID: \d+", "PID: N", line)
    return re.sub(r"process \d+ |\d+kB", "N ", line)


@pytest.mark.parametrize("where", ["irqoff", "rcu"])
def test_sleeping_with_only_interrupts_off_is_never_noticed(where: str) -> None:
    m = Machine("linux-6.1", memory="128M")
    m.sysctl("watermark_boost_factor", 0)
    m.process("hog", "60M")
    while m.alloc_pages(0x2000, 0):
        pass
    with SECTIONS[where](m):
        assert m.alloc_pages(GFP_KERNEL, 0)
    assert "scheduling while atomic" not in m.dmesg()
    assert "Killed process" in m.dmesg()


def test_gfp_atomic_may_be_asked_everywhere() -> None:
    for where, section in SECTIONS.items():
        m = Machine("linux-6.1", memory="64M", config=("DEBUG_ATOMIC_SLEEP",))
        with section(m):
            assert m.alloc_pages(GFP_ATOMIC, 0), where
            assert m.kmalloc(100, GFP_ATOMIC), where
        assert m.dmesg() == "", where
