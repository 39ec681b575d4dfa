"""A recorded curve of free memory as a ``Run``: the rows that a kernel module wrote down while it asked for pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kmemlab.watermarks import MOST, Marks, Refusal, Run, Sample, floor_of, thinned
from kmemlab_widgets.zonemap_replay import badge

__all__ = ["COLUMNS", "run_of_rows"]

COLUMNS = ("asked", "free", "pgsteal_kswapd", "pgsteal_direct")  # of rows that come without names


def run_of_rows(source: Any, zone: str, marks: Marks | None = None) -> Run:
    """The curve of one zone from ``{"columns": [...], "rows": [...]}``, or from bare rows (asked, free, pages that
    kswapd took back, pages that callers took back).

    The zone's marks come from ``state0`` (or from ``"marks": [min, low, high]``), else they are ``marks``; ``gfp`` and
    ``order`` say what was asked for, ``meta`` which kernel it was. Errors: ValueError names what is missing.
    """
    if not isinstance(source, Mapping):
        source = {"columns": COLUMNS, "rows": source}
    rows, columns = _rows(source)
    free = f"free_{zone}" if f"free_{zone}" in columns else "free"
    if "asked" not in columns or free not in columns:
        raise ValueError(f"recorded rows need the columns asked and free_{zone} (or free), not {', '.join(columns)}")
    found = _marks(source, zone) or marks
    if found is None:
        raise ValueError(f"recorded rows: no marks of zone {zone}; give state0, or marks=[min, low, high]")
    samples = _samples(columns, rows, free, found)
    gfp, order, last = source.get("gfp"), int(source.get("order", 0)), samples[-1]
    requests = () if gfp is None else ((int(gfp), order, last.asked, last.got),)
    refusal = None if gfp is None else _refusal(samples, found, int(gfp), order)
    width = 1
    while len(thin := thinned(samples, width)) > MOST:
        width *= 2
    label = str(source.get("label", "")) or str((source.get("boot") or {}).get("label", ""))
    return Run(label, found, requests, tuple(thin), refusal, badge(source.get("meta") or {}))


def _rows(source: Mapping[str, Any]) -> tuple[Sequence[Sequence[float]], tuple[str, ...]]:
    rows, columns = source.get("rows"), tuple(source.get("columns", COLUMNS))
    if not isinstance(rows, Sequence) or not rows:
        raise ValueError("recorded rows: there are none; a recording has 'rows' and 'columns'")
    for number, row in enumerate(rows):
        good = isinstance(row, Sequence) and len(row) == len(columns)
        if not good or not all(isinstance(each, (int, float)) for each in row):
            raise ValueError(f"recorded rows: row {number} is {row!r:.60}, not {len(columns)} numbers")
    return rows, columns


def _marks(source: Mapping[str, Any], zone: str) -> Marks | None:
    if "marks" in source:
        return Marks(zone, 0, tuple(int(mark) for mark in source["marks"][:3]))
    for each in (source.get("state0") or {}).get("zones", ()):
        if each["name"] == zone:
            return Marks(
                zone, each["idx"], tuple(each["wmark"][:3]), each["watermark_boost"], tuple(each["lowmem_reserve"]),
                each["nr_reserved_highatomic"],
            )  # fmt: skip
    return None


def _samples(columns: tuple[str, ...], rows: Sequence[Sequence[float]], free: str, marks: Marks) -> list[Sample]:
    """Sums from the first row on. Without a count of kswapd's runs or of direct reclaims, each rise of the pages that
    they took back is one."""
    at = {name: number for number, name in enumerate(columns)}

    def since(name: str, row: Sequence[float]) -> float:
        return row[at[name]] - rows[0][at[name]] if name in at else 0

    samples, runs = [], {"pageoutrun": 0, "allocstall": 0}
    before = rows[0]
    for row in rows:
        for count, pages in (("pageoutrun", "pgsteal_kswapd"), ("allocstall", "pgsteal_direct")):
            if count in at:
                runs[count] = int(since(count, row))
            elif pages in at:
                runs[count] += row[at[pages]] > before[at[pages]]
        asked = int(since("asked", row))
        got = int(since("got", row)) if "got" in at else asked
        boost = int(row[at["boost"]]) if "boost" in at else marks.watermark_boost
        levels = (mark + boost for mark in marks.wmark)
        kills = int(since("oom_kill", row))
        counts = runs["pageoutrun"], runs["allocstall"], kills, since("ms", row)
        samples.append(Sample(asked, got, int(row[at[free]]), *levels, boost, *counts))
        before = row
    return samples


def _refusal(samples: Sequence[Sample], marks: Marks, gfp: int, order: int) -> Refusal | None:
    """The first NULL. What was compared was not written down: the level of that row counts where it explains the NULL,
    elsewhere kswapd had been at work before the row was written."""
    for sample in samples:
        if sample.got < sample.asked:
            floor = floor_of(marks, gfp, order)
            tested = floor is not None and sample.free <= floor
            return Refusal(sample.asked, gfp, order, sample.free, need=floor or 0, tested=tested)
    return None
