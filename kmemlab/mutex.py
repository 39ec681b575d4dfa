"""Mutexes: locks whose holder may sleep, and whose waiters sleep. Kernel: kernel/locking/mutex.c."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from kmemlab.context import Section, might_sleep
from kmemlab.null import KernelBug
from kmemlab.sched import KSWAPD
from kmemlab.wait import WaitOn, WaitQueue, WouldWait

__all__ = ["Mutex", "MutexMachine", "lock_mutex"]


class Mutex:
    """A mutex that is taken: which one, by whom ("comm/pid"), and who waits for it."""

    __slots__ = ("holder", "lock", "wait")

    def __init__(self, lock: Any, holder: str, wait: WaitQueue | None = None) -> None:
        self.lock, self.holder, self.wait = lock, holder, wait or WaitQueue()


def lock_mutex(m: Any, lock: Any) -> Generator[Any, Any, Section]:
    """Take a mutex, sleeping until it is free; see ``MutexMachine.mutex_lock``."""
    might_sleep(m, "kernel/locking/mutex.c:283")
    if mutex := m.held_mutex(lock):
        if m.context.comm == KSWAPD:
            raise WouldWait(lock)
        whose = "that is the same task" if mutex.holder == m.context.task else "another task"
        yield WaitOn(mutex.wait, None, f"waits for the mutex {lock!r}, and {mutex.holder} holds it, {whose}")
    else:
        m.mutexes.append(Mutex(lock, m.context.task))
    return Section(lambda: m.mutex_unlock(lock))


class MutexMachine:
    """The part of a ``Machine`` with mutexes. ``mutexes`` holds those that are taken."""

    __slots__ = ()  # its fields are slots of Machine

    mutexes: list[Mutex]

    def held_mutex(self, lock: Any) -> Mutex | None:
        """The mutex if somebody holds it."""
        return next((mutex for mutex in self.mutexes if mutex.lock is lock or mutex.lock == lock), None)

    def mutex_lock(self: Any, lock: Any) -> Section:
        """Take a mutex (any object), sleeping until it is free; usable with ``with``. Kernel: mutex_lock.

        Errors: HungTask if its holder will never give it back, because it is this task itself.
        """
        held: Section = self.drive(lock_mutex(self, lock))
        return held

    def mutex_trylock(self: Any, lock: Any) -> bool:
        """Take a mutex if it is free, without waiting; whether it was. Kernel: mutex_trylock."""
        if self.held_mutex(lock):
            return False
        self.mutexes.append(Mutex(lock, self.context.task))
        return True

    def mutex_unlock(self: Any, lock: Any) -> None:
        """Give a mutex back; whoever waits longest has it then. Kernel: mutex_unlock, with __mutex_handoff.

        Errors: KernelBug for a mutex this task does not hold.
        """
        mutex, me = self.held_mutex(lock), self.context.task
        if mutex is None or mutex.holder != me:
            raise KernelBug(self.oops(f"BUG: {me} releases the mutex {lock!r}, which it does not hold"))
        self.mutexes.remove(mutex)
        if mutex.wait.tasks:
            heir = mutex.wait.tasks[0]
            self.mutexes.append(Mutex(mutex.lock, f"{heir.comm}/{heir.pid}", mutex.wait))
        self.wake_up(mutex.wait, one=True)

    def mutex_is_locked(self, lock: Any) -> bool:
        """Kernel: mutex_is_locked, include/linux/mutex.h."""
        return self.held_mutex(lock) is not None
