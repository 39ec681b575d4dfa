"""Long random runs: the model keeps its own books whatever is asked of it.

``KMEMLAB_STRESS=full`` runs ten seeds of 100,000 calls; otherwise the runs are short.
"""

from __future__ import annotations

import os
import random

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from kmemlab import GFP_KERNEL, KernelBug, Machine
from tests.engine.calls import MASKS, asked, free_all, free_blocks, random_calls, state

FULL = os.environ.get("KMEMLAB_STRESS") == "full"
SEEDS = range(10) if FULL else range(3)
CALLS = 100_000 if FULL else 6_000
EVERY = 50

SHAPES = {
    "16M": {"memory": "16M"},
    "64M-cpus4": {"memory": "64M", "cpus": 4},
    "128M-movable": {"memory": "128M", "cmdline": "kernelcore=64M", "cpus": 2},
}


def managed(m: Machine) -> int:
    return sum(zone.managed for zone in m.zones)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("shape", SHAPES if not FULL else ["64M-cpus4"])
def test_long_runs(shape: str, seed: int) -> None:
    """No violation, no page lost or doubled; at the end all memory merges into the blocks of the boot."""
    m = Machine("linux-6.1", **SHAPES[shape])
    boot, total = free_blocks(m), managed(m)
    held: list = []
    failed = 0
    for index, call in enumerate(random_calls(m, seed, CALLS, held)):
        failed += call[0] == "alloc" and call[3] < 0
        if index % EVERY == 0:
            result = m.check()
            assert result
            assert result.free + sum(1 << order for _, order in held) == total, call
    assert failed, "the run never reached the end of memory: it tests too little"
    free_all(m, held, seed)
    assert m.check().free == total
    assert free_blocks(m) == boot
    assert not m.lost
    assert not m.tainted
    assert "BUG" not in m.dmesg()


@pytest.mark.parametrize("seed", range(4))
def test_every_step_of_a_short_run(seed: int) -> None:
    """The same with a check after each call: a violation is seen at the call that makes it."""
    m = Machine("linux-6.1", memory="8M", cpus=2)
    total, held = managed(m), []
    for call in random_calls(m, 100 + seed, 500, held):
        result = m.check()
        assert result, call
        assert result.free + sum(1 << order for _, order in held) == total, call


@pytest.mark.parametrize("without", ["pcp", "merge_likely", "steal_block", "batch_scale", "highatomic", "counter_lag"])
def test_a_machine_without_a_rule_keeps_its_books_too(without: str) -> None:
    """A rule switched off changes which page comes, never the bookkeeping."""
    m = Machine("linux-6.1", memory="16M", cpus=2, without={without})
    boot, total, held = free_blocks(m), managed(m), []
    for index, _ in enumerate(random_calls(m, 5, 1500, held)):
        assert index % 100 or m.check()
    free_all(m, held)
    assert m.check().free == total
    assert free_blocks(m) == boot


def test_same_seed_same_calls_same_machine() -> None:
    """Nothing random, no clock, no global: two machines that get the same calls are the same for ever."""
    one, two = (Machine("linux-6.1", memory="32M", cpus=2, seed=7) for _ in range(2))
    first = list(random_calls(one, 3, 3000, []))
    second = list(random_calls(two, 3, 3000, []))
    assert first == second
    assert state(one) == state(two)


def test_two_machines_share_nothing() -> None:
    """Calls on one machine do not show on another that was made before it."""
    other = Machine("linux-6.1", memory="32M")
    before = state(other)
    list(random_calls(Machine("linux-6.1", memory="32M"), 1, 500, []))
    assert state(other) == before


class SmallMachine(RuleBasedStateMachine):
    """Hypothesis looks for the shortest sequence of calls that breaks the books of an 8 MiB machine."""

    pages = Bundle("pages")

    def __init__(self) -> None:
        super().__init__()
        self.m = Machine("linux-6.1", memory="8M", cpus=2)
        self.total = managed(self.m)
        self.used = 0

    @rule(target=pages, gfp=st.sampled_from(MASKS), order=st.integers(0, 10))
    def alloc(self, gfp, order):
        page = asked(self.m, gfp | 0x2000, order)
        if page:
            assert page.refcount == 1
            assert page.pfn % (1 << order) == 0
            self.used += 1 << order
        return page, order

    @rule(target=pages, size=st.integers(1, 200_000))
    def alloc_exact(self, size):
        addr = self.m.alloc_pages_exact(size, GFP_KERNEL | 0x2000)
        self.used += -(-size // 4096) if addr else 0
        return addr, size

    @rule(block=consumes(pages))
    def free(self, block):
        what, how = block
        if not what:
            return
        if isinstance(what, int):
            self.m.free_pages_exact(what, how)
            self.used -= -(-how // 4096)
        else:
            self.m.__getattribute__("__free_pages")(what, how)
            self.used -= 1 << how

    @rule()
    def drain(self):
        self.m.drain_all_pages()

    @rule(cpu=st.integers(0, 1))
    def switch(self, cpu):
        self.m.cpu = cpu

    @rule(kbytes=st.sampled_from((128, 512, 1024)))
    def min_free(self, kbytes):
        self.m.sysctl("vm.min_free_kbytes", kbytes)

    @rule(listen=st.booleans())
    def observe(self, listen):
        self.m.events.subscribers[:] = []
        if listen:
            self.m.events.subscribe(lambda event: None)
        else:
            self.m.events.changed()

    @invariant()
    def books(self):
        result = self.m.check()
        assert result
        assert result.free + self.used == self.total


SmallMachine.TestCase.settings = settings(
    max_examples=300 if FULL else 20, stateful_step_count=40, deadline=None, derandomize=not FULL
)
TestSmallMachine = SmallMachine.TestCase


@pytest.mark.parametrize("seed", range(40 if FULL else 12))
def test_whatever_the_caller_does_our_books_stay_right(seed: int) -> None:
    """Pages freed twice, with the wrong order, with one that others hold: the model names what was lost or stops
    as a kernel stops (KernelBug); ``check()`` never finds a mistake of its own."""
    rng = random.Random(seed)
    m = Machine("linux-6.1", memory="32M", cpus=2)
    give_back = m.__getattribute__("__free_pages")
    held, gone, broken, report = [], [], 0, ""
    try:
        for _ in range(120):
            m.cpu = rng.randrange(2)
            if rng.random() < 0.5 or not held:
                page = asked(m, rng.choice(MASKS) | 0x2000, rng.choice((0, 0, 1, 2, 3, 4, 6)))
                held += [page] if page else []
            elif gone and rng.random() < 0.2:
                broken += 1
                give_back(rng.choice(gone), rng.randrange(5))
            else:
                page = held.pop(rng.randrange(len(held)))
                wrong = rng.random() < 0.2
                broken += wrong
                give_back(page, rng.randrange(7) if wrong else page.order)
                gone.append(page)
            m.check()
    except KernelBug as stop:
        report = str(stop)
    assert bool(report) <= bool(broken), report
    assert "BUG" in report or not report
    assert m.tainted or not broken
