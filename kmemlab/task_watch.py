"""What a memory pool and the tasks around it did, kept while it happens: the steps of a pool, the lanes of tasks.

Both are observers like any other: a machine that nobody watches pays nothing.
Kernel: mempool_alloc, mempool_free, mm/mempool.c; kernel/sched/core.c.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from kmemlab.mempool import MemPool
from kmemlab.observer import Observer
from kmemlab.task_events import LabPool, LabTask

if TYPE_CHECKING:
    from kmemlab.events import Event
    from kmemlab.machine import Machine

__all__ = ["Change", "Lane", "Moment", "PoolRun", "PoolStep", "PoolWatch", "TaskRun", "TaskWatch", "Waiter"]

MOST_STEPS = 500  # of a pool, and moments of tasks: older ones are forgotten
MOST_CHANGES = 200  # told of one moment


# --- a pool -------------------------------------------------------------------------------------------------------


class PoolStep(NamedTuple):
    """A call on a pool and what it left: fields as in ``LabPool``, elements by name, ``reserve`` with the top last.
    ``call`` is also begin (nothing was called) or create."""

    n: int
    call: str
    task: str
    gfp: int
    element: str
    place: str
    reserve: tuple[str, ...]
    min_nr: int
    tries: int
    mask: int
    slept: float
    ms: float


class Waiter(NamedTuple):
    """A task that holds elements, or sleeps on the pool since ``since`` and tries again at ``again`` (ms)."""

    task: str
    holds: tuple[str, ...]
    since: float | None = None
    again: float | None = None


@dataclass(frozen=True, slots=True)
class PoolRun:
    """The steps of a pool, oldest first, and who holds or waits now. ``recorded`` names the kernel that it was
    recorded on, "" for a simulated machine; ``gone``: the pool was destroyed."""

    label: str
    steps: tuple[PoolStep, ...]
    tasks: tuple[Waiter, ...] = ()
    now: float = 0.0
    recorded: str = ""
    gone: bool = False


class PoolWatch(Observer):
    """Keeps the last 500 steps of a pool from ``begin()`` on. Elements are called e0, e1, ... as they appear, if they
    are not strings. Errors: TypeError for what is no pool."""

    def __init__(self, m: Machine, pool: MemPool) -> None:
        if not isinstance(pool, MemPool):
            raise TypeError(f"pool must come from m.mempool_create(...), not {pool!r:.60}")
        super().__init__(m)
        self.pool = pool
        self.names: dict[Any, str] = {}
        self.steps: deque[PoolStep] = deque(maxlen=MOST_STEPS)
        self.held: dict[str, str] = {}  # element -> who has it
        self.waits: dict[str, float] = {}  # who waits for an element -> since when
        self.count = self.named = 0

    def start(self) -> None:
        """The reserve as it is now; what happened unseen is not guessed."""
        self.held.clear()
        self.waits.clear()
        self._keep("begin", self.m.context.who, 0, "", "", self.pool.min_nr, 0, 0, 0.0, self.m.now)

    def see(self, event: Event) -> None:
        """A call on the pool has ended: the pool is as it left it."""
        if isinstance(event, LabTask) and event.what == "sleeps" and "mempool_alloc" in event.why:
            self.waits.setdefault(f"{event.comm}/{event.pid}", event.ms)
        if not isinstance(event, LabPool):
            return
        if event.call == "alloc":
            self.waits.pop(event.task, None)
        if event.pool is not self.pool:
            return
        name = self._name(event.element) if event.element else ""
        if event.call == "alloc" and name:
            self.held[name] = event.task
        elif event.call == "free":
            self.held.pop(name, None)
        self._keep(
            event.call, event.task, event.gfp_flags, name, event.place, event.min_nr, event.tries, event.mask,
            event.slept, event.ms,
        )  # fmt: skip
        if event.place == "free_fn" and not isinstance(event.element, int):
            self.names.pop(_key(event.element), None)  # an address may come back, an object of one's own is gone

    def _keep(self, call: str, task: str, gfp: int, element: str, place: str, *rest: Any) -> None:
        reserve = tuple(self._name(each) for each in self.pool.elements or ())
        self.steps.append(PoolStep(self.count, call, task, int(gfp), element, place, reserve, *rest))
        self.count += 1

    def _name(self, element: Any) -> str:
        if isinstance(element, str):
            return element
        key = _key(element)
        if key not in self.names:
            self.names[key] = f"e{self.named}"
            self.named += 1
        return self.names[key]

    def run(self) -> PoolRun:
        """What was seen so far, and who holds or waits at this moment."""
        sleepers = {f"{task.comm}/{task.pid}": task for task in self.pool.wait.tasks}
        tasks = []
        for name in dict.fromkeys((*self.held.values(), *sleepers)):
            task = sleepers.get(name)
            since = (self.waits.get(name, task.since), task.wake_at) if task else ()
            tasks.append(Waiter(name, tuple(each for each, who in self.held.items() if who == name), *since))
        gone = self.pool.elements is None
        return PoolRun(self.m.label, tuple(self.steps), tuple(tasks), self.m.now, gone=gone)


def _key(element: Any) -> Any:
    try:
        hash(element)
    except TypeError:
        return id(element)
    return element


# --- tasks --------------------------------------------------------------------------------------------------------


class Change(NamedTuple):
    """What a task did: ``what``, ``why`` and ``by`` as in ``LabTask``; or it got an element of a pool (``why``: from
    where, "" for NULL) or gave one (``why``: where to)."""

    pid: int
    what: str
    why: str = ""
    by: str = ""


class Lane(NamedTuple):
    """How a task stands after a moment. ``since`` (ms): it waits for the same thing ever since, and has tried
    ``again`` times in vain."""

    comm: str
    what: str
    why: str = ""
    since: float = 0.0
    again: int = 0


@dataclass(slots=True)
class Moment:
    """All that happened at ``ms``, and each task after it, by pid. ``folded``: it stands for so many moments from
    ``first`` on, in which tasks woke, tried in vain and slept again."""

    ms: float
    changes: list[Change] = field(default_factory=list)
    after: dict[int, Lane] = field(default_factory=dict)
    vain: bool = False
    folded: int = 1
    first: float = 0.0


@dataclass(frozen=True, slots=True)
class TaskRun:
    """What tasks did, oldest moment first; ``before``: each task before the first one."""

    label: str
    now: float
    before: dict[int, Lane]
    moments: tuple[Moment, ...]


class TaskWatch(Observer):
    """Keeps what all tasks do from ``begin()`` on: 500 moments. Many in which nobody got further are one."""

    def __init__(self, m: Machine) -> None:
        super().__init__(m)
        self.moments: deque[Moment] = deque()
        self.before: dict[int, Lane] = {}
        self.lanes: dict[int, Lane] = {}

    def start(self) -> None:
        """The tasks that sleep already."""
        sleeping = [task for task in self.m.tasks if task.why]
        self.lanes = {task.pid: Lane(task.comm, "sleeps", task.why, task.since) for task in sleeping}
        if not self.moments:
            self.before = dict(self.lanes)

    def see(self, event: Event) -> None:
        """A task changed, or had to do with a pool."""
        if isinstance(event, LabTask):
            self._moment(event.ms)
            self._lane(event)
            self._note(Change(event.pid, event.what, event.why, event.by))
        elif isinstance(event, LabPool) and event.call in ("alloc", "free"):
            pid = event.task.rpartition("/")[2]
            if pid.isdigit() and (lane := self.lanes.get(int(pid))):
                self._moment(event.ms)
                self.lanes[int(pid)] = self.moments[-1].after[int(pid)] = Lane(lane.comm, lane.what)
                self._note(Change(int(pid), "got" if event.call == "alloc" else "gave", event.place))

    def _lane(self, event: LabTask) -> None:
        old = self.lanes.get(event.pid, Lane(event.comm, ""))
        lane = old._replace(what=event.what)
        if event.what == "sleeps":
            same = old.why == event.why and old.what in ("runs", "") and event.why.startswith("waits ")
            since, again = (old.since, old.again + 1) if same else (event.ms, 0)
            lane = Lane(event.comm, "sleeps", event.why, since, again)
        elif event.what == "ended":
            lane = Lane(event.comm, "ended", event.why, event.ms)
        elif event.what == "runs" and event.notebook:
            lane = Lane(event.comm, "", old.why, old.since, old.again)
        self.lanes[event.pid] = self.moments[-1].after[event.pid] = lane

    def _moment(self, ms: float) -> None:
        """The moment of an event: the last one, or a new one."""
        moments = self.moments
        if moments and moments[-1].ms == ms:
            return
        _fold(moments)
        self.lanes = {pid: lane for pid, lane in self.lanes.items() if lane.what != "ended"}
        moments.append(Moment(ms, after=dict(self.lanes), first=ms))
        if len(moments) > MOST_STEPS:
            self.before = moments.popleft().after

    def _note(self, change: Change) -> None:
        changes = self.moments[-1].changes
        if len(changes) < MOST_CHANGES:
            changes.append(change)

    def run(self) -> TaskRun:
        """What was seen so far."""
        moments = deque(Moment(e.ms, list(e.changes), dict(e.after), e.vain, e.folded, e.first) for e in self.moments)
        _fold(moments)
        return TaskRun(self.m.label, self.m.now, dict(self.before), tuple(moments))


def _fold(moments: deque[Moment]) -> None:
    """The last moment is over. If nobody got further in it, nor in the two before, it joins the one before."""
    if not moments:
        return
    last = moments[-1]
    quiet = all(change.what in ("woken", "runs", "sleeps") and not change.by for change in last.changes)
    last.vain = quiet and len(moments) > 1 and _places(last) == _places(moments[-2])
    if len(moments) > 2 and last.vain and moments[-2].vain and moments[-3].vain:
        moments.pop()
        old = moments[-1]
        moments[-1] = Moment(last.ms, last.changes, last.after, True, old.folded + 1, old.first)


def _places(moment: Moment) -> dict[int, tuple[str, str, float]]:
    return {pid: (lane.what, lane.why, lane.since) for pid, lane in moment.after.items()}
