"""Simulated time: timers, interrupts, rate limits, copies."""

from __future__ import annotations

import pytest

from kmemlab import GFP_ATOMIC, GFP_KERNEL, Machine


@pytest.fixture
def m() -> Machine:
    return Machine("linux-6.1", memory="64M")


def test_timers_run_in_their_order_in_a_softirq(m: Machine) -> None:
    seen = []
    for ms in (30, 10, 20, 10):
        m.after(ms, lambda ms=ms: seen.append((ms, m.now, m.context.preempt_count)))
    m.msleep(25)
    assert seen == [(10, 10, 0x100), (10, 10, 0x100), (20, 20, 0x100)]
    assert m.now == 25
    m.msleep(5)
    assert len(seen) == 4


def test_a_timer_may_set_another_one(m: Machine) -> None:
    seen = []
    m.after(5, lambda: m.after(5, lambda: seen.append(m.now)))
    m.msleep(20)
    assert seen == [10]


def test_interrupts_wait_while_they_are_off(m: Machine) -> None:
    seen = []
    m.irq(lambda: seen.append(m.context.words))
    assert seen == ["a hard interrupt"]
    with m.local_irq_save():
        m.irq(lambda: seen.append("later"))
        assert len(seen) == 1
    assert seen[1:] == ["later"]


def test_a_timer_that_sleeps_is_told(m: Machine) -> None:
    m.after(1, lambda: m.msleep(1))
    m.msleep(2)
    said = m.dmesg()
    assert "BUG: scheduling while atomic: python/1/0x00000101" in said
    assert "preempt leak: 00000100 -> 00000000" in said
    assert m.context.plain


def test_rate_limit(m: Machine) -> None:
    assert [m.once_in(10, "x"), m.once_in(10, "x")] == [True, False]
    m.msleep(10)
    assert m.once_in(10, "x")


def test_what_is_no_function(m: Machine) -> None:
    with pytest.raises(TypeError, match=r"m.after wants a function without arguments, not 7"):
        m.after(1, 7)


def test_a_copy_has_its_own_time_and_processes(m: Machine) -> None:
    process = m.process("p", "1M")
    m.at(10, lambda m: m.processes[0].exit())
    twin = m.copy()
    twin.msleep(20)
    assert (twin.processes, len(m.processes), process.rss) == ([], 1, 256)
    assert twin.check()
    m.msleep(20)
    assert m.processes == []
    assert m.alloc_pages(GFP_KERNEL, 0).pfn == twin.alloc_pages(GFP_KERNEL, 0).pfn


def test_what_a_timer_allocates_is_not_the_story_of_the_call(m: Machine) -> None:
    asked: list[object] = []
    m.alloc_pages(GFP_KERNEL, 0)
    story = str(m.explain())
    m.after(5, lambda: asked.append(m.alloc_pages(GFP_ATOMIC, 1)))
    m.msleep(10)
    assert asked
    assert str(m.explain()) == story


def test_a_copy_leaves_the_learners_own_timers_behind(m: Machine) -> None:
    """They would act on the machine they were written for."""
    seen: list[float] = []
    m.after(5, lambda: seen.append(m.now))
    m.copy().msleep(10)
    assert seen == []
    m.msleep(10)
    assert seen == [5]
