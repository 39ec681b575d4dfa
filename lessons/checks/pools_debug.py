"""Exercises E and F of lesson 04: who is to blame for a report, and a pool for a real disk."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from kmemlab import GFP_NOIO, GFP_NOWAIT, NULL, Completion, Machine, MemPool
from kmemlab.kthread import TaskCalls
from kmemlab_widgets.questions import Check, CheckResult, ExerciseSpec, fail
from pools_machines import Books, Parts, WatchedCalls, Yields, pool_of

Fn = Callable[..., Any]

# --- E: debug this report ------------------------------------------------------------------------------------------

SEEDS = range(8)
REPORT_MS, MEMORY_MS, END_MS = 150_000, 200_000, 400_000  # the log is read, memory returns, we stop looking
FIXES = ("two pools", "at once", "mutex", "give back", "memory", "timeout")


@dataclass(frozen=True, slots=True)
class Sleeper:
    """A row of the task table. ``waits`` is ("pool", its name), ("mutex", its name), ("completion", the task that will
    complete it) or ("timer", ""); ``holds`` lists ("pool", name) for each element and ("mutex", name)."""

    name: str
    since: int  # s
    waits: tuple[str, str]
    holds: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        held = ", ".join(f"{kind} {what}" for kind, what in self.holds) or "-"
        return f"{self.name:<12} {self.since:>4} s  {' '.join(self.waits):<20} {held}"


@dataclass(frozen=True, slots=True)
class Report:
    """What there is to go by: ``log``, the kernel's words; ``tasks``, who sleeps; ``pools``, name -> (in reserve,
    min_nr)."""

    log: str
    tasks: tuple[Sleeper, ...]
    pools: dict[str, tuple[int, int]]

    def __str__(self) -> str:
        head = f"{'TASK':<12} {'SINCE':>6}  {'WAITS FOR':<20} HOLDS"
        pools = "\n".join(f"pool {name}: {now} of {low} in reserve" for name, (now, low) in self.pools.items())
        return "\n".join([self.log, head, *map(str, self.tasks), pools])


class Crisis:
    """A machine on which copies wait for one another, and ``sync`` waits for one of them; by seed. ``fix`` is what is
    done about it: a new ``min_nr``, or one of ``FIXES``."""

    def __init__(self, seed: int, fix: str | int = "") -> None:
        rng = random.Random(seed)
        self.m = Machine("linux-6.1", memory="64M")
        self.fix, self.form = fix, seed % 3
        self.tasks, self.each = rng.choice(((2, 2), (3, 2), (2, 3), (4, 2), (3, 3)))
        self.name, other = rng.sample(("bio", "crypt", "mirror", "raid"), 2)
        copier, *others = rng.sample(("copy", "flush", "scrub", "clone", "merge"), 3)
        self.copies = [f"{copier}-{n}" for n in range(self.tasks)]
        self.victim, self.worker = f"{others[0]}-0", f"{others[1]}-0"
        self.guilty = rng.choice(self.copies)
        self.done = {name: Completion() for name in (*self.copies, self.victim)}
        self.books = Books(self.m, {}, END_MS)
        self.parts = Parts()
        self.stages = self._pools()
        self.other = pool_of(self.m, 1)
        self.books.names |= {self.other: other}
        self._start(rng)

    def _pools(self) -> list[MemPool]:
        """The pool that the copies use, or one for each stage of a copy."""
        stages = self.each if self.fix == "two pools" else 1
        low = self.tasks * (self.each - 1)
        low = self.fix if isinstance(self.fix, int) else low if stages == 1 and self.fix != "at once" else 1
        pools = [self.m.mempool_create(low, self.parts.alloc, self.parts.free, None) for _ in range(stages)]
        self.parts.works = False
        self.books.names = {pool: self.name + "2" * n for n, pool in enumerate(pools)}
        return pools

    def _start(self, rng: random.Random) -> None:
        tasks: list[tuple[Fn, str]] = [(self._copy, name) for name in self.copies]
        tasks += [(self._victim, self.victim), (self._worker, self.worker), (self._sync, "sync")]
        rng.shuffle(tasks)
        for fn, name in tasks:
            self.books.spawn(fn, name)
        if self.fix == "memory":
            self.m.at(MEMORY_MS, lambda m: setattr(self.parts, "works", True))

    def _copy(self, k: WatchedCalls) -> Yields:
        name = k.context.comm
        if self.form == 1 and name == self.guilty:
            with (yield from k.mutex_lock("inode")):
                yield from self._elements(k)
        else:
            yield from self._elements(k)
        k.complete(self.done[name])

    def _elements(self, k: WatchedCalls) -> Yields:
        """Take ``each`` elements, hold them, give them back."""
        if self.fix == "mutex":
            lock = yield from k.mutex_lock("copies")
            held = yield from self._take(k)
            lock.undo()
        else:
            held = yield from self._take(k)
            while not held:
                yield from k.msleep(7)
                held = yield from self._take(k)
        yield from k.msleep(10)
        for element, pool in held:
            k.mempool_free(element, pool)

    def _take(self, k: WatchedCalls) -> Yields:
        """The elements and their pools; none if some were missing and that is how it is done."""
        held: list[tuple[Any, MemPool]] = []
        for n in range(1 if self.fix == "at once" else self.each):
            pool = self.stages[n % len(self.stages)]
            element = yield from k.mempool_alloc(pool, GFP_NOWAIT if self.fix == "give back" else GFP_NOIO)
            if not element:
                for mine, where in held:
                    k.mempool_free(mine, where)
                return []
            held.append((element, pool))
            yield from k.msleep(1)
        return held

    def _victim(self, k: WatchedCalls) -> Yields:
        yield from k.msleep(30)
        element = yield from k.mempool_alloc(self.stages[0], GFP_NOIO)
        k.mempool_free(element, self.stages[0])
        k.complete(self.done[self.victim])

    def _worker(self, k: WatchedCalls) -> Yields:
        element = yield from k.mempool_alloc(self.other, GFP_NOIO)
        yield from k.msleep(REPORT_MS + 1)
        k.mempool_free(element, self.other)

    def _sync(self, k: WatchedCalls) -> Yields:
        yield from k.msleep(40)
        if self.form == 1:
            with (yield from k.mutex_lock("inode")):
                return
        yield from k.wait_for_completion(self.done[self.sync_waits_for])

    @property
    def sync_waits_for(self) -> str:
        """The task for which ``sync`` waits."""
        return self.victim if self.form == 2 else self.guilty

    def _sleeper(self, task: Any) -> Sleeper:
        pools = {pool.wait: name for pool, name in self.books.names.items()}
        completions = {done.wait: name for name, done in self.done.items()}
        mutexes = {mutex.wait: mutex.lock for mutex in self.m.mutexes}
        waits = ("timer", "")
        for kind, known in (("pool", pools), ("completion", completions), ("mutex", mutexes)):
            if task.queue in known:
                waits = kind, known[task.queue]
        holds = [("pool", name) for name in self.books.holdings(task.comm)]
        holds += [("mutex", mutex.lock) for mutex in self.m.mutexes if mutex.holder == f"{task.comm}/{task.pid}"]
        since = self.books.since.get(task.comm, 0) if waits[0] == "pool" else task.since
        return Sleeper(task.comm, int(self.m.now - since) // 1000, waits, tuple(holds))

    def report(self) -> Report:
        """Let it hang, and look."""
        self.m.run(until=REPORT_MS)
        rows = tuple(self._sleeper(task) for task in self.m.tasks)
        return Report(self.m.dmesg(), rows, {name: (p.curr_nr, p.min_nr) for p, name in self.books.names.items()})

    def outcome(self) -> tuple[bool, bool]:
        """Whether all tasks come to their end, and whether the kernel reported one that hangs."""
        self.m.run(until=END_MS)
        return not self.m.tasks, "blocked for more than" in self.m.dmesg()


@cache
def report(seed: int) -> Report:
    """The report of a crisis."""
    return Crisis(seed).report()


@cache
def outcome(seed: int, fix: str | int) -> tuple[bool, bool]:
    """What a fix does: whether all tasks end, whether one was reported."""
    return Crisis(seed, fix).outcome()


def _fix_fault(seed: int, fix: Any) -> str:
    if isinstance(fix, bool) or not (fix in FIXES or (isinstance(fix, int) and 0 < fix < 1_000)):
        return f"`fix` is a new min_nr or one of {', '.join(map(repr, FIXES))}; you say {fix!r}."
    ended, reported = outcome(seed, fix)
    if ended and not reported:
        return ""
    if fix == "timeout":
        return "A longer hung_task_timeout hides the report. The copies sleep on, each waits for the other."
    if ended:
        return (
            "When memory returns, alloc_fn succeeds and this hang ends: it helps now. The next shortage brings it "
            "back: the cycle is still in the code."
        )
    return f"With min_nr {fix} they stop again: all can hold all but one, and the reserve is empty."


def _shape_fault(answer: Any) -> str:
    if not isinstance(answer, dict) or set(answer) != {"waits_for", "pool", "cycle", "fix"}:
        return "Return a dict with waits_for, pool, cycle and fix."
    if not isinstance(answer["cycle"], (list, tuple, set)):
        return f"`cycle` is a list of the names of tasks, not {answer['cycle']!r}."
    return ""


def _culprit_fault(seed: int, answer: Any) -> str:
    """What is wrong with an answer, in a sentence; "" if nothing is."""
    if why := _shape_fault(answer):
        return why
    crisis, rows = Crisis(seed), {row.name: row for row in report(seed).tasks}
    cycle, reported = set(answer["cycle"]), "sync"
    if answer["waits_for"] == reported or reported in cycle:
        return f"{reported} is reported, and it only waits: it holds nothing that anybody wants. For whom does it wait?"
    if answer["waits_for"] != crisis.sync_waits_for:
        kind, what = rows[reported].waits
        how = f"the completion of {what}" if kind == "completion" else f"{what}, which {crisis.guilty} holds"
        return f"{reported} waits for {how}: you say {answer['waits_for']!r}."
    if answer["pool"] != crisis.name:
        return f"{crisis.sync_waits_for} sleeps in mempool_alloc, in another pool than {answer['pool']!r}."
    for name in sorted(map(str, cycle - set(crisis.copies))):
        if name in rows and rows[name].waits == ("pool", crisis.name):
            return f"{name} waits too, but holds no element of {crisis.name}: nobody waits for it. A victim."
        return f"{name} does not wait for {crisis.name}: it is no part of the cycle."
    if missing := sorted(set(crisis.copies) - cycle):
        return f"{missing[0]} too holds an element of {crisis.name} and waits for another one."
    return _fix_fault(seed, answer["fix"])


def _finds(seeds: range) -> Callable[[Fn], CheckResult]:
    def run(fn: Fn) -> CheckResult:
        for seed in seeds:
            if why := _culprit_fault(seed, fn(report(seed))):
                line = report(seed).log.splitlines()[0]
                return fail(why, f"seed {seed}: {line}")
        return CheckResult(True, f"{len(seeds)} of {len(seeds)} reports")

    return run


CULPRIT = ExerciseSpec(
    letter="E",
    title="Debug this report",
    task=(
        "Memory is gone, and the log names a task that hangs. `report.log` is the text; `report.tasks` are rows with "
        "`name`, `waits` and `holds`, each a pair such as `('pool', 'bio')`, `('mutex', 'inode')`, or `('completion', "
        "name of the task that will complete it)`; `print(report)` shows all. Return whom the reported task waits for, "
        "the pool where it all ends, the tasks that hold and wait in a cycle there, and what you would do: a new "
        f"`min_nr`, or one of {', '.join(f'`{fix}`' for fix in FIXES)}."
    ),
    signature="culprit(report) -> dict(waits_for=, pool=, cycle=[...], fix=)",
    starter=(
        "def culprit(report):\n    print(report)\n    name = report.log.split('INFO: task ')[1].split(':')[0]\n"
        "    return dict(waits_for=name, pool=None, cycle=[name], fix='timeout')\n"
    ),
    hints=(
        "Who sleeps in `mempool_alloc` wakes every 5 seconds and is never reported. The report names one who waits.",
        "Follow `waits`: a completion names its task; for a mutex look who has it in `holds`.",
        "In the cycle are those who wait for the pool and hold an element of it.",
        "In the pool, all but one for everybody: what does one more do?",
    ),
    returns=dict,
    checks=[
        Check(f"report {seed + 1}", _finds(range(seed, seed + 1)), f"6.1, seed {seed}", lambda seed=seed: report(seed))
        for seed in range(3)
    ]
    + [
        Check("five more", _finds(range(3, 8)), "6.1, seeds 3-7", lambda: [report(seed) for seed in SEEDS]),
    ],
)


# --- F: size a real one --------------------------------------------------------------------------------------------

BYTES, IN_FLIGHT, WRITE_MS = 300, 32, 5  # a request, what the disk takes at once, how long it needs for one
GONE_MS, BURSTS = (100, 2_100), 14
KINDS = ("kmalloc", "slab", "page")
SIZES = (1, 2, 4, 8, 16, 32, 64)  # of the pools a design is compared with
Trace = list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Cost:
    """What a design costs: the slowest write (ms), bytes locked away, and how often alloc_fn was asked."""

    slowest: float
    locked: int
    calls: int

    def __str__(self) -> str:
        return f"slowest write {self.slowest:.0f} ms, {self.locked:,} bytes locked, alloc_fn asked {self.calls:,} times"


@cache
def trace(seed: int) -> tuple[tuple[int, int], ...]:
    """Bursts of writes: (when in ms, how many pages)."""
    rng = random.Random(seed)
    sizes = [48, 40, *(rng.choice((2, 5, 8, 12, 20, 30)) for _ in range(BURSTS - 2))]
    rng.shuffle(sizes)
    return tuple((150 * n + rng.randrange(60), size) for n, size in enumerate(sizes))


class Disk:
    """A disk behind a pool of requests, while memory vanishes for two seconds."""

    def __init__(self, kind: str, size: int, min_nr: int) -> None:
        self.m, self.calls, self.slowest = Machine("linux-6.1", memory="64M"), 0, 0.0
        m, data = self.m, size
        if kind == "slab":
            data = m.kmem_cache_create("requests", size, 0, 0, None)
        elif kind == "page":
            data = 0
        names = {"kmalloc": ("kmalloc", "kfree"), "slab": ("alloc_slab", "free_slab"), "page": ("alloc_pages",
                 "free_pages")}[kind]  # fmt: skip
        self.real, free = (getattr(m, f"mempool_{name}") for name in names)
        self.pool = m.mempool_create(min_nr, self._alloc, free, data)
        one = data.size if kind == "slab" else 4096 if kind == "page" else m.ksize(m.kmalloc(size, GFP_NOIO))
        self.locked = min_nr * one
        self.calls = 0
        self.slots = [0.0] * IN_FLIGHT  # until when each is busy

    def _alloc(self, gfp_mask: int, pool_data: Any) -> Any:
        self.calls += 1
        return NULL if GONE_MS[0] <= self.m.now < GONE_MS[1] else self.real(gfp_mask, pool_data)

    def _writer(self, at: int) -> Fn:
        def write(k: TaskCalls) -> Yields:
            yield from k.msleep(at - k.now)
            request = yield from k.mempool_alloc(self.pool, GFP_NOIO)
            slot = self.slots.index(min(self.slots))
            self.slots[slot] = max(self.slots[slot], k.now) + WRITE_MS
            yield from k.msleep(self.slots[slot] - k.now)
            k.mempool_free(request, self.pool)
            self.slowest = max(self.slowest, k.now - at)

        return write

    def write(self, bursts: tuple[tuple[int, int], ...]) -> Cost:
        """Write all."""
        for number, (at, pages) in enumerate(bursts):
            for page in range(pages):
                self.m.spawn(self._writer(at), f"w{number}.{page}")
        self.m.run()
        return Cost(self.slowest, self.locked, self.calls)


@cache
def measure(kind: str, size: int, min_nr: int, seed: int) -> Cost:
    """What a pool costs on one trace."""
    return Disk(kind, size, min_nr).write(trace(seed))


def _design_fault(plan: dict[str, Any]) -> str:
    if set(plan) != {"kind", "size", "min_nr"} or plan["kind"] not in KINDS:
        return f"A design has `kind` (one of {', '.join(map(repr, KINDS))}), `size` and `min_nr`."
    if not all(isinstance(plan[key], int) and 0 <= plan[key] <= 4096 for key in ("size", "min_nr")):
        return "`size` is a number of bytes up to 4,096, `min_nr` a number of elements up to 4,096."
    if plan["size"] < BYTES:
        return f"A request has {BYTES} bytes: it would be written past the end of an element of {plan['size']}."
    return ""


def _judged(seed: int) -> Callable[[Fn], CheckResult]:
    def run(fn: Fn) -> CheckResult:
        plan = fn(list(trace(seed)))
        if why := _design_fault(plan):
            return fail(why, repr(plan))
        kind, size, min_nr = plan["kind"], plan["size"], plan["min_nr"]
        mine = measure(kind, size, min_nr, seed)
        table = f"yours: {mine}; {_others(seed)}"
        if mine.slowest >= GONE_MS[1] - GONE_MS[0]:
            return fail("A write waited until memory came back: this pool promises nothing.", table)
        for fewer in SIZES:
            less = measure(kind, size, fewer, seed)
            if fewer < min_nr and less.slowest <= mine.slowest and less.calls <= mine.calls:
                why = f"{fewer} elements are as fast: {mine.locked - less.locked:,} bytes are locked away for nothing."
                return fail(why, table)
        return CheckResult(True, table)

    return run


def _others(seed: int) -> str:
    return "; ".join(f"slab, {n}: {measure('slab', BYTES, n, seed)}" for n in (1, 8, 32))


DESIGN = ExerciseSpec(
    letter="G",
    title="Size a real one",
    task=(
        f"A disk keeps {IN_FLIGHT} requests of {BYTES} bytes in flight and needs {WRITE_MS} ms for one. Writes come in "
        "bursts: `trace` is a list of (ms, pages), and each page needs a request. Memory vanishes for two seconds. "
        "Choose the pool: `kind` (`kmalloc`, `slab` or `page`), the `size` of an element in bytes, `min_nr`. Measured "
        "are the slowest write, the bytes locked away, and how often alloc_fn is asked. There is no single best: write "
        "down in two sentences why you chose yours."
    ),
    signature="design(trace) -> dict(kind=, size=, min_nr=)",
    starter='def design(trace):\n    return dict(kind="page", size=4096, min_nr=len(trace) * 64)\n',
    hints=(
        "One element is enough to get everything written. What is bought with more?",
        f"The disk takes {IN_FLIGHT} at once. What would an element more than that do?",
        f"What is set aside for {BYTES} bytes: by kmalloc (lesson 02), by a cache of its own, by whole pages?",
    ),
    returns=dict,
    checks=[
        Check(f"{BURSTS} bursts, trace {seed}", _judged(seed), f"6.1, seed {seed}", lambda seed=seed: _others(seed))
        for seed in (1, 2)
    ],
)

EXERCISES = {"culprit": CULPRIT, "design": DESIGN}
