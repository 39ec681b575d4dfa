"""What the Watermarks panel says: the finding, the comparison at a failure, the panel in words."""

from __future__ import annotations

from dataclasses import dataclass

from kmemlab.gfp import show_gfp_flags
from kmemlab.story import shortfall
from kmemlab.watermarks import Refusal, Run
from kmemlab_widgets.theme import number, plural

__all__ = ["Floor", "Shown", "comparison", "headline", "never", "refused", "second_line", "title", "twin", "where"]

DIRECT = 0x400  # __GFP_DIRECT_RECLAIM


@dataclass(frozen=True, slots=True)
class Floor:
    """A mask by name, and the free pages that must be exceeded for it; None where it may not use the zone."""

    name: str
    pages: int | None


@dataclass(frozen=True, slots=True)
class Shown:
    """All that is drawn: one or two curves, the floors of masks, and what x counts ("asked" or "ms")."""

    runs: tuple[Run, ...]
    floors: tuple[Floor, ...]
    by: str = "asked"


def who(run: Run) -> str:
    """The mask that asked, or how many kinds of requests there were."""
    masks = {gfp for gfp, *_ in run.requests}
    if len(masks) == 1:
        return show_gfp_flags(masks.pop()) or "mask 0"
    return f"{len(masks)} masks together" if masks else "the caller"


def _of(run: Run) -> str:
    last = run.samples[-1]
    return f"{number(last.got)} of {number(last.asked)}"


def title(run: Run) -> str:
    """The heading of one curve: the call, and how many were served."""
    if not run.samples[-1].asked:
        return "no request yet: run the next cell"
    if len(run.requests) == 1:
        gfp, order, *_ = run.requests[0]
        return f"alloc_pages({show_gfp_flags(gfp) or 0}, {order}): {_of(run)}"
    return f"{f'{len(run.requests)} kinds of requests' if run.requests else 'requests'}: {_of(run)}"


def where(run: Run) -> str:
    """Whose curve it is."""
    return f"{run.recorded or 'this machine'}{f' · {run.label}' if run.label else ''}"


def never(run: Run) -> str:
    """Why no caller reclaimed."""
    masks = [gfp for gfp, *_ in run.requests]
    if masks and not any(gfp & DIRECT for gfp in masks):
        return f"never: {who(run)} may not wait"
    return "never"


def comparison(refusal: Refusal) -> tuple[str, str]:
    """The test that a refused request failed: the numbers, and the verdict. One > is strict: equal is not above."""
    if not refusal.tested:
        return f"NULL at request {number(refusal.asked)}", ""
    sum_ = f"{_left(refusal)} > {number(refusal.need)}"
    if refusal.enough:
        return (
            f"NULL: {sum_}",
            f"✕ but no free block of order {refusal.order}" if refusal.order else "✕ but none is left",
        )
    return f"NULL: {sum_} ?", f"✕ {shortfall(refusal.left, refusal.need)}"


def _left(refusal: Refusal) -> str:
    minus = f" − {number(refusal.unusable)}" if refusal.unusable else ""
    return f"{number(refusal.free)}{minus}"


def refused(run: Run) -> int:
    """The number of the sample at which the first NULL is drawn. The curve must have one."""
    assert run.refusal is not None
    return next(i for i, sample in enumerate(run.samples) if sample.asked >= run.refusal.asked)


def _helped(run: Run) -> str:
    """Who made room."""
    last = run.samples[-1]
    parts = []
    if last.kswapd:
        parts.append(f"kswapd ran {plural(last.kswapd, 'time')}")
    if last.direct:
        parts.append(f"callers reclaimed {plural(last.direct, 'time')}")
    if last.oom:
        parts.append(f"the OOM killer killed {plural(last.oom, 'time')}")
    if not parts:
        lowest = min(sample.free - sample.low for sample in run.samples)
        return "free never fell to low" if lowest > 0 else "nobody made room"
    return ", ".join(parts)


def _clause(run: Run) -> str:
    last = run.samples[-1]
    if not last.asked:
        return f"no request yet: {run.marks.name} has {plural(last.free, 'free page')}, low is {number(last.low)}"
    if last.got == last.asked:
        return f"{who(run)} got every page it asked for: {_helped(run)}"
    refusal = run.refusal
    why = ""
    if refusal is not None and refusal.tested and not refusal.enough:
        free = "" if refusal.unusable else " free"
        which = "" if len({gfp for gfp, *_ in run.requests}) == 1 else f"{show_gfp_flags(refusal.gfp)} "
        why = f": {which}refused when {_left(refusal)}{free} is not above {number(refusal.need)}"

    elif refusal is not None:
        why = f": first NULL at request {number(refusal.asked)}"
    return f"{who(run)} got {_of(run)}{why}"


def headline(shown: Shown) -> str:
    """The finding: who got what it asked for, and who did not."""
    if len(shown.runs) == 1:
        return _clause(shown.runs[0])
    first, second = shown.runs
    both = {who(first), who(second)}
    if len(both) == 1 and first.samples[-1].asked and bool(first.recorded) != bool(second.recorded):
        said = [f"{'the real kernel' if run.recorded else 'this machine'} gave {_of(run)}" for run in shown.runs]
        return f"{both.pop()}: {', '.join(said)}"
    return "; ".join(_clause(run).partition(":")[0] if run.samples[-1].asked else _clause(run) for run in shown.runs)


def second_line(shown: Shown) -> str:
    """Which zone, which unit."""
    x = "page requests" if shown.by == "asked" else "simulated time"
    return f"free pages of zone {shown.runs[0].marks.name} over {x} · hover or ← →, drag to see a part larger"


def twin(shown: Shown) -> str:
    """The panel in words."""
    lines = [headline(shown)]
    for run in shown.runs:
        last, marks = run.samples[-1], run.marks
        level = f"min {marks.wmark[0]} low {marks.wmark[1]} high {marks.wmark[2]}"
        boost = f" boost {last.boost}" if last.boost else ""
        lowest = min(sample.free for sample in run.samples)
        said = [
            f"Watermarks {marks.name} ({where(run)}): {level}{boost}, free {last.free} (lowest {lowest}) after "
            f"{plural(last.asked, 'request')} ({title(run)})" if last.asked
            else f"Watermarks {marks.name} ({where(run)}): {level}{boost}, free {last.free}, no request yet",
            f"kswapd ran {plural(last.kswapd, 'time')}", f"direct reclaim {last.direct}", f"OOM kills {last.oom}",
        ]  # fmt: skip
        if run.refusal:
            said.append(f"first NULL at request {run.refusal.asked}")
            if run.refusal.tested:
                said[-1] += f": {' '.join(comparison(run.refusal)).removeprefix('NULL: ')}"
        lines.append("; ".join(said) + ".")
    floors = [f"{f.name} {'may not use this zone' if f.pages is None else f.pages}" for f in shown.floors]
    return "\n".join([*lines, *([f"Floors: {', '.join(floors)}."] if floors else [])])
