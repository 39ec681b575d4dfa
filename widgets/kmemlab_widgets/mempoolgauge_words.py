"""MempoolGauge's words, and a recorded pool as a ``PoolRun``. Pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kmemlab import gfp
from kmemlab.gfp import show_gfp_flags
from kmemlab.task_watch import PoolRun, PoolStep
from kmemlab_widgets.theme import number, plural
from kmemlab_widgets.zonemap_replay import badge

__all__ = ["headline", "joined", "now_lines", "phase", "run_of_steps", "second_line", "sentence", "short_names", "twin"]


def ms(value: float) -> str:
    """Milliseconds in words."""
    return f"{number(round(value))} ms"


def joined(names: Sequence[str], most: int = 3) -> str:
    """``a``, ``a and b``, ``a, b and 4 more``."""
    if len(names) > most:
        names = [*names[: most - 1], f"{len(names) - most + 1} more"]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def short_names(tasks: Iterable[str]) -> dict[str, str]:
    """Tasks without their pids, where that is enough to tell them apart."""
    tasks = set(tasks)
    count = Counter(task.rpartition("/")[0] for task in tasks)
    return {task: comm if comm and count[comm] == 1 else task for task in tasks for comm in [task.rpartition("/")[0]]}


def names_of(run: PoolRun) -> dict[str, str]:
    """How the tasks of a run are called."""
    return short_names([*(step.task for step in run.steps), *(each.task for each in run.tasks)])


def headline(run: PoolRun) -> str:
    """The finding: who was served by what, or who waits."""
    last = run.steps[-1]
    kept = f"{len(last.reserve)} of {last.min_nr}"
    names = names_of(run)
    if waiting := [names[each.task] for each in run.tasks if each.since is not None]:
        verb = "waits" if len(waiting) == 1 else "wait"
        return f"{joined(waiting)} {verb} in mempool_alloc: {kept} elements in reserve"
    asked = [step for step in run.steps if step.call == "alloc"]
    if not asked:
        return f"min_nr {last.min_nr}: {plural(len(last.reserve), 'element')} set aside before the first request"
    waited = [step for step in asked if step.slept]
    nothing = sum(not step.element for step in asked)
    reserve = sum(step.place == "reserve" and not step.slept for step in asked)
    if not (waited or nothing or reserve):
        served = "the request" if len(asked) == 1 else f"all {number(len(asked))} requests"
        return f"alloc_fn served {served}: the reserve still has {kept} elements"
    parts = [f"the reserve serves {plural(reserve, 'request')}"] if reserve else []
    parts += [f"{number(nothing)} get{'s' * (nothing == 1)} NULL"] if nothing else []
    if waited:
        parts.append(f"{len(waited)} wait{'s' * (len(waited) == 1)} up to {ms(max(step.slept for step in waited))}")
    return f"When alloc_fn fails, {joined(parts)}"


def second_line(run: PoolRun, first: int, last: int) -> str:
    """Which pool, which steps, which machine."""
    steps = f"steps {run.steps[first].n} to {run.steps[last].n} of {number(run.steps[-1].n)}"
    where = run.recorded or f"simulated machine {run.label}, {ms(run.now)} since it was made"
    return f"min_nr {run.steps[last].min_nr} · {steps} · {where}"


def phase(step: PoolStep) -> str:
    """What alloc_fn did in a step: works, fails, or "" if it was not asked."""
    if not step.tries:
        return ""
    if step.call == "alloc":
        return "works" if step.place == "alloc_fn" else "fails"
    return "works" if len(step.reserve) == step.min_nr else "fails"


def sentence(steps: Sequence[PoolStep], at: int) -> str:
    """What happened in a step and why."""
    step, before = steps[at], steps[at - 1] if at else None
    kept = f"{len(step.reserve)} of {step.min_nr}"
    if step.call == "alloc":
        return f"mempool_alloc(pool, {show_gfp_flags(step.gfp) or '0'}): {_served(step, kept)}"
    if step.call == "free":
        return f"mempool_free({step.element or 'NULL'}, pool): {_taken_back(step, kept)}"
    if step.call == "resize" and before:
        asked = f", alloc_fn was asked {_times(step.tries)}" if step.tries else ""
        gone = len(before.reserve) - len(step.reserve)
        asked += f", {plural(gone, 'element')} went to free_fn" if gone > 0 else ""
        best = " It returns 0 all the same: the next frees fill the reserve." if phase(step) == "fails" else ""
        return (
            f"mempool_resize(pool, {step.min_nr}): min_nr was {before.min_nr}; {len(before.reserve)} elements were in "
            f"reserve, {len(step.reserve)} are now{asked}.{best}"
        )
    if step.call == "destroy":
        gone = len(before.reserve) if before else 0
        return (
            f"mempool_destroy(pool): {plural(gone, 'element')} of the reserve went to free_fn. Nobody counts the rest."
        )
    if step.call == "create":
        return f"mempool_create(min_nr = {step.min_nr}): alloc_fn was asked {_times(step.tries)} with {step.mask:#x}."
    return f"Here the panel began to look: {kept} elements in reserve."


def _times(n: int) -> str:
    return {1: "once", 2: "twice"}.get(n, f"{number(n)} times")


def _served(step: PoolStep, kept: str) -> str:
    asked = f"alloc_fn was asked {_times(step.tries)}, last with {step.mask:#x}"
    if step.slept and step.element:
        what = f"then alloc_fn gave {step.element}" if step.place == "alloc_fn" else f"then it took {step.element}"
        return (
            f"alloc_fn said no and the reserve was empty, so the caller slept on pool->wait, {ms(step.slept)}; {what}. "
            f"In all {asked}."
        )
    if step.place == "alloc_fn":
        soft = "at the first, soft try" if step.tries == 1 else f"at try {step.tries}"
        return f"alloc_fn gave {step.element} {soft} (mask {step.mask:#x}). The reserve was not touched: {kept}."
    if step.place == "reserve":
        return f"alloc_fn said no (mask {step.mask:#x}), so the top of the reserve goes: {step.element}. Left: {kept}."
    return f"alloc_fn said no (mask {step.mask:#x}), the reserve is empty, and this mask may not sleep: NULL."


def _taken_back(step: PoolStep, kept: str) -> str:
    if step.place == "reserve":
        return f"the reserve was not full, so {step.element} goes on its top, and all who wait are woken. Now {kept}."
    if step.place == "free_fn":
        return f"the reserve is full ({kept}), so {step.element} goes to free_fn, back to the allocator."
    return "nothing happens."


def now_lines(run: PoolRun) -> list[str]:
    """Who holds and who waits now, a line for each task."""
    names, lines = names_of(run), []
    for each in run.tasks:
        parts = [f"holds {joined(each.holds, 6)}"] if each.holds else []
        if each.since is not None:
            again = f", tries again at {ms(each.again)}" if each.again is not None else ""
            parts.append(f"waits in mempool_alloc since {ms(each.since)}{again}")
        lines.append(f"{names[each.task]} {'; '.join(parts)}")
    if run.gone:
        lines.append("the pool was destroyed")
    return lines


def twin(run: PoolRun, at: int) -> str:
    """The gauge as text."""
    step = run.steps[at]
    lines = [headline(run), f"mempool min {step.min_nr}, reserve {len(step.reserve)} [{', '.join(step.reserve)}]."]
    lines.append(f"Step {step.n}: {sentence(run.steps, at)}")
    return "\n".join([*lines, *(now_lines(run) or ["Nobody holds an element or waits."] * (not run.recorded))])


# --- a recording -----------------------------------------------------------------------------------------------


def run_of_steps(source: Any) -> PoolRun:
    """The steps of a recorded pool: ``{"steps": [[words, {elem, min_nr, curr_nr, alloc_calls, allocs, frees, last_gfp,
    reserve}], ...], "meta": ...}``; the row ``slept_ms`` belongs to the call before. Errors: ValueError names the step.
    """
    rows = source.get("steps") if isinstance(source, Mapping) else None
    if not isinstance(rows, Sequence) or not rows:
        raise ValueError("a recorded pool has 'steps', a list of [words, state]; this has none")
    steps: list[PoolStep] = []
    before = {"alloc_calls": 0, "allocs": 0, "frees": 0}
    for row in rows:
        try:
            words, state = row
            if "elem" in state:
                steps.append(_step(len(steps), words, state, before))
                before = state
            elif words == "slept_ms":
                steps[-1] = steps[-1]._replace(slept=float(state["ms"]))
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise ValueError(f"recorded pool, step {len(steps)}: {row!r:.80} ({error!r:.60})") from None
    if not steps:
        raise ValueError("a recorded pool: none of its steps has a state of a pool (elem, min_nr, reserve, ...)")
    return PoolRun("", tuple(steps), recorded=badge(source.get("meta") or {}))


def _step(n: int, words: str, state: Mapping[str, Any], before: Mapping[str, Any]) -> PoolStep:
    call, _, rest = words.partition(" ")
    mask = getattr(gfp, rest.split()[0]) if call == "alloc" else 0
    element = f"e{state['elem']}" if state["elem"] >= 0 else ""
    place = "reserve" if element else ""
    if call == "alloc" and state["allocs"] > before["allocs"]:
        place = "alloc_fn"
    elif call == "free" and state["frees"] > before["frees"]:
        place = "free_fn"
    tries = state["alloc_calls"] - before["alloc_calls"]
    reserve = tuple(f"e{each}" for each in state["reserve"])
    return PoolStep(
        n,
        call,
        "",
        int(mask),
        element,
        place,
        reserve,
        state["min_nr"],
        tries,
        state["last_gfp"] if tries else 0,
        0.0,
        0.0,
    )
