"""Events of tasks and of memory pools. Names and fields as in ``events``; all of them are the lab's own.

They are built only where somebody listens. Kernel: kernel/sched/core.c, mm/mempool.c.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from kmemlab.events import Event

__all__ = ["LabPool", "LabTask"]


@dataclass(slots=True, eq=False, repr=False)
class LabTask(Event):
    """A task changed at ``ms``: it ``runs``, ``sleeps`` (``why``), is ``woken`` (``by`` whom; "" by its own timer),
    ``gives way`` (cond_resched), or has ``ended`` (``why``: the error that ended it).

    ``notebook``: it is the notebook's own code, which goes on after it has waited.
    """

    name: ClassVar[str] = "lab_task"
    comm: str
    pid: int
    what: str
    why: str
    by: str
    ms: float
    notebook: bool


@dataclass(slots=True, eq=False, repr=False)
class LabPool(Event):
    """A call on a memory pool has ended at ``ms``; ``pool`` is as it left it, with ``curr_nr`` of ``min_nr`` elements.

    ``call``: alloc, free, resize, destroy. ``element`` came from ``place`` or went there: alloc_fn, reserve, free_fn,
    or "" (NULL). ``tries``: calls of alloc_fn, the last with ``mask``; ``slept``: milliseconds on the pool's queue.
    """

    name: ClassVar[str] = "lab_pool"
    pool: Any
    call: str
    task: str
    gfp_flags: int
    element: Any
    place: str
    curr_nr: int
    min_nr: int
    tries: int
    mask: int
    slept: float
    ms: float
