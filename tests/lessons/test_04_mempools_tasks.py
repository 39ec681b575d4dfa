"""Exercises C, D and G of lesson 04: each mistake gets its own sentence, every right way passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kmemlab import (
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

pools_tasks = checks_module("pools_tasks")

Fn = Callable[..., Any]
ZERO = __GFP_ZERO
SPECS = Lesson("04_mempools", checks=CHECKS)._exercises


def remarks(name: str, fn: Fn) -> str:
    """What is said to a function that passes."""
    rows = run_checks(SPECS[name], fn, name).rows
    assert all(row.passed for row in rows)
    return " ".join(row.kernel for row in rows)


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
    [("copy", fn) for fn in (two("src", "dst"), two("dst", "src"), pair, one_at_a_time, whole_copy_locked)]
    + [("copy", give_back(7)), ("copy", give_back(2)), ("copy", give_back(10, GFP_NOWAIT))]
    + [("rx", receive(GFP_ATOMIC)), ("rx", receive(GFP_NOWAIT)), ("rx", deferred)]
    + [("get_request", fn) for fn in (request(), request(GFP_NOIO | ZERO), with_memset, with_put())]
)
BAD: list[tuple[str, Fn, str]] = [
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


def test_remarks() -> None:
    assert "to give back and try again may go on for ever: here it ended after" in remarks("copy", give_back(7))
    assert "for ever" not in remarks("copy", pair)
    assert "30 packets: 30 arrived, 0 counted as dropped" in remarks("rx", deferred)
    assert "30 packets: 12 arrived, 18 counted as dropped" in remarks("rx", receive(GFP_ATOMIC))


def test_a_packet_is_lost_only_when_the_reserve_is_out() -> None:
    assert pools_tasks.unavoidable((6, 6, 6), True) == 0
    assert pools_tasks.unavoidable((4, 4, 4), False) == 0
    assert pools_tasks.unavoidable((10, 10, 10), False) == 18
