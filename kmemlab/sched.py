"""Simulated time: timers, interrupts, sleeping, and the moment when nothing can change any more.

A slow path is a generator: each ``yield`` is the kernel's ``schedule()`` or ``cond_resched()``. The machine drives it;
while it sleeps, timers and kswapd run. Kernel: kernel/sched/core.c, kernel/time/timer.c.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

from kmemlab.context import schedule_check

__all__ = [
    "KSWAPD",
    "ROUND",
    "TICK",
    "KswapdTurn",
    "SchedMachine",
    "Sleep",
    "Stuck",
    "Wait",
    "WouldWait",
    "run_softirq",
]

TICK = 4  # ms: HZ is 250
ROUND = 1  # ms between two cond_resched()
KSWAPD = "kswapd0"
CREDIT = 3  # ms by which a task that slept may be behind the one that runs, at most: half of sched_latency
GRANULARITY = 1  # ms a woken task must be behind to get the CPU at once: sched_wakeup_granularity
# What work costs, in ms of simulated CPU time: a call, a page looked at by reclaim, a run of kswapd besides its pages.
# With them 30,000 calls over a full page cache take the 132 ms they took on the recorded machine.
CALL_MS, PAGE_MS, KSWAPD_MS = 0.002, 0.002, 0.1


class Stuck(Exception):
    """Nothing will ever change on this machine: no timer, no I/O, nothing to reclaim. The text says who waits."""

    def _render_traceback_(self) -> list[str]:
        return [f"Stuck: {self}"]  # IPython shows this in place of a page of frames


class WouldWait(Exception):
    """kswapd would wait for a lock that the sleeping task holds."""


class Sleep:
    """What a slow path yields to give the CPU away for ``ms`` milliseconds."""

    __slots__ = ("ms",)

    def __init__(self, ms: float) -> None:
        self.ms = ms


class Wait:
    """What a slow path yields at the end of a round that changed nothing: ``why`` in words. It wants any change."""

    __slots__ = ("why",)

    def __init__(self, why: str) -> None:
        self.why = why


class KswapdTurn:
    """When kswapd, once woken, gets the CPU beside a caller who does not sleep. ``lag``: by how many ms of CPU time it
    is behind the caller; ``due``: when it may run, in ms of CPU time both have used. At first it is half-way between
    the credit of a task that slept long and what it needs to get the CPU at once.

    Kernel: place_entity, check_preempt_wakeup, check_preempt_tick, kernel/sched/fair.c. Left out: slices, weights.
    """

    __slots__ = ("due", "lag", "seen", "used")

    def __init__(self) -> None:
        self.lag = (CREDIT + GRANULARITY) / 2
        self.used = self.due = 0.0
        self.seen = (0, 0, 0, 0)

    def account(self, m: Any) -> None:
        """Charge what was done since the last time."""
        stat = m.lru.stat
        now = (m.calls, stat["pgscan_direct"], stat["pgscan_kswapd"], stat["pageoutrun"])
        calls, direct, pages, runs = (new - old for new, old in zip(now, self.seen, strict=True))
        self.seen = now
        caller, kswapd = calls * CALL_MS + direct * PAGE_MS, pages * PAGE_MS + runs * KSWAPD_MS
        self.used += caller + kswapd
        self.lag += caller - kswapd

    def woken(self, m: Any, pages: int) -> None:
        """kswapd has ``pages`` to free. It runs at once if it is behind by more than the granularity, else at the next
        tick. With another CPU it is done after the time those pages take."""
        self.account(m)
        self.lag = min(self.lag, CREDIT)
        if m.cpus > 1:
            self.due = self.used + KSWAPD_MS + pages * PAGE_MS
        elif self.lag > GRANULARITY:
            self.due = self.used
        else:
            self.due = (self.used // TICK + 1) * TICK

    def slept(self, m: Any) -> None:
        """The caller has slept: it is behind by no more than a sleeper's credit."""
        self.account(m)
        self.lag = max(self.lag, -CREDIT)

    def has_come(self, m: Any) -> bool:
        """Whether kswapd gets the CPU now."""
        self.account(m)
        return self.used >= self.due


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
        self.advance(ms)

    def advance(self: Any, ms: float, *, asleep: bool = True) -> None:
        """Let ``ms`` milliseconds pass: kswapd first, if the caller sleeps or its turn has come, then what is due."""
        end = self.now + ms
        self._elsewhere(asleep)
        while self._timers and self._timers[0][0] <= end:
            self.now, _, fn, args = heapq.heappop(self._timers)
            with self.aside():
                fn(self, *args)
            self._elsewhere(asleep)
        self.now = max(self.now, end)
        self.changes += 1
        if asleep:
            self.kswapd_turn.slept(self)

    @contextmanager
    def aside(self: Any) -> Iterator[None]:
        """What others do while a call is under way is not its story: its notes are as before afterwards."""
        trail, plan, page, steps = self.trail[:], self.last_plan, self.last_page, self.steps
        try:
            yield
        finally:
            self.trail[:], self.last_plan, self.last_page, self.steps = trail, plan, page, steps

    def _elsewhere(self: Any, asleep: bool = True) -> None:
        """Other tasks run while this one sleeps, or at a cond_resched(): kswapd."""
        if self.kswapd_woken and (asleep or self.lru.empty or self.kswapd_turn.has_come(self)):
            self.run_kswapd(idle=True)

    @contextmanager
    def other_task(self: Any, comm: str, pid: int) -> Iterator[None]:
        """Somebody else has the CPU: a context of its own, without this task's locks and scopes."""
        ours, self.context = self.context, type(self.context)()
        self.context.comm, self.context.pid = comm, pid
        try:
            yield
        finally:
            self.context = ours

    def drive(self: Any, slow: Generator[Any, None, Any]) -> Any:
        """Run a slow path to its end. Errors: Stuck when it waits for what cannot come."""
        while True:
            try:
                wish = next(slow)
            except StopIteration as stop:
                return stop.value
            if isinstance(wish, Sleep):
                schedule_check(self)
                self.advance(wish.ms)
            elif isinstance(wish, Wait):
                self._wait(wish)
            elif not self.context.preempt_count:
                self.advance(ROUND, asleep=False)
            else:
                self.now += ROUND

    def _wait(self: Any, wish: Wait) -> None:
        """A fruitless round is over: a tick passes, if anything is going to happen at all."""
        if self._timers:
            self.advance(TICK)
        elif self.kswapd_woken:
            self._elsewhere()
        else:
            raise Stuck(
                f"{self.context.comm}/{self.context.pid} {wish.why}. No timer is set, no I/O is under way, nothing can "
                "be reclaimed: this will never end. The real kernel would loop here without a word (a loop that "
                "reclaims is no hung task). Give memory back first, or use a mask that may fail or kill."
            )
