"""Pools and tasks tell what they do, to those who listen; what is kept of it is what happened."""

from __future__ import annotations

from typing import Any

import pytest

from kmemlab import GFP_ATOMIC, GFP_KERNEL, GFP_NOIO, NULL, Completion, KernelBug, Machine, mempool, sched
from kmemlab.task_events import LabPool, LabTask
from kmemlab.task_watch import MOST_CHANGES, MOST_STEPS, PoolWatch, TaskWatch


class Yard:
    """A machine with a pool whose allocator works only while its reserve is made."""

    def __init__(self, min_nr: int = 2) -> None:
        self.m = Machine("linux-6.1", memory="64M")
        self.works, self.made = True, 0
        self.pool = self.m.mempool_create(min_nr, self.alloc, lambda element, data: None, None)
        self.works = False

    def alloc(self, gfp: int, data: Any) -> Any:
        self.made += self.works
        return f"e{self.made - 1}" if self.works else NULL

    def copy(self, k: Any) -> Any:
        """Takes two elements, one after the other."""
        first = yield from k.mempool_alloc(self.pool, GFP_NOIO)
        yield from k.msleep(1)
        second = yield from k.mempool_alloc(self.pool, GFP_NOIO)
        yield from k.msleep(10)
        k.mempool_free(first, self.pool)
        k.mempool_free(second, self.pool)

    def herd(self, waiters: int = 3) -> None:
        """One holds the only element for 300 ms, the others want it."""

        def giver(k: Any) -> Any:
            element = yield from k.mempool_alloc(self.pool, GFP_NOIO)
            yield from k.msleep(300)
            k.mempool_free(element, self.pool)

        def waiter(k: Any) -> Any:
            element = yield from k.mempool_alloc(self.pool, GFP_NOIO)
            yield from k.msleep(10)
            k.mempool_free(element, self.pool)

        self.m.spawn(giver, "giver")
        for n in range(waiters):
            self.m.spawn(waiter, f"W{n}")


def test_events_are_built_for_listeners_only(monkeypatch: pytest.MonkeyPatch) -> None:
    class Built(Exception):
        pass

    def build(*args: Any) -> Any:
        raise Built

    monkeypatch.setattr(mempool, "LabPool", build)
    monkeypatch.setattr(sched, "LabTask", build)
    yard = Yard(1)
    yard.herd()
    yard.m.run()
    yard.m.events.subscribe(lambda event: None)
    with pytest.raises(Built):
        yard.m.mempool_alloc(yard.pool, GFP_ATOMIC)
    with pytest.raises(Built):
        yard.m.msleep(1)


def test_a_watched_machine_does_the_same() -> None:
    ends = []
    for watched in (False, True):
        yard = Yard(1)
        watches = [TaskWatch(yard.m).begin(), PoolWatch(yard.m, yard.pool).begin()] if watched else []
        yard.herd(8)
        yard.m.run()
        ends.append((yard.m.now, yard.pool.elements, yard.m.dmesg(), yard.m.cat("/proc/buddyinfo")))
        assert len(watches) == 2 * watched
    assert ends[0] == ends[1]


def test_what_a_pool_tells() -> None:
    yard = Yard(1)
    told: list[Any] = []
    yard.m.events.subscribe(lambda event: told.append(event) if isinstance(event, LabPool) else None)
    element = yard.m.mempool_alloc(yard.pool, GFP_KERNEL)
    yard.m.mempool_alloc(yard.pool, GFP_ATOMIC)
    yard.m.after(300, lambda: yard.m.mempool_free(element, yard.pool))
    yard.m.mempool_alloc(yard.pool, GFP_KERNEL)
    yard.works = True
    yard.m.mempool_resize(yard.pool, 3)
    yard.m.mempool_free(NULL, yard.pool)
    yard.m.mempool_free(element, yard.pool)
    yard.m.mempool_destroy(yard.pool)
    assert [(e.call, e.task, e.element, e.place, e.curr_nr, e.min_nr, e.tries, e.slept, e.ms) for e in told] == [
        ("alloc", "python/1", "e0", "reserve", 0, 1, 1, 0, 0),
        ("alloc", "python/1", NULL, "", 0, 1, 1, 0, 0),
        ("free", "a softirq", "e0", "reserve", 1, 1, 0, 0, 300),
        ("alloc", "python/1", "e0", "reserve", 0, 1, 3, 300, 300),
        ("resize", "python/1", NULL, "", 3, 3, 3, 0, 300),
        ("free", "python/1", NULL, "", 3, 3, 0, 0, 300),
        ("free", "python/1", "e0", "free_fn", 3, 3, 0, 0, 300),
        ("destroy", "python/1", NULL, "", 0, 3, 0, 0, 300),
    ]
    assert [int(e.mask) for e in told[:5]] == [0x92880, 0x92A20, 0, 0x92CC0, 0xCC0]


def test_what_tasks_tell() -> None:
    m, done, told = Machine("linux-6.1", memory="64M"), Completion(), []
    m.events.subscribe(lambda event: told.append(event) if isinstance(event, LabTask) else None)

    def waiter(k: Any) -> Any:
        yield from k.wait_for_completion(done)
        yield from k.cond_resched()
        raise KernelBug("x")

    def giver(k: Any) -> Any:
        yield from k.msleep(2)
        k.complete(done)

    m.spawn(waiter, "waiter")
    m.spawn(giver, "giver")
    with pytest.raises(KernelBug):
        m.run()
    assert [(e.comm, e.what, e.why, e.by, e.ms) for e in told] == [
        ("waiter", "runs", "", "", 0),
        ("waiter", "sleeps", "waits for a completion", "", 0),
        ("giver", "runs", "", "", 0),
        ("giver", "sleeps", "msleep(2)", "", 0),
        ("giver", "woken", "", "", 2),
        ("giver", "runs", "", "", 2),
        ("waiter", "woken", "", "giver/81", 2),
        ("giver", "ended", "", "", 2),
        ("waiter", "runs", "", "", 2),
        ("waiter", "gives way", "", "", 2),
        ("waiter", "woken", "", "", 3),
        ("waiter", "runs", "", "", 3),
        ("waiter", "ended", "KernelBug", "", 3),
    ]
    assert not any(e.notebook for e in told)
    m.msleep(5)
    assert [(e.what, e.why, e.notebook) for e in told[-3:]] == [
        ("sleeps", "msleep(5)", True),
        ("woken", "", True),
        ("runs", "", True),
    ]


def test_a_pool_watched() -> None:
    """Names, holders, waiters; the time of a waiter is that of its first try."""
    yard = Yard(2)
    watch = PoolWatch(yard.m, yard.pool).begin()
    yard.m.spawn(yard.copy, "copy-1")
    yard.m.spawn(yard.copy, "copy-2")
    yard.m.run(until=12_000)
    run = watch.run()
    assert [(step.call, step.element, step.reserve) for step in run.steps] == [
        ("begin", "", ("e0", "e1")),
        ("alloc", "e1", ("e0",)),
        ("alloc", "e0", ()),
    ]
    assert [tuple(each) for each in run.tasks] == [
        ("copy-1/80", ("e1",), 1, 15_001),
        ("copy-2/81", ("e0",), 1, 15_001),
    ]
    yard.works = True
    yard.m.run()
    assert watch.run().tasks == ()
    assert [step.slept for step in watch.run().steps if step.slept] == [15_000, 15_000]


def test_elements_have_names() -> None:
    """e0, e1, ... as they appear; an address that comes back has its old name, an object given up has none."""
    m = Machine("linux-6.1", memory="64M")
    pool = m.mempool_create_kmalloc_pool(2, 100)
    watch = PoolWatch(m, pool).begin()
    first = m.mempool_alloc(pool, GFP_KERNEL)
    m.mempool_free(first, pool)
    assert m.mempool_alloc(pool, GFP_KERNEL) == first
    assert [step.element for step in watch.run().steps] == ["", "e2", "e2", "e2"]
    things = m.mempool_create(1, lambda gfp, data: [0], lambda element, data: None, None)
    watch = PoolWatch(m, things).begin()
    for _ in range(3):
        m.mempool_free(m.mempool_alloc(things, GFP_KERNEL), things)
    assert [step.element for step in watch.run().steps] == ["", "e1", "e1", "e2", "e2", "e3", "e3"]
    assert len(watch.names) == 1


def test_other_pools_are_not_its_business() -> None:
    yard = Yard(2)
    other = yard.m.mempool_create_kmalloc_pool(1, 8)
    watch = PoolWatch(yard.m, yard.pool).begin()
    yard.m.mempool_alloc(other, GFP_KERNEL)
    assert len(watch.run().steps) == 1
    watch.stop()
    yard.m.mempool_alloc(yard.pool, GFP_KERNEL)
    assert len(watch.run().steps) == 1
    watch.begin()
    assert watch.run().steps[-1][1:2] + watch.run().steps[-1].reserve == ("begin", "e0")
    with pytest.raises(TypeError, match="pool must come from"):
        PoolWatch(yard.m, 7)  # type: ignore[arg-type]


def test_tries_in_vain_are_one_moment() -> None:
    """600 seconds of two tasks that wait for each other: four moments, and every retry is counted."""
    yard = Yard(2)
    watch = TaskWatch(yard.m).begin()
    yard.m.spawn(yard.copy, "copy-1")
    yard.m.spawn(yard.copy, "copy-2")
    yard.m.run(until=600_000)
    run = watch.run()
    assert [(moment.first, moment.ms, moment.folded) for moment in run.moments] == [
        (0, 0, 1),
        (1, 1, 1),
        (5001, 5001, 1),
        (10_001, 595_001, 118),
    ]
    assert [(lane.since, lane.again) for lane in run.moments[-1].after.values()] == [(1, 119), (1, 119)]
    yard.works = True
    yard.m.news()
    yard.m.run()
    run = watch.run()
    assert [moment.folded for moment in run.moments] == [1, 1, 1, 118, 1, 1]
    assert {lane.what for lane in run.moments[-1].after.values()} == {"ended"}


def test_sleeping_again_is_not_in_vain() -> None:
    """A task that sleeps 5 ms again and again gets on with something."""
    m = Machine("linux-6.1", memory="64M")

    def ticker(k: Any) -> Any:
        for _ in range(MOST_STEPS + 20):
            yield from k.msleep(5)

    watch = TaskWatch(m).begin()
    m.spawn(ticker, "ticker")
    m.run()
    run = watch.run()
    assert len(run.moments) == MOST_STEPS
    assert {moment.folded for moment in run.moments} == {1}
    assert run.before[80].what == "sleeps"
    assert run.before[80].since == run.moments[0].ms - 5


def test_a_herd_is_seen() -> None:
    yard = Yard(1)
    watch = TaskWatch(yard.m).begin()
    yard.herd()
    yard.m.run()
    moment = next(each for each in watch.run().moments if each.ms == 300)
    woken = [(change.pid, change.by) for change in moment.changes if change.what == "woken"]
    assert woken == [(80, ""), (83, "giver/80"), (82, "giver/80"), (81, "giver/80")]
    got = [change.pid for change in moment.changes if change.what == "got"]
    assert got == [83]
    assert {moment.after[pid].again for pid in (81, 82)} == {1}
    assert moment.after[83].why == "msleep(10)"


def test_a_long_moment_is_cut_and_the_lanes_are_right() -> None:
    m = Machine("linux-6.1", memory="64M")
    pool = m.mempool_create_kmalloc_pool(1, 8)

    def busy(k: Any) -> Any:
        for _ in range(MOST_CHANGES):
            k.mempool_free((yield from k.mempool_alloc(pool, GFP_KERNEL)), pool)
        yield from k.msleep(5)

    watch = TaskWatch(m).begin()
    m.spawn(busy, "busy")
    m.run(until=2)
    (moment,) = watch.run().moments
    assert len(moment.changes) == MOST_CHANGES
    assert moment.after[80].why == "msleep(5)"


def test_tasks_that_sleep_already() -> None:
    m = Machine("linux-6.1", memory="64M")

    def sleeper(k: Any) -> Any:
        yield from k.msleep(50)

    m.spawn(sleeper, "sleeper")
    m.run(until=10)
    watch = TaskWatch(m).begin()
    assert watch.run().before[80].comm == "sleeper"
    watch.stop()
    m.run()
    assert watch.run().moments == ()
