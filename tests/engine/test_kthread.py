"""Tasks: turns, sleeping, waking, waiting for one another, hanging; the same seed gives the same schedule."""

from __future__ import annotations

import pytest

from kmemlab import GFP_KERNEL, GFP_NOIO, NULL, Completion, HungTask, KernelBug, Machine, Stuck


@pytest.fixture
def m() -> Machine:
    return Machine("linux-6.1", memory="64M")


def test_they_take_turns_and_sleep(m: Machine) -> None:
    seen = []

    def body(name, ms):
        def run(k):
            for _ in range(2):
                seen.append((name, k.now))
                yield from k.msleep(ms)
            return name

        return run

    a, b = m.spawn(body("a", 10), "a"), m.spawn(body("b", 4), "b")
    m.run()
    assert seen == [("a", 0), ("b", 0), ("b", 4), ("a", 10)]
    assert (a.result, b.result, m.now) == ("a", "b", 20)
    assert not m.tasks
    assert a.pid + 1 == b.pid


def test_until(m: Machine) -> None:
    def run(k):
        while True:
            yield from k.msleep(100)

    m.spawn(run, "ticker")
    m.run(until=250)
    assert m.now == 250
    assert len(m.tasks) == 1
    m.run(until=1000)
    assert m.now == 1000


def test_each_has_its_own_context(m: Machine) -> None:
    def holder(k):
        with (yield from k.mutex_lock("lock")):
            yield from k.msleep(50)

    def waiter(k):
        yield from k.msleep(1)
        held = yield from k.mutex_lock("lock")
        assert k.context.comm == "waiter"
        held.undo()
        return k.now

    m.spawn(holder, "holder")
    task = m.spawn(waiter, "waiter")
    m.run()
    assert task.result == 50
    assert m.context.comm == "python"


def test_many_wait_for_one_mutex_and_have_it_in_turn(m: Machine) -> None:
    seen = []

    def body(name):
        def run(k):
            for _ in range(2):
                with (yield from k.mutex_lock("lock")):
                    seen.append((name, k.now))
                    yield from k.msleep(10)

        return run

    for name in "abcd":
        m.spawn(body(name), name)
    m.run()
    assert seen == [(name, 10 * turn) for turn, name in enumerate("abcdabcd")]
    assert not m.mutexes


def test_sleeping_with_a_spinlock_is_told(m: Machine) -> None:
    def run(k):
        with k.spin_lock("s"):
            yield from k.msleep(1)

    m.spawn(run, "careless")
    m.run()
    assert f"BUG: scheduling while atomic: careless/{80}/0x00000002" in m.dmesg()


def test_two_that_wait_for_each_other(m: Machine) -> None:
    def run(first, second):
        def body(k):
            with (yield from k.mutex_lock(first)):
                yield from k.msleep(1)
                with (yield from k.mutex_lock(second)):
                    pass

        return body

    m.spawn(run("a", "b"), "ab")
    m.spawn(run("b", "a"), "ba")
    with pytest.raises(HungTask, match=r"ab/80 waits for the mutex 'b', and ba/81 holds it"):
        m.run()
    assert m.dmesg().count("blocked for more than 120 seconds") == 2


def test_a_task_that_hangs_never_gets_to_the_end_of_its_section(m: Machine) -> None:
    def body(k):
        with (yield from k.mutex_lock("a")):
            yield from k.wait_for_completion(Completion())

    task = m.spawn(body, "t")
    with pytest.raises(HungTask):
        m.run()
    task.body.close()
    assert m.mutex_is_locked("a")


def test_a_completion_wakes_one(m: Machine) -> None:
    done, woken = Completion(), []

    def waiter(name):
        def run(k):
            yield from k.wait_for_completion(done)
            woken.append(name)

        return run

    for name in "abc":
        m.spawn(waiter(name), name)
    m.run(until=10)
    m.complete(done)
    m.run(until=20)
    assert woken == ["a"]
    m.complete(done)
    m.complete(done)
    m.run()
    assert sorted(woken) == ["a", "b", "c"]


def test_the_notebook_sleeps_and_others_run(m: Machine) -> None:
    seen = []

    def run(k):
        yield from k.msleep(5)
        seen.append(k.now)

    m.spawn(run, "other")
    m.msleep(10)
    assert seen == [5]
    assert m.now == 10


def test_a_task_that_raises(m: Machine) -> None:
    def run(k):
        yield from k.msleep(1)
        raise KernelBug("gone")

    m.spawn(run, "bad")
    with pytest.raises(KernelBug, match="gone"):
        m.run()
    assert not m.tasks
    assert m.context.comm == "python"


def test_what_is_no_task(m: Machine) -> None:
    with pytest.raises(TypeError, match=r"m\.spawn wants a function of k with a `yield` in it"):
        m.spawn(lambda k: 1, "x")

    def forgot(k):
        yield 7

    m.spawn(forgot, "forgot")
    with pytest.raises(TypeError, match=r"task forgot yielded 7: write `yield from k.NAME"):
        m.run()


def test_a_task_allocates_and_others_run_meanwhile() -> None:
    """The task's slow path waits for memory that another task gives back."""
    m = Machine("linux-6.1", memory="64M")
    m.sysctl("watermark_boost_factor", 0)
    held = []
    with m.preempt_disable():
        while page := m.alloc_pages(0x2000, 0):
            held.append(page)

    def giver(k):
        yield from k.msleep(20)
        for page in held:
            k.__free_pages(page, 0)

    def taker(k):
        page = yield from k.alloc_pages(GFP_NOIO, 0)
        return page, k.now

    m.spawn(giver, "giver")
    task = m.spawn(taker, "taker")
    m.run()
    assert task.result[0]
    assert task.result[1] >= 20


def test_a_copy_leaves_tasks_behind(m: Machine) -> None:
    def run(k):
        yield from k.msleep(5)

    m.spawn(run, "a")
    twin = m.copy()
    assert not twin.tasks
    twin.msleep(10)
    assert len(m.tasks) == 1


def test_the_same_calls_give_the_same_schedule() -> None:
    def once():
        m, seen = Machine("linux-6.1", memory="64M"), []
        for i in range(5):

            def run(k, i=i):
                for n in range(4):
                    yield from k.msleep(1 + (i * 7 + n * 3) % 5)
                    seen.append((i, n, k.now))

            m.spawn(run, f"t{i}")
        m.run()
        return seen

    assert once() == once()


def test_waiting_for_ever_while_something_goes_on(m: Machine) -> None:
    """A timer that sets itself again helps nobody: after two minutes the wait is given up."""

    def again():
        m.after(10, again)

    again()
    with m.mutex_lock("lock"), pytest.raises(Stuck):
        m.mutex_lock("lock")
    assert m.now < 300_000
    assert len(m.mutexes) == 0


def test_a_pool_that_nobody_fills_while_something_goes_on(m: Machine) -> None:
    """A timer that comes again and again does not keep the notebook for ever; nobody is on a queue afterwards."""
    pool = m.mempool_create(0, lambda gfp_mask, data: NULL, lambda element, data: None)

    def again():
        m.after(1000, again)

    again()
    with pytest.raises(Stuck, match="Timers go on, and for two minutes none of them has helped"):
        m.mempool_alloc(pool, GFP_KERNEL)
    assert m.now <= 130_000
    assert not pool.wait.tasks
    assert not m.running[0].why


def test_others_that_go_on_are_not_called_waiters(m: Machine) -> None:
    """A task that only sleeps again and again is not among those who wait, and nothing is said to be over."""

    def ticker(k):
        while True:
            yield from k.msleep(1000)

    m.spawn(ticker, "ticker")
    with m.mutex_lock("lock"), pytest.raises(HungTask) as caught:
        m.mutex_lock("lock")
    assert "Others go on, and for two minutes none of them has helped." in str(caught.value)
    assert "ticker" not in str(caught.value)
    assert "never end" not in str(caught.value)
