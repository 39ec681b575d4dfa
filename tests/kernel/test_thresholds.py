"""Where a real kernel's first request failed, the model's watermark test fails; one page more, and it passes."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from kmemlab import Machine
from kmemlab.gfp import MIGRATE_NAMES
from kmemlab.mmzone import ALLOC_NO_WATERMARKS, MAX_ORDER, MIGRATE_TYPES
from kmemlab.page_alloc import Plan, zone_watermark_fast
from kmemlab.page_slowpath import gfp_to_alloc_flags

DATA = json.loads(gzip.decompress((Path(__file__).resolve().parent / "recordings" / "thresholds.json.gz").read_bytes()))
RUNS = [(shape, run) for shape, table in DATA.items() for run in table["runs"]]


def run_name(case) -> str:
    shape, run = case
    boot = "-fresh" if run.get("fresh_boot") else ""
    return f"{shape}-{run['mask'].replace(' ', '_')}-{run['order']}-{run['watermark_boost_factor']}{boot}"


def machine_at(shape: str, states) -> Machine:
    """A machine of this size whose zones have the recorded numbers; which frames are free is not recorded."""
    m = Machine("linux-6.1", memory=shape)
    assert [zone.name for zone in m.zones] == [state["name"] for state in states]
    for zone, state in zip(m.zones, states, strict=True):
        zone.managed, zone.watermark_boost = state["managed"], state["boost"]
        zone.wmark = [state["min"], state["low"], state["high"]]
        zone.nr_reserved_highatomic, zone.lowmem_reserve = state["highatomic"], state["reserve"]
        zone.nr_free_pages, zone.run = state["free_counter"], range(0)
        for row in (*zone.free_area, *zone.free_tail):
            for area in row:
                area.clear()
        for name, counts in state["free_blocks"].items():
            for order, count in enumerate(counts):
                zone.free_area[order][MIGRATE_NAMES.index(name)].update(dict.fromkeys(range(count)))
    return m


def last_flags(run) -> int:
    """The rights with which the request looked for the last time, before it got NULL."""
    gfp = run["gfp"]
    if gfp & 0x20000 and not gfp & 0x80000:  # __GFP_MEMALLOC, and no NOMEMALLOC beside it
        return ALLOC_NO_WATERMARKS
    return gfp_to_alloc_flags(gfp, run["order"])


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
    m = machine_at(shape, run["at_failure"])
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


@pytest.mark.parametrize("case", [case for case in RUNS if case[1]["mask"] == "GFP_NOWAIT"][::5], ids=run_name)
def test_the_first_request_of_a_run(case) -> None:
    """At the run's start the same request passes in some zone."""
    shape, run = case
    m = machine_at(shape, run["start"])
    plan = Plan(m, run["gfp"], run["order"])
    assert any(zone_watermark_fast(zone, plan, gfp_to_alloc_flags(run["gfp"], run["order"])) for zone in plan.zones)
