"""Replay the recording of one slab cache: which object each call returned, which slabs went, what was left.

Two things come from the record, since nothing the cache knows decides them: the page frame of a fresh slab, and
the place at which its ring of objects is entered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from kmemlab.machine import Machine
from kmemlab.mmzone import Page
from kmemlab.null import NULL, Null
from kmemlab.recording import Recording, RecordingError
from kmemlab.slab_machine import SlabPages
from kmemlab.slub_def import KmemCache, Slab

__all__ = ["RecordedPages", "cache_of", "cache_state", "replay_slub"]


class RecordedPages(SlabPages):
    """Page frames and ring places as a recording tells them; ``gone`` counts the slabs given back."""

    def __init__(self) -> None:
        self.fresh: deque[tuple[int, list[int]]] = deque()
        self.gone = 0
        self.order: list[int] = []

    def alloc(self, m: Machine, gfp: int, order: int) -> Page | Null:
        """The frame of the next fresh slab that the recording tells of; NULL if it tells of none."""
        if not self.fresh:
            return NULL
        pfn, self.order = self.fresh.popleft()
        return m.memmap[pfn]

    def free(self, m: Machine, page: Page, order: int) -> None:
        """A slab went."""
        self.gone += 1

    def start(self, m: Machine, n: int) -> int:
        """Where the recorded list of the slab enters the ring."""
        ring = m.slab_caches[-1].random_seq
        assert ring is not None
        return ring.index(self.order[0])


def cache_of(recording: Recording) -> tuple[Machine, KmemCache, RecordedPages]:
    """A machine with the recorded cache. Errors: RecordingError."""
    told = recording.state0
    try:
        highest = max((op[1] for op in recording.ops if op[0] in (0, 1)), default=0) + 64
        cpus = int(recording.meta["online_cpus"])
        flags = int(told["flags"]) & 0x3FFFFFFF
        m = Machine("linux-6.1", memory=max(64 << 20, highest + 64 << 12), cpus=cpus, cmdline="slab_nomerge")
        ctor = (lambda p: None) if told["offset"] >= told["inuse"] and not flags & 0x80C00 else None
        s = m.kmem_cache_create(told["name"], told["object_size"], told["align"], flags, ctor)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise RecordingError(f"{recording.path}: cache: is not what a kernel would tell ({error})") from None
    if not isinstance(s, KmemCache):
        raise RecordingError(f"{recording.path}: cache: no kernel would create it")
    ring = told.get("random_seq_index")
    s.random_seq = list(ring) if ring else None
    pages = RecordedPages()
    m.slab_pages = pages
    return m, s, pages


def cache_differences(s: KmemCache, told: dict[str, Any]) -> Iterator[str]:
    """Fields of the cache that the kernel had otherwise."""
    for name in ("size", "align", "inuse", "offset", "red_left_pad", "order", "objects", "min_partial", "cpu_partial",
                 "cpu_partial_slabs"):  # fmt: skip
        if name in told and getattr(s, name) != told[name]:
            yield f"{name} {getattr(s, name)} is not {told[name]}"


def replay_slub(recording: Recording, count: Callable[..., None]) -> tuple[Machine, list[str]]:
    """Make the recorded calls; ``count(m, call, kernel, model)`` gets both objects of each allocation.

    Returns the machine and what else differed. Errors: RecordingError for calls that cannot have been made.
    """
    m, s, pages = cache_of(recording)
    differences = list(cache_differences(s, recording.state0))
    several = m.cpus > 1
    ours: dict[tuple[int, int], Any] = {}  # object of the record -> the model's
    went = 0
    calls: list[Any] = list(recording.ops)
    for index, op in enumerate(calls):
        if op[0] == 1:
            if several:
                m.cpu = op[4]
            if len(op) > 3 and op[3]:
                pages.fresh.append((op[1], op[3]["order"]))
            p = m.kmem_cache_alloc(s, 0xCC0)
            slab = m.virt_to_slab(p) if p else None
            got = (slab.pfn, slab.index_of(p)) if slab else None
            count(m, f"call {index}: kmem_cache_alloc", (op[1], op[2]), got)
            ours[op[1], op[2]] = p
        elif op[0] == 0:
            if several:
                m.cpu = op[3]
            if (op[1], op[2]) not in ours:
                raise RecordingError(f"{recording.path}: ops[{index}]: object {op[2]} of slab {op[1]} is not in use")
            if p := ours.pop((op[1], op[2])):
                m.kmem_cache_free(s, p)
        elif op[0] == 2:
            differences += [f"call {index}: {text}" for text in state_differences(m, s, op[1])]
        else:
            went += op[1]
            if pages.gone != went:
                differences.append(f"call {index}: {pages.gone} slabs given back, kernel {went}")
    differences += state_differences(m, s, recording.state1)
    if pages.gone != went:
        differences.append(f"{pages.gone} slabs given back, kernel {went}")
    return m, differences


def _slab(slab: Slab) -> dict[str, Any]:
    freelist = [slab.index_of(p) for p in reversed(slab.freelist)]
    return {"pfn": slab.pfn, "inuse": slab.inuse, "frozen": int(slab.frozen), "freelist": freelist}


def cache_state(m: Machine, s: KmemCache, cpu: int) -> dict[str, Any]:
    """A cache's state as the recordings tell it, seen from one CPU."""
    c = s.cpu_slab[cpu]
    state: dict[str, Any] = {
        "cpu_partial": [_slab(slab) | {"slabs": n} for n, slab in reversed([*enumerate(c.partial, 1)])],
        "node_partial": [_slab(slab) for slab in s.partial],
        "nr_partial": s.nr_partial,
        "nr_slabs": s.nr_slabs,
        "total_objects": s.total_objects,
    }
    if c.slab is not None:
        own = _slab(c.slab)
        own["slab_freelist"] = own.pop("freelist")
        own["cpu_freelist"] = [c.slab.index_of(p) for p in reversed(c.freelist)]
        state["cpu_slab"] = own | {"objects": c.slab.objects}
    return state


def state_differences(m: Machine, s: KmemCache, told: dict[str, Any]) -> list[str]:
    """What a recorded state tells otherwise than the model, in words."""
    by_cpu = told if "0" in told else {"0": told}
    found = []
    for cpu, state in by_cpu.items():
        ours = cache_state(m, s, int(cpu))
        for name, value in state.items():
            if ours.get(name, None) != value and (value or ours.get(name)):
                found.append(f"cpu {cpu} {name}: {str(ours.get(name))[:80]} is not {str(value)[:80]}")
    return found
