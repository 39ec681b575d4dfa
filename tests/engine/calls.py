"""Seeded random calls on a machine: the same for the stress tests, the observers and the copies."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from kmemlab import (
    __GFP_COMP,
    __GFP_HIGH,
    __GFP_MEMALLOC,
    __GFP_NOMEMALLOC,
    __GFP_NORETRY,
    __GFP_NOWARN,
    __GFP_RECLAIMABLE,
    GFP_ATOMIC,
    GFP_DMA,
    GFP_DMA32,
    GFP_HIGHUSER,
    GFP_HIGHUSER_MOVABLE,
    GFP_KERNEL,
    GFP_NOFS,
    GFP_NOIO,
    GFP_NOWAIT,
    GFP_TRANSHUGE,
    GFP_USER,
    NULL,
    Machine,
    Stuck,
)
from kmemlab.mmzone import MAX_ORDER, MIGRATE_TYPES

MASKS = (
    GFP_KERNEL, GFP_KERNEL, GFP_HIGHUSER_MOVABLE, GFP_HIGHUSER_MOVABLE, GFP_ATOMIC, GFP_ATOMIC, GFP_NOWAIT, GFP_NOIO,
    GFP_NOFS, GFP_USER, GFP_HIGHUSER, GFP_DMA | GFP_KERNEL, GFP_DMA32 | GFP_KERNEL, GFP_TRANSHUGE, 0, __GFP_HIGH,
    GFP_KERNEL | __GFP_RECLAIMABLE, GFP_KERNEL | __GFP_COMP, GFP_KERNEL | __GFP_NORETRY, GFP_ATOMIC | __GFP_MEMALLOC,
    GFP_ATOMIC | __GFP_NOMEMALLOC, GFP_ATOMIC | GFP_DMA, GFP_NOWAIT | __GFP_RECLAIMABLE,
)  # fmt: skip
ORDERS = (0,) * 12 + (1,) * 4 + (2,) * 4 + (3,) * 4 + tuple(range(4, 11))
SYSCTLS = (
    ("vm.min_free_kbytes", (256, 700, 1500, 4096)),
    ("vm.watermark_scale_factor", (10, 100, 10)),
    ("vm.percpu_pagelist_high_fraction", (0, 8, 100)),
    ("vm.watermark_boost_factor", (0, 15000)),
    ("vm.lowmem_reserve_ratio", ([256, 256, 32, 0, 0], [0, 0, 0, 0, 0], [8, 8, 8, 0, 0])),
)


def asked(m: Machine, gfp: int, order: int) -> Any:
    """alloc_pages, with NULL for a request that would loop for ever on a machine without anything to reclaim."""
    try:
        return m.alloc_pages(gfp, order)
    except Stuck:
        return NULL


def random_calls(m: Machine, seed: int, count: int, held: list[tuple[Any, int]]) -> Iterator[tuple[Any, ...]]:
    """Make ``count`` random legal calls and yield what each was and gave; ``held`` is what is in use."""
    r = random.Random(seed)
    filling = True
    for _ in range(count):
        if r.random() < 0.004:
            filling = not filling
        x = r.random()
        if x < 0.002:
            name, values = r.choice(SYSCTLS)
            value = r.choice(values)
            m.sysctl(name, value)
            yield "sysctl", name, value
        elif x < 0.004:
            zone = r.choice((None, *m.zones))
            m.drain_all_pages(zone)
            yield "drain", zone and zone.name
        elif x < 0.02 and m.cpus > 1:
            m.cpu = r.randrange(m.cpus)
            yield "cpu", m.cpu
        elif x < (0.62 if filling else 0.40) or not held:
            gfp, order = r.choice(MASKS) | __GFP_NOWARN, r.choice(ORDERS)
            page = asked(m, gfp, order)
            if page:
                held.append((page, order))
            yield "alloc", int(gfp), order, page.pfn if page else -1
        elif x > 0.995:
            pages = m.alloc_pages_bulk(r.randrange(1, 40))
            held.extend((page, 0) for page in pages)
            yield ("bulk", *(page.pfn for page in pages))
        else:
            index = r.randrange(max(0, len(held) - 50), len(held)) if r.random() < 0.5 else r.randrange(len(held))
            held[index], held[-1] = held[-1], held[index]
            page, order = held.pop()
            m.__free_pages(page, order)
            yield "free", page.pfn, order


def free_all(m: Machine, held: list[tuple[Any, int]], seed: int = 0) -> None:
    """Give everything back in random order, and empty the per-CPU lists."""
    random.Random(seed).shuffle(held)
    while held:
        m.__free_pages(*held.pop())
    m.drain_all_pages()


def free_blocks(m: Machine) -> set[tuple[int, int]]:
    """The free memory as (first frame, order), buddies merged whatever their types: HighAtomic pageblocks stay
    apart from others in the lists, as in the kernel."""
    rest = {
        (pfn, order)
        for zone in m.zones
        for order in range(MAX_ORDER)
        for mt in range(MIGRATE_TYPES)
        for pfn in zone.free_blocks(order, mt)
    }
    for order in range(MAX_ORDER - 1):
        for pfn in sorted(pfn for pfn, each in rest if each == order):
            if {(pfn, order), (pfn ^ 1 << order, order)} <= rest and m.zone_of(pfn) is m.zone_of(pfn ^ 1 << order):
                rest -= {(pfn, order), (pfn ^ 1 << order, order)}
                rest.add((pfn & ~(1 << order), order + 1))
    return rest


def state(m: Machine) -> list[Any]:
    """Everything about a machine's memory, in order: two equal states behave the same for ever."""
    return [
        (
            zone.name, zone.wmark, zone.watermark_boost, zone.lowmem_reserve, zone.nr_reserved_highatomic,
            zone.nr_free_pages, zone.boosted, bytes(zone.pageblock_mt),
            [[list(zone.free_blocks(order, mt)) for mt in range(MIGRATE_TYPES)] for order in range(MAX_ORDER)],
            [
                (p.count, p.high, p.batch, p.free_factor, p.vm_stat_diff, [[(q.pfn, q.mt) for q in x] for x in p.lists])
                for p in zone.pcps
            ],
        )
        for zone in m.zones
    ]  # fmt: skip
