"""Speed, measured as ratios in one run: ``make bench``.

CPU time, the two sides in turn, medians over rounds; the machines differ, the ratios much less.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from bare_buddy import BareBuddy

from kmemlab import GFP_KERNEL, Machine

CALLS = 120_000


def script(
    calls: int, pages: int, orders: list[int], low: float, high: float, seed: int, *, waves: bool = False
) -> list[tuple[int, int]]:
    """Calls as (order, -1) for an allocation or (order, k) for freeing the k-th block held.

    Memory is kept between ``low`` and ``high``: a fair coin in between, or in ``waves`` from one to the other.
    """
    rng = random.Random(seed)
    held: list[int] = []
    used, ops, filling = 0, [], True
    while len(ops) < calls:
        fill = used / pages
        if waves:
            filling = fill < (high if filling else low)
            grow = rng.random() < (0.75 if filling else 0.25)
        else:
            grow = fill < low or (fill < high and rng.random() < 0.5)
        if grow or not held:
            order = rng.choice(orders)
            held.append(order)
            used += 1 << order
            ops.append((order, -1))
        else:
            k = rng.randrange(len(held))
            order = held[k]
            held[k] = held[-1]
            held.pop()
            used -= 1 << order
            ops.append((order, k))
    return ops


def run_machine(ops: list[tuple[int, int]], memory: str) -> float:
    """CPU seconds of the calls on a Machine."""
    m = Machine("linux-6.1", memory=memory)
    alloc, free, held = m.alloc_pages, m.__free_pages, []
    start = time.process_time()
    for order, k in ops:
        if k < 0:
            held.append(alloc(GFP_KERNEL, order))
        else:
            page = held[k]
            held[k] = held[-1]
            held.pop()
            free(page, order)
    return time.process_time() - start


def run_bare(ops: list[tuple[int, int]], pages_log2: int) -> float:
    """CPU seconds of the same calls on the bare buddy."""
    buddy = BareBuddy(pages_log2)
    alloc, free, held = buddy.alloc, buddy.release, []
    start = time.process_time()
    for order, k in ops:
        if k < 0:
            held.append(alloc(order))
        else:
            page = held[k]
            held[k] = held[-1]
            held.pop()
            free(page, order)
    return time.process_time() - start


def replay(name: str, rounds: int) -> None:
    """Print the same for the calls of a recording of the real kernel, as often as makes a million."""
    start = Machine.from_recording(name)
    assert start.recording is not None
    ops = start.recording.ops
    times = -(-1_000_000 // len(ops) // rounds)
    pages_log2 = (max(zone.end_pfn for zone in start.zones) - 1).bit_length()
    ours, bare = [], []
    gc.disable()
    for _ in range(rounds):
        machines = [(m, m.alloc_pages, m.__free_pages) for m in (start.copy() for _ in range(times))]
        began = time.process_time()
        for m, alloc, free in machines:
            memmap = m.memmap
            for op in ops:
                if op[0]:
                    alloc(op[1], op[2])
                else:
                    free(memmap[op[1]], op[2])
        ours.append(time.process_time() - began)
        buddies = [BareBuddy(pages_log2) for _ in range(times)]
        began = time.process_time()
        for buddy in buddies:
            held: dict[int, int | None] = {}
            for op in ops:
                if op[0]:
                    held[op[3]] = buddy.alloc(op[2])
                elif (page := held.pop(op[1], None)) is not None:
                    buddy.release(page, op[2])
        bare.append(time.process_time() - began)
    gc.enable()
    us = 1e6 / (len(ops) * times)
    ratios = [b / o for o, b in zip(ours, bare, strict=True)]
    print(
        f"{rounds * times * len(ops):,} calls of recording {name}: Machine {statistics.median(ours) * us:.3f} us "
        f"a call, bare buddy {statistics.median(bare) * us:.3f} us, ratio {statistics.median(ratios):.2f}"
    )


def compare(name: str, ops: list[tuple[int, int]], memory: str, pages_log2: int, rounds: int) -> None:
    """Print microseconds a call of both and their ratio (1.0: as fast as the bare buddy)."""
    ours, bare = [], []
    gc.disable()
    for _ in range(rounds):
        ours.append(run_machine(ops, memory))
        bare.append(run_bare(ops, pages_log2))
    gc.enable()
    ratios = [b / o for o, b in zip(ours, bare, strict=True)]
    us = 1e6 / len(ops)
    print(
        f"{name}: Machine {statistics.median(ours) * us:.3f} us a call, bare buddy "
        f"{statistics.median(bare) * us:.3f} us, ratio {statistics.median(ratios):.2f} "
        f"({min(ratios):.2f}-{max(ratios):.2f})"
    )


def once(call: Callable[[], object], times: int = 7) -> float:
    """Median milliseconds of a call."""
    took = []
    for _ in range(times):
        start = time.perf_counter()
        call()
        took.append(time.perf_counter() - start)
    return statistics.median(took) * 1000


def boot_memory() -> float:
    """MiB a 4 TiB machine takes."""
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    machine = Machine("linux-6.1", memory="4T")
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    del machine
    return (after - before) / (1 << 20)


def import_times() -> tuple[float, float]:
    """Milliseconds of CPU time to import the engine, and only what it imports of the standard library; the medians of
    nine runs by turns, with bytecode, as a learner has it from the second time on."""
    timed = "import time; t = time.process_time(); import {}; print((time.process_time() - t) * 1000)"
    modules = ("kmemlab", "dataclasses, gzip, json, pathlib, re, typing")
    took: dict[str, list[float]] = {names: [] for names in modules}
    with tempfile.TemporaryDirectory() as cache:
        environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        environ["PYTHONPYCACHEPREFIX"] = cache
        for _ in range(10):
            for names, times in took.items():
                done = subprocess.run([sys.executable, "-c", timed.format(names)], capture_output=True, check=True,
                                      env=environ)  # fmt: skip
                times.append(float(done.stdout))
    first, second = (statistics.median(times[1:]) for times in took.values())  # the first run fills the cache
    return first, second


def main() -> None:
    """Run all measurements."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    pages = 1 << 16
    mixed = script(CALLS, pages, [0, 1, 2, 3, 4, 5], 0.4, 0.6, 1)
    compare("random orders 0-5, 2^16 pages, 40-60 % full", mixed, "308M", 16, rounds)
    compare("  the same in waves from 40 to 60 %", script(CALLS, pages, [0, 1, 2, 3, 4, 5], 0.4, 0.6, 1, waves=True),
            "308M", 16, rounds)  # fmt: skip
    for name, waves in (("a fair coin", False), ("in waves", True)):
        zero = script(1_000_000, pages, [0] * 19 + [1, 2, 3], 0.4, 0.6, 2, waves=waves)
        compare(f"1,000,000 calls, mostly order 0, 256 MiB, {name}", zero, "256M", 16, max(3, rounds // 2))
    replay("256M-a-21", 5)
    print(f"Machine('linux-6.1', memory='4T'): {once(lambda: Machine('linux-6.1', memory='4T')):.2f} ms, "
          f"{boot_memory():.2f} MiB")  # fmt: skip
    whole, library = import_times()
    print(f"import kmemlab: {whole:.0f} ms of CPU time (bar 100), {library:.0f} of it the standard library's")


if __name__ == "__main__":
    main()
