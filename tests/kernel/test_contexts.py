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

from kmemlab import GFP_ATOMIC, GFP_KERNEL, NULL, KernelBug, Machine

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
    "mempool": lambda m: m.mempool_alloc(m.crimes_pool, GFP_KERNEL),
}


class Crimes(Machine):
    """A machine with the pool of the recording module."""

    __slots__ = ("crimes_pool",)


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
    assert len(CASES) == 108


@pytest.mark.parametrize(("kernel", "call", "where"), CASES, ids=lambda part: part)
def test_with_memory_there(kernel: str, call: str, where: str) -> None:
    """Debian is silent wherever it need not sleep; a kernel with the checks speaks at once."""
    row = ROWS[f"{kernel}_{call}_{where}"]
    config = ("DEBUG_ATOMIC_SLEEP", "DEBUG_VM") if kernel == "checks" else ()
    m = Crimes("linux-6.1", memory="64M", config=config, cmdline="slab_nomerge")
    m.kmem_cache_create("crimes-d", 300, 0, 0, None)
    m.crimes_pool = m.mempool_create_kmalloc_pool(2, 100)
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


# --- memory pools --------------------------------------------------------------------------------------------------


def empty_pool(m: Machine, element: str = "e0"):
    """A pool whose one element is out, and whose allocator has nothing; a timer gives the element back after 1 s."""
    works = [True]
    pool = m.mempool_create(1, lambda gfp_mask, data: element if works[0] else NULL, lambda element, data: None)
    works[0] = False
    assert m.mempool_alloc(pool, GFP_KERNEL) == element
    m.after(1000, lambda: m.mempool_free(element, pool))
    return pool


@pytest.mark.parametrize("where", ["process", "spinlock", "preempt", "rcu", "irqoff", "timer", "hrtimer"])
def test_waiting_at_an_empty_pool(where: str) -> None:
    """It sleeps until the timer gives the element back; said is what the scheduler says, or nothing."""
    m, row, got = Machine("linux-6.1", memory="64M"), ROWS[f"mempool_empty_{where}"], []
    pool = empty_pool(m)

    def ask() -> None:
        got.append(m.mempool_alloc(pool, GFP_KERNEL))

    if where == "timer":
        m.after(5, ask)
        m.msleep(10)
    else:
        with SECTIONS[where](m):
            ask()
    assert got == ["e0"]
    assert 995 <= m.now <= 1010
    ours = [line for line in m.dmesg().splitlines() if line.startswith(("BUG: scheduling", "timer:", "WARNING"))]
    theirs = [line for line in row["kernel_said"] if not re.search("timer_delete_sync|do_one_initcall", line)]
    without = [re.sub(r"\+0x.*", "", shape(line)) for line in ours]
    assert without == [re.sub(r"\+0x.*", "", shape(line)) for line in theirs]


def test_crimes_with_pools() -> None:
    """Each said what the recorded kernel said, and stopped where it stopped."""
    m = Machine("linux-6.1", memory="64M")
    pool = m.mempool_create_kmalloc_pool(0, 100)
    m.mempool_free(m.mempool_alloc(pool, GFP_ATOMIC), pool)
    assert pool.curr_nr == 0
    with pytest.raises(KernelBug) as stop:
        m.mempool_resize(pool, 0)
    assert ROWS["mempool_min0"]["kernel_said"][0] in str(stop.value)
    pool = m.mempool_create_kmalloc_pool(2, 100)
    foreign = m.kmalloc(100, GFP_KERNEL)
    m.mempool_free(foreign, pool)
    assert pool.curr_nr == 2
    with pytest.raises(KernelBug) as stop:
        m.mempool_free(foreign, pool)
    assert ROWS["mempool_foreign"]["kernel_said"][0] in str(stop.value)
    pool = m.mempool_create_kmalloc_pool(2, 100)
    m.mempool_destroy(pool)
    with pytest.raises(KernelBug) as stop:
        m.mempool_destroy(pool)
    assert ROWS["mempool_destroy_twice"]["kernel_said"][0] in str(stop.value)


@pytest.mark.parametrize("config", [(), ("DEBUG_VM",)], ids=["debian", "checks"])
def test_a_constructor_and_zeroing(config) -> None:
    """Debian takes a pool over a cache with a constructor and __GFP_ZERO silently; a checking kernel does not."""
    m = Machine("linux-6.1", memory="64M", config=config)
    c = m.kmem_cache_create("crimes-mpc", 128, 0, 0, lambda p: None)
    name = "checks_mempool_" if config else "mempool_"
    row = ROWS[f"{name}ctor"]
    if row["silent"]:
        assert m.mempool_alloc(m.mempool_create_slab_pool(2, c), GFP_KERNEL)
    else:
        with pytest.raises(KernelBug) as stop:
            m.mempool_create_slab_pool(2, c)
        assert row["kernel_said"][0] in str(stop.value)
    m.mempool_alloc(m.mempool_create_kmalloc_pool(1, 100), GFP_KERNEL | 0x100)
    ours = [line for line in m.dmesg().splitlines() if line.startswith("WARNING")]
    theirs = ROWS[f"{name}zero"]["kernel_said"]
    assert [re.sub(r"PID: \d+", "", line) for line in ours] == [re.sub(r"PID: \d+", "", line) for line in theirs]
