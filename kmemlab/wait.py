"""Sleeping: what a task yields to give the CPU away, queues to sleep on, and the end of hope.

Kernel: include/linux/wait.h, kernel/sched/wait.c.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

__all__ = ["RETRIES", "HungTask", "Sleep", "Stuck", "Task", "Wait", "WaitOn", "WaitQueue", "WouldWait"]

RETRIES = 24  # of a waiter that wakes every 5 s: the two minutes after which the kernel would call a task hung


class Stuck(Exception):
    """Nothing will ever change on this machine: no timer, no I/O, nothing to reclaim. The text says who waits."""

    def _render_traceback_(self) -> list[str]:
        return [f"Stuck: {self}"]  # IPython shows this in place of a page of frames


class HungTask(Stuck):
    """A task waits for what nobody will ever do; the text has what the kernel says after two minutes."""


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


class WaitQueue:
    """Who sleeps until something happens; whoever came last is woken first. Kernel: include/linux/wait.h."""

    __slots__ = ("tasks",)

    def __init__(self) -> None:
        self.tasks: list[Task] = []


class WaitOn:
    """What a task yields to sleep on a queue, at most ``ms`` milliseconds if that is not None; ``why`` in words."""

    __slots__ = ("ms", "queue", "why")

    def __init__(self, queue: WaitQueue, ms: float | None, why: str) -> None:
        self.queue, self.ms, self.why = queue, ms, why


class Task:
    """Somebody who runs: a generator, or (with None) the code of the notebook itself.

    While it sleeps: ``queue`` is where, ``wake_at`` when it goes on by itself (ms), ``why`` says what it waits for.
    ``fruitless`` counts its tries since anything changed on the machine.
    """

    __slots__ = ("answer", "body", "comm", "context", "fruitless", "pid", "queue", "reported", "result", "since",
                 "wake_at", "why")  # fmt: skip

    def __init__(self, body: Generator[Any, Any, Any] | None, context: Any) -> None:
        self.body, self.context = body, context
        self.comm, self.pid = context.comm, context.pid
        self.queue: WaitQueue | None = None
        self.wake_at: float | None = None
        self.since, self.why = 0.0, ""
        self.answer: bool | None = None  # of the last sleep on a queue: whether it was woken
        self.fruitless = 0
        self.reported = False
        self.result: Any = None

    @property
    def hopeless(self) -> bool:
        """It waits for others alone, or has tried often enough."""
        return self.fruitless >= RETRIES or (self.queue is not None and self.wake_at is None)

    def __repr__(self) -> str:
        return f"<task {self.comm}/{self.pid}: {self.why or 'runs'}>"
