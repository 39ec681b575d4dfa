"""Contexts: the counts, both ways to leave a section, scopes, what is wrong."""

from __future__ import annotations

import pytest

from kmemlab import GFP_ATOMIC, GFP_KERNEL, GFP_NOFS, GFP_NOIO, KernelBug, Machine
from kmemlab import reclaim_events as told


@pytest.fixture
def m() -> Machine:
    return Machine("linux-6.1", memory="64M", config=("DEBUG_ATOMIC_SLEEP",))


def test_counts(m: Machine) -> None:
    with m.spin_lock("a"), m.spin_lock("b"):
        assert m.context.preempt_count == 2
        assert m.in_atomic()
        assert m.context.words == "process context, holding a, b"
    with m.local_bh_disable():
        assert m.context.preempt_count == 0x200
        assert m.context.in_interrupt
    with m.softirq(idle=True):
        assert (m.context.preempt_count, m.context.comm) == (0x101, "swapper/0")
        with m.hardirq():
            assert m.context.preempt_count == 0x10101
            assert m.irqs_disabled()
    with m.spin_lock_irqsave("a"), m.rcu_read_lock():
        assert "interrupts off" in m.context.words
        assert "rcu" in m.context.words
    with m.spin_lock_bh("a"):
        assert m.context.preempt_count == 0x201
    assert m.context.plain
    assert m.context.comm == "python"


def test_without_with(m: Machine) -> None:
    m.spin_lock("lock")
    m.local_irq_save()
    assert not m.context.may_sleep
    m.local_irq_restore()
    m.spin_unlock("lock")
    assert m.context.plain


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda m: (m.spin_lock("l"), m.spin_lock("l")), "spinlock recursion"),
        (lambda m: m.spin_unlock("l"), "already unlocked"),
        (lambda m: m.preempt_enable(), "more was released than was held"),
        (lambda m: m.rcu_read_unlock(), "without rcu_read_lock"),
    ],
)
def test_what_is_not_held(m: Machine, wrong, says: str) -> None:
    with pytest.raises(KernelBug, match=says):
        wrong(m)


def masks(m: Machine, gfp: int) -> list[int]:
    m.alloc_pages(gfp, 0)
    return [event.gfp for event in m.last_events() if isinstance(event, told.LabContext)]


def test_scopes(m: Machine) -> None:
    assert masks(m, GFP_KERNEL) == [], "nothing special, nothing told"
    outer = m.memalloc_nofs_save()
    assert masks(m, GFP_KERNEL) == [GFP_NOFS]
    inner = m.memalloc_noio_save()
    assert masks(m, GFP_KERNEL) == [GFP_NOIO]
    assert masks(m, GFP_ATOMIC) == [GFP_ATOMIC]
    again = m.memalloc_noio_save()
    m.memalloc_noio_restore(again)
    assert masks(m, GFP_KERNEL) == [GFP_NOIO], "the outer scope is still open"
    m.memalloc_noio_restore(inner)
    assert masks(m, GFP_KERNEL) == [GFP_NOFS]
    m.memalloc_nofs_restore(outer)
    assert m.context.plain


def test_a_task_that_frees_memory_may_take_all(m: Machine) -> None:
    while m.alloc_pages(GFP_ATOMIC | 0x2000, 0):
        pass
    flags = m.memalloc_noreclaim_save()
    assert m.alloc_pages(GFP_KERNEL, 0)
    m.memalloc_noreclaim_restore(flags)


def test_at_most_one_complaint_a_second(m: Machine) -> None:
    with m.spin_lock("lock"):
        for _ in range(3):
            m.kmalloc(100, GFP_KERNEL)
    assert m.dmesg().count("sleeping function called") == 1
    m.msleep(1001)
    with m.spin_lock("lock"):
        m.alloc_pages(GFP_KERNEL, 0)
    assert m.dmesg().count("sleeping function called") == 2
    assert "Tainted: G        W" in m.dmesg()
    assert m.context.plain


def test_the_event_has_the_mask_of_the_scope() -> None:
    """ftrace shows what reached the allocator, not what the source says."""
    m = Machine("linux-6.1", memory="64M")
    for save, restore, mask in (
        (m.memalloc_nofs_save, m.memalloc_nofs_restore, GFP_NOFS),
        (m.memalloc_noio_save, m.memalloc_noio_restore, GFP_NOIO),
    ):
        flags = save()
        m.alloc_pages(GFP_KERNEL, 0)
        restore(flags)
        assert [e.gfp_flags for e in m.last_events() if e.name == "mm_page_alloc"] == [mask]
