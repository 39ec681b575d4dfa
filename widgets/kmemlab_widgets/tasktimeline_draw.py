"""TaskTimeline's words and drawing: a lane for each task, a column for each moment at which something changed. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter

from kmemlab.task_watch import Lane, Moment, TaskRun
from kmemlab_widgets.mempoolgauge_words import joined, ms, short_names
from kmemlab_widgets.steps import Grid
from kmemlab_widgets.svg import Svg, fit, shortened, text_width
from kmemlab_widgets.theme import number, plural

__all__ = ["ACROSS", "draw", "headline", "second_line", "sentence", "twin"]

ACROSS = {868: 10, 358: 4}  # moments side by side
MOST_LANES, MOST_CLAUSES = 10, 12
LANE = 38  # px


# --- words ------------------------------------------------------------------------------------------------------


def lanes_of(run: TaskRun) -> dict[int, str]:
    """Every task by pid, in order of appearance, and how it is called."""
    comms = {pid: lane.comm for pid, lane in run.before.items()}
    for moment in run.moments:
        comms |= {pid: lane.comm for pid, lane in moment.after.items() if pid not in comms}
    names = short_names(f"{comm}/{pid}" for pid, comm in comms.items())
    return {pid: names[f"{comm}/{pid}"] for pid, comm in comms.items()}


def does(why: str, *, many: bool = False) -> str:
    """What a sleeper does, from the engine's reason: ``waits in mempool_alloc``, ``sleep in msleep(5)`` for many."""
    words = re.split("[,:]", why, maxsplit=1)[0]
    verb, _, rest = words.partition(" ")
    if verb not in ("waits", "sleeps", "asks"):
        verb, rest = "sleeps", f"in {words}"
    return f"{verb.removesuffix('s') if many else verb} {rest}"


def _now(run: TaskRun) -> dict[int, Lane]:
    return run.moments[-1].after if run.moments else run.before


def headline(run: TaskRun) -> str:
    """The finding: who sleeps on what, or that all have ended."""
    names, now = lanes_of(run), _now(run)
    if not names:
        return "No task has run yet: m.spawn(...), then m.run()"
    waits: dict[str, list[str]] = {}
    for pid, lane in now.items():
        if lane.what == "sleeps":
            waits.setdefault(lane.why.split(",")[0], []).append(names[pid])
    if not waits:
        return _ended(run, names)
    parts = [f"{joined(who)} {does(why, many=len(who) > 1)}" for why, who in waits.items()]
    vain = sum(lane.again for lane in now.values() if lane.what == "sleeps")
    return joined(parts) + (f"; {plural(vain, 'try')} in vain".replace("trys", "tries") if vain else "")


def _ended(run: TaskRun, names: dict[int, str]) -> str:
    """The finding when nobody sleeps."""
    last: dict[int, Lane] = {}
    for moment in run.moments:
        last |= moment.after
    stopped = [pid for pid, lane in last.items() if lane.what == "ended" and lane.why]
    if stopped:
        return joined([f"{names[pid]} ended with {last[pid].why}" for pid in stopped])
    over = [lane.since for lane in last.values() if lane.what == "ended"]
    if len(over) < len(names):
        return f"{plural(len(names), 'task')}, nobody sleeps: the last change came at {ms(run.moments[-1].ms)}"
    return (
        f"{names.popitem()[1]} has ended"
        if len(over) == 1
        else f"All {len(over)} tasks have ended: the last at {ms(max(over))}"
    )


def second_line(run: TaskRun, first: int, last: int) -> str:
    """Which moments, which machine."""
    if not run.moments:
        return f"simulated machine {run.label}, {ms(run.now)} since it was made"
    span = f"{ms(run.moments[first].first)} to {ms(run.moments[last].ms)}"
    return f"{span} of {ms(run.now)} · columns are moments at which a task changed · simulated machine {run.label}"


def _phrases(moment: Moment, names: dict[int, str]) -> Iterator[tuple[str, str]]:
    """(who, does what), in the order in which it happened."""
    told = {"runs": "runs", "gives way": "gives way", "ended": "ends"}
    for (what, by), group in groupby(moment.changes, key=lambda change: (change.what, change.by)):
        changes = list(group)
        who = [names[change.pid] for change in changes]
        if what == "woken" and by:
            pid = by.rpartition("/")[2]
            yield names.get(int(pid), by) if pid.isdigit() else by, f"wakes {joined(who, 6)}"
        elif what == "woken":
            yield joined(who, 6), "wakes by itself" if len(who) == 1 else "wake by themselves"
        else:
            for name, change in zip(who, changes, strict=True):
                words = told.get(what, "")
                if what == "sleeps":
                    words = does(change.why)
                elif what == "got":
                    words = f"gets an element from {change.why}" if change.why else "gets NULL from the pool"
                elif what == "gave":
                    words = f"gives an element to {change.why}"
                elif what == "ended" and change.why:
                    words = f"ends with {change.why}"
                yield name, words


def sentence(run: TaskRun, at: int) -> tuple[str, str]:
    """(when, what happened then)."""
    if not run.moments:
        return "now", "nothing has happened yet"
    moment, when = run.moments[at], ms(run.moments[at].ms)
    clauses = [
        f"{who} {joined([words for _, words in group], 9)}"
        for who, group in groupby(_phrases(moment, lanes_of(run)), key=itemgetter(0))
    ]
    if moment.folded > 1:
        when = f"{ms(moment.first)} to {when}"
        clauses.insert(0, f"{moment.folded} moments alike")
    return when, "; ".join(clauses[:MOST_CLAUSES]) + ("; and so on." if len(clauses) > MOST_CLAUSES else ".")


def twin(run: TaskRun, at: int) -> str:
    """The timeline as text."""
    names, lines = lanes_of(run), [headline(run)]
    if run.moments:
        lines.append(": ".join(sentence(run, at)))
    for pid, lane in _now(run).items():
        if lane.what == "sleeps":
            again = f", in vain {number(lane.again)} times" if lane.again else ""
            lines.append(f"{names[pid]}: {lane.why} since {ms(lane.since)}{again}")
        elif lane.what:
            lines.append(f"{names[pid]}: {lane.what}{' with ' + lane.why if lane.why and lane.what == 'ended' else ''}")
    return "\n".join(lines)


# --- drawing ------------------------------------------------------------------------------------------------------


def draw(run: TaskRun, width: int, first: int, at: int | None = None) -> tuple[str, Grid]:
    """The moments from ``first`` on as SVG; with ``at`` the whole picture."""
    moments = run.moments[first : first + ACROSS[width]]
    svg = Svg(width, headline(run))
    y = 4.0
    if at is not None:
        y = svg.heading(headline(run), second_line(run, first, first + len(moments) - 1))
    x = 82 if width < 560 else 118
    step = (width - 14 - x) / max(len(moments), ACROSS[width] // 2)
    top = y + 4
    before = run.moments[first - 1].after if first else run.before
    lanes = _seen(lanes_of(run), before, moments)
    y = _scale(svg, moments, x, step, top)
    places = {pid: y + 14 + LANE * n for n, pid in enumerate(lanes)}
    bottom = y + LANE * max(1, len(lanes)) + 4
    for i in range(len(moments)):
        svg.line(x + (i + 0.5) * step, y, x + (i + 0.5) * step, bottom, "grid")
    if not lanes:
        svg.text(x, y + 22, "no task has run yet", fill="ink2")
    for pid, name in lanes.items():
        middle = places[pid]
        svg.text(x - 8, middle + 8, shortened(name, x - 24), px=11, anchor="end", bold=True)
        states = [before.get(pid), *(moment.after.get(pid) for moment in moments)]
        open_end = first + len(moments) == len(run.moments)
        _bars(svg, states, x, step, middle, open_end=open_end)
    for i, moment in enumerate(moments):
        _marks(svg, moment, x + (i + 0.5) * step, places, top)
    y = _legend(svg, moments, bottom + 8)
    if at is not None and run.moments:
        svg.rect(x + (at - first) * step, top - 2, step, bottom - top + 2, stroke="focus", sw=2)
        when, what = sentence(run, at)
        svg.text(14, y + 14, when, px=13, bold=True)
        for line in fit(what, 12, width - 28):
            y += 16
            svg.text(14, y + 14, line)
    return str(svg), Grid(x, step, top - 2, bottom)


def _seen(names: dict[int, str], before: dict[int, Lane], moments: Sequence[Moment]) -> dict[int, str]:
    """The tasks that are there in these moments, the latest ones if they are too many."""
    there = {pid for pid, lane in before.items() if lane.what not in ("ended", "")}
    there |= {change.pid for moment in moments for change in moment.changes}
    pids = [pid for pid in names if pid in there][-MOST_LANES:]
    return {pid: names[pid] for pid in pids}


def _scale(svg: Svg, moments: Sequence[Moment], x: float, step: float, y: float) -> float:
    """The time of each column; a folded one says how many it stands for."""
    svg.text(x - 8, y + 12, "at, ms", px=11, anchor="end", fill="ink2")
    for i, moment in enumerate(moments):
        middle = x + (i + 0.5) * step
        svg.text(middle, y + 12, number(round(moment.ms)), px=11, anchor="middle")
        if moment.folded > 1:
            svg.text(middle, y + 26, f"{number(moment.folded)} alike", px=11, anchor="middle", fill="ink2")
    return y + 32


def _bars(svg: Svg, states: Sequence[Lane | None], x: float, step: float, y: float, *, open_end: bool) -> None:
    """How a task stands between the moments: asleep a bar with what it waits for, running a line, else nothing."""
    edges = [x, *(x + (i + 0.5) * step for i in range(len(states) - 1)), x + (len(states) - 1) * step]
    spans: list[tuple[Lane, float, float]] = []
    for i, lane in enumerate(states):
        if (
            lane is None
            or lane.what in ("", "ended")
            or (i == len(states) - 1 and lane.what == "runs" and not open_end)
        ):
            continue
        key = (lane.what, lane.why, lane.since)
        if spans and spans[-1][2] == edges[i] and key == (spans[-1][0].what, spans[-1][0].why, spans[-1][0].since):
            spans[-1] = (lane, spans[-1][1], edges[i + 1])
        else:
            spans.append((lane, edges[i], edges[i + 1]))
    for lane, left, right in spans:
        if lane.what != "sleeps":
            svg.line(left, y, right, y, "ink", sw=2)
            continue
        svg.rect(left, y - 10, right - left, 30, "waitbg")
        svg.rect(left, y - 10, 3, 30, "wait")
        if right - left > 40:
            words = does(lane.why).split(maxsplit=2)[2]  # without "waits for"
            svg.text(left + 7, y + 16, shortened(words, right - left - 10), px=11, fill="wait")


def _marks(svg: Svg, moment: Moment, x: float, places: dict[int, float], top: float) -> None:
    """Who woke whom, who ran, who ended."""
    for change in moment.changes:
        y = places.get(change.pid)
        if y is None or change.what != "woken" or not change.by:
            continue
        pid = change.by.rpartition("/")[2]
        start = places.get(int(pid), top + 30) if pid.isdigit() else top + 30
        back = -5 if start < y else 5
        tip = y + 1.6 * back
        svg.line(x, start, x, tip, "accent", sw=2)
        svg.path(f"M{x - 4:g} {tip + back:g}L{x:g} {tip:g}L{x + 4:g} {tip + back:g}", stroke="accent", sw=2)
    for pid, y in places.items():
        whats = [change for change in moment.changes if change.pid == pid]
        if not whats:
            continue
        alone = any(change.what == "woken" and not change.by for change in whats)
        svg.circle(x, y, 5.5, "ink")
        if alone:
            svg.circle(x, y, 3.5, "paper")
        if ended := [change for change in whats if change.what == "ended"]:
            svg.line(x + 9, y - 8, x + 9, y + 16, "bad" if ended[0].why else "ink", sw=3)


def _legend(svg: Svg, moments: Sequence[Moment], y: float) -> float:
    """What the marks in the picture mean; returns where the drawing goes on."""
    changes = {(change.what, bool(change.by)) for moment in moments for change in moment.changes}
    asleep = any(lane.what == "sleeps" for moment in moments for lane in moment.after.values())
    entries = (
        ("●", "ran", "ink", ("runs", False) in changes),
        ("○", "woke by itself, ran", "ink", ("woken", False) in changes),
        ("→", "woken by", "accent", ("woken", True) in changes),
        ("▮", "asleep", "wait", asleep),
        ("|", "ended", "ink", ("ended", False) in changes),
    )
    x = 14.0
    for mark, words, token, there in entries:
        wide = 22 + text_width(words, 11)
        if not there:
            continue
        if x + wide > svg.width - 14:
            x, y = 14.0, y + 18
        svg.text(x, y + 10, mark, px=11, fill=token)
        svg.text(x + 16, y + 10, words, px=11, fill="ink2")
        x += wide + 8
    svg.grow(y + 14)
    return y + 18
