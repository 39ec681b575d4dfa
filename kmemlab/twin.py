"""A second machine in the same state: what would happen is asked of a copy."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from kmemlab.events import Trace
from kmemlab.mutex import Mutex
from kmemlab.slab_machine import SlabMachine
from kmemlab.workload import twin_workload

if TYPE_CHECKING:
    from kmemlab.machine import Machine

__all__ = ["twin_of"]

_SHARED = ("kernel", "recording", "pindex", "config", "without")  # never changed, or replaced as a whole
_LAST = ("last_page", "last_plan")
_OWN = (
    "__weakref__",
    "large",
    "live",
    "slabs",
    "_held_irqs",
    "_plans",
    "_recorded",
    "_timers",
    "events",
    "files",
    "lru",
    "memmap",
    "mutexes",
    "plans",
    "processes",
    "run_queue",
    "running",
    "tasks",
    "trail",
    "zonelist",
)


def _slots(m: Machine, *, lazy: bool) -> list[str]:
    """What is copied one by one. A lazy copy has no objects: they may be thousands, and it is asked about pages."""
    classes = [klass for klass in type(m).__mro__ if not (lazy and klass is SlabMachine)]
    return [name for klass in classes for name in getattr(klass, "__slots__", ()) if name not in _OWN]


def _twin_objects(m: Machine, twin: Machine, memo: dict[int, Any]) -> None:
    """The same slabs and owners; each slab's page is the twin's own."""
    its = {slab: copy.deepcopy(slab, memo) for slab in {*m.slabs.values(), *m.live.values(), *m.rcu_slabs}}
    for slab in its.values():
        slab.page = twin.memmap[slab.pfn]
    twin.slabs = {pfn: its[slab] for pfn, slab in m.slabs.items()}
    twin.live = {p: its[slab] for p, slab in m.live.items()}
    twin.large = {pfn: twin.memmap[pfn] for pfn in m.large}
    twin.memory.first_write = twin._listen


def twin_of(m: Machine, *, lazy: bool = False) -> Machine:
    """An independent machine in the state of ``m``, without its observers; see ``Machine.copy``."""
    twin = m.__class__.__new__(m.__class__)
    twin.trail = []
    memo: dict[int, Any] = {id(m): twin, id(m.trail): twin.trail}
    # Zones first: whatever else names a zone or one of its lists then gets the twin's.
    zones = dict(zip(m.zones, copy.deepcopy(m.zones, memo), strict=True))
    for name in _slots(m, lazy=lazy):
        if name in _LAST and lazy:
            setattr(twin, name, None)
        else:
            value = getattr(m, name)
            setattr(twin, name, value if name in _SHARED else copy.deepcopy(value, memo))
    twin.zonelist = tuple(zones[zone] for zone in m.zonelist)
    twin.memmap = m.memmap.twin(zones, twin._make_page, lazy=lazy)
    twin._held_irqs = []
    twin.mutexes = [Mutex(mutex.lock, mutex.holder) for mutex in m.mutexes]  # who waits stays behind
    twin._start_tasks()  # a learner's tasks cannot be copied: they stay behind
    if lazy:  # it has nothing to reclaim either: a request that would have to wait says so, that is enough
        now = twin.now
        twin._start_workload()
        twin._start_sched()
        twin.now, twin.lru.failures = now, 16
        twin._start_slab({}, 0)
        twin.pages_only = True
    else:
        _twin_objects(m, twin, memo)
        twin_workload(m, twin)
    for zone, its in zones.items():
        its.marks_changed = twin.forget_plans
        for pcp, empty in zip(zone.pcps, its.pcps, strict=True):
            for pages, filled in zip(pcp.lists, empty.lists, strict=True):
                filled.extend(twin.memmap[page.pfn] for page in pages)
    if not lazy:  # the last call, for explain()
        twin.trail.extend(copy.deepcopy(note, memo) for note in m.trail)
    twin._plans = [[{} for _ in orders] for orders in m._plans]
    twin.plans = twin._plans[m.cpu]
    twin._recorded = None
    twin.events = Trace(twin._listen)
    twin._listen()
    return twin
