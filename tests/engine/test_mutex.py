"""Mutexes: who holds them, where one may take them, and the task that waits for itself."""

from __future__ import annotations

import pytest

from kmemlab import __GFP_NOWARN, GFP_KERNEL, GFP_NOFS, GFP_NOWAIT, HungTask, KernelBug, Machine, Stuck


@pytest.fixture
def m() -> Machine:
    return Machine("linux-6.1", memory="64M")


def test_held_and_given_back(m: Machine) -> None:
    with m.mutex_lock("inode"):
        assert m.mutex_is_locked("inode")
        assert not m.mutex_trylock("inode")
        assert m.mutex_trylock("other")
        assert m.context.may_sleep
    assert not m.mutex_is_locked("inode")
    m.mutex_unlock("other")
    with pytest.raises(KernelBug, match="releases the mutex 'other', which it does not hold"):
        m.mutex_unlock("other")


def test_waiting_for_oneself(m: Machine) -> None:
    with m.mutex_lock("fs"), pytest.raises(HungTask) as caught:
        m.mutex_lock("fs")
    assert isinstance(caught.value, Stuck)
    assert "INFO: task python:1 blocked for more than 120 seconds." in m.dmesg()
    assert "python/1 holds it, that is the same task" in str(caught.value)
    assert m.now >= 120_000
    assert not m.mutex_is_locked("fs")  # the with block has ended


def test_where_nobody_may_sleep() -> None:
    m = Machine("linux-6.1", memory="64M", config=("DEBUG_ATOMIC_SLEEP",))
    with m.spin_lock("s"), m.mutex_lock("fs"):
        pass
    assert "BUG: sleeping function called from invalid context at kernel/locking/mutex.c:283" in m.dmesg()


def filesystem(m: Machine):
    """A file system whose shrinker takes the lock that its writers hold."""
    c = m.kmem_cache_create("inode", 4096, 0, 0, None)
    inodes = [m.kmem_cache_alloc(c, GFP_KERNEL) for _ in range(2000)]

    def scan(sc):
        with m.mutex_lock("fs"):
            for _ in range(nr := min(sc.nr_to_scan, len(inodes))):
                m.kmem_cache_free(c, inodes.pop())
        return nr

    m.register_shrinker(lambda sc: len(inodes) if sc.gfp_mask & 0x80 else 0, scan)
    while m.alloc_pages(__GFP_NOWARN, 0):
        pass
    return inodes


def test_reclaim_that_calls_its_caller(m: Machine) -> None:
    filesystem(m)
    with m.mutex_lock("fs"), pytest.raises(HungTask):
        m.kmalloc(4096, GFP_KERNEL)
    assert not m.mutexes
    assert m.context.plain
    assert m.check()


def test_without_fs_it_is_not_called(m: Machine) -> None:
    m.read_file("big", "8M")
    inodes = filesystem(m)
    with m.mutex_lock("fs"):
        assert m.kmalloc(4096, GFP_NOFS)
    assert len(inodes) == 2000


def test_kswapd_passes_over_what_it_would_wait_for(m: Machine) -> None:
    inodes = filesystem(m)
    with m.mutex_lock("fs"):
        while m.alloc_pages(GFP_NOWAIT | __GFP_NOWARN, 0):
            m.msleep(1)
        assert len(inodes) == 2000
    while m.alloc_pages(GFP_NOWAIT | __GFP_NOWARN, 0) and len(inodes) == 2000:
        m.msleep(1)
    assert len(inodes) < 2000


def test_a_copy_has_the_same_mutexes(m: Machine) -> None:
    with m.mutex_lock("fs"):
        twin = m.copy()
        twin.mutex_unlock("fs")
        assert m.mutex_is_locked("fs")


def test_a_copy_wakes_nobody_of_ours(m: Machine) -> None:
    """Who waits stays behind: a copy that gives the mutex back leaves the first machine's waiter asleep."""

    def waiter(k):
        yield from k.mutex_lock("fs")

    with m.mutex_lock("fs"):
        task = m.spawn(waiter, "waiter")
        m.msleep(1)
        m.copy().mutex_unlock("fs")
        assert task.queue is not None
        assert task in m.tasks
