"""The exercises of lesson 04: each mistake gets its own sentence, every right way passes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from kmemlab import (
    __GFP_DIRECT_RECLAIM,
    __GFP_ZERO,
    GFP_ATOMIC,
    GFP_KERNEL,
    GFP_NOIO,
    GFP_NOWAIT,
    NULL,
)
from kmemlab_widgets.checking import run_checks
from kmemlab_widgets.lesson import Lesson
from tests.lessons.machines import CHECKS, checks_module
from tests.lessons.sheet import Exercises

pools_debug, pools_rules, pools_tasks = map(checks_module, ("pools_debug", "pools_rules", "pools_tasks"))

Fn = Callable[..., Any]
SLEEP, ZERO = __GFP_DIRECT_RECLAIM, __GFP_ZERO
SPECS = Lesson("04_mempools", checks=CHECKS)._exercises


def remarks(name: str, fn: Fn) -> str:
    """What is said to a function that passes."""
    rows = run_checks(SPECS[name], fn, name).rows
    assert all(row.passed for row in rows)
    return " ".join(row.kernel for row in rows)


# --- A: make_pool -------------------------------------------------------------------------------------------------


def pool(slip: str = "") -> Fn:
    """The pool, any part of it wrong."""

    def make_pool(n: int, alloc_fn: Fn, free_fn: Fn) -> Any:
        reserve = [] if slip == "lazy" else [alloc_fn(GFP_KERNEL) for _ in range(n)]

        def alloc(gfp: int) -> Any:
            if slip == "reserve first" and reserve:
                return reserve.pop()
            if element := alloc_fn(gfp if slip == "hard first" else (gfp | 0x92000) & ~0x440):
                return element
            if slip == "2.6.11" and gfp & SLEEP and len(reserve) <= n // 2 and (element := alloc_fn(gfp)):
                return element
            if reserve:
                return reserve[-1] if slip == "twice" else reserve.pop(0 if slip == "queue" else -1)
            if not gfp & SLEEP and slip != "all wait":
                return "wait" if slip == "polite" else NULL
            if slip == "no hard try":
                return "wait"
            return alloc_fn(gfp) or (NULL if slip == "none waits" else "wait")

        def free(element: Any) -> None:
            if not element and slip != "NULL":
                return
            if slip != "to the system" and (len(reserve) < n or slip == "to the reserve"):
                reserve.append(element)
            elif element:
                free_fn(element)

        return (alloc, free, n) if slip == "three" else (alloc, free)

    return make_pool


def pool_with_deque(n: int, alloc_fn: Fn, free_fn: Fn) -> Any:
    """One way out, flags, None for NULL, and the plain masks."""
    reserve: deque[Any] = deque()
    for _ in range(n):
        reserve.append(alloc_fn(GFP_KERNEL))

    def alloc(gfp: int) -> Any:
        may_wait = bool(gfp & SLEEP)
        element = alloc_fn(gfp & ~SLEEP) or None
        if element is None and len(reserve):
            element = reserve.pop()
        elif element is None and may_wait:
            element = alloc_fn(gfp) or "wait"
        return element

    def free(element: Any) -> None:
        if element is NULL:
            return
        if len(reserve) >= n:
            free_fn(element)
        else:
            reserve.append(element)

    return alloc, free


# --- B: safe_min_nr -----------------------------------------------------------------------------------------------


def by_simulation(tasks: int, each: int) -> int:
    """Give elements out in turn until nobody can go on, or somebody has all."""
    for n in range(1, 1000):
        held, left = [0] * tasks, n
        while left and max(held) < each:
            held[held.index(min(held))] += 1
            left -= 1
        if max(held) == each:
            return n
    return 0


# --- C: copy ------------------------------------------------------------------------------------------------------


def two(first: str, second: str, gfp: int = GFP_NOIO) -> Fn:
    """A buffer from each of two pools, the source from the first."""

    def copy(k: Any, pools: Any) -> Any:
        one, other = getattr(pools, first), getattr(pools, second)
        src = yield from k.mempool_alloc(one, GFP_NOIO)
        yield from pools.read(k, src)
        dst = yield from k.mempool_alloc(other, gfp)
        yield from pools.write(k, src, dst)
        k.mempool_free(src, one)
        k.mempool_free(dst, other)

    return copy


def pair(k: Any, pools: Any) -> Any:
    both = yield from k.mempool_alloc(pools.pair, GFP_NOIO)
    src, dst = both
    yield from pools.read(k, src)
    yield from pools.write(k, src, dst)
    k.mempool_free(both, pools.pair)


def one_at_a_time(k: Any, pools: Any) -> Any:
    lock = yield from k.mutex_lock("copy")
    src = yield from k.mempool_alloc(pools.both, GFP_NOIO)
    dst = yield from k.mempool_alloc(pools.both, GFP_NOIO)
    lock.undo()
    yield from pools.read(k, src)
    yield from pools.write(k, src, dst)
    k.mempool_free(src, pools.both)
    k.mempool_free(dst, pools.both)


def whole_copy_locked(k: Any, pools: Any) -> Any:
    with (yield from k.mutex_lock("copy")):
        yield from two("both", "both")(k, pools)


def give_back(pause: int, first: int = GFP_NOIO) -> Fn:
    def copy(k: Any, pools: Any) -> Any:
        while True:
            src = yield from k.mempool_alloc(pools.both, first)
            if src and first != GFP_NOWAIT:
                yield from pools.read(k, src)
            dst = yield from k.mempool_alloc(pools.both, GFP_NOWAIT)
            if src and dst:
                break
            k.mempool_free(src, pools.both)
            k.mempool_free(dst, pools.both)
            if pause:
                yield from k.msleep(pause)
        yield from pools.read(k, src)
        yield from pools.write(k, src, dst)
        k.mempool_free(src, pools.both)
        k.mempool_free(dst, pools.both)

    return copy


def busy(k: Any, pools: Any) -> Any:
    src = yield from k.mempool_alloc(pools.both, GFP_NOIO)
    yield from pools.read(k, src)
    while not (dst := (yield from k.mempool_alloc(pools.both, GFP_NOWAIT))):
        yield from k.cond_resched()
    yield from pools.write(k, src, dst)
    k.mempool_free(src, pools.both)
    k.mempool_free(dst, pools.both)


def endless(k: Any, pools: Any) -> Any:
    src = yield from k.mempool_alloc(pools.both, GFP_NOIO)
    yield from pools.read(k, src)
    while pools.both.curr_nr == 0:
        pass
    yield from two("both", "both")(k, pools)


def order_by_number(k: Any, pools: Any) -> Any:
    names = ("src", "dst") if k.context.pid % 2 else ("dst", "src")
    yield from two(*names)(k, pools)


def given_up(k: Any, pools: Any) -> Any:
    src = yield from k.mempool_alloc(pools.both, GFP_NOIO)
    yield from pools.read(k, src)
    dst = yield from k.mempool_alloc(pools.both, GFP_NOWAIT)
    if dst:
        yield from pools.write(k, src, dst)
    k.mempool_free(dst, pools.both)
    k.mempool_free(src, pools.both)


def resized(k: Any, pools: Any) -> Any:
    yield from k.mempool_resize(pools.both, 21)
    yield from two("both", "both")(k, pools)


def all_pools(k: Any, pools: Any) -> Any:
    name = ("both", "src")[k.context.pid % 2]
    yield from two(name, "dst")(k, pools)


def locked_between(k: Any, pools: Any) -> Any:
    """The mutex comes after the first element."""
    src = yield from k.mempool_alloc(pools.both, GFP_NOIO)
    yield from pools.read(k, src)
    with (yield from k.mutex_lock("copy")):
        dst = yield from k.mempool_alloc(pools.both, GFP_NOIO)
    yield from pools.write(k, src, dst)
    k.mempool_free(src, pools.both)
    k.mempool_free(dst, pools.both)


def leak(k: Any, pools: Any) -> Any:
    src = yield from k.mempool_alloc(pools.src, GFP_NOIO)
    dst = yield from k.mempool_alloc(pools.dst, GFP_NOIO)
    yield from pools.read(k, src)
    yield from pools.write(k, src, dst)
    k.mempool_free(src, pools.src)


def freed_twice(k: Any, pools: Any) -> Any:
    both = yield from k.mempool_alloc(pools.pair, GFP_NOIO)
    yield from pools.read(k, both[0])
    yield from pools.write(k, *both)
    k.mempool_free(both, pools.pair)
    k.mempool_free(both, pools.pair)


def mixed_up(k: Any, pools: Any) -> Any:
    src = yield from k.mempool_alloc(pools.src, GFP_NOIO)
    dst = yield from k.mempool_alloc(pools.dst, GFP_NOIO)
    yield from pools.read(k, src)
    yield from pools.write(k, src, dst)
    k.mempool_free(src, pools.dst)
    k.mempool_free(dst, pools.src)


def freed_early(k: Any, pools: Any) -> Any:
    src = yield from k.mempool_alloc(pools.src, GFP_NOIO)
    yield from pools.read(k, src)
    k.mempool_free(src, pools.src)
    dst = yield from k.mempool_alloc(pools.dst, GFP_NOIO)
    yield from pools.write(k, src, dst)
    k.mempool_free(dst, pools.dst)


def one_buffer(k: Any, pools: Any) -> Any:
    src = yield from k.mempool_alloc(pools.both, GFP_NOIO)
    yield from pools.read(k, src)
    yield from pools.write(k, src, src)
    k.mempool_free(src, pools.both)


def unread(k: Any, pools: Any) -> Any:
    src, dst = both = yield from k.mempool_alloc(pools.pair, GFP_NOIO)
    yield from pools.write(k, src, dst)
    k.mempool_free(both, pools.pair)


def lock_kept(k: Any, pools: Any) -> Any:
    if not k.mutex_is_locked("copy"):
        yield from k.mutex_lock("copy")
    yield from pair(k, pools)


def forgotten(k: Any, pools: Any) -> Any:
    src = k.mempool_alloc(pools.both, GFP_NOIO)
    yield from pools.read(k, src)


def from_forgotten(k: Any, pools: Any) -> Any:
    src = yield k.mempool_alloc(pools.both, GFP_NOIO)
    k.mempool_free(src, pools.both)


# --- D: rx --------------------------------------------------------------------------------------------------------


def receive(gfp: int, count: int = 1, test: bool = True) -> Fn:
    def rx(m: Any, pool: Any, nic: Any) -> None:
        buffer = m.mempool_alloc(pool, gfp)
        if test and not buffer:
            nic.dropped += count
            return
        m.write(buffer, nic.packet)
        nic.deliver(buffer)

    return rx


def deferred(m: Any, pool: Any, nic: Any) -> None:
    packet = nic.packet

    def later(k: Any) -> Any:
        buffer = yield from k.mempool_alloc(pool, GFP_NOIO)
        k.write(buffer, packet)
        nic.deliver(buffer)

    m.spawn(later, "rx")


def spare(m: Any, pool: Any, nic: Any) -> None:
    if not hasattr(nic, "spare"):
        nic.spare = m.mempool_alloc(pool, GFP_ATOMIC)
    receive(GFP_ATOMIC)(m, pool, nic)


def always_dropped(m: Any, pool: Any, nic: Any) -> None:
    nic.dropped += 1


def written_late(m: Any, pool: Any, nic: Any) -> None:
    buffer = m.mempool_alloc(pool, GFP_ATOMIC)
    nic.deliver(buffer)
    m.write(buffer, nic.packet)


def freed_after(m: Any, pool: Any, nic: Any) -> None:
    buffer = m.mempool_alloc(pool, GFP_ATOMIC)
    if buffer:
        m.write(buffer, nic.packet)
        nic.deliver(buffer)
        m.mempool_free(buffer, pool)
    else:
        nic.dropped += 1


def delivered_null(m: Any, pool: Any, nic: Any) -> None:
    buffer = m.mempool_alloc(pool, GFP_ATOMIC)
    if buffer:
        m.write(buffer, nic.packet)
    nic.deliver(buffer)


def own_memory(m: Any, pool: Any, nic: Any) -> None:
    buffer = m.kmalloc(256, GFP_ATOMIC)
    m.write(buffer, nic.packet)
    nic.deliver(buffer)


# --- E: culprit ---------------------------------------------------------------------------------------------------


def follow(fix: Any = None, slip: str = "") -> Fn:
    """Follow what the reported task waits for."""

    def culprit(report: Any) -> Any:
        rows = {row.name: row for row in report.tasks}
        name = reported = report.log.split("INFO: task ")[1].split(":")[0]
        chain = []
        while rows[name].waits[0] != "pool":
            kind, what = rows[name].waits
            name = what if kind == "completion" else next(r.name for r in rows.values() if (kind, what) in r.holds)
            chain.append(name)
        place = rows[name].waits
        cycle = [row.name for row in report.tasks if row.waits == place and (place in row.holds or slip == "victims")]
        answer = {"waits_for": chain[0], "pool": place[1], "cycle": cycle, "fix": fix or report.pools[place[1]][1] + 1}
        if slip == "reported":
            answer["waits_for"] = reported
        elif slip == "worker":
            answer["waits_for"] = next(row.name for row in report.tasks if row.waits[0] == "timer")
        elif slip == "one":
            answer["cycle"] = cycle[:1]
        elif slip == "pool":
            answer["pool"] = next(other for other in report.pools if other != place[1])
        elif slip == "too small":
            answer["fix"] = report.pools[place[1]][1]
        elif slip == "stranger":
            answer["cycle"] = [*cycle, *(row.name for row in report.tasks if row.waits[0] == "timer")]
        elif slip == "cycle":
            answer["cycle"] = 3
        elif slip == "key":
            del answer["fix"]
        return answer

    return culprit


# --- F: design ----------------------------------------------------------------------------------------------------


def plan(kind: str, size: int, min_nr: int, **more: Any) -> Fn:
    return lambda trace: {"kind": kind, "size": size, "min_nr": min_nr, **more}


# --- G: get_request -----------------------------------------------------------------------------------------------


def request(gfp: int = GFP_NOIO, clear: int = 64) -> Fn:
    def get_request(k: Any, pool: Any) -> Any:
        p = yield from k.mempool_alloc(pool, gfp)
        if clear:
            k.write(p, bytes(clear))
        return p

    return get_request


def with_memset(k: Any, pool: Any) -> Any:
    p = yield from k.mempool_alloc(pool, GFP_NOIO)
    k.memset(p, 0, 64)
    return p


def with_put(only_ok: bool = False, free: bool = True) -> Fn:
    """Cleared where it is given back."""

    def get_request(k: Any, pool: Any) -> Any:
        p = yield from k.mempool_alloc(pool, GFP_NOIO)

        def put(ok: bool) -> None:
            if ok or not only_ok:
                k.write(p, bytes(64))
            if free:
                k.mempool_free(p, pool)

        return p, put

    return get_request


def own_request(k: Any, pool: Any) -> Any:
    return (yield from k.kzalloc(64, GFP_NOIO))


def cleared_by_force(k: Any, pool: Any) -> Any:
    """Who waits clears all requests that it knows."""
    p = yield from k.mempool_alloc(pool, GFP_NOIO)
    seen.add(p)
    for one in seen:
        k.write(one, bytes(64))
    return p


seen: set[int] = set()


GOOD: list[tuple[str, Fn]] = (
    [("make_pool", pool()), ("make_pool", pool_with_deque)]
    + [("safe_min_nr", lambda tasks, each: tasks * (each - 1) + 1), ("safe_min_nr", by_simulation)]
    + [("copy", fn) for fn in (two("src", "dst"), two("dst", "src"), pair, one_at_a_time, whole_copy_locked)]
    + [("copy", give_back(7)), ("copy", give_back(2)), ("copy", give_back(10, GFP_NOWAIT))]
    + [("rx", receive(GFP_ATOMIC)), ("rx", receive(GFP_NOWAIT)), ("rx", deferred)]
    + [("culprit", follow(fix)) for fix in (None, "two pools", "at once", "mutex", "give back", 40)]
    + [("design", plan(kind, 300, n)) for kind, n in (("slab", 1), ("slab", 32), ("kmalloc", 8), ("slab", 40))]
    + [("design", plan("page", 4096, 16))]
    + [("get_request", fn) for fn in (request(), request(GFP_NOIO | ZERO), with_memset, with_put())]
)
BAD: list[tuple[str, Fn, str]] = [
    ("make_pool", pool("reserve first"), "always. After this call your reserve is 3, the real one 4."),
    ("make_pool", pool("queue"), "Your pool gave element 0, the real one 3: the reserve is a stack."),
    ("make_pool", pool("to the system"), "the reserve stays at 0 for ever: below min_nr the pool keeps"),
    ("make_pool", pool("to the reserve"), "5 elements in a pool of 4: when the reserve is full"),
    ("make_pool", pool("none waits"), "GFP_KERNEL may sleep: such a caller never gets NULL"),
    ("make_pool", pool("all wait"), "GFP_ATOMIC may not sleep: when the reserve is empty, NULL"),
    ("make_pool", pool("polite"), "GFP_ATOMIC may not sleep"),
    ("make_pool", pool("hard first"), "The first try must not wait"),
    ("make_pool", pool("no hard try"), "Before a caller sleeps, alloc_fn is asked once more"),
    ("make_pool", pool("2.6.11"), "6.1 does not insist"),
    ("make_pool", pool("lazy"), "A new pool has 0 elements in reserve, the real one 4"),
    ("make_pool", pool("NULL"), "Did free(NULL) put NULL into the reserve?"),
    ("make_pool", pool("twice"), "alloc returned element 3, which is out already."),
    ("make_pool", pool("three"), "Return two functions: alloc, free."),
    ("make_pool", lambda n, a, f: ((lambda gfp: 7), [a(0) for _ in range(n)].append), "alloc returned 7: no element."),
    ("safe_min_nr", lambda tasks, each: each, "enough for one task. Here 2 tasks share it"),
    ("safe_min_nr", lambda tasks, each: tasks, "2 tasks hold one each, and all wait"),
    ("safe_min_nr", lambda tasks, each: tasks * each, "Safe, but 3 elements more than needed are locked away."),
    ("safe_min_nr", lambda tasks, each: tasks + each - 1, "Here 4 tasks can hold 2 each: that is 8, and you have 6."),
    ("safe_min_nr", lambda tasks, each: tasks * (each - 1), "Everybody can hold all but one"),
    ("safe_min_nr", lambda tasks, each: 7, "Safe, but 4 elements more"),
    ("safe_min_nr", lambda tasks, each: 5 * (tasks > 4) + 3, "With min_nr 3 some timing stops"),
    ("safe_min_nr", lambda tasks, each: -1, "is a number of elements, not -1"),
    ("copy", two("both", "both"), "copy-1 holds 1 of `both` and waits for `both`. 2 tasks hold one"),
    ("copy", order_by_number, "A cycle. Take from the two pools in one order in all tasks."),
    ("copy", two("both", "both", GFP_NOWAIT), "The disk was given NULL"),
    ("copy", given_up, "copied nothing, and nobody knows: its data is lost."),
    ("copy", resized, "21 buffers set aside for 20 tasks: 2 were allowed"),
    ("copy", all_pools, "4 buffers set aside for 2 tasks: 2 were allowed"),
    ("copy", busy, "It goes round and round"),
    ("copy", give_back(0, GFP_NOWAIT), "It goes round and round"),
    ("copy", endless, "did not end within"),
    ("copy", locked_between, "It keeps its element while it sleeps for the mutex"),
    ("copy", leak, "copy-0 has ended and kept an element"),
    ("copy", freed_twice, "You gave back what nobody holds"),
    ("copy", mixed_up, "An element of src was put into dst."),
    ("copy", freed_early, "The disk uses a buffer that the task does not hold"),
    ("copy", one_buffer, "A copy needs two buffers, and these are one."),
    ("copy", unread, "The source does not hold this task's data: read first."),
    ("copy", lock_kept, "All have ended, and a mutex is still held."),
    ("copy", forgotten, "`k.mempool_alloc(...)` gives nothing by itself"),
    ("copy", from_forgotten, "task copy-0 yielded `k.mempool_alloc(...)`: write `yield from k.NAME(...)`"),
    ("copy", lambda k, pools: None, "There is no `yield` in it"),
    ("rx", receive(GFP_KERNEL), "A softirq may not sleep, and the mask has the sleep bit"),
    ("rx", receive(GFP_ATOMIC, test=False), "NULL was used as if it were a buffer."),
    ("rx", delivered_null, "deliver got NULL: the stack would read at address 0."),
    ("rx", spare, "1 buffer never came back: the pool is smaller by as many"),
    ("rx", receive(GFP_ATOMIC, 0), "18 packets are lost, and no count says so."),
    ("rx", receive(GFP_ATOMIC, 2), "More was counted than has come"),
    ("rx", always_dropped, "18 packets were dropped though the pool had something"),
    ("rx", written_late, "The buffer was delivered without its packet: write first."),
    ("rx", freed_after, "The stack still reads this buffer"),
    ("rx", own_memory, "deliver wants a buffer from the pool"),
    ("culprit", follow(slip="reported"), "sync is reported, and it only waits"),
    ("culprit", follow(slip="worker"), "sync waits for the completion of scrub-2: you say 'flush-0'."),
    ("culprit", follow(slip="pool"), "sleeps in mempool_alloc, in another pool than 'bio'."),
    ("culprit", follow(slip="victims"), "holds no element of raid: nobody waits for it. A victim."),
    ("culprit", follow(slip="stranger"), "it is no part of the cycle"),
    ("culprit", follow(slip="one"), "too holds an element of raid and waits for another one."),
    ("culprit", follow("timeout"), "A longer hung_task_timeout hides the report."),
    ("culprit", follow("memory"), "When memory returns, alloc_fn succeeds and this hang ends"),
    ("culprit", follow(slip="too small"), "With min_nr 4 they stop again"),
    ("culprit", follow("reboot"), "`fix` is a new min_nr or one of 'two pools'"),
    ("culprit", follow(slip="cycle"), "`cycle` is a list of the names of tasks, not 3."),
    ("culprit", follow(slip="key"), "Return a dict with waits_for, pool, cycle and fix."),
    ("design", plan("slab", 300, 0), "A write waited until memory came back: this pool promises nothing."),
    ("design", plan("slab", 256, 8), "it would be written past the end of an element of 256."),
    ("design", plan("slab", 300, 1000), "64 elements are as fast: 284,544 bytes are locked away for nothing."),
    ("design", plan("vmalloc", 300, 8), "A design has `kind`"),
    ("design", plan("slab", 300, 8, note=""), "A design has `kind`"),
    ("design", plan("slab", 300, -1), "`min_nr` a number of elements up to"),
    ("get_request", request(GFP_NOIO | ZERO, 0), "__GFP_ZERO goes to alloc_fn."),
    ("get_request", request(clear=0), "holds the bytes of its last user: the reserve is not cleared."),
    ("get_request", with_put(only_ok=True), "on that way back nobody clears. One path forgets."),
    ("get_request", with_put(free=False), "`put` was called, and the request is still out."),
    ("get_request", request(clear=32), "Only a part of the 64 bytes was cleared."),
    ("get_request", request(GFP_ATOMIC, 0), "The write got NULL."),
    ("get_request", own_request, "This request is not from the pool."),
    ("get_request", cleared_by_force, "Somebody wrote into a request that is in use."),
    ("get_request", lambda k, pool: NULL, "There is no `yield` in it"),
]  # fmt: skip


class TestExercises(Exercises):
    """All the ways that the storyboard lists, and some more."""

    LESSON, GOOD, BAD = "04_mempools", GOOD, BAD


# --- what passes may still be remarked on, and what the checks take for true ---------------------------------------


def test_letters() -> None:
    names = ["make_pool", "safe_min_nr", "copy", "rx", "culprit", "design", "get_request"]
    assert list(SPECS) == names
    assert "".join(spec.letter for spec in SPECS.values()) == "ABCDEFG"


def test_remarks() -> None:
    assert "the kernel's soft try also drops __GFP_IO" in remarks("make_pool", pool_with_deque)
    assert "soft try" not in remarks("make_pool", pool())
    assert "to give back and try again may go on for ever: here it ended after" in remarks("copy", give_back(7))
    assert "for ever" not in remarks("copy", pair)
    assert "30 packets: 30 arrived, 0 counted as dropped" in remarks("rx", deferred)
    assert "30 packets: 12 arrived, 18 counted as dropped" in remarks("rx", receive(GFP_ATOMIC))


def test_the_recorded_pool_is_the_engines() -> None:
    """All steps up to the resize, and each kind of step among them."""
    min_nr, steps = pools_rules.recorded()
    real = pools_rules.RealPool(min_nr)
    assert [real.do(step) for step, _ in steps] == [state for _, state in steps]
    assert len(steps) == 17
    assert sum(step.call == "alloc" and step.element is not None for step, _ in steps) == 2
    assert any(state.freed for _, state in steps)
    assert any(step.call == "alloc" and state.element is None for step, state in steps)


def test_the_smallest_pool() -> None:
    for tasks, each in ((2, 2), (3, 2), (4, 3)):
        assert pools_rules.true_min_nr(tasks, each) == tasks * (each - 1) + 1


@pytest.mark.parametrize("seed", pools_debug.SEEDS)
def test_reports_have_a_cycle_a_victim_and_a_bystander(seed: int) -> None:
    crisis, report = pools_debug.Crisis(seed), pools_debug.report(seed)
    assert report.log.count("blocked for more than") == 1
    assert "INFO: task sync:" in report.log
    place = "pool", crisis.name
    kinds = [(row.waits == place, place in row.holds) for row in report.tasks]
    assert kinds.count((True, True)) == crisis.tasks
    assert kinds.count((True, False)) == 1
    assert sum(row.waits[0] == "timer" for row in report.tasks) == 1
    assert report.pools[crisis.name] == (0, crisis.tasks * (crisis.each - 1))


def test_reports_differ_in_form() -> None:
    kinds = {next(row.waits[0] for row in pools_debug.report(seed).tasks if row.name == "sync") for seed in range(3)}
    assert kinds == {"completion", "mutex"}
    assert {pools_debug.Crisis(seed).form for seed in pools_debug.SEEDS} == {0, 1, 2}


def test_more_elements_buy_time_and_fewer_questions() -> None:
    for seed in (1, 2):
        costs = [pools_debug.measure("slab", 300, n, seed) for n in (1, 4, 16, 32)]
        assert [cost.slowest for cost in costs] == sorted({cost.slowest for cost in costs}, reverse=True)
        assert [cost.calls for cost in costs] == sorted({cost.calls for cost in costs}, reverse=True)
        assert [cost.locked for cost in costs] == [304 * n for n in (1, 4, 16, 32)]
        assert pools_debug.measure("kmalloc", 300, 1, seed).locked == 512


def test_a_packet_is_lost_only_when_the_reserve_is_out() -> None:
    assert pools_tasks.unavoidable((6, 6, 6), True) == 0
    assert pools_tasks.unavoidable((4, 4, 4), False) == 0
    assert pools_tasks.unavoidable((10, 10, 10), False) == 18
