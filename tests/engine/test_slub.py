"""SLUB's rules one by one, and a long random run with every invariant checked."""

from __future__ import annotations

import itertools
import os
import random
from typing import Any

import pytest

from kmemlab import (
    GFP_KERNEL,
    SLAB_ACCOUNT,
    SLAB_HWCACHE_ALIGN,
    SLAB_RECLAIM_ACCOUNT,
    SLAB_TYPESAFE_BY_RCU,
    KernelBug,
    Machine,
)
from tests.shreds import shred

FULL = os.environ.get("KMEMLAB_STRESS") == "full"


def machine(**options: Any) -> Machine:
    return Machine("linux-6.1", memory="64M", **options)


def cache(m: Machine, size: int = 256, **fields: Any) -> Any:
    return m.kmem_cache_create("it", size, fields.get("align", 0), fields.get("flags", 0), fields.get("ctor"))


def index(m: Machine, p: Any) -> int:
    return m.virt_to_slab(p).index_of(p)


def test_last_freed_first_given() -> None:
    m = machine(cmdline="slab_nomerge")
    c = cache(m)
    a = [m.kmem_cache_alloc(c, GFP_KERNEL) for _ in range(4)]
    m.kmem_cache_free(c, a[1])
    m.kmem_cache_free(c, a[2])
    assert [index(m, m.kmem_cache_alloc(c, GFP_KERNEL)) for _ in range(3)] == [2, 1, 4]


def test_an_object_of_another_slab_waits_until_the_cpu_slab_is_used_up() -> None:
    m = machine(cmdline="slab_nomerge")
    c = cache(m)
    objects = [m.kmem_cache_alloc(c, GFP_KERNEL) for _ in range(20)]
    m.kmem_cache_free(c, objects[3])
    got = [m.kmem_cache_alloc(c, GFP_KERNEL) for _ in range(14)]
    assert index(m, got[0]) == 4
    assert got[12] == objects[3]
    assert m.virt_to_slab(got[13]).pfn not in {m.virt_to_slab(p).pfn for p in objects}


def test_a_thousand_objects_go_back_slab_by_slab() -> None:
    """63 slabs: 51 go back, 12 stay on the three shelves, shrink gives those back; one object holds a slab."""
    m = machine(cmdline="slab_nomerge")
    c = cache(m)
    objects = [m.kmem_cache_alloc(c, GFP_KERNEL) for _ in range(1000)]
    assert c.nr_slabs == 63
    for p in objects:
        m.kmem_cache_free(c, p)
    s = m.slab_snapshot(c)
    assert (c.nr_slabs, len(s.cpus[0].partial), len(s.node_partial), s.cpus[0].slab is not None) == (12, 6, 5, True)
    assert m.kmem_cache_shrink(c) == 0
    assert c.nr_slabs == 0
    by_slab: dict[int, Any] = {}
    for _ in range(1000):
        p = m.kmem_cache_alloc(c, GFP_KERNEL)
        if m.virt_to_slab(p).pfn in by_slab:
            objects.append(p)
        by_slab.setdefault(m.virt_to_slab(p).pfn, p)
    for p in objects[1000:]:
        m.kmem_cache_free(c, p)
    assert (len(by_slab), c.nr_slabs) == (63, 63)


def test_shrink_sorts_the_fullest_to_the_front() -> None:
    m = machine(cmdline="slab_nomerge")
    c = cache(m)
    objects = [m.kmem_cache_alloc(c, GFP_KERNEL) for _ in range(64)]
    for slab, holes in enumerate((3, 1, 2)):
        for p in objects[16 * slab : 16 * slab + holes]:
            m.kmem_cache_free(c, p)
    assert m.kmem_cache_shrink(c) == 1
    assert [s.objects - s.inuse for s in m.slab_snapshot(c).node_partial] == [1, 2, 3]


def test_typesafe_by_rcu_keeps_the_pages_for_a_grace_period() -> None:
    m = machine()
    c = cache(m, flags=SLAB_TYPESAFE_BY_RCU)
    p = m.kmem_cache_alloc(c, GFP_KERNEL)
    m.write(p, b"still here")
    m.kmem_cache_free(c, p)
    m.kmem_cache_shrink(c)
    assert c.nr_slabs == 0
    assert m.read(p, 10) == b"still here"
    assert m.virt_to_page(p).refcount == 1
    m.rcu_barrier()
    assert m.virt_to_page(p).refcount == 0


def test_merged_caches_are_one() -> None:
    m = machine()
    conn = m.kmem_cache_create("conn", 60, 0, 0, None)
    assert conn.name == "vmap_area"
    assert m.kmem_cache_create("timer", 64, 0, 0, None) is conn
    for size, flags, ctor in ((56, 0, None), (64, 0, lambda p: None), (64, SLAB_ACCOUNT, None)):
        assert m.kmem_cache_create("other", size, 0, flags, ctor) is not conn
    assert m.kmem_cache_create("aligned", 33, 0, SLAB_HWCACHE_ALIGN, None) is conn
    assert m.find_cache("timer") is conn
    apart = machine(cmdline="slab_nomerge")
    assert apart.kmem_cache_create("conn", 60, 0, 0, None) is not apart.kmem_cache_create("timer", 64, 0, 0, None)


def test_orders_fall_back_when_memory_is_in_pieces() -> None:
    m = machine(cmdline="slab_nomerge")
    c = cache(m, 2048)
    shred(m)
    p = m.kmem_cache_alloc(c, 0xA20)
    assert c.order > 0
    assert m.virt_to_slab(p).order == c.min_order == 0


def test_no_memory_is_null_and_told_once() -> None:
    m = machine()
    while m.alloc_pages(0x22000, 0):
        pass
    c = m.kmem_cache_create("poor", 1100, 0, 0, lambda p: None)
    assert not m.kmem_cache_alloc(c, 0xA20)
    assert not m.kmalloc(64, 0xA20)
    text = m.dmesg()
    assert text.count("SLUB: Unable to allocate memory on node -1, gfp=0xa20(GFP_ATOMIC)") == 1
    assert "cache: poor, object size: 1100, buffer size: 1112, default order: 2, min order: 0" in text
    assert m.kmem_cache_alloc_bulk(c, 0xA20, 3) == []


def test_bulk_calls() -> None:
    m = machine(cmdline="slab_nomerge")
    c = cache(m)
    objects = m.kmem_cache_alloc_bulk(c, GFP_KERNEL, 40)
    assert len(set(objects)) == 40
    m.check()
    m.kmem_cache_free_bulk(c, objects)
    assert not m.live
    assert m.check()


def test_a_shuffled_slab_is_a_rotation_of_the_ring() -> None:
    m = machine(config=("SLAB_FREELIST_RANDOM",), seed=3, cmdline="slab_nomerge")
    c = cache(m)
    first = [index(m, m.kmem_cache_alloc(c, GFP_KERNEL)) for _ in range(16)]
    second = [index(m, m.kmem_cache_alloc(c, GFP_KERNEL)) for _ in range(16)]
    at = first.index(second[0])
    assert sorted(first) == list(range(16)) != first
    assert second == first[at:] + first[:at]
    again = machine(config=("SLAB_FREELIST_RANDOM",), seed=3, cmdline="slab_nomerge")
    assert [index(again, again.kmem_cache_alloc(cache(again), GFP_KERNEL))] == first[:1]


def test_wrong_arguments_are_named() -> None:
    m = machine()
    for call, words in (
        (lambda: m.kmem_cache_create("x", -1), "size must be"),
        (lambda: m.kmem_cache_create(5, 10), "name must be"),
        (lambda: m.kmem_cache_create("x", 10, 3), "align=3"),
        (lambda: m.kmem_cache_create("x", 10, 0, 0, 5), "ctor must be"),
        (lambda: m.kmalloc("100", GFP_KERNEL), "size must be"),
        (lambda: m.kmalloc(100, "GFP_KERNEL"), "flags must be"),
        (lambda: machine(cmdline="slub_debug=X"), "'x' is none of"),
        (lambda: m.find_cache("nothing"), "no slab cache 'nothing'"),
        (lambda: m.cat("/sys/kernel/slab/kmalloc-64/nothing"), "the model has"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
    with pytest.raises(TypeError, match="wants a cache"):
        m.kmem_cache_alloc("x", GFP_KERNEL)
    with pytest.raises(KernelBug, match="kmem_cache_create had returned NULL"):
        m.kmem_cache_alloc(m.kmem_cache_create("x", 10, 0, 1, None), GFP_KERNEL)


def test_a_lazy_copy_is_asked_about_pages_only() -> None:
    m = machine()
    p = m.kmalloc(100, GFP_KERNEL)
    m.write(p, b"one")
    lazy = m.copy(lazy=True)
    assert lazy.alloc_pages(GFP_KERNEL, 0).pfn == m.copy().alloc_pages(GFP_KERNEL, 0).pfn
    for call in (lambda: lazy.kfree(p), lambda: lazy.kmalloc(100, GFP_KERNEL)):
        with pytest.raises(TypeError, match="a lazy copy answers questions about pages only"):
            call()
    assert m.read(p, 3) == b"one"
    m.check()


def test_a_copy_is_independent() -> None:
    m = machine()
    p = m.kmalloc(100, GFP_KERNEL)
    m.write(p, b"one")
    twin = m.copy()
    assert twin.kmalloc(100, GFP_KERNEL) == m.kmalloc(100, GFP_KERNEL)
    twin.write(p, b"two")
    twin.kfree(p)
    assert m.read(p, 3) == b"one"
    assert m.live[p] is m.virt_to_slab(p)
    assert p not in twin.live
    m.check()
    twin.check()


# --- random runs -----------------------------------------------------------------------------------


def _caches(m: Machine, r: random.Random) -> list[Any]:
    flags = (0, 0, SLAB_HWCACHE_ALIGN, SLAB_RECLAIM_ACCOUNT, SLAB_ACCOUNT, SLAB_TYPESAFE_BY_RCU)
    return [
        m.kmem_cache_create(
            f"c{i}", r.choice([r.randrange(1, 300), r.randrange(1, 9000)]), 0, r.choice(flags),
            r.choice([None, None, lambda p: None]),
        )
        for i in range(30)
    ]  # fmt: skip


def _free(m: Machine, c: Any, p: Any) -> None:
    if c is None:
        m.kfree(p)
    else:
        m.kmem_cache_free(c, p)


def _step(m: Machine, r: random.Random, caches: list[Any], live: list[tuple[Any, Any]]) -> None:
    if r.random() < 0.01:
        m.cpu = r.randrange(4)
    if r.random() < (0.52 if len(live) < 4000 else 0.45):
        c = r.choice([None, r.choice(caches)])
        if c is None:
            p = m.kmalloc(1 + int(r.random() ** 3 * 20000), r.choice([0xCC0, 0xCC0, 0x400CC0, 0xCD0, 0xCC1]))
        else:
            p = m.kmem_cache_alloc(c, GFP_KERNEL)
        if p:
            live.append((c, p))
    elif live:
        at = r.randrange(len(live)) if r.random() < 0.7 else -1
        live[at], live[-1] = live[-1], live[at]
        _free(m, *live.pop())
    if r.random() < 0.0005:
        m.kmem_cache_shrink(r.choice(caches))
        m.rcu_barrier()


@pytest.mark.parametrize("seed", range(10 if FULL else 4))
def test_random_calls_leave_no_trace(seed: int) -> None:
    """30 caches and the kmalloc classes on 4 CPUs: nothing overlaps, and all pages are back at the end."""
    r = random.Random(seed)
    options = {"cmdline": "slub_debug=FZPU"} if seed == 3 else {}
    config = ("SLAB_FREELIST_RANDOM",) if seed % 2 else ()
    m = Machine("linux-6.1", memory="128M", cpus=4, seed=seed, config=config, **options)
    before = {z.name: z.free_pages() + sum(pcp.count for pcp in z.pcps) for z in m.zones}
    caches, live = _caches(m, r), []
    for call in range(100_000 if FULL else 3_000 if options else 8_000):
        _step(m, r, caches, live)
        if call % 200 == 0:
            assert m.check()
            spans = sorted((p, p + (m.ksize(p) if c is None else c.object_size)) for c, p in live)
            assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))
    for c, p in live:
        _free(m, c, p)
    for c in caches:
        m.kmem_cache_destroy(c)
    for c in list(m.slab_caches):
        m.kmem_cache_shrink(c)
    m.rcu_barrier()
    assert m.check()
    assert (m.slabs, m.live, m.large, m.slab_errors) == ({}, {}, {}, 0)
    assert before == {z.name: z.free_pages() + sum(pcp.count for pcp in z.pcps) for z in m.zones}


def test_the_check_can_fail() -> None:
    for break_it, words in (
        (lambda m, c, p: c.cpu_slab[0].freelist.pop(), "lost or doubled"),
        (lambda m, c, p: setattr(c, "nr_slabs", 7), "counter 7"),
        (lambda m, c, p: m.live.pop(p), "lost or doubled"),
        (lambda m, c, p: setattr(m.virt_to_slab(p), "inuse", 3), "objects on its list"),
        (lambda m, c, p: setattr(m.virt_to_slab(p), "frozen", False), "frozen is False"),
    ):
        m = machine()
        c = cache(m, 300)
        p = m.kmem_cache_alloc(c, GFP_KERNEL)
        m.check()
        break_it(m, c, p)
        with pytest.raises(AssertionError, match=words):
            m.check()
