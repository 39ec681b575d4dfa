"""Mutexes: locks whose holder may sleep, and whose waiters sleep; the report on one that waits for ever.

Kernel: kernel/locking/mutex.c; kernel/hung_task.c (check_hung_task).
"""

from __future__ import annotations

from typing import Any

from kmemlab.context import Section, might_sleep, schedule_check
from kmemlab.null import KernelBug
from kmemlab.sched import KSWAPD, Stuck, WouldWait

__all__ = ["HungTask", "MutexMachine"]

HUNG_TASK_TIMEOUT = 120  # s: /proc/sys/kernel/hung_task_timeout_secs


class HungTask(Stuck):
    """A task waits for a lock that nobody will ever release; the text is what the kernel says after two minutes."""


class MutexMachine:
    """The part of a ``Machine`` with mutexes. ``mutexes`` holds those that are taken: (lock, name of the holder)."""

    __slots__ = ()  # its fields are slots of Machine

    mutexes: list[tuple[Any, str]]

    def _holder(self, lock: Any) -> str:
        return next((task for held, task in self.mutexes if held is lock or held == lock), "")

    def mutex_lock(self: Any, lock: Any) -> Section:
        """Take a mutex (any object), sleeping until it is free; usable with ``with``. Kernel: mutex_lock.

        Errors: HungTask if its holder will never give it back, because it is this task itself.
        """
        might_sleep(self, "kernel/locking/mutex.c:283")
        if holder := self._holder(lock):
            schedule_check(self)
            if self.context.comm == KSWAPD:
                raise WouldWait(lock)
            whose = "that is the same task" if holder == self._task_name() else "and it cannot run meanwhile"
            raise HungTask(f"{self._hung_task()}\nIt waits for the mutex {lock!r}. {holder} holds it, {whose}.")
        self.mutexes.append((lock, self._task_name()))
        return Section(lambda: self.mutex_unlock(lock))

    def mutex_trylock(self: Any, lock: Any) -> bool:
        """Take a mutex if it is free, without waiting; whether it was. Kernel: mutex_trylock."""
        if self._holder(lock):
            return False
        self.mutexes.append((lock, self._task_name()))
        return True

    def mutex_unlock(self: Any, lock: Any) -> None:
        """Kernel: mutex_unlock. Errors: KernelBug for a mutex this task does not hold."""
        entry = lock, self._task_name()
        if entry not in self.mutexes:
            raise KernelBug(self.oops(f"BUG: {entry[1]} releases the mutex {lock!r}, which it does not hold"))
        self.mutexes.remove(entry)

    def mutex_is_locked(self, lock: Any) -> bool:
        """Kernel: mutex_is_locked, include/linux/mutex.h."""
        return bool(self._holder(lock))

    def _hung_task(self: Any) -> str:
        """What the log says when a task has slept for two minutes. Kernel: check_hung_task."""
        context = self.context
        report = "\n".join((
            f"INFO: task {context.comm}:{context.pid} blocked for more than {HUNG_TASK_TIMEOUT} seconds.",
            f"      {self.print_tainted()} {self.kernel.release}",
            '"echo 0 > /proc/sys/kernel/hung_task_timeout_secs" disables this message.',
            f"task:{context.comm:<16}state:D stack:0     pid:{context.pid:<5} ppid:{0:<6} flags:0x00004000",
        ))  # fmt: skip
        self.advance(HUNG_TASK_TIMEOUT * 1000)
        self.printk("\n".join((report, "Call Trace:", " <TASK>", " __mutex_lock", f" {self.call_site}", " </TASK>")))
        return report

    def _task_name(self: Any) -> str:
        return f"{self.context.comm}/{self.context.pid}"
