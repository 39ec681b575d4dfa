"""What the exercises of lesson 04 share: an allocator that can be broken, and books on who holds what."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from kmemlab import NULL, Machine, MemPool
from kmemlab.kthread import TaskCalls
from kmemlab_widgets.questions import CheckResult, fail

SLEEP_BIT = 0x400  # __GFP_DIRECT_RECLAIM
MOST_CALLS, MOST_MS = 20_000, 60_000  # of all tasks together: more is a loop that gets nowhere

Yields = Generator[Any, Any, Any]


class Illegal(Exception):
    """The learner's code did what it may not: (why, kernel)."""


class Element:
    """An element of a pool, the ``n``-th that its allocator made."""

    __slots__ = ("n",)

    def __init__(self, n: int) -> None:
        self.n = n

    def __repr__(self) -> str:
        return f"element {self.n}"


class Parts:
    """An ``alloc_fn`` and a ``free_fn``; ``works`` says whether there is memory. ``masks`` are those that were seen."""

    def __init__(self, make: Callable[[int], Any] = Element) -> None:
        self.works, self.made, self.make = True, 0, make
        self.masks: list[int] = []

    def alloc(self, gfp_mask: int, pool_data: Any = None) -> Any:
        """A new element, or NULL."""
        self.masks.append(int(gfp_mask))
        if not self.works:
            return NULL
        self.made += 1
        return self.make(self.made - 1)

    def free(self, element: Any, pool_data: Any = None) -> None:
        """What is freed is gone."""


def pool_of(m: Machine, min_nr: int, make: Callable[[int], Any] = Element) -> MemPool:
    """A pool with ``min_nr`` elements in reserve, made just before memory is gone."""
    parts = Parts(make)
    pool: MemPool = m.mempool_create(min_nr, parts.alloc, parts.free, None)
    parts.works = False
    return pool


class Books:
    """Who holds which element of which pool, how often tasks called, and how often they got NULL."""

    def __init__(self, m: Machine, names: dict[MemPool, str]) -> None:
        self.m, self.names = m, names
        self.held: dict[Any, tuple[str, str]] = {}  # element -> (task, pool)
        self.calls = self.nulls = 0

    def called(self) -> None:
        """Errors: Illegal if this goes on and on."""
        self.calls += 1
        if self.calls > MOST_CALLS or self.m.now > MOST_MS:
            raise Illegal(
                "It goes round and round: no task sleeps until something is given back, each asks again and again.",
                f"{self.calls} calls in {self.m.now / 1000:.1f} s",
            )

    def holdings(self, task: str) -> list[str]:
        """The pools of which a task holds elements, one name an element."""
        return [pool for owner, pool in self.held.values() if owner == task]

    def spawn(self, fn: Callable[..., Any], name: str, *args: Any) -> None:
        """Make a task of the learner's ``fn(k, *args)``. Errors: Illegal if that is no generator."""
        body = fn(WatchedCalls(self), *args)
        if not isinstance(body, Generator):
            raise Illegal("There is no `yield` in it: a call that may sleep is written `yield from k.NAME(...)`.")
        self.m.spawn(lambda k: body, name)

    def run(self) -> None:
        """Let the tasks run to their end. Errors: Illegal, Stuck."""
        try:
            self.m.run()
        except TypeError as error:
            if " yielded " not in str(error):
                raise
            raise Illegal(str(error)) from error

    def stuck(self) -> CheckResult:
        """Why the tasks that are left will never go on."""
        pools = {pool.wait: name for pool, name in self.names.items()}
        waits = {task.comm: pools[task.queue] for task in self.m.tasks if task.queue in pools}
        kernel = f"{', '.join(map(repr, self.names))}; {self.log()}"
        alive = {task.comm for task in self.m.tasks}
        if kept := [owner for owner, _ in self.held.values() if owner not in alive]:
            return fail(f"{kept[0]} has ended and kept an element: everybody who waits, waits for it.", kernel)
        chain = [name for name in waits if self.holdings(name)]
        if not chain:
            return fail("All tasks sleep, and no element is out: nobody will wake them.", kernel)
        told = "; ".join(
            f"{name} holds {' and '.join(self.holdings(name))} and waits for {waits[name]}" for name in chain[:2]
        )
        if len({waits[name] for name in chain}) > 1:
            return fail(f"A cycle: {told}. Take from the two pools in one order in all tasks.", kernel)
        if len(chain) == 1:
            return fail(f"{told}: it waits for an element that only itself can give back.", kernel)
        return fail(
            f"{told}. Each of {len(chain)} tasks holds one element of a pool while it waits for a second of it.", kernel
        )

    def log(self) -> str:
        """What the kernel says of it."""
        lines = [line for line in self.m.dmesg().splitlines() if "blocked for more" in line]
        return lines[0] if lines else "the log says nothing, whoever wakes every 5 s is no hung task"


class WatchedCalls(TaskCalls):
    """``k`` as the learner's task sees it: the machine's calls, kept in the books."""

    __slots__ = ("books",)

    def __init__(self, books: Books) -> None:
        super().__init__(books.m)
        self.books = books

    def mempool_alloc(self, pool: Any, gfp_mask: int) -> Yields:
        """An element of a pool. Kernel: mempool_alloc."""
        self.books.called()
        element = yield from super().mempool_alloc(pool, gfp_mask)
        if element:
            self.books.held[element] = (self.m.context.comm, self.books.names[pool])
        self.books.nulls += not element
        return element

    def mempool_free(self, element: Any, pool: Any) -> None:
        """Give an element back. Kernel: mempool_free."""
        if not element:
            return
        if element not in self.books.held:
            raise Illegal("You gave back what nobody holds: twice the same element, or none of a pool.", f"{element!r}")
        _, name = self.books.held.pop(element)
        if name != self.books.names[pool]:
            raise Illegal(f"An element of {name} was put into {self.books.names[pool]}.", f"{element!r}")
        self.m.mempool_free(element, pool)

    def msleep(self, ms: float) -> Yields:
        """Sleep. Kernel: msleep."""
        self.books.called()
        yield from super().msleep(ms)

    def cond_resched(self) -> Yields:
        """Let others run. Kernel: cond_resched."""
        self.books.called()
        yield from super().cond_resched()
