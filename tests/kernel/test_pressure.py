"""Who gets memory on a full machine: nine recorded curves and the model's own, from the recorded state.

The recorded kernel's times are not the model's, so levels and verdicts are compared, not pages. Each bound below is
what the recordings themselves span, held against the recorded rows first.
"""

from __future__ import annotations

import functools
from itertools import groupby
from pathlib import Path
from statistics import median

import pytest

from kmemlab import Machine, recorded_pressure
from kmemlab.pressure import FAILURES, PressureRow
from kmemlab.recording import find_recording, load_recording, read_json

HERE = Path(__file__).resolve().parent
FOLDERS = (HERE / "recordings" / "reclaim", HERE.parent.parent / "lessons" / "recordings")  # the lesson shows seven
CURVES = sorted(path.name.removesuffix(".json.gz") for folder in FOLDERS for path in folder.glob("reclaim-*.gz"))


@functools.cache
def start(name: str) -> Machine:
    """The recorded machine with its page cache."""
    m = Machine.from_recording(name)
    m.recorded_page_cache()
    return m


@functools.cache
def curves(name: str) -> tuple[list[PressureRow], list[PressureRow]]:
    """(recorded, the model's)."""
    recorded, raw = recorded_pressure(name), read_json(find_recording(name))
    asked = raw["asked"] if raw["failed"] < FAILURES else 60_000
    return recorded, start(name).copy().pressure(raw["gfp"], asked, 256 if raw["yields"] else 0)


@pytest.fixture(params=["recorded", "model"])
def who(request) -> int:
    return ["recorded", "model"].index(request.param)


def first_null(rows: list[PressureRow]) -> int | None:
    return next((row.asked for row in rows if row.got < row.asked), None)


def marks(name: str) -> list[int]:
    """min, low and high of DMA32."""
    return load_recording(name).state0["zones"][1]["wmark"][:3]


def levels(rows: list[PressureRow]) -> list[int]:
    return [row.free["DMA32"] for row in rows]


def test_all_curves_are_here() -> None:
    assert len(CURVES) == 9


@pytest.mark.parametrize("name", CURVES)
def test_the_start_is_the_recorded_one(name: str) -> None:
    recorded, ours = curves(name)
    assert start(name).check()
    meminfo = read_json(find_recording(name))["meminfo0"].split("Inactive(file):")[1]
    assert 0 <= int(meminfo.split()[0]) // 4 - len(start(name).files[0].pages) < 400, (
        "some were on the way to the lists"
    )
    state = {zone.name: zone.nr_free_pages for zone in start(name).zones}
    assert ours[0].free == state
    assert all(abs(state[zone] - recorded[0].free[zone]) <= 60 for zone in state), "two refills passed between"


@pytest.mark.parametrize("name", [name for name in CURVES if "-k" in name])
def test_gfp_kernel_gets_all_and_cleans_up_itself(name: str, who: int) -> None:
    """30,000 of 30,000, with some tens of direct reclaims; kswapd brings five sixths and more."""
    last = curves(name)[who][-1]
    assert (last.asked, last.got) == (30_000, 30_000)
    assert 40 <= last.allocstall <= 100
    assert 2_200 <= last.pgsteal_direct <= 4_500
    assert 25_000 <= last.pgsteal_kswapd <= 28_000


@pytest.mark.parametrize("name", [name for name in CURVES if "-n" in name])
def test_gfp_nowait_runs_dry(name: str, who: int) -> None:
    """After 300 to 3,500 pages, at min; a tick's rest does not help. Nobody reclaims directly."""
    rows = curves(name)[who]
    assert rows[-1].asked - rows[-1].got == FAILURES
    assert 300 <= rows[-1].got <= 3_500
    assert rows[-1].allocstall == rows[-1].pgsteal_direct == 0
    least, batch = marks(name)[0], 15 if "smp1" in name else 60
    boost = 512 if name == "reclaim-n-smp2-256M" else 0  # it began with that
    assert least - batch <= min(levels(rows)) <= least + boost


@pytest.mark.parametrize(("name", "least", "most"), [
    ("reclaim-a-smp1-256M", 1_100, 2_400), ("reclaim-ay-smp1-256M", 32_000, 33_000),
])  # fmt: skip
def test_gfp_atomic_lives_from_kswapd(name: str, least: int, most: int, who: int) -> None:
    """It can only take. A tick's rest gives it fourteen times as much, until DMA's pages are the oldest: kswapd stops
    when they have brought DMA above its mark, and DMA32 sinks to 3/8 of min."""
    rows = curves(name)[who]
    assert least <= rows[-1].got <= most
    assert rows[-1].allocstall == 0
    assert 154 - 15 <= rows[-1].free["DMA32"] <= 154
    assert 191 <= rows[-1].free["DMA"] <= 193


def test_noretry_fails_late_and_seldom(who: int) -> None:
    """It may reclaim once: NULL only when most of the page cache is gone."""
    rows = curves("reclaim-ry-smp1-256M")[who]
    assert rows[-1].got >= 43_500
    assert first_null(rows) > 30_000
    assert 100 <= rows[-1].allocstall <= 200


@pytest.mark.parametrize("name", [name for name in CURVES if name != "reclaim-n-smp2-256M"])  # over at its first low
def test_free_memory_saws_between_low_and_high(name: str, who: int) -> None:
    """The middle row lies there, as long as there is something to reclaim."""
    rows = [row for row in curves(name)[who] if row.got == row.asked and row.got < 30_000]
    _, low, high = marks(name)
    assert low <= median(levels(rows)) <= high


def test_kswapd_comes_late_in_spells(who: int) -> None:
    """Beside a caller that never rests it comes at once most of the time; then for some milliseconds it does not, and
    the caller stalls again and again."""
    rows = curves("reclaim-k-smp1-256M")[who]
    between = [list(part) for _, part in groupby(rows, key=lambda row: row.pgsteal_kswapd)]  # two runs of kswapd
    stalls = [part[-1].allocstall - part[0].allocstall for part in between]
    assert 6 <= sum(map(bool, stalls)) <= len(between) // 8
    assert max(stalls) >= 8
