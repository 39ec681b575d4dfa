"""Exercises C, D and G of lesson 04: a copy that stops, a packet in an interrupt, requests that are not clean."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache
from typing import Any

from kmemlab import GFP_ATOMIC, NULL, KernelBug, Machine, MemPool, Stuck
from kmemlab.kthread import TaskCalls
from kmemlab_widgets.questions import Check, CheckResult, ExerciseSpec, fail
from pools_machines import Books, Element, Illegal, Parts, Yields, pool_of

Fn = Callable[..., Any]

# --- C: repair the copy --------------------------------------------------------------------------------------------

BUFFERS = 2  # that may be set aside in all
TIMINGS = 3


def _pair(n: int) -> tuple[Element, Element]:
    return Element(2 * n), Element(2 * n + 1)


SHAPES: dict[str, tuple[int, Callable[[int], Any]]] = {
    "both": (2, Element),
    "src": (1, Element),
    "dst": (1, Element),
    "pair": (1, _pair),
}


class Pools:
    """The pools a copy may use, each made when it is first named: ``both`` (two buffers), ``src`` and ``dst`` (one
    each), ``pair`` (one element: a tuple of two buffers). ``read`` and ``write`` are the disk's; both sleep."""

    def __init__(self, m: Machine, timing: int) -> None:
        self._m, self._rng = m, random.Random(timing)
        self._books = Books(m, {})
        self._data: dict[Element, str] = {}  # buffer -> whose data is in it
        self._done: set[str] = set()

    def __getattr__(self, name: str) -> MemPool:
        if name not in SHAPES:
            raise AttributeError(f"there is no pool {name!r}: there are {', '.join(SHAPES)}")
        pool = pool_of(self._m, *SHAPES[name])
        self._books.names[pool] = name
        setattr(self, name, pool)
        return pool

    def __repr__(self) -> str:
        return "pools"

    def read(self, k: TaskCalls, src: Any) -> Yields:
        """The disk reads this task's data into ``src``."""
        self._mine(k, src)
        yield from TaskCalls.msleep(k, self._rng.randrange(1, 4))
        self._mine(k, src)
        self._data[src] = k.context.comm

    def write(self, k: TaskCalls, src: Any, dst: Any) -> Yields:
        """Copy ``src`` to ``dst``, which the disk then writes out."""
        self._mine(k, src)
        self._mine(k, dst)
        if src is dst:
            raise Illegal("A copy needs two buffers, and these are one.", repr(src))
        if self._data.get(src) != k.context.comm:
            raise Illegal("The source does not hold this task's data: read first.", repr(src))
        yield from TaskCalls.msleep(k, self._rng.randrange(5, 15))
        self._mine(k, src)
        self._mine(k, dst)
        self._done.add(k.context.comm)

    def _mine(self, k: TaskCalls, buffer: Any) -> None:
        if not buffer:
            raise Illegal("The disk was given NULL: it would use address 0.", "address: 0000000000000000")
        task = k.context.comm
        self._books.owner(buffer)
        mine = [element for element, (owner, _) in self._books.held.items() if owner == task]
        if buffer not in [part for element in mine for part in (element if isinstance(element, tuple) else (element,))]:
            why = "The disk uses a buffer that the task does not hold: given back, or from no pool."
            raise Illegal(why, f"{buffer!r}")

    def set_aside(self) -> int:
        """Buffers in all pools that were used."""
        return sum(pool.min_nr * (1 + (name == "pair")) for pool, name in self._books.names.items())


def _copies(tasks: int) -> Callable[[Fn], CheckResult]:
    def run(fn: Fn) -> CheckResult:
        tries, slowest = 0, 0.0
        for timing in range(TIMINGS):
            m = Machine("linux-6.1", memory="64M")
            pools = Pools(m, timing)
            if row := _one_timing(fn, m, pools, tasks):
                return row
            tries, slowest = tries + pools._books.nulls, max(slowest, m.now)
        remark = f"; to give back and try again may go on for ever: here it ended after {tries} tries" if tries else ""
        return CheckResult(True, f"{tasks} of {tasks} copies in {slowest:.0f} ms{remark}")

    return run


def _one_timing(fn: Fn, m: Machine, pools: Pools, tasks: int) -> CheckResult | None:
    books, names = pools._books, [f"copy-{n}" for n in range(tasks)]
    try:
        for name in names:
            books.spawn(fn, name, pools)
    except Illegal as error:
        return fail(*error.args)
    row = books.run()
    if (more := pools.set_aside()) > BUFFERS:
        whom = f"{tasks} tasks" if tasks > 1 else "one task"
        return fail(
            f"{more} buffers set aside for {whom}: {BUFFERS} were allowed, whatever the number of tasks.",
            f"{more} buffers locked away",
        )
    if row:
        return row
    if lost := [name for name in names if name not in pools._done]:
        return fail(
            f"{lost[0]} copied nothing, and nobody knows: its data is lost. NULL is no reason to give up.",
            f"{len(lost)} of {tasks} copies are missing",
        )
    if books.held:
        owner, pool = next(iter(books.held.values()))
        return fail(f"{owner} has ended and kept an element of {pool}.", f"{len(books.held)} never came back")
    if m.mutexes:
        return fail("All have ended, and a mutex is still held.", f"mutex {m.mutexes[0].lock!r}")
    return None


COPY = ExerciseSpec(
    letter="C",
    title="Repair the copy",
    task=(
        "This is the copy of section 4. Memory is gone, so every buffer comes out of a reserve. Change it so that any "
        f"number of tasks comes to its end, with {BUFFERS} buffers set aside in all. You may use `pools.both` (two "
        "buffers), `pools.src` and `pools.dst` (one each), or `pools.pair` (one element, two buffers in it: "
        "`src, dst = pair`); mutexes are there too. `pools.read` and `pools.write` are the disk's and sleep; each task "
        "must copy its data, and no task may go round and round."
    ),
    signature="copy(k, pools)",
    starter=(
        "def copy(k, pools):\n    src = yield from k.mempool_alloc(pools.both, GFP_NOIO)\n"
        "    yield from pools.read(k, src)\n    dst = yield from k.mempool_alloc(pools.both, GFP_NOIO)\n"
        "    yield from pools.write(k, src, dst)\n    k.mempool_free(src, pools.both)\n"
        "    k.mempool_free(dst, pools.both)\n"
    ),
    hints=(
        "When two tasks hold one buffer each, who can go on?",
        "Never hold one element of a pool while you wait for a second one of the same pool.",
        "Two pools, and in all tasks the same order. Or one element that has both buffers.",
        'Or only one task at a time between the first and the second: `with (yield from k.mutex_lock("copy")):`',
    ),
    checks=[
        Check(f"{tasks} task{'s' * (tasks > 1)}", _copies(tasks), f"6.1, memory gone, {TIMINGS} timings")
        for tasks in (1, 2, 5, 20)
    ],
    budget=1_000_000,
)


# --- D: in the interrupt -------------------------------------------------------------------------------------------

RESERVE, BYTES = 4, 256


class Nic:
    """A network card. ``packet`` is the bytes that have come; ``deliver(buffer)`` hands a filled buffer to the network
    stack, which reads it and gives it back to the pool; ``dropped`` counts what was lost."""

    def __init__(self, m: Machine, *, memory: bool) -> None:
        self.packet, self.dropped = b"", 0
        self._m, self._memory, self._packets = m, True, 0
        self._made: set[int] = set()
        self._delivered: dict[int, bytes] = {}  # buffers that the stack reads
        self._sent: list[bytes] = []
        self._pool = m.mempool_create(RESERVE, self._alloc, self._free, None)
        self._memory = memory

    def _alloc(self, gfp_mask: int, pool_data: Any) -> Any:
        p = self._m.kmalloc(BYTES, gfp_mask) if self._memory else NULL
        if p:
            self._made.add(p)
        return p

    def _free(self, p: Any, pool_data: Any) -> None:
        self._made.discard(p)
        self._m.kfree(p)

    def deliver(self, buffer: Any) -> None:
        """Hand a buffer with the packet in it to the network stack."""
        if not buffer:
            raise Illegal("deliver got NULL: the stack would read at address 0.", "address: 0000000000000000")
        if buffer in self._delivered:
            raise Illegal("The stack still reads this buffer: it was given back too early.", f"{buffer!r}")
        if buffer not in self._made or buffer in self._pool.elements:
            raise Illegal("deliver wants a buffer from the pool that is yours now.", f"{buffer!r}")
        data = self._m.read(buffer, len(self.packet))
        if data not in self._sent:
            raise Illegal("The buffer was delivered without its packet: write first.", data[:16].hex(" "))
        self._delivered[buffer] = data

    def _interrupt(self, rx: Fn, packets: int) -> None:
        for _ in range(packets):
            self._packets += 1
            self.packet = b"packet %4d" % self._packets
            self._sent.append(self.packet)
            with self._m.softirq():
                rx(self._m, self._pool, self)
            self._complaint()

    def _complaint(self) -> None:
        lines = self._m.dmesg().splitlines()
        if line := next((line for line in lines if "BUG:" in line), ""):
            count = next((row for row in lines if row.startswith("preempt_count")), "")
            why = "A softirq may not sleep, and the mask has the sleep bit: the check looks at the mask, not at luck."
            raise Illegal(why, f"{line}; {count}")

    def _stack_reads(self) -> None:
        self._m.msleep(10)
        for buffer, data in self._delivered.items():
            if buffer in self._pool.elements or self._m.read(buffer, len(data)) != data:
                raise Illegal("The stack still reads this buffer, and it was given back or written to.", f"{buffer!r}")
            self._m.mempool_free(buffer, self._pool)
        self._seen += len(self._delivered)
        self._delivered.clear()

    _seen = 0

    def _play(self, rx: Fn, bursts: tuple[int, ...]) -> tuple[int, int]:
        """The packets that arrived and those that were dropped. Errors: Illegal."""
        for packets in bursts:
            self._interrupt(rx, packets)
            self._stack_reads()
        while self._m.tasks or self._delivered:
            before = self._seen
            self._stack_reads()
            if before == self._seen and not self._delivered:
                self._m.run()
        self._complaint()
        return self._seen, self.dropped


def _reference(m: Machine, pool: MemPool, nic: Nic) -> None:
    buffer = m.mempool_alloc(pool, GFP_ATOMIC)
    if buffer:
        m.write(buffer, nic.packet)
        nic.deliver(buffer)
    else:
        nic.dropped += 1


def _card(memory: bool) -> Nic:
    return Nic(Machine("linux-6.1", memory="64M", config=("DEBUG_ATOMIC_SLEEP",)), memory=memory)


@cache
def unavoidable(bursts: tuple[int, ...], memory: bool) -> int:
    """Packets that GFP_ATOMIC loses."""
    return _card(memory)._play(_reference, bursts)[1]


def _receives(bursts: tuple[int, ...], memory: bool) -> Callable[[Fn], CheckResult]:
    def run(fn: Fn) -> CheckResult:
        nic = _card(memory)
        try:
            seen, dropped = nic._play(fn, bursts)
        except Illegal as error:
            return fail(*error.args)
        except KernelBug as bug:
            why = "NULL was used as if it were a buffer. A mask that may not sleep can get NULL: test it."
            return fail(why, str(bug).splitlines()[0])
        except Stuck as stuck:
            return fail("A task of yours waits for a buffer that nobody gives back.", str(stuck).splitlines()[0])
        kernel = f"{nic._packets} packets: {seen} arrived, {dropped} counted as dropped"
        kept = len(nic._made) - nic._pool.curr_nr
        return _tally(nic, seen, dropped, unavoidable(bursts, memory), kept, kernel)

    return run


def _tally(nic: Nic, seen: int, dropped: int, least: int, kept: int, kernel: str) -> CheckResult:
    if kept:
        return fail(
            f"{kept} buffer{'s' * (kept > 1)} never came back: the pool is smaller by as many for all others.",
            f"{kernel}; {nic._pool!r}",
        )
    if seen + dropped < nic._packets:
        return fail(f"{nic._packets - seen - dropped} packets are lost, and no count says so.", kernel)
    if seen + dropped > nic._packets:
        return fail("More was counted than has come: count what is dropped, and only that.", kernel)
    if dropped > least:
        return fail(f"{dropped - least} packets were dropped though the pool had something for them.", kernel)
    return CheckResult(True, kernel)


RX = ExerciseSpec(
    letter="D",
    title="In the interrupt",
    task=(
        "`rx` runs in a softirq, once for each packet. Take a buffer from the pool, write `nic.packet` into it with "
        "`m.write(buffer, nic.packet)`, and hand it on with `nic.deliver(buffer)`: the network stack gives it back to "
        "the pool later. What cannot be delivered is dropped; then add 1 to `nic.dropped`. Sleeping is forbidden here, "
        "and no packet may vanish without being counted."
    ),
    signature="rx(m, pool, nic)",
    starter=(
        "def rx(m, pool, nic):\n    buffer = m.mempool_alloc(pool, GFP_KERNEL)\n"
        "    m.write(buffer, nic.packet)\n    nic.deliver(buffer)\n"
    ),
    hints=(
        "Which masks may be used where nobody may sleep?",
        "With such a mask even a pool may have nothing: NULL. What then?",
        "`if not buffer: nic.dropped += 1` and return.",
    ),
    checks=[
        Check("memory is there: bursts of 6", _receives((6, 6, 6), True), "6.1, softirq"),
        Check(
            f"memory is gone, {RESERVE} in reserve: bursts of {RESERVE}", _receives((4, 4, 4), False), "6.1, softirq"
        ),
        Check(f"memory is gone, {RESERVE} in reserve: bursts of 10", _receives((10, 10, 10), False), "6.1, softirq"),
    ],
)


# --- G: old tenants ------------------------------------------------------------------------------------------------

REQUEST = 64  # bytes
ZERO_BIT = 0x100


class Office:
    """Tasks that take a request, write into it and give it back; every third write fails on the disk."""

    def __init__(self, get_request: Fn, memory: Callable[[int], bool]) -> None:
        self.m = Machine("linux-6.1", memory="64M")
        self.get_request, self.memory, self.count = get_request, memory, 0
        self.parts = Parts()
        self.pool = self.m.mempool_create(2, self._alloc, lambda p, data: self.m.kfree(p), None)
        self.books = Books(self.m, {self.pool: "requests"})
        self.last: dict[int, tuple[str, bool]] = {}  # request -> who used it last, and whether that went well

    def _alloc(self, gfp_mask: int, pool_data: Any) -> Any:
        self.parts.masks.append(int(gfp_mask))
        return self.m.kmalloc(REQUEST, gfp_mask) if self.memory(self.count) else NULL

    def user(self, k: TaskCalls) -> Yields:
        """One task: three writes."""
        for _ in range(3):
            self.count += 1
            number = self.count
            slow = self.get_request(k, self.pool)
            if not hasattr(slow, "send"):
                raise Illegal("There is no `yield` in it: a call that may sleep is written `yield from k.NAME(...)`.")
            got = yield from slow
            request, put = got if isinstance(got, tuple) and len(got) == 2 else (got, None)
            self._look(request)
            mine = (b"write %d " % number * REQUEST)[:REQUEST]
            self.m.write(request, mine)
            yield from TaskCalls.msleep(k, 1 + number % 3)
            if self.m.read(request, REQUEST) != mine:
                raise Illegal("Somebody wrote into a request that is in use.", f"request {request!r}")
            went_well = number % 3 != 0
            self.last[request] = f"write {number}", went_well
            if put is None:
                k.mempool_free(request, self.pool)
            else:
                put(went_well)
            if self.books.owner(request) == k.context.comm:
                raise Illegal("`put` was called, and the request is still out.", f"request {request!r}")

    def _look(self, request: Any) -> None:
        if not request:
            raise Illegal("The write got NULL. It may wait: use a mask that may sleep, and the pool serves it.", "NULL")
        if not self.books.owner(request):
            raise Illegal("This request is not from the pool.", f"{request!r}")
        found = self.m.read(request, REQUEST)
        if not any(found):
            return
        who, well = self.last.get(request, ("nobody", True))
        kernel = f"from the reserve: {found[:16]!r}, left by {who}"
        if found[:8] == bytes(8) or found[-8:] == bytes(8):
            raise Illegal(f"Only a part of the {REQUEST} bytes was cleared.", kernel)
        if not well:
            raise Illegal("The write before had failed, and on that way back nobody clears. One path forgets.", kernel)
        if self.parts.masks[-1] & ZERO_BIT:
            raise Illegal("__GFP_ZERO goes to alloc_fn. What comes from the reserve, nobody clears.", kernel)
        raise Illegal("The request holds the bytes of its last user: the reserve is not cleared.", kernel)


def _clean(memory: Callable[[int], bool]) -> Callable[[Fn], CheckResult]:
    def run(fn: Fn) -> CheckResult:
        office = Office(fn, memory)
        for n in range(4):
            office.books.spawn(office.user, f"writer-{n}")
        if row := office.books.run():
            return row
        return CheckResult(True, f"{office.count} clean requests")

    return run


REQUESTS = ExerciseSpec(
    letter="F",
    title="Old tenants",
    task=(
        f"Return a request of {REQUEST} bytes from the pool, all zero, in all cases. Whoever is done calls "
        "`mempool_free(request, pool)`. For another way back, return `(request, put)`: then `put(ok)` is called "
        "in its place, and `ok` is False after a write that failed. The writer may sleep."
    ),
    signature="get_request(k, pool) -> request",
    starter=(
        "def get_request(k, pool):\n    request = yield from k.mempool_alloc(pool, GFP_NOIO | __GFP_ZERO)\n"
        "    return request\n"
    ),
    hints=(
        "Who reads the mask: the pool, or the function that it calls?",
        f"`k.write(request, bytes({REQUEST}))` fills it with zeros.",
        "Clear it where it is taken: then it does not matter who forgot to clear it.",
    ),
    checks=[
        Check("memory is there", _clean(lambda count: True), "6.1"),
        Check("memory is gone, 2 in reserve", _clean(lambda count: count == 0), "6.1"),
        Check("memory comes and goes", _clean(lambda count: count % 4 < 2), "6.1"),
    ],
)

EXERCISES = {"copy": COPY, "rx": RX, "get_request": REQUESTS}
