"""explain() and events of the object floor: every step has its words, ftrace's events their fields."""

from __future__ import annotations

import random

from kmemlab import GFP_KERNEL, Machine
from kmemlab.events import Kfree, Kmalloc, KmemCacheAlloc, KmemCacheFree, LabSlab
from kmemlab.explain_slab import WORDS


def test_kmalloc_from_the_class_to_the_page() -> None:
    m = Machine("linux-6.1", memory="64M")
    p = m.kmalloc(100, GFP_KERNEL)
    text = str(m.explain())
    assert text.startswith(f"kmalloc(100, GFP_KERNEL) = {p}: a new slab at pfn ")
    assert "100 bytes: the class above is 128, cache kmalloc-128 (28 bytes will not be used)" in text
    assert "look for a zone above its low watermark" in text
    m.kmalloc(100, GFP_KERNEL)
    assert "the head of this CPU's list is taken; 30 objects left" in str(m.explain())
    m.kfree(p)
    assert "on top of this CPU's list: 31 objects there now" in str(m.explain())


def test_every_step_is_told_and_happens() -> None:
    m = Machine("linux-6.1", memory="64M", cmdline="slab_nomerge")
    c = m.kmem_cache_create("conn", 1024, 0, 0, None)
    seen: set[str] = set()

    def look() -> None:
        events = [event for event in m.last_events() if isinstance(event, LabSlab)]
        seen.update(event.what for event in events)
        assert events or m.explain().steps
        assert "{" not in str(m.explain())

    objects = []
    for _ in range(200):
        objects.append(m.kmem_cache_alloc(c, GFP_KERNEL))
        look()
    for p in objects[::2] + objects[1:150:2]:
        m.kmem_cache_free(c, p)
        look()
    for _ in range(150):
        m.kmem_cache_alloc(c, GFP_KERNEL)
        look()
    assert set(WORDS) - {"get_freelist"} <= seen


def test_what_others_freed_is_taken_over() -> None:
    m = Machine("linux-6.1", memory="64M", cpus=2, cmdline="slab_nomerge")
    c = m.kmem_cache_create("conn", 1024, 0, 0, None)
    objects = [m.kmem_cache_alloc(c, GFP_KERNEL) for _ in range(c.objects)]
    m.cpu = 1
    m.kmem_cache_free(c, objects[2])
    m.cpu = 0
    assert m.kmem_cache_alloc(c, GFP_KERNEL) == objects[2]
    assert [event.what for event in m.last_events()] == ["get_freelist"]


def test_events_have_ftraces_fields() -> None:
    m = Machine("linux-6.1", memory="64M")
    heard = m.trace()
    c = m.kmem_cache_create("conn", 100, 0, 0, lambda p: None)
    with m.caller("net_rx+0x40"):
        p, q = m.kmalloc(100, 0x400CC0), m.kmem_cache_alloc(c, GFP_KERNEL)
        m.kfree(p)
        m.kmem_cache_free(c, q)
    told = [event for event in heard if event.name.startswith(("k",))]
    assert told == [
        Kmalloc("net_rx+0x40", p, 100, 128, 0x400CC0, -1, True),
        KmemCacheAlloc("net_rx+0x40", q, 100, 112, int(GFP_KERNEL), -1, False),
        Kfree("net_rx+0x40", p),
        KmemCacheFree("net_rx+0x40", q, "conn"),
    ]


def test_the_fast_way_tells_the_same_steps_as_the_long_way() -> None:
    """What is written down afterwards for a fast call is what a machine with a listener notes while it happens."""
    rng, kinds = random.Random(4), set()
    fast, slow = (Machine("linux-6.1", memory="64M", cmdline="slab_nomerge") for _ in range(2))
    slow.trace()
    caches = [m.kmem_cache_create("conn", 512, 0, 0, None) for m in (fast, slow)]
    live = []
    for _ in range(3000):
        if live and rng.random() < 0.49:
            pair = live.pop(rng.randrange(len(live)))
            for m, c, p in zip((fast, slow), caches, pair, strict=True):
                m.kmem_cache_free(c, p)
        else:
            pair = tuple(m.kmem_cache_alloc(c, GFP_KERNEL) for m, c in zip((fast, slow), caches, strict=True))
            assert pair[0] == pair[1]
            live.append(pair)
        told = [[event for event in m.last_events() if isinstance(event, LabSlab)] for m in (fast, slow)]
        ways = [[(e.what, e.pfn, e.count) for e in events] for events in told]
        assert ways[0] == ways[1]
        kinds.add(tuple(e.what for e in told[0]))
    assert ("full", "cpu_partial") in kinds
    assert ("free_slowpath", "put_cpu_partial") in kinds
