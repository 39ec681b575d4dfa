"""Slab caches and kmalloc against the real kernel: every object, size, cache field, constructor call, /proc row."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from kmemlab import GFP_KERNEL, Machine, conform
from kmemlab.slabinfo import parse_slabinfo, slabinfo, slabinfo_line
from kmemlab.slub_def import KmemCache, calculate_alignment
from tests.shreds import shred

RECORDINGS = Path(__file__).parent / "recordings"
FIELDS = (
    "flags object_size size align inuse offset red_left_pad cpu_partial cpu_partial_slabs min_partial order objects "
    "min_order min_objects allocflags"
).split()


def load(name: str) -> Any:
    path = RECORDINGS / name
    if not path.is_file():
        path = RECORDINGS.parents[2] / "lessons" / "recordings" / name  # those a lesson shows too
    return json.loads(gzip.decompress(path.read_bytes()) if name.endswith(".gz") else path.read_text("utf-8"))


def ctor(p: int) -> None:
    """A constructor that does nothing."""


# --- objects -----------------------------------------------------------------------------------


SHOWN = RECORDINGS.parents[2] / "lessons" / "recordings"  # a lesson shows one of them
SLUB = sorted([*(RECORDINGS / "slub").glob("*.json.gz"), *SHOWN.glob("slub-*.json.gz")], key=lambda path: path.name)


@pytest.mark.parametrize("path", SLUB, ids=lambda path: path.name.split(".")[0])
def test_every_object(path: Path) -> None:
    result = conform(path)
    assert result.total > 1000
    assert result.exact, f"{result}\n{result.miss}\n{result.differences[:3]}"


def test_a_wrong_object_is_told(tmp_path: Path) -> None:
    told = load("slub-64-plain-11.json.gz")
    calls = [op for op in told["ops"] if op[0] == 1 and len(op) == 3]
    calls[100][2] = (calls[100][2] + 1) % 64
    path = tmp_path / "slub-changed.json"
    path.write_text(json.dumps({**told, "ops": [op for op in told["ops"] if op[0] == 1]}), encoding="utf-8")
    result = conform(path)
    assert not result.exact
    assert "kernel object" in result.miss


def test_all_slab_recordings_add_up() -> None:
    assert len(SLUB) == 11
    ops = [op for name in SLUB for op in load(str(name))["ops"]]
    assert sum(op[0] == 1 for op in ops) == 36080


# --- kmalloc -------------------------------------------------------------------------------------


@pytest.mark.parametrize("cpus", [1, 4])
@pytest.mark.parametrize(
    ("name", "cmdline"),
    [("kmalloc_sizes.gz", ""), ("kmalloc_sizes_slub_debug_FZPU.json.gz", "slub_debug=FZPU")],
)
def test_every_size(name: str, cmdline: str, cpus: int) -> None:
    m = Machine("linux-6.1", memory="512M", cpus=cpus, cmdline=cmdline)
    rows = load(name)["rows"]
    assert len(rows) == 8256
    for size, ok, ksize, roundup, cache in rows:
        p = m.kmalloc(size, GFP_KERNEL)
        slab = m.virt_to_slab(p) if p else None
        where = slab.cache.name if slab else ("ZERO_SIZE_PTR" if int(p or 0) == 16 else "pages" if p else cache)
        got = (int(bool(p)), m.ksize(p) if p else 0, m.kmalloc_size_roundup(size), where)
        assert got == (ok, ksize, roundup, cache), f"kmalloc({size})"
        m.kfree(p)
    assert m.check()


def test_families_and_the_caches_themselves() -> None:
    told = load("kmalloc_sizes.gz")
    m = Machine("linux-6.1", memory="512M")
    masks = {"GFP_KERNEL": 0xCC0, "GFP_ATOMIC": 0xA20, "GFP_KERNEL|__GFP_DMA": 0xCC1, "GFP_KERNEL_ACCOUNT": 0x400CC0,
             "GFP_KERNEL|__GFP_RECLAIMABLE": 0xCD0, "GFP_KERNEL|__GFP_RECLAIMABLE|__GFP_ACCOUNT": 0x400CD0,
             "GFP_DMA|__GFP_RECLAIMABLE": 0x11}  # fmt: skip
    assert set(masks) == set(told["by_type"])
    for mask, rows in told["by_type"].items():
        for size, ksize, cache, pfn in rows:
            p = m.kmalloc(size, masks[mask])
            slab = m.virt_to_slab(p)
            assert (m.ksize(p), slab.cache.name if slab else "pages") == (ksize, cache)
            assert ((p - m.kernel.page_offset >> 12) < 4096) == (pfn < 4096)  # zone DMA or not
    for fields in told["kmalloc_caches"]:
        s = m.find_cache(fields["name"])
        assert {key: getattr(s, key) for key in (*FIELDS, "refcount")} == {k: fields[k] for k in (*FIELDS, "refcount")}


# --- caches --------------------------------------------------------------------------------------


def test_every_cache_and_whom_it_joined() -> None:
    """In the order of the recorder: each cache is destroyed before the next is created."""
    m = Machine("linux-6.1", memory="512M")
    rows = load("caches.json.gz")["merge"]["rows"]
    joined = 0
    for row in rows:
        size, align, flags, constructor = row["req"]
        s = m.kmem_cache_create("or", size, align, flags, ctor if constructor else None)
        told = row["got"]
        if told is None:
            assert not s
            continue
        assert isinstance(s, KmemCache)
        assert (s.name != "or") == bool(row["merged"]), row["req"]
        if row["merged"]:
            joined += 1
            assert (s.name, s.refcount) == (told["name"], told["refcount"])
        assert {key: getattr(s, key) for key in FIELDS} == {key: told[key] for key in FIELDS}, row["req"]
        m.kmem_cache_destroy(s)
    assert (len(rows), joined) == (3112, 259)


@pytest.mark.parametrize(
    ("name", "cmdline"), [("nomerge", "slab_nomerge"), ("caches_slub_debug_FZPU.json.gz", "slub_debug=FZPU")]
)
def test_every_cache_by_itself(name: str, cmdline: str) -> None:
    m = Machine("linux-6.1", memory="512M", cmdline=cmdline)
    told = load("caches.json.gz")[name] if name == "nomerge" else load(name)
    for row in told["rows"]:
        size, align, flags, constructor = row["req"]
        s = m.kmem_cache_create("or", size, align, flags, ctor if constructor else None)
        if row["got"] is None:
            assert not s
            continue
        assert {key: getattr(s, key) for key in FIELDS} == {key: row["got"][key] for key in FIELDS}, row["req"]
        m.kmem_cache_destroy(s)
    assert len(told["rows"]) == 3112


def test_alignment_of_the_machine_with_four_cpus_follows_the_rule() -> None:
    recorded = [load(str(path)) for path in SLUB if "mcpu4" in path.name]
    assert recorded
    for told in recorded:
        fields = told["cache"]
        flags = fields["flags"] & 0x3FFFFFFF
        s = KmemCache("x", fields["object_size"], calculate_alignment(flags, 0, fields["object_size"]), flags, None)
        s.ctor = ctor if fields["offset"] == fields["inuse"] else None
        assert s.open(4)
        assert {key: getattr(s, key) for key in FIELDS} == {key: fields[key] for key in FIELDS}


# --- constructors, krealloc, kvmalloc ----------------------------------------------------------------


def test_constructor_calls() -> None:
    """Counts and moments. The recorder's own slab order is random, so the objects are compared elsewhere."""
    told = load("ctor.json")
    calls: list[int] = []
    m = Machine("linux-6.1", memory="512M", cmdline="slab_nomerge")
    s = m.kmem_cache_create("oracle-ctor", 256, 0, 0, calls.append)
    assert {key: getattr(s, key) for key in FIELDS} == {key: told["cache"][key] for key in FIELDS}
    live: list[Any] = []
    for what, count, *_ in told["steps"]:
        if what.startswith("alloc"):
            live.append(m.kmem_cache_alloc(s, GFP_KERNEL))
        elif what == "free":
            m.kmem_cache_free(s, live.pop(0))
        elif what == "shrink":  # the recorder gave everything back before, without a line of its own
            while live:
                m.kmem_cache_free(s, live.pop())
            m.kmem_cache_shrink(s)
        elif what == "ctor_low_addr_bits":
            break
        assert len(calls) == count, what
    assert len(calls) == 45


@pytest.mark.parametrize(
    ("name", "cmdline"), [("krealloc.json.gz", ""), ("krealloc_slub_debug_FZPU.json.gz", "slub_debug=FZPU")]
)
def test_every_krealloc(name: str, cmdline: str) -> None:
    m = Machine("linux-6.1", memory="512M", cmdline=cmdline)
    rows = load(name)["rows"]
    for row in rows:
        old_size, new_size = row[:2]
        p = m.kmalloc(old_size, GFP_KERNEL) if old_size >= 0 else 0
        before = m.ksize(p)
        pattern = bytes((7 * i + 3) % 251 + 1 for i in range(before))
        if before:
            m.write(p, pattern)
        q = m.krealloc(p, new_size, GFP_KERNEL)
        result = 16 if int(q or 0) == 16 else int(bool(q))
        after, kept = m.ksize(q), 0
        if result == 1 and before:
            found = m.read(q, min(before, after))
            kept = next((i for i, byte in enumerate(found) if byte != pattern[i]), len(found))
        assert [old_size, new_size, result, int(p == (q or 0)), before, after, kept] == row
        m.kfree(q)
    assert len(rows) == 756
    assert m.check()


def kvmalloc(m: Machine, size: int, gfp: int) -> tuple[Any, int]:
    """(pointer, 0: kmalloc served it, 1: the kernel would go on to vmalloc, which the model lacks, -1: NULL)."""
    try:
        p = m.kvmalloc(size, gfp)
    except NotImplementedError:
        return 0, 1
    return p, 0 if p else -1


def test_kvmalloc_while_memory_is_plentiful() -> None:
    m = Machine("linux-6.1", memory="256M")
    rows = load("kvmalloc.json")["plenty"]
    for gfp, size, told in rows:
        p, got = kvmalloc(m, size, gfp)
        assert got == told, (hex(gfp), size)
        m.kvfree(p)
    assert len(rows) == 126


def test_kvmalloc_in_fragmented_memory() -> None:
    """Only single pages are free: every second one of the memory is taken, the rest of the blocks too."""
    m = shred(Machine("linux-6.1", memory="64M", cmdline="transparent_hugepage=never"), keep=200)
    compared = 0
    for gfp, size, told in load("kvmalloc.json")["fragmented"]:
        if size <= 16384:
            continue  # the recorded machine had slabs with room, and blocks on the CPU list from before
        compared += 1
        p, got = kvmalloc(m, size, gfp)
        assert got == told, (hex(gfp), size)
        m.kvfree(p)
    assert compared == 72


# --- /proc/slabinfo --------------------------------------------------------------------------------------


def test_slabinfo_of_a_booted_machine() -> None:
    text = (RECORDINGS / "proc" / "256M" / "boot" / "slabinfo").read_text(encoding="utf-8")
    real, ours = parse_slabinfo(text), parse_slabinfo(slabinfo(Machine("linux-6.1", memory="256M")))
    assert [row.name for row in ours] == [row.name for row in real]
    shape = [(r.objsize, r.objperslab, r.pagesperslab) for r in real]
    assert [(r.objsize, r.objperslab, r.pagesperslab) for r in ours] == shape


@pytest.mark.parametrize("where", ["256M/boot", "256M/load", "4G-smp4/boot"])
def test_slabinfo_round_trip(where: str) -> None:
    """A row of a real kernel's file, read and printed again, is the same row."""
    text = (RECORDINGS / "proc" / where / "slabinfo").read_text(encoding="utf-8")
    assert "".join(map(slabinfo_line, parse_slabinfo(text))) == "".join(text.splitlines(keepends=True)[2:])
    head = slabinfo(Machine("linux-6.1", memory="64M")).splitlines()[:2]
    assert head == text.splitlines()[:2]
