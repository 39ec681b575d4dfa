"""What the exercises of lesson 04 share: an allocator that can be broken, and books on who holds what."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from contextlib import suppress
from typing import Any

from kmemlab import NULL, KernelBug, Machine, MemPool, Stuck
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

    def __init__(self, m: Machine, names: dict[MemPool, str], most_ms: int = MOST_MS) -> None:
        self.m, self.names, self.most_ms = m, names, most_ms
        self.held: dict[Any, tuple[str, str]] = {}  # element -> (task, pool)
        self.since: dict[str, float] = {}  # task -> when it last asked for an element
        self.calls = self.nulls = 0

    def called(self) -> None:
        """Errors: Illegal if this goes on and on."""
        self.calls += 1
        if self.calls > MOST_CALLS or self.m.now > self.most_ms:
            raise Illegal(
                "It goes round and round: no task sleeps until something is given back, each asks again and again.",
                f"{self.calls} calls in {self.m.now / 1000:.1f} s",
            )

    def owner(self, element: Any) -> str:
        """The task that holds an element, "" if none does. Errors: Illegal for a call that was not made."""
        if isinstance(element, Generator):
            raise Illegal("`k.mempool_alloc(...)` gives nothing by itself: write `yield from k.mempool_alloc(...)`.")
        return self.held.get(element, ("", ""))[0]

    def holdings(self, task: str) -> list[str]:
        """The pools of which a task holds elements, one name an element."""
        return [pool for owner, pool in self.held.values() if owner == task]

    def spawn(self, fn: Callable[..., Any], name: str, *args: Any) -> None:
        """Make a task of the learner's ``fn(k, *args)``. Errors: Illegal if that is no generator."""
        body = fn(WatchedCalls(self), *args)
        if not isinstance(body, Generator):
            raise Illegal("There is no `yield` in it: a call that may sleep is written `yield from k.NAME(...)`.")
        self.m.spawn(lambda k: body, name)

    def run(self) -> CheckResult | None:
        """Let the tasks run to their end; why they do not, if so."""
        bodies = [task.body for task in self.m.tasks]
        try:
            self.m.run()
        except Illegal as error:
            return fail(*error.args)
        except Stuck:
            return self.stuck()
        except KernelBug as bug:
            return fail("The machine stopped.", str(bug).splitlines()[0])
        except TypeError as error:
            if " yielded " not in str(error):
                raise
            return fail(re.sub(r"<generator object (?:\w+\.)?(\w+) at \w+>", r"`k.\1(...)`", str(error)))
        finally:
            for body in bodies:  # a `finally` of theirs is of no interest now, and may raise
                with suppress(Exception):
                    body.close()
        return None

    def stuck(self) -> CheckResult:
        """Why the tasks that are left will never go on."""
        kernel = f"{', '.join(f'{pool.curr_nr} of {pool.min_nr} in {name}' for pool, name in self.names.items())}; "
        kernel += self.log()
        alive = {task.comm for task in self.m.tasks}
        if kept := [owner for owner, _ in self.held.values() if owner not in alive]:
            return fail(f"{kept[0]} has ended and kept an element: everybody else waits for it.", kernel)
        waits = {task.comm: self._waits_for(task) for task in self.m.tasks}
        holders = [name for name in waits if self.holdings(name)]
        if not holders:
            return fail("All tasks sleep, and no element is out: nobody will wake them.", kernel)
        told = "; ".join(f"{name} holds {self._holds(name)} and waits for {waits[name]}" for name in holders[:2])
        return fail(f"{told}. {self._moral({waits[name] for name in holders}, len(holders))}", kernel)

    def _holds(self, task: str) -> str:
        pools = self.holdings(task)
        return " and ".join(f"{pools.count(name)} of `{name}`" for name in dict.fromkeys(pools))

    def _waits_for(self, task: Any) -> str:
        pools = {pool.wait: name for pool, name in self.names.items()}
        return (
            f"`{pools[task.queue]}`" if task.queue in pools else task.why.removeprefix("waits for ").partition(",")[0]
        )

    def _moral(self, wanted: set[str], holders: int) -> str:
        if not wanted <= {f"`{name}`" for name in self.names.values()}:
            return "It keeps its element while it sleeps for the mutex: the mutex comes first, or not at all."
        if len(wanted) > 1:
            return "A cycle. Take from the two pools in one order in all tasks."
        if holders == 1:
            return "It waits for an element that only itself can give back."
        return f"{holders} tasks hold one element of a pool while they wait for a second of it."

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

    def __repr__(self) -> str:
        return "k"

    def mempool_alloc(self, pool: Any, gfp_mask: int) -> Yields:
        """An element of a pool. Kernel: mempool_alloc."""
        self.books.called()
        self.books.since[self.m.context.comm] = self.m.now
        element = yield from super().mempool_alloc(pool, gfp_mask)
        if element:
            self.books.held[element] = (self.m.context.comm, self.books.names[pool])
        self.books.nulls += not element
        return element

    def mempool_free(self, element: Any, pool: Any) -> None:
        """Give an element back. Kernel: mempool_free."""
        if not element:
            return
        if not self.books.owner(element):
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
