"""How far a real kernel let memory sink: 132 runs of requests until the first NULL, replayed call by call.

A run's start is recorded in numbers: the zones' counters, free blocks by type and order, pages on the CPU's lists. The
frames are not, so the blocks are laid out anew (kmemlab/layout.py).
"""

from __future__ import annotations

import gc
import gzip
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kmemlab import Machine
from kmemlab.events import LabZone
from kmemlab.gfp import MIGRATE_NAMES, gfp_migratetype
from kmemlab.layout import Spare, lay_out
from kmemlab.mm_init import calculate_normal_threshold, zone_batchsize, zone_highsize
from kmemlab.mmzone import ALLOC_NO_WATERMARKS, MAX_ORDER, MIGRATE_TYPES, PAGEBLOCK_NR_PAGES, order_to_pindex
from kmemlab.page_alloc import Plan, zone_watermark_fast
from kmemlab.page_slowpath import gfp_to_alloc_flags
from kmemlab.pcplist import update_limit

DATA = json.loads(gzip.decompress((Path(__file__).resolve().parent / "recordings" / "thresholds.json.gz").read_bytes()))
RUNS = [(shape, run) for shape, table in DATA.items() for run in table["runs"]]


def run_name(case) -> str:
    shape, run = case
    boot = "-fresh" if run.get("fresh_boot") else ""
    return f"{shape}-{run['mask'].replace(' ', '_')}-{run['order']}-{run['watermark_boost_factor']}{boot}"


def blank(shape: str, states) -> Machine:
    """A machine with these zones. A shape that is no size of memory ("512M-normal": a large machine's zones, small)
    gets a large one: what follows from the zones' sizes is set by the recorded numbers."""
    try:
        m = Machine("linux-6.1", memory=shape)
    except ValueError:
        m = Machine("linux-6.1", memory="6G")
    assert [zone.name for zone in m.zones] == [state["name"] for state in states]
    return m


def machine_at(shape: str, states) -> tuple[Machine, list[Spare]]:
    """A machine whose zones have the recorded numbers, and the frames where nothing is free."""
    m = blank(shape, states)
    spares = []
    for zone, state in zip(m.zones, states, strict=True):
        zone.managed, zone.watermark_boost = state["managed"], state["boost"]
        zone.max_reserved_highatomic = zone.managed // 100 + PAGEBLOCK_NR_PAGES
        zone.wmark = [state["min"], state["low"], state["high"]]
        zone.nr_reserved_highatomic, zone.lowmem_reserve = state["highatomic"], state["reserve"]
        zone.stat_threshold = calculate_normal_threshold(zone, 1)
        zone.pcp.batch = zone_batchsize(zone.managed)
        zone.pcp.high = zone_highsize(zone, zone.pcp.batch, 1)
        update_limit(zone)
        zone.nr_free_pages, zone.pcp.vm_stat_diff = state["free_counter"], state["free_diff_cpu"]
        zone.run, zone.boot_run = range(0), range(0)
        zone.buddy.clear()
        zone.boot_free.clear()
        for row in (*zone.free_area, *zone.free_tail):
            for area in row:
                area.clear()
        blocks = {MIGRATE_NAMES.index(name): counts for name, counts in state["free_blocks"].items()}
        spares.append(lay_out(zone, blocks))
    m.forget_plans()
    return m, spares


# --- the replay ------------------------------------------------------------------------------------------------


def fill_pcps(m: Machine, run, spares: list[Spare], left: list[int]) -> None:
    """Pages on the CPU's lists: the count is recorded, not their types, so the end must tell: what was gone then had
    been of the type and order asked for. ``left`` of that kind are there at the end, of a last refill."""
    mt, order = gfp_migratetype(run["gfp"]), run["order"]
    other = 1 - (mt == 1)
    for zone, spare, start, end, rest in zip(m.zones, spares, run["start"], run["at_failure"], left, strict=True):
        count = start["pcp_count"]
        ours = max(0, count - (end["pcp_count"] - rest)) >> order if m.pindex[order] else 0
        for kind, size, blocks in ((mt, order, ours), (other, 0, count - (ours << order))):
            for _ in range(blocks):
                page = m.memmap[spare.take(size, kind)]
                page.refcount, page.mt = 0, kind
                zone.pcp.lists[order_to_pindex(kind, size)].append(page)
        zone.pcp.count = count


def taken_until_null(shape: str, run, left: list[int]) -> tuple[Machine, int]:
    """(the machine after its first NULL, blocks it gave)."""
    m, spares = machine_at(shape, run["start"])
    fill_pcps(m, run, spares, left)
    m.sysctl("watermark_boost_factor", run["watermark_boost_factor"])
    alloc_pages, gfp, order, blocks = m.alloc_pages, run["gfp"], run["order"], 0
    while alloc_pages(gfp, order):
        blocks += 1
    return m, blocks


def on_list(m: Machine, run) -> list[int]:
    """Pages of the kind asked for that are on each zone's list."""
    row, order = m.pindex[run["order"]], run["order"]
    return [len(zone.pcp.lists[row[gfp_migratetype(run["gfp"])]]) << order if row else 0 for zone in m.zones]


@contextmanager
def collector_off() -> Iterator[None]:
    """A machine of 4 GB makes a million page objects; Python's collector would look at them over and over."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def last_flags(run) -> int:
    """The rights with which the request looked for the last time, before it got NULL."""
    gfp = run["gfp"]
    if gfp & 0x20000 and not gfp & 0x80000:  # __GFP_MEMALLOC, and no NOMEMALLOC beside it
        return ALLOC_NO_WATERMARKS
    return gfp_to_alloc_flags(gfp, run["order"])


def replay(shape: str, run) -> tuple[Machine, int]:
    """(the machine after its first NULL, blocks it gave). As a rule a refill leaves a batch less one; where the model's
    own end shows another number, the start is set up again with that."""
    batches = [zone_batchsize(zone["managed"]) for zone in run["start"]]
    order = run["order"]
    left = [(max(batch >> order, 2) - 1 << order) if batch > 1 else 0 for batch in batches]
    if last_flags(run) & ALLOC_NO_WATERMARKS:
        left = [0] * len(batches)  # nothing stops it before the lists are empty
    with collector_off():
        m, blocks = taken_until_null(shape, run, left)
        if (found := on_list(m, run)) != left:
            m, blocks = taken_until_null(shape, run, found)
    if shape != "4G":  # a million pages take their time
        m.check()
    return m, blocks


def books(m: Machine) -> list[tuple[int, ...]]:
    return [
        (z.nr_free_pages, z.pcp.vm_stat_diff, z.pcp.count, z.watermark_boost, z.nr_reserved_highatomic) for z in m.zones
    ]


def kernels_books(run) -> list[tuple[int, ...]]:
    fields = ("free_counter", "free_diff_cpu", "pcp_count", "boost", "highatomic")
    return [tuple(zone[field] for field in fields) for zone in run["at_failure"]]


# Runs in which steals decide: when and how far they raise the mark depends on how many free pages lie in the pageblock
# that is raided, and which blocks share one is not recorded. For each the blocks it gives more than the kernel did.
STEALS = {
    "128M-GFP_ATOMIC-2-15000-fresh": -1,
    "128M-GFP_ATOMIC-3-15000-fresh": 1,
    "256M-GFP_ATOMIC-1-15000-fresh": -3,
    "256M-GFP_ATOMIC-2-15000-fresh": 2,
    "256M-GFP_ATOMIC-3-15000-fresh": 1,
    "512M-GFP_HIGHUSER_MOVABLE_without_direct_reclaim-0-15000": 31,
    "512M-GFP_NOWAIT-1-15000": 15,
}


@pytest.mark.parametrize("case", RUNS, ids=run_name)
def test_blocks_until_the_first_null(case) -> None:
    """The first NULL comes after the kernel's number of blocks, by the same test in every zone; with watermark boost
    off, with all the kernel's counters."""
    shape, run = case
    m, blocks = replay(shape, run)
    assert blocks - run["blocks"] == STEALS.get(run_name(case), 0)
    if not run["watermark_boost_factor"]:
        assert books(m) == kernels_books(run)
    assert last_tests(m, run) == kernels_tests(shape, run)


def test_how_many_are_within_a_batch() -> None:
    """125 of 132 exactly, all within the blocks of one refill; what is off has watermark boost on."""
    cases = {run_name(case): case for case in RUNS}
    assert (len(RUNS) - len(STEALS), set(STEALS) - set(cases)) == (125, set())
    for name, off in STEALS.items():
        _, run = cases[name]
        batch = zone_batchsize(run["start"][-1]["managed"])
        assert abs(off) <= max(batch >> run["order"], 2)
        assert run["watermark_boost_factor"]


def last_tests(m: Machine, run) -> list[tuple[str, bool, bool]]:
    """Each zone of the request's last walk: (name, enough pages?, a block there?)."""
    told = [(event.zone, event.enough, event.block) for event in m.last_events() if isinstance(event, LabZone)]
    return told[-len(Plan(m, run["gfp"], run["order"]).zones) :]


def kernels_tests(shape: str, run) -> list[tuple[str, bool, bool]]:
    """The same, of the recorded state at the failure."""
    m, _ = machine_at(shape, run["at_failure"])
    plan, flags = Plan(m, run["gfp"], run["order"]), last_flags(run)
    m.trail.clear()
    for zone in plan.zones:
        zone_watermark_fast(zone, plan, flags)
    return last_tests(m, run)


# --- the test that failed, taken alone --------------------------------------------------------------------------------


def edge(zone, plan: Plan, flags: int) -> int:
    """The largest number of free pages with which the test still fails, if blocks of every order are there."""
    zone.free_area = [[{0: None} for _ in range(MIGRATE_TYPES)] for _ in range(MAX_ORDER)]
    low, high = -1, 1 << 20
    while high - low > 1:
        zone.nr_free_pages = (low + high) // 2
        low, high = (low, zone.nr_free_pages) if zone_watermark_fast(zone, plan, flags) else (zone.nr_free_pages, high)
    return low


def test_all_runs_are_here() -> None:
    """132 runs of four machines."""
    assert (len(RUNS), len(DATA)) == (132, 4)


@pytest.mark.parametrize("case", RUNS, ids=run_name)
def test_the_failing_request(case) -> None:
    """In the recorded state every zone says no, and each would have said yes just above its mark."""
    shape, run = case
    m, _ = machine_at(shape, run["at_failure"])
    plan, flags = Plan(m, run["gfp"], run["order"]), last_flags(run)
    if flags & ALLOC_NO_WATERMARKS:  # the master key: only the last pages stop it
        assert run["free_at_failure"] <= 7
        assert not any(zone.has_block(5, flags) for zone in plan.zones)
        return
    for zone in plan.zones:
        free = zone.nr_free_pages
        assert not zone_watermark_fast(zone, plan, flags), zone.name
        mark = edge(zone, plan, flags)
        # The counter sinks below the mark by a refill of a per-CPU list and what the CPU has not yet folded in.
        if run["watermark_boost_factor"] == 0 and zone is plan.zones[0]:
            assert mark - free <= 63 + zone.stat_threshold
        zone.nr_free_pages = mark + 1
        assert zone_watermark_fast(zone, plan, flags)
        zone.nr_free_pages = mark
        assert not zone_watermark_fast(zone, plan, flags)
