"""When kswapd gets the CPU beside a caller who does not sleep. Kernel: kernel/sched/fair.c."""

from __future__ import annotations

from typing import Any

__all__ = ["TICK", "KswapdTurn"]

TICK = 4  # ms: HZ is 250
CREDIT = 3  # ms by which a task that slept may be behind the one that runs, at most: half of sched_latency
GRANULARITY = 1  # ms a woken task must be behind to get the CPU at once: sched_wakeup_granularity
# What work costs, in ms of simulated CPU time: a call, a page looked at by reclaim, a run of kswapd besides its pages.
# With them 30,000 calls over a full page cache take the 132 ms they took on the recorded machine.
CALL_MS, PAGE_MS, KSWAPD_MS = 0.002, 0.002, 0.1


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
