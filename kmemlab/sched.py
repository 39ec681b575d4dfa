"""Simulated time: timers, interrupts, sleeping, and the moment when nothing can change any more.

A slow path is a generator: each ``yield`` is the kernel's ``schedule()`` or ``cond_resched()``. The machine drives it;
while it sleeps, timers, kswapd and other tasks run. Kernel: kernel/sched/core.c, kernel/sched/wait.c,
kernel/time/timer.c.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

from kmemlab.context import schedule_check
from kmemlab.fair import TICK, KswapdTurn
from kmemlab.task_events import LabTask
from kmemlab.wait import RETRIES, Sleep, Task, Wait, WaitOn, WaitQueue

__all__ = ["HUNG_TASK_TIMEOUT", "KSWAPD", "ROUND", "SchedMachine", "run_softirq"]

PATIENCE = 120_000  # ms: longer nobody waits here for a machine on which something goes on, but nothing that helps
HUNG_TASK_TIMEOUT = 120  # s: /proc/sys/kernel/hung_task_timeout_secs
ROUND = 1  # ms between two cond_resched()
KSWAPD = "kswapd0"


def run_softirq(m: Any, fn: Callable[[], object]) -> None:
    """Run a timer's function over whatever runs."""
    context = m.context
    with m.softirq():
        before, slept = context.preempt_count, context.scheduled
        fn()
        if context.scheduled != slept:
            name = getattr(fn, "__name__", "timer")
            m.printk(f"timer: {name} preempt leak: {before:08x} -> {0:08x}")
            m.warn("kernel/time/timer.c:1707 call_timer_fn+0x120/0x130")


class SchedMachine:
    """The part of a ``Machine`` that keeps time. ``now`` is in milliseconds since the machine was made."""

    __slots__ = ()  # its fields are slots of Machine

    kswapd_woken: tuple[int, int] | None
    kswapd_turn: KswapdTurn

    def _start_sched(self: Any) -> None:
        self.now = 0.0
        self._timers: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._timer_count = 0
        self._said_at: dict[str, float] = {}
        self._held_irqs: list[Callable[[], object]] = []
        self.kswapd_woken = None  # or (order, highest zone index)
        self.kswapd_turn = KswapdTurn()
        self._start_tasks()

    def _start_tasks(self: Any) -> None:
        self.tasks: list[Task] = []
        self.running = [Task(None, self.context)]  # the notebook's code; above it whoever has the CPU meanwhile
        self.run_queue: deque[Task] = deque()

    def once_in(self: Any, ms: float, what: str) -> bool:
        """True if ``what`` was not said in the last ``ms`` milliseconds. Kernel: __ratelimit, lib/ratelimit.c."""
        last = self._said_at.get(what)
        if last is not None and self.now - last < ms:
            return False
        self._said_at[what] = self.now
        return True

    # --- timers and interrupts ----------------------------------------------------------------------

    def after(self: Any, ms: float, fn: Callable[[], object]) -> None:
        """Call ``fn()`` in a softirq, ``ms`` milliseconds from now. Kernel: timer_setup, mod_timer."""
        if not callable(fn):
            raise TypeError(f"m.after wants a function without arguments, not {fn!r}")
        self.at(ms, run_softirq, fn)

    def at(self: Any, ms: float, fn: Callable[..., object], *args: Any) -> None:
        """Call ``fn(m, *args)`` later: an I/O that ends, a process that is gone. ``args`` name things, they do not hold
        them, so that a copy of the machine has the same timers."""
        self._timer_count += 1
        heapq.heappush(self._timers, (self.now + ms, self._timer_count, fn, args))

    def irq(self: Any, fn: Callable[[], object]) -> None:
        """An interrupt comes now: ``fn()`` runs in its handler, later if interrupts are off."""
        if self.context.irqs_disabled:
            self._held_irqs.append(fn)
            return
        with self.hardirq():
            fn()

    def run_pending(self: Any) -> None:
        """What waited for the end of a section: interrupts that were held back, then kswapd."""
        while self._held_irqs and not self.context.irqs_disabled:
            self.irq(self._held_irqs.pop(0))
        if self.kswapd_woken and self.context.may_sleep:
            self.run_kswapd()

    # --- time ---------------------------------------------------------------------------------------------

    def msleep(self: Any, ms: float) -> None:
        """Sleep. Time passes, timers and kswapd run. Kernel: msleep, kernel/time/timer.c."""
        schedule_check(self)
        self._sleep_here(ms, f"msleep({ms:.9g})")

    def _sleep_here(self: Any, ms: float, why: str) -> None:
        """Whoever runs sleeps in the middle of a call."""
        task = self.running[-1]
        self.tell(task, "sleeps", why)
        self.advance(ms)
        self.tell(task, "woken")
        self.tell(task, "runs")

    def advance(self: Any, ms: float, *, asleep: bool = True) -> None:
        """Let ``ms`` milliseconds pass: others run first (kswapd if its turn has come or the caller is asleep), then
        what is due."""
        end = self.now + ms
        self._elsewhere(asleep)
        while (due := self._next_due()) <= end:
            self.now = max(self.now, due)
            if self._timers and self._timers[0][0] <= self.now:
                _, _, fn, args = heapq.heappop(self._timers)
                self.news()
                with self.aside():
                    fn(self, *args)
            else:
                for task in dict.fromkeys((*self.tasks, *self.running)):
                    if task.wake_at is not None and task.wake_at <= self.now:
                        self.make_runnable(task, woken=False)
            self._elsewhere(asleep)
        self.now = max(self.now, end)
        self.changes += 1
        if asleep:
            self.kswapd_turn.slept(self)

    def _next_due(self: Any) -> float:
        """When something happens next, infinity if nothing will."""
        times = [task.wake_at for task in {*self.tasks, *self.running} if task.wake_at is not None]
        return min((*times, *(timer[0] for timer in self._timers[:1])), default=math.inf)

    @contextmanager
    def aside(self: Any) -> Iterator[None]:
        """What others do while a call is under way is not its story: its notes are as before afterwards."""
        trail, plan, page, steps = self.trail[:], self.last_plan, self.last_page, self.steps
        try:
            yield
        finally:
            self.trail[:], self.last_plan, self.last_page, self.steps = trail, plan, page, steps

    def _elsewhere(self: Any, asleep: bool = True) -> None:
        """Others run while this one sleeps, or at a cond_resched(): kswapd, then every task that can."""
        if self.kswapd_woken and (asleep or self.lru.empty or self.kswapd_turn.has_come(self)):
            self.run_kswapd(idle=True)
        while self.run_queue:
            with self.aside():
                self.step(self.run_queue.popleft())

    @contextmanager
    def other_task(self: Any, comm: str, pid: int) -> Iterator[None]:
        """Somebody else has the CPU: a context of its own, without this task's locks and scopes."""
        ours, self.context = self.context, type(self.context)()
        self.context.comm, self.context.pid = comm, pid
        try:
            yield
        finally:
            self.context = ours

    def drive(self: Any, slow: Generator[Any, Any, Any]) -> Any:
        """Run a slow path to its end. Errors: Stuck when it waits for what cannot come, or has waited too long."""
        answer, task, deadline = None, self.running[-1], self.now + PATIENCE
        try:
            while True:
                try:
                    wish, answer = slow.send(answer), None
                except StopIteration as stop:
                    return stop.value
                if isinstance(wish, Sleep):
                    schedule_check(self)
                    self._sleep_here(wish.ms, "sleeps in a slow path")
                elif isinstance(wish, Wait):
                    self._wait(task, wish, deadline)
                elif isinstance(wish, WaitOn):
                    answer = self._wait_on(task, wish, deadline)
                elif not self.context.preempt_count:
                    self.advance(ROUND, asleep=False)
                else:
                    self.now += ROUND
        finally:
            if task.queue is not None:
                task.queue.tasks.remove(task)
                task.queue = None
            if task.why:
                self._on_again(task)
            task.wake_at = None

    def _wait(self: Any, task: Task, wish: Wait, deadline: float) -> None:
        """A fruitless round is over: a tick passes, if anything is going to happen at all."""
        if not task.why:
            self.tell(task, "sleeps", wish.why)
        task.why, task.fruitless = wish.why, RETRIES
        if self.now >= deadline:
            self.give_up()
        if self._timers:
            self.advance(TICK)
        elif self.kswapd_woken:
            self._elsewhere()
        elif self.stuck():
            self.give_up()
        else:
            self.advance(self._next_due() - self.now)

    def _wait_on(self: Any, task: Task, wish: WaitOn, deadline: float) -> bool:
        """Sleep on a queue while others run; False if time ran out first."""
        schedule_check(self)
        self.fall_asleep(task, wish)
        self._elsewhere()
        while task.queue is not None:
            if self.stuck() or self.now >= deadline:
                self.give_up()
            self.advance(max(0, self._next_due() - self.now))
        self._on_again(task)
        task.fruitless += not task.answer
        return bool(task.answer)

    def _on_again(self: Any, task: Task) -> None:
        """A wait in the middle of a call is over."""
        task.why = ""
        self.tell(task, "runs")

    def tell(self: Any, task: Task, what: str, why: str = "", by: str = "") -> None:
        """A task runs, sleeps, is woken or has ended: for those who listen."""
        self.changes += 1
        if self.events.subscribers:
            self.events.emit(LabTask(task.comm, task.pid, what, why, by, self.now, task.body is None))

    def fall_asleep(self: Any, task: Task, wish: WaitOn) -> None:
        """Put a task on a queue."""
        task.queue, task.why, task.since = wish.queue, wish.why, self.now
        task.wake_at = None if wish.ms is None else self.now + wish.ms
        wish.queue.tasks.append(task)
        self.tell(task, "sleeps", wish.why)

    def wake_up(self: Any, queue: WaitQueue, *, one: bool = False) -> None:
        """Wake everybody who sleeps on a queue, the last who came first; ``one``: only the first who came.

        Kernel: wake_up, kernel/sched/wait.c.
        """
        self.news()
        for task in queue.tasks[:1] if one else queue.tasks[::-1]:
            self.make_runnable(task, woken=True)

    def make_runnable(self: Any, task: Task, *, woken: bool) -> None:
        """End a task's sleep."""
        if task.queue is not None:
            task.queue.tasks.remove(task)
            task.answer = woken
        task.queue = task.wake_at = None
        self.tell(task, "woken", by=self.context.who if woken else "")
        if task not in self.running:
            self.run_queue.append(task)

    def news(self: Any) -> None:
        """Something changed: whoever tried in vain may try again."""
        for task in (*self.tasks, *self.running):
            task.fruitless = 0
