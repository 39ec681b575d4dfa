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

__all__ = ["KSWAPD", "ROUND", "TICK", "SchedMachine", "Sleep", "Stuck", "Wait", "WouldWait", "run_softirq"]

TICK = 4  # ms: HZ is 250
ROUND = 1  # ms between two cond_resched()
KSWAPD = "kswapd0"


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

    def _start_sched(self: Any) -> None:
        self.now = 0.0
        self._timers: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._timer_count = 0
        self._said_at: dict[str, float] = {}
        self._held_irqs: list[Callable[[], object]] = []
        self.kswapd_woken = None  # or (order, highest zone index)

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

    def advance(self: Any, ms: float) -> None:
        """Let ``ms`` milliseconds pass: kswapd first, then what is due."""
        end = self.now + ms
        self._elsewhere()
        while self._timers and self._timers[0][0] <= end:
            self.now, _, fn, args = heapq.heappop(self._timers)
            with self.aside():
                fn(self, *args)
            self._elsewhere()
        self.now = max(self.now, end)
        self.changes += 1

    @contextmanager
    def aside(self: Any) -> Iterator[None]:
        """What others do while a call is under way is not its story: its notes are as before afterwards."""
        trail, plan, page, steps = self.trail[:], self.last_plan, self.last_page, self.steps
        try:
            yield
        finally:
            self.trail[:], self.last_plan, self.last_page, self.steps = trail, plan, page, steps

    def _elsewhere(self: Any) -> None:
        """Other tasks run while this one sleeps: kswapd."""
        if self.kswapd_woken:
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
                self.advance(ROUND)
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
