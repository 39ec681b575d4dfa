"""Several tasks: kernel threads written as generators, a scheduler that takes turns, the report on who hangs.

In a task's source ``yield`` marks the places where the kernel may sleep. Kernel: kernel/kthread.c, kernel/sched/core.c,
kernel/sched/completion.c, kernel/hung_task.c.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from typing import Any, NoReturn

from kmemlab.context import Context, schedule_check
from kmemlab.mempool import alloc_from_pool
from kmemlab.mutex import lock_mutex
from kmemlab.sched import HUNG_TASK_TIMEOUT, ROUND
from kmemlab.wait import HungTask, Sleep, Stuck, Task, WaitOn, WaitQueue

__all__ = ["Completion", "KthreadMachine", "TaskCalls"]

# Calls that may sleep inside: they run to their end here, and other tasks run while they sleep.
MAY_SLEEP = frozenset({
    "alloc_pages", "alloc_page", "__get_free_pages", "__get_free_page", "get_zeroed_page", "alloc_pages_exact",
    "alloc_pages_bulk", "kmalloc", "kzalloc", "kmalloc_array", "kcalloc", "krealloc", "kvmalloc", "kmem_cache_create",
    "kmem_cache_alloc", "kmem_cache_zalloc", "kmem_cache_alloc_bulk", "kmem_cache_destroy", "kmem_cache_shrink",
    "mempool_create", "mempool_create_slab_pool", "mempool_create_kmalloc_pool", "mempool_create_page_pool",
    "mempool_init", "mempool_resize", "mempool_destroy", "mempool_exit", "rcu_barrier",
})  # fmt: skip


class Completion:
    """Something that is going to be done once. Kernel: struct completion, include/linux/completion.h."""

    __slots__ = ("done", "wait")

    def __init__(self) -> None:
        self.done, self.wait = 0, WaitQueue()


def wait_until_done(completion: Completion) -> Generator[Any, Any, None]:
    """Sleep until somebody completes it. Kernel: wait_for_completion."""
    while not completion.done:
        yield WaitOn(completion.wait, None, "waits for a completion")
    completion.done -= 1


class TaskCalls:
    """``k``: the machine as a task sees it. A call that may sleep is written ``yield from k.NAME(...)``."""

    __slots__ = ("m",)

    def __init__(self, m: Any) -> None:
        self.m = m

    def __getattr__(self, name: str) -> Any:
        call = getattr(self.m, name)
        return self._sleeping(call) if name in MAY_SLEEP else call

    @staticmethod
    def _sleeping(call: Callable[..., Any]) -> Callable[..., Generator[Any, Any, Any]]:
        def sleeping(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            return call(*args, **kwargs)
            yield

        return sleeping

    def msleep(self, ms: float) -> Generator[Any, Any, None]:
        """Sleep for so many milliseconds. Kernel: msleep, kernel/time/timer.c."""
        yield Sleep(ms)

    def cond_resched(self) -> Generator[Any, Any, None]:
        """Let others run. Kernel: cond_resched, include/linux/sched.h."""
        yield None

    def mempool_alloc(self, pool: Any, gfp_mask: int) -> Generator[Any, Any, Any]:
        """An element of a pool. Kernel: mempool_alloc, mm/mempool.c."""
        return (yield from alloc_from_pool(self.m, pool, gfp_mask))

    def mutex_lock(self, lock: Any) -> Generator[Any, Any, Any]:
        """Take a mutex. Kernel: mutex_lock, kernel/locking/mutex.c."""
        return (yield from lock_mutex(self.m, lock))

    def wait_for_completion(self, completion: Completion) -> Generator[Any, Any, None]:
        """Sleep until ``complete``. Kernel: wait_for_completion, kernel/sched/completion.c."""
        return (yield from wait_until_done(completion))


class KthreadMachine:
    """The part of a ``Machine`` with tasks."""

    __slots__ = ()  # its fields are slots of Machine

    def spawn(self: Any, fn: Callable[[TaskCalls], Generator[Any, Any, Any]], name: str = "") -> Task:
        """Make a task of ``fn(k)``, a generator; it runs with ``m.run()`` or whenever the machine sleeps.

        ``name`` is what the log calls it (15 characters). Kernel: kthread_run.
        Errors: TypeError for what is no generator.
        """
        body = fn(TaskCalls(self)) if callable(fn) else None
        if not isinstance(body, Generator):
            raise TypeError(f"m.spawn wants a function of k with a `yield` in it, not {fn!r}")
        context = Context()
        context.comm, context.pid = (name or fn.__name__)[:15], self.next_pid
        self.next_pid += 1
        task = Task(body, context)
        self.tasks.append(task)
        self.run_queue.append(task)
        return task

    def run(self: Any, until: float | None = None) -> None:
        """Let the tasks run until all have ended, or until ``m.now`` is ``until`` (ms).

        Errors: HungTask or Stuck as soon as nothing will ever change any more, unless ``until`` is given.
        """
        end = math.inf if until is None else until
        self._elsewhere()
        while self.tasks and self.now < end:
            due = self._next_due()
            if until is None and (self.stuck() or due == math.inf):
                self.give_up()
            self.advance(min(due, end) - self.now)
            for task in self.tasks:
                if not task.reported and self._hangs(task) and self.now >= task.since + HUNG_TASK_TIMEOUT * 1000:
                    self.hung_task(task)

    def complete(self: Any, completion: Completion) -> None:
        """Say that it is done; one waiter goes on. Kernel: complete, kernel/sched/completion.c."""
        completion.done += 1
        self.wake_up(completion.wait, one=True)

    # --- turns -------------------------------------------------------------------------------------------------

    def step(self: Any, task: Task) -> None:
        """Let a task run to the next place where it sleeps."""
        ours, self.context = self.context, task.context
        self.running.append(task)
        tried, task.why = task.answer is False, ""
        answer, task.answer = task.answer, None
        self.tell(task, "runs")
        try:
            assert task.body is not None
            wish = task.body.send(answer)
            self._sleep(task, wish, again=tried and isinstance(wish, WaitOn))
        except BaseException as end:
            self.tasks.remove(task)
            self.news()
            self.tell(task, "ended", "" if isinstance(end, StopIteration) else type(end).__name__)
            if not isinstance(end, StopIteration):
                raise
            task.result = end.value
        finally:
            self.running.pop()
            self.context = ours

    def _sleep(self: Any, task: Task, wish: Any, *, again: bool) -> None:
        """What a task yielded is where and how long it sleeps; ``again``: it tried and got nothing."""
        if again:
            task.fruitless += 1
        else:
            self.news()
        if wish is None:
            task.wake_at = self.now + ROUND
            self.tell(task, "gives way")
            return
        schedule_check(self)
        if isinstance(wish, Sleep):
            task.wake_at, task.why, task.since = self.now + wish.ms, "sleeps", self.now
            self.tell(task, "sleeps", f"msleep({wish.ms:.9g})")
        elif isinstance(wish, WaitOn):
            self.fall_asleep(task, wish)
        else:
            raise TypeError(
                f"task {task.comm} yielded {wish!r}: write `yield from k.NAME(...)` for a call that may sleep"
            )

    # --- when nothing goes on ----------------------------------------------------------------------------------------

    def stuck(self: Any) -> bool:
        """Whether nothing will ever change: no timer, no I/O, and everybody waits or tries in vain."""
        waiting = [*self.tasks, *(task for task in self.running if task.why)]
        return not (self._timers or self.run_queue or self.kswapd_woken) and all(task.hopeless for task in waiting)

    def give_up(self: Any) -> NoReturn:
        """Say who waits for what, and what the kernel's log would say of it."""
        ours = self.running[-1]
        waiting = [t for t in dict.fromkeys((*self.running, *self.tasks)) if t.why and (t.hopeless or t is ours)]
        hung = [task for task in waiting if self._hangs(task)]
        who = "; ".join(f"{task.comm}/{task.pid} {task.why}" for task in waiting)
        tries = len(hung) < len(waiting)
        reclaim = ", nothing can be reclaimed" if tries else ""
        text = f"{who}. No timer is set, no I/O is under way{reclaim}: this will never end."
        if not self.stuck():
            others = "Timers" if self._timers else "Others"
            text = f"{who}. {others} go on, and for two minutes none of them has helped."
        if tries:
            text += " The real kernel would go on without a word: whoever wakes and tries again is no hung task."
        if hung:
            raise HungTask("\n".join([*(self.hung_task(task) for task in hung), text]))
        raise Stuck(f"{text} Give memory back first, or use a mask that may fail or kill.")

    @staticmethod
    def _hangs(task: Task) -> bool:
        """It sleeps and will not wake by itself: what the detector looks for."""
        return task.queue is not None and task.wake_at is None

    def hung_task(self: Any, task: Task) -> str:
        """Log what the kernel says of a task that has slept for two minutes. Kernel: check_hung_task."""
        task.reported, parent = True, 2 if task.body else 0  # kthreadd; the notebook's own task has none
        report = "\n".join((
            f"INFO: task {task.comm}:{task.pid} blocked for more than {HUNG_TASK_TIMEOUT} seconds.",
            f"      {self.print_tainted()} {self.kernel.release}",
            '"echo 0 > /proc/sys/kernel/hung_task_timeout_secs" disables this message.',
            f"task:{task.comm:<16}state:D stack:0     pid:{task.pid:<5} ppid:{parent:<6} flags:0x00004000",
        ))  # fmt: skip
        self.now = max(self.now, task.since + HUNG_TASK_TIMEOUT * 1000)
        self.printk(report)
        return report
