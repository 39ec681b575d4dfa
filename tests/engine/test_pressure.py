"""The curve of pressure, and when kswapd gets the CPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kmemlab import GFP_ATOMIC, GFP_KERNEL, GFP_NOWAIT, Machine, RecordingError, recorded_pressure
from kmemlab.pressure import FAILURES


@pytest.fixture
def m() -> Machine:
    m = Machine("linux-6.1", memory="64M")
    m.read_file("/dev/vda", "64M")
    m.msleep(4)
    return m


def test_rows(m: Machine) -> None:
    """Every 32 requests, with what lies between two rows balanced to the page."""
    free = sum(zone.free_pages() for zone in m.zones) + m.free_pcp()
    rows = m.pressure(GFP_KERNEL, 1000)
    assert [row.asked for row in rows] == [*range(0, 1000, 32), 1000]
    assert rows[-1].got == 1000
    assert rows[0].pgsteal_kswapd == rows[0].allocstall == 0
    brought = rows[-1].pgsteal_kswapd + rows[-1].pgsteal_direct
    assert sum(zone.free_pages() for zone in m.zones) + m.free_pcp() == free + brought - 1000
    assert rows[-1].free == {zone.name: zone.nr_free_pages for zone in m.zones}
    assert m.check()


def test_it_gives_up_and_marks_the_first_null(m: Machine) -> None:
    rows = m.pressure(GFP_NOWAIT, 20_000)
    last = rows[-1]
    assert last.asked - last.got == FAILURES
    assert any(row.got == row.asked - 1 for row in rows)
    assert "page allocation failure" not in m.dmesg()


def test_a_rest_helps_the_one_who_can_only_take(m: Machine) -> None:
    twin = m.copy()
    assert m.pressure(GFP_ATOMIC, 8000, rest_every=64)[-1].got > 2 * twin.pressure(GFP_ATOMIC, 8000)[-1].got


def test_the_same_curve_again(m: Machine) -> None:
    twin = m.copy()
    assert m.pressure(GFP_KERNEL, 3000) == twin.pressure(GFP_KERNEL, 3000)


@pytest.mark.parametrize("wrong", [{"pages": -1}, {"pages": 1.5}, {"pages": 5, "rest_every": -3}])
def test_wrong_numbers(m: Machine, wrong: dict) -> None:
    with pytest.raises(ValueError, match=r"pressure: (pages|rest_every) must be a whole number from 0, not "):
        m.pressure(GFP_KERNEL, **wrong)


def test_a_file_without_a_curve(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"columns": ["asked"], "rows": [[1]]}))
    with pytest.raises(RecordingError, match=r"x\.json: is not a recorded curve of pressure"):
        recorded_pressure(path)


def test_only_a_recorded_curves_machine_has_a_recorded_cache(m: Machine) -> None:
    other = Machine.from_recording("256M-a-21")
    for machine in (m, other):
        with pytest.raises(ValueError, match=r"not a machine as Machine\.from_recording makes it"):
            machine.recorded_page_cache()
    ours = Machine.from_recording("reclaim-n-smp1-256M")
    file = ours.recorded_page_cache()
    assert len(file.pages) == len(ours.lru.inactive_file) > 40_000
    with pytest.raises(ValueError, match="reclaim-n-smp1-256M: not a machine"):
        ours.recorded_page_cache()
    assert ours.check()


# --- kswapd's turn -------------------------------------------------------------------------------------


def wake(m: Machine) -> int:
    """Ask until kswapd is woken; how many runs of it that brought."""
    m.kswapd_woken, before = None, m.lru.stat["pageoutrun"]
    for _ in range(1000):
        m.alloc_pages(GFP_ATOMIC, 0)
        if m.kswapd_woken or m.lru.stat["pageoutrun"] > before:
            return m.lru.stat["pageoutrun"] - before
    raise AssertionError("nothing woke it")


def test_kswapd_comes_at_once_when_it_is_far_behind(m: Machine) -> None:
    m.kswapd_turn.account(m)
    m.kswapd_turn.lag = 2.5
    assert wake(m) == 1


def test_kswapd_waits_for_the_tick_when_it_is_not(m: Machine) -> None:
    m.kswapd_turn.account(m)
    m.kswapd_turn.lag = 0.5
    assert wake(m) == 0
    due, now = m.kswapd_turn.due, m.kswapd_turn.used
    assert now < due <= now + 4
    assert due % 4 == 0
    m.calls += 2000  # four milliseconds of the caller's
    assert m.kswapd_turn.has_come(m)


def test_kswapd_comes_when_the_caller_sleeps(m: Machine) -> None:
    m.kswapd_turn.account(m)
    m.kswapd_turn.lag = 0.5
    assert wake(m) == 0
    before = m.lru.stat["pageoutrun"]
    m.msleep(1)
    assert m.lru.stat["pageoutrun"] == before + 1


def test_on_another_cpu_kswapd_takes_the_time_its_pages_take() -> None:
    m = Machine("linux-6.1", memory="64M", cpus=2)
    m.read_file("/dev/vda", "64M")
    m.msleep(4)
    assert wake(m) == 0
    assert m.kswapd_turn.used < m.kswapd_turn.due < m.kswapd_turn.used + 4


def test_what_is_charged(m: Machine) -> None:
    """Two microseconds a call and a page, a tenth of a millisecond a run of kswapd; a sleeper's credit has an end."""
    turn = m.kswapd_turn
    turn.account(m)
    used, lag = turn.used, turn.lag
    m.calls += 500
    m.lru.stat["pgscan_kswapd"] += 100
    m.lru.stat["pageoutrun"] += 1
    turn.account(m)
    assert turn.used - used == pytest.approx(1.0 + 0.3)
    assert turn.lag - lag == pytest.approx(1.0 - 0.3)
    turn.lag = -9
    turn.slept(m)
    assert turn.lag == -3
    turn.lag = 9
    turn.woken(m, 10)
    assert turn.lag == 3


def test_block_devices_are_cached_in_pages_that_stay() -> None:
    m = Machine("linux-6.1", memory="64M")
    device, file = m.read_file("/dev/vda", "4M"), m.read_file("a", "4M")
    assert {m.memmap[pfn].mt for pfn in device.pages} == {0}
    assert {m.memmap[pfn].mt for pfn in file.pages} == {1}


def test_kswapd_that_finds_a_balanced_zone_has_not_failed(m: Machine) -> None:
    """Woken for a boost, or too late: that is no sign that nothing can be reclaimed."""
    m.drain_all_pages()
    m.kswapd_woken = (0, 1)
    while m.zones[-1].nr_free_pages < m.zones[-1].wmark[2] + 100:
        m.files[0].drop()
    m.read_file("b", "1M")
    m.kswapd_woken = (0, 1)
    m.msleep(1)
    assert m.lru.failures == 0


def test_reclaim_that_brings_a_page_gives_kswapd_hope_again(m: Machine) -> None:
    m.lru.failures = 16
    with m.preempt_disable():
        while m.alloc_pages(GFP_NOWAIT | 0x2000, 0):
            pass
    stalls = m.lru.stat["allocstall"]
    assert m.alloc_pages(GFP_KERNEL, 0)
    assert m.lru.stat["allocstall"] == stalls + 1
    assert m.lru.failures == 0
