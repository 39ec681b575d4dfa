"""/proc/slabinfo and /sys/kernel/slab: rendered from a machine, and read from a real kernel.

Kernel: mm/slab_common.c (slab_show), mm/slub.c (get_slabinfo, the attributes of sysfs, alloc_traces in debugfs).
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from kmemlab import procfs
from kmemlab.procfs import ProcfsError
from kmemlab.slub_def import (
    SLAB_CACHE_DMA,
    SLAB_CONSISTENCY_CHECKS,
    SLAB_HWCACHE_ALIGN,
    SLAB_POISON,
    SLAB_RECLAIM_ACCOUNT,
    SLAB_RED_ZONE,
    SLAB_STORE_USER,
    SLAB_TRACE,
    SLAB_TYPESAFE_BY_RCU,
    KmemCache,
)

if TYPE_CHECKING:
    from kmemlab.machine import Machine

__all__ = ["SlabInfo", "cat", "parse_slabinfo", "slab_traces", "slabinfo", "slabinfo_line", "sysfs_slab"]

HEAD = (
    "slabinfo - version: 2.1\n"
    "# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : tunables <limit> "
    "<batchcount> <sharedfactor> : slabdata <active_slabs> <num_slabs> <sharedavail>\n"
)


class SlabInfo(NamedTuple):
    """One row of /proc/slabinfo. ``active_objs`` counts the free objects of CPUs' slabs as used."""

    name: str
    active_objs: int
    num_objs: int
    objsize: int
    objperslab: int
    pagesperslab: int
    num_slabs: int


def _row(s: KmemCache) -> SlabInfo:
    free = sum(slab.objects - slab.inuse for slab in s.partial)
    total = s.total_objects
    return SlabInfo(s.name, total - free, total, s.size, s.objects, 1 << s.order, s.nr_slabs)


def slabinfo(m: Machine) -> str:
    """Every cache, the newest first; merged ones appear once, under the first one's name."""
    return HEAD + "".join(map(slabinfo_line, map(_row, reversed(m.slab_caches))))


def slabinfo_line(row: SlabInfo) -> str:
    """One row as the kernel prints it. Kernel: cache_show, mm/slab_common.c."""
    return (
        f"{row.name:<17s} {row.active_objs:6d} {row.num_objs:6d} {row.objsize:6d} {row.objperslab:4d} "
        f"{row.pagesperslab:4d} : tunables {0:4d} {0:4d} {0:4d} : slabdata {row.num_slabs:6d} {row.num_slabs:6d} "
        f"{0:6d}\n"
    )


_ROW = r"^(?P<name>.+?) +(\d+) +(\d+) +(\d+) +(\d+) +(\d+) : tunables +\d+ +\d+ +\d+ : slabdata +\d+ +(\d+) +\d+ *$"


def parse_slabinfo(text: str) -> list[SlabInfo]:
    """The rows of a /proc/slabinfo, version 2.1. Errors: ProcfsError naming the line."""
    lines = text.splitlines()
    if not lines or not lines[0].startswith("slabinfo - version: 2.1"):
        raise ProcfsError("slabinfo: line 1 is not 'slabinfo - version: 2.1': no /proc/slabinfo (root may read it)")
    rows = []
    for number, line in enumerate(lines[2:], 3):
        match = re.match(_ROW, line)
        if match is None:
            raise ProcfsError(f"slabinfo: line {number} is not a row of a cache: {line[:60]!r}")
        rows.append(SlabInfo(match["name"], *map(int, match.groups()[1:])))
    return rows


def _counted(n: int) -> str:
    return f"{n} N0={n}\n" if n else "0\n"


def _cpu_partial(s: KmemCache) -> str:
    slabs = [len(c.partial) for c in s.cpu_slab]
    parts = [f"{n * s.objects // 2}({n})" for n in (sum(slabs), *slabs)]
    per_cpu = "".join(f" C{cpu}={part}" for cpu, part in enumerate(parts[1:]) if slabs[cpu])
    return f"{parts[0]}{per_cpu}\n"


def sysfs_slab(m: Machine, name: str, attribute: str) -> str:
    """One file of /sys/kernel/slab/NAME. Errors: ValueError for a cache or file that is not there."""
    s = m.find_cache(name)
    cpu_slabs = sum(c.slab is not None for c in s.cpu_slab) + sum(len(c.partial) for c in s.cpu_slab)
    partial_objects = sum(slab.inuse for slab in s.partial)
    free = sum(slab.objects - slab.inuse for slab in s.partial)
    files = {
        "slab_size": f"{s.size}\n", "align": f"{s.align}\n", "object_size": f"{s.object_size}\n",
        "objs_per_slab": f"{s.objects}\n", "order": f"{s.order}\n", "min_partial": f"{s.min_partial}\n",
        "cpu_partial": f"{s.cpu_partial}\n", "ctor": "ctor\n" if s.ctor else "", "usersize": "0\n",
        "aliases": f"{max(0, s.refcount - 1)}\n", "partial": _counted(s.nr_partial), "cpu_slabs": _counted(cpu_slabs),
        "objects": _counted(s.total_objects - free), "objects_partial": _counted(partial_objects),
        "slabs_cpu_partial": _cpu_partial(s), "slabs": _counted(s.nr_slabs),
        "total_objects": _counted(s.total_objects),
    }  # fmt: skip
    flags = {
        "reclaim_account": SLAB_RECLAIM_ACCOUNT, "hwcache_align": SLAB_HWCACHE_ALIGN, "cache_dma": SLAB_CACHE_DMA,
        "destroy_by_rcu": SLAB_TYPESAFE_BY_RCU, "sanity_checks": SLAB_CONSISTENCY_CHECKS, "trace": SLAB_TRACE,
        "red_zone": SLAB_RED_ZONE, "poison": SLAB_POISON, "store_user": SLAB_STORE_USER,
    }  # fmt: skip
    files |= {key: f"{int(bool(s.flags & flag))}\n" for key, flag in flags.items()}
    if attribute not in files:
        raise ValueError(f"/sys/kernel/slab/{name}/{attribute}: the model has {', '.join(sorted(files))}")
    return files[attribute]


def slab_traces(m: Machine, name: str, what: str) -> str:
    """Who allocated ("alloc") or freed ("free") the objects, most first. Kernel: alloc_traces in debugfs.

    Errors: ValueError for a cache without slub_debug=U.
    """
    s = m.find_cache(name)
    if not s.flags & SLAB_STORE_USER:
        raise ValueError(f"{what}_traces of {name}: the cache does not keep tracks; boot with slub_debug=U,{name}")
    places: Counter[str] = Counter()
    ages: dict[str, list[int]] = {}
    for slab in (*s.partial, *s.full):
        free = set(m.free_objects_of(slab))
        for (p, kind), (site, when, _) in slab.tracks.items():
            if kind == what and p not in free:
                places[site] += 1
                ages.setdefault(site, []).append(m.calls - when)
    lines = []
    for site, count in places.most_common():
        age = ages[site]
        lines.append(f"{count:7d} {site} age={min(age)}/{sum(age) // count}/{max(age)} pid=1\n")
    return "".join(lines) or "No data\n"


_SYSFS = r"^/sys/kernel/slab/(?P<name>[^/]+)/(?P<file>\w+)$"
_TRACES = r"^/sys/kernel/debug/slab/(?P<name>[^/]+)/(?P<what>alloc|free)_traces$"


def cat(m: Machine, path: str) -> str:
    """The text of a file, as the kernel would print it now. Errors: ValueError lists the files there are."""
    if path == "/proc/slabinfo":
        return slabinfo(m)
    if match := re.match(_SYSFS, path):
        return sysfs_slab(m, match["name"], match["file"])
    if match := re.match(_TRACES, path):
        return slab_traces(m, match["name"], match["what"])
    return procfs.cat(m, path)
