"""A second machine in the same state: what would happen is asked of a copy."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from kmemlab.events import Trace

if TYPE_CHECKING:
    from kmemlab.machine import Machine

__all__ = ["twin_of"]

_SHARED = ("kernel", "recording", "pindex", "config", "without")  # never changed, or replaced as a whole
_LAST = ("last_page", "last_plan")
_OWN = ("__weakref__", "large", "_plans", "_recorded", "events", "memmap", "plans", "trail", "zonelist")


def _slots(m: Machine) -> list[str]:
    return [name for klass in type(m).__mro__ for name in getattr(klass, "__slots__", ())]


def twin_of(m: Machine, *, lazy: bool = False) -> Machine:
    """An independent machine in the state of ``m``, without its observers; see ``Machine.copy``."""
    twin = m.__class__.__new__(m.__class__)
    twin.trail = []
    memo: dict[int, Any] = {id(m): twin, id(m.trail): twin.trail}
    # Zones first: whatever else names a zone or one of its lists then gets the twin's.
    for slab in {*m.slabs.values(), *m.rcu_slabs}:
        memo[id(slab.page)] = None  # its own page comes from the twin's memmap
    zones = dict(zip(m.zones, copy.deepcopy(m.zones, memo), strict=True))
    for name in _slots(m):
        if name in _LAST and lazy:
            setattr(twin, name, None)
        elif name not in _OWN:
            value = getattr(m, name)
            setattr(twin, name, value if name in _SHARED else copy.deepcopy(value, memo))
    twin.zonelist = tuple(zones[zone] for zone in m.zonelist)
    twin.memmap = m.memmap.twin(zones, twin._make_page, lazy=lazy)
    for slab in {*twin.slabs.values(), *twin.rcu_slabs}:
        slab.page = twin.memmap[slab.pfn]
    twin.large = {pfn: twin.memmap[pfn] for pfn in m.large}
    twin.memory.first_write = twin._listen
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
