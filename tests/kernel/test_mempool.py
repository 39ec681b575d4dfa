"""A real kernel's memory pool, call by call: which element, how many in reserve, who was asked with which mask."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kmemlab import GFP_ATOMIC, GFP_KERNEL, GFP_NOIO, GFP_NOWAIT, NULL, Machine

DATA = json.loads((Path(__file__).resolve().parent / "recordings" / "mempool.json").read_text())
MASKS = {"GFP_KERNEL": GFP_KERNEL, "GFP_NOIO": GFP_NOIO, "GFP_ATOMIC": GFP_ATOMIC, "GFP_NOWAIT": GFP_NOWAIT}


class Recorder:
    """The recorded module: elements are numbered, the allocator can be made to fail."""

    def __init__(self) -> None:
        self.m = Machine("linux-6.1", memory="512M")
        self.works = True
        self.calls = self.allocs = self.frees = 0
        self.last_gfp = 0
        self.pool = None

    def alloc(self, gfp_mask, pool_data):
        self.calls, self.last_gfp = self.calls + 1, int(gfp_mask)
        if not self.works:
            return NULL
        self.allocs += 1
        return Element(self.allocs - 1)

    def free(self, element, pool_data) -> None:
        self.frees += 1

    def state(self, element) -> dict:
        return {
            "elem": element.n if element else -1, "min_nr": self.pool.min_nr, "curr_nr": self.pool.curr_nr,
            "alloc_calls": self.calls, "allocs": self.allocs, "frees": self.frees, "last_gfp": self.last_gfp,
            "reserve": [element.n for element in self.pool.elements],
        }  # fmt: skip


class Element:
    """An element; number 0 is an element too, so it must not be false."""

    def __init__(self, n: int) -> None:
        self.n = n


def do(r: Recorder, words: str, wanted: dict):
    """Carry out a step as the recording names it."""
    m, pool = r.m, r.pool
    if words.startswith("create"):
        r.pool = m.mempool_create(wanted["min_nr"], r.alloc, r.free, None)
        return NULL
    if words.startswith("alloc"):
        # What is not said stays: the allocator is broken until it is "ok again".
        r.works = "ok" in words if "alloc_fn" in words else r.works
        if "another thread" in words:
            last = Element(wanted["elem"])
            m.after(300, lambda: m.mempool_free(last, pool))
        return m.mempool_alloc(pool, MASKS[words.split()[1]])
    if words.startswith("free"):
        element = NULL if "NULL" in words else Element(wanted["elem"])
        m.mempool_free(element, pool)
        return element
    r.works = "fails" not in words
    assert words.startswith("resize")
    assert m.mempool_resize(pool, int(words.split("->")[1].split(maxsplit=1)[0])) == 0
    return NULL


def test_every_step() -> None:
    """26 states of one pool."""
    r, states, slept = Recorder(), 0, 0.0
    for words, wanted in DATA["steps"]:
        if words == "slept_ms":
            assert abs(slept - wanted["ms"]) < 40  # a tick or two, and the scheduler of a real machine
        elif "elem" in wanted:
            before = r.m.now
            element = do(r, words, wanted)
            slept = r.m.now - before
            assert r.state(element) == wanted, words
            states += 1
    assert states == 26
    assert r.m.check()


def test_destroyed_with_one_element_out() -> None:
    r = Recorder()
    for words, wanted in DATA["steps"]:
        if "elem" in wanted:
            do(r, words, wanted)
        elif words.startswith("destroy"):
            assert r.pool.curr_nr == wanted["curr_nr_before"]
            before, log = r.frees, r.m.dmesg()
            r.m.mempool_destroy(r.pool)
            assert r.frees - before == wanted["free_fn_calls"]
            assert r.m.dmesg() == log
            return
    pytest.fail("the recording has no destroy")


def test_create_when_the_allocator_fails() -> None:
    r = Recorder()
    r.works = False
    assert DATA["create_when_alloc_fails"] is None
    assert r.m.mempool_create(4, r.alloc, r.free, None) is NULL


def test_pools_of_the_three_kinds() -> None:
    m = Machine("linux-6.1", memory="512M")
    slab = DATA["slab_pool"]
    cache = m.kmem_cache_create("elements", 200, 0, 0, None)
    pool = m.mempool_create_slab_pool(slab["min_nr"], cache)
    seen, out = [], []
    for _ in slab["allocs"]:
        out.append(m.mempool_alloc(pool, GFP_KERNEL))
        seen.append(pool.curr_nr)
    assert seen == slab["allocs"]
    seen = []
    for element in out:
        m.mempool_free(element, pool)
        seen.append(pool.curr_nr)
    assert seen == slab["frees"]
    pool = m.mempool_create_kmalloc_pool(DATA["kmalloc_pool"]["curr_nr"], 100)
    assert pool.curr_nr == DATA["kmalloc_pool"]["curr_nr"]
    assert m.ksize(m.mempool_alloc(pool, GFP_KERNEL)) == DATA["kmalloc_pool"]["ksize"]
    assert m.mempool_create_page_pool(DATA["page_pool"]["curr_nr"], 2).curr_nr == DATA["page_pool"]["curr_nr"]
