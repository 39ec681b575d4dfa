"""Memory pools: who is served, who waits, who wakes; misuse in the kernel's words; random allocators."""

from __future__ import annotations

import random

import pytest

from kmemlab import GFP_ATOMIC, GFP_KERNEL, GFP_NOIO, NULL, Completion, KernelBug, Machine, MemPool, Stuck


class Parts:
    """An allocator of numbered elements that can be broken; ``calls`` are the masks it saw."""

    def __init__(self, m: Machine, min_nr: int) -> None:
        self.works, self.made = True, 0
        self.calls: list[int] = []
        self.freed: list[str] = []
        self.pool = m.mempool_create(min_nr, self.alloc, self.free, None)

    def alloc(self, gfp_mask, pool_data):
        self.calls.append(int(gfp_mask))
        if not self.works:
            return NULL
        self.made += 1
        return f"e{self.made - 1}"

    def free(self, element, pool_data) -> None:
        self.freed.append(element)


@pytest.fixture
def m() -> Machine:
    return Machine("linux-6.1", memory="64M")


def empty(m: Machine, min_nr: int) -> tuple[Parts, list[str]]:
    """A pool whose reserve is out and whose allocator is broken."""
    parts = Parts(m, min_nr)
    parts.works = False
    out = [m.mempool_alloc(parts.pool, GFP_KERNEL) for _ in range(min_nr)]
    parts.calls.clear()
    return parts, out


@pytest.mark.parametrize("waiters", [1, 3, 8])
def test_one_element_wakes_all(m: Machine, waiters: int) -> None:
    """n wait; each element that comes back wakes all who are left: n(n + 1)/2 tries after the sleep, 2n before."""
    parts, out = empty(m, waiters)
    served = []

    def waiter(k):
        element = yield from k.mempool_alloc(parts.pool, GFP_KERNEL)
        served.append((element, k.now))

    for i in range(waiters):
        m.spawn(waiter, f"w{i}")
    m.run(until=100)
    assert len(parts.calls) == 2 * waiters
    for element in out:
        m.msleep(300)
        m.mempool_free(element, parts.pool)
        m.msleep(1)
    assert len(served) == waiters
    assert len(parts.calls) == 2 * waiters + waiters * (waiters + 1) // 2
    assert [element for element, _ in served] == out
    assert parts.pool.curr_nr == 0


def test_the_last_who_came_is_woken_first(m: Machine) -> None:
    parts, out = empty(m, 3)
    served = []

    def waiter(name):
        def run(k):
            yield from k.mempool_alloc(parts.pool, GFP_KERNEL)
            served.append(name)

        return run

    for name in ("w0", "w1", "w2"):
        m.spawn(waiter(name), name)
    m.run(until=10)
    for element in out:
        m.mempool_free(element, parts.pool)
        m.msleep(1)
    assert served == ["w2", "w0", "w1"]


def copies(m: Machine, pool: MemPool, tasks: int, each: int) -> list[int]:
    """Tasks that each take elements one after the other and hold them; the order in which they end."""
    ended = []

    def run(n):
        def body(k):
            held = []
            for _ in range(each):
                held.append((yield from k.mempool_alloc(pool, GFP_NOIO)))
                yield from k.msleep(1)
            yield from k.msleep(10)
            for element in held:
                k.mempool_free(element, pool)
            ended.append(n)

        return body

    for n in range(tasks):
        m.spawn(run(n), f"copy-{n}")
    return ended


@pytest.mark.parametrize(("tasks", "each"), [(2, 2), (3, 2), (4, 3), (5, 4)])
def test_the_smallest_pool_that_never_stops(tasks: int, each: int) -> None:
    """tasks * (each - 1) + 1: one less, and everybody holds all but one."""
    for min_nr, ends in ((tasks * (each - 1) + 1, True), (tasks * (each - 1), False)):
        m = Machine("linux-6.1", memory="64M")
        parts = Parts(m, min_nr)
        parts.works = False
        ended = copies(m, parts.pool, tasks, each)
        if ends:
            m.run()
            assert sorted(ended) == list(range(tasks))
            assert parts.pool.curr_nr == min_nr
        else:
            with pytest.raises(Stuck) as caught:
                m.run()
            assert f"copy-0/80 waits in mempool_alloc, 0 of {min_nr} in reserve" in str(caught.value)
            assert "without a word" in str(caught.value)
            assert not m.dmesg()
            assert m.now == pytest.approx(120_000, abs=10_000)


def test_waiters_of_a_pool_are_never_reported_but_who_waits_for_them_is(m: Machine) -> None:
    """Two stuck copies, and sync waits for both: after two minutes the log names sync."""
    parts = Parts(m, 2)
    parts.works = False
    copies(m, parts.pool, 2, 2)
    done = Completion()

    def sync(k):
        yield from k.wait_for_completion(done)

    m.spawn(sync, "sync")
    m.run(until=600_000)
    assert m.now == 600_000
    assert m.dmesg().count("blocked for more than") == 1
    assert "INFO: task sync:82 blocked for more than 120 seconds." in m.dmesg()
    tries = len(parts.calls) - 2 - 4  # those of create, and one soft and one hard try for each
    assert 230 <= tries <= 250  # every 5 s for 600 s, two tasks


def test_memory_that_comes_back_ends_the_wait(m: Machine) -> None:
    parts, _ = empty(m, 1)

    def works() -> None:
        parts.works = True

    m.after(12_000, works)
    assert m.mempool_alloc(parts.pool, GFP_KERNEL) == "e1"
    assert m.now == 15_000  # at the third waking


def test_nobody_gives_back(m: Machine) -> None:
    parts, _ = empty(m, 1)
    with pytest.raises(Stuck, match=r"python/1 waits in mempool_alloc, 0 of 1 in reserve"):
        m.mempool_alloc(parts.pool, GFP_KERNEL)
    assert m.mempool_alloc(parts.pool, GFP_ATOMIC) is NULL


def test_where_nobody_may_sleep() -> None:
    """The check looks at the mask, not at luck; freeing is legal anywhere."""
    m = Machine("linux-6.1", memory="64M", config=("DEBUG_ATOMIC_SLEEP",))
    parts = Parts(m, 2)
    with m.spin_lock("s"):
        element = m.mempool_alloc(parts.pool, GFP_KERNEL)
        m.mempool_free(element, parts.pool)
    assert m.dmesg().startswith("BUG: sleeping function called from invalid context at include/linux/sched/mm.h:274")


def test_misuse(m: Machine) -> None:
    parts = Parts(m, 2)
    with pytest.raises(KernelBug, match=r"kernel BUG at mm/mempool\.c:324!"):
        m.mempool_resize(parts.pool, 0)
    m.mempool_destroy(parts.pool)
    assert parts.freed == ["e1", "e0"]
    with pytest.raises(KernelBug, match="NULL pointer dereference"):
        m.mempool_free("e5", parts.pool)
    m.mempool_destroy(NULL)
    with pytest.raises(TypeError, match="mempool: min_nr is a number of elements, not 'a'"):
        m.mempool_create("a", parts.alloc, parts.free)
    with pytest.raises(TypeError, match="mempool: free_fn must be a function of two arguments, not 3"):
        m.mempool_create(1, parts.alloc, 3)


def test_destroyed_twice_stops_the_kernel(m: Machine) -> None:
    parts = Parts(m, 1)
    m.mempool_destroy(parts.pool)
    with pytest.raises(KernelBug, match=r"kernel BUG at mm/slub\.c:419!"):
        m.mempool_destroy(parts.pool)


def test_a_pool_of_ones_own(m: Machine) -> None:
    """mempool_init and mempool_exit; a zeroed pool may be ended."""
    pool, parts = MemPool(), Parts(m, 0)
    assert m.mempool_init(pool, 3, parts.alloc, parts.free, None) == 0
    assert pool.curr_nr == 3
    m.mempool_exit(pool)
    m.mempool_exit(MemPool())
    parts.works = False
    assert m.mempool_init(pool, 3, parts.alloc, parts.free, None) == -12


def test_elements_that_rest_are_poisoned() -> None:
    m = Machine("linux-6.1", memory="64M", config=("SLUB_DEBUG_ON",))
    pool = m.mempool_create_kmalloc_pool(1, 100)
    (element,) = pool.elements
    assert m.read(element, 128) == b"\x6b" * 127 + b"\xa5"
    m.write(element + 7, b"x")
    hog = []
    while p := m.kmalloc(100, GFP_ATOMIC | 0x2000):
        hog.append(p)
    assert m.mempool_alloc(pool, GFP_ATOMIC) == element
    assert "BUG: mempool element poison mismatch" in m.dmesg()
    assert m.read(element, 128) == b"\x5a" * 128


@pytest.mark.parametrize("seed", range(6))
def test_random_allocators(seed: int) -> None:
    """Tasks take and give back while the allocator fails at random: nothing is lost, nothing is given twice."""
    rng, m = random.Random(seed), Machine("linux-6.1", memory="64M")
    out: set[str] = set()
    parts = Parts(m, rng.randrange(1, 6))
    make, served = parts.alloc, []

    def alloc(gfp_mask, pool_data):
        return make(gfp_mask, pool_data) if rng.random() < 0.4 else NULL

    parts.pool.alloc = alloc

    def task(k):
        for _ in range(30):
            mask = rng.choice((GFP_KERNEL, GFP_NOIO, GFP_ATOMIC))
            element = yield from k.mempool_alloc(parts.pool, mask)
            if not element:
                assert mask == GFP_ATOMIC
                continue
            assert element not in out
            out.add(element)
            assert parts.pool.curr_nr <= parts.pool.min_nr
            yield from k.msleep(rng.randrange(1, 50))
            out.discard(element)
            k.mempool_free(element, parts.pool)
            assert parts.pool.curr_nr <= parts.pool.min_nr
        served.append(1)

    for i in range(6):
        m.spawn(task, f"t{i}")
    m.run()
    assert len(served) == 6
    assert not out
    assert parts.made == len(parts.freed) + parts.pool.curr_nr
    assert len(set(parts.freed)) == len(parts.freed)
    assert m.check()
