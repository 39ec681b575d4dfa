"""Exercises A, B, E and F of lesson 04: each mistake gets its own sentence, every right way passes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from kmemlab import (
    __GFP_DIRECT_RECLAIM,
    GFP_KERNEL,
    NULL,
)
from kmemlab_widgets.checking import run_checks
from kmemlab_widgets.lesson import Lesson
from tests.lessons.machines import CHECKS, checks_module
from tests.lessons.sheet import Exercises

pools_debug, pools_rules = map(checks_module, ("pools_debug", "pools_rules"))

Fn = Callable[..., Any]
SLEEP = __GFP_DIRECT_RECLAIM
SPECS = Lesson("04_mempools", checks=CHECKS)._exercises


def remarks(name: str, fn: Fn) -> str:
    """What is said to a function that passes."""
    rows = run_checks(SPECS[name], fn, name).rows
    assert all(row.passed for row in rows)
    return " ".join(row.kernel for row in rows)


# --- A: make_pool -------------------------------------------------------------------------------------------------


def pool(slip: str = "") -> Fn:
    """The pool, any part of it wrong."""

    def make_pool(n: int, alloc_fn: Fn, free_fn: Fn) -> Any:
        reserve = [] if slip == "lazy" else [alloc_fn(GFP_KERNEL) for _ in range(n)]

        def alloc(gfp: int) -> Any:
            if slip == "reserve first" and reserve:
                return reserve.pop()
            if element := alloc_fn(gfp if slip == "hard first" else (gfp | 0x92000) & ~0x440):
                return element
            if slip == "2.6.11" and gfp & SLEEP and len(reserve) <= n // 2 and (element := alloc_fn(gfp)):
                return element
            if reserve:
                return reserve[-1] if slip == "twice" else reserve.pop(0 if slip == "queue" else -1)
            if not gfp & SLEEP and slip != "all wait":
                return "wait" if slip == "polite" else NULL
            if slip == "no hard try":
                return "wait"
            return alloc_fn(gfp) or (NULL if slip == "none waits" else "wait")

        def free(element: Any) -> None:
            if not element and slip != "NULL":
                return
            if slip != "to the system" and (len(reserve) < n or slip == "to the reserve"):
                reserve.append(element)
            elif element:
                free_fn(element)

        return (alloc, free, n) if slip == "three" else (alloc, free)

    return make_pool


def pool_with_deque(n: int, alloc_fn: Fn, free_fn: Fn) -> Any:
    """One way out, flags, None for NULL, and the plain masks."""
    reserve: deque[Any] = deque()
    for _ in range(n):
        reserve.append(alloc_fn(GFP_KERNEL))

    def alloc(gfp: int) -> Any:
        may_wait = bool(gfp & SLEEP)
        element = alloc_fn(gfp & ~SLEEP) or None
        if element is None and len(reserve):
            element = reserve.pop()
        elif element is None and may_wait:
            element = alloc_fn(gfp) or "wait"
        return element

    def free(element: Any) -> None:
        if element is NULL:
            return
        if len(reserve) >= n:
            free_fn(element)
        else:
            reserve.append(element)

    return alloc, free


# --- B: safe_min_nr -----------------------------------------------------------------------------------------------


def by_simulation(tasks: int, each: int) -> int:
    """Give elements out in turn until nobody can go on, or somebody has all."""
    for n in range(1, 1000):
        held, left = [0] * tasks, n
        while left and max(held) < each:
            held[held.index(min(held))] += 1
            left -= 1
        if max(held) == each:
            return n
    return 0


# --- E: culprit ---------------------------------------------------------------------------------------------------


def follow(fix: Any = None, slip: str = "") -> Fn:
    """Follow what the reported task waits for."""

    def culprit(report: Any) -> Any:
        rows = {row.name: row for row in report.tasks}
        name = reported = report.log.split("INFO: task ")[1].split(":")[0]
        chain = []
        while rows[name].waits[0] != "pool":
            kind, what = rows[name].waits
            name = what if kind == "completion" else next(r.name for r in rows.values() if (kind, what) in r.holds)
            chain.append(name)
        place = rows[name].waits
        cycle = [row.name for row in report.tasks if row.waits == place and (place in row.holds or slip == "victims")]
        answer = {"waits_for": chain[0], "pool": place[1], "cycle": cycle, "fix": fix or report.pools[place[1]][1] + 1}
        if slip == "reported":
            answer["waits_for"] = reported
        elif slip == "worker":
            answer["waits_for"] = next(row.name for row in report.tasks if row.waits[0] == "timer")
        elif slip == "one":
            answer["cycle"] = cycle[:1]
        elif slip == "pool":
            answer["pool"] = next(other for other in report.pools if other != place[1])
        elif slip == "too small":
            answer["fix"] = report.pools[place[1]][1]
        elif slip == "stranger":
            answer["cycle"] = [*cycle, *(row.name for row in report.tasks if row.waits[0] == "timer")]
        elif slip == "cycle":
            answer["cycle"] = 3
        elif slip == "key":
            del answer["fix"]
        return answer

    return culprit


# --- F: design ----------------------------------------------------------------------------------------------------


def plan(kind: str, size: int, min_nr: int, **more: Any) -> Fn:
    return lambda trace: {"kind": kind, "size": size, "min_nr": min_nr, **more}


GOOD: list[tuple[str, Fn]] = (
    [("make_pool", pool()), ("make_pool", pool_with_deque)]
    + [("safe_min_nr", lambda tasks, each: tasks * (each - 1) + 1), ("safe_min_nr", by_simulation)]
    + [("culprit", follow(fix)) for fix in (None, "two pools", "at once", "mutex", "give back", 40)]
    + [("design", plan(kind, 300, n)) for kind, n in (("slab", 1), ("slab", 32), ("kmalloc", 8), ("slab", 40))]
    + [("design", plan("page", 4096, 16))]
)
BAD: list[tuple[str, Fn, str]] = [
    ("make_pool", pool("reserve first"), "always. After this call your reserve is 3, the real one 4."),
    ("make_pool", pool("queue"), "Your pool gave element 0, the real one 3: the reserve is a stack."),
    ("make_pool", pool("to the system"), "the reserve stays at 0 for ever: below min_nr the pool keeps"),
    ("make_pool", pool("to the reserve"), "5 elements in a pool of 4: when the reserve is full"),
    ("make_pool", pool("none waits"), "GFP_KERNEL may sleep: such a caller never gets NULL"),
    ("make_pool", pool("all wait"), "GFP_ATOMIC may not sleep: when the reserve is empty, NULL"),
    ("make_pool", pool("polite"), "GFP_ATOMIC may not sleep"),
    ("make_pool", pool("hard first"), "The first try must not wait"),
    ("make_pool", pool("no hard try"), "Before a caller sleeps, alloc_fn is asked once more"),
    ("make_pool", pool("2.6.11"), "6.1 does not insist"),
    ("make_pool", pool("lazy"), "A new pool has 0 elements in reserve, the real one 4"),
    ("make_pool", pool("NULL"), "Did free(NULL) put NULL into the reserve?"),
    ("make_pool", pool("twice"), "alloc returned element 3, which is out already."),
    ("make_pool", pool("three"), "Return two functions: alloc, free."),
    ("make_pool", lambda n, a, f: ((lambda gfp: 7), [a(0) for _ in range(n)].append), "alloc returned 7: no element."),
    ("safe_min_nr", lambda tasks, each: each, "enough for one task. Here 2 tasks share it"),
    ("safe_min_nr", lambda tasks, each: tasks, "2 tasks hold one each, and all wait"),
    ("safe_min_nr", lambda tasks, each: tasks * each, "Safe, but 3 elements more than needed are locked away."),
    ("safe_min_nr", lambda tasks, each: tasks + each - 1, "Here 4 tasks can hold 2 each: that is 8, and you have 6."),
    ("safe_min_nr", lambda tasks, each: tasks * (each - 1), "Everybody can hold all but one"),
    ("safe_min_nr", lambda tasks, each: 7, "Safe, but 4 elements more"),
    ("safe_min_nr", lambda tasks, each: 5 * (tasks > 4) + 3, "With min_nr 3 some timing stops"),
    ("safe_min_nr", lambda tasks, each: -1, "is a number of elements, not -1"),
    ("culprit", follow(slip="reported"), "sync is reported, and it only waits"),
    ("culprit", follow(slip="worker"), "sync waits for the completion of scrub-2: you say 'flush-0'."),
    ("culprit", follow(slip="pool"), "sleeps in mempool_alloc, in another pool than 'bio'."),
    ("culprit", follow(slip="victims"), "holds no element of raid: nobody waits for it. A victim."),
    ("culprit", follow(slip="stranger"), "it is no part of the cycle"),
    ("culprit", follow(slip="one"), "too holds an element of raid and waits for another one."),
    ("culprit", follow("timeout"), "A longer hung_task_timeout hides the report."),
    ("culprit", follow("memory"), "When memory returns, alloc_fn succeeds and this hang ends"),
    ("culprit", follow(slip="too small"), "With min_nr 4 they stop again"),
    ("culprit", follow("reboot"), "`fix` is a new min_nr or one of 'two pools'"),
    ("culprit", follow(slip="cycle"), "`cycle` is a list of the names of tasks, not 3."),
    ("culprit", follow(slip="key"), "Return a dict with waits_for, pool, cycle and fix."),
    ("design", plan("slab", 300, 0), "A write waited until memory came back: this pool promises nothing."),
    ("design", plan("slab", 256, 8), "it would be written past the end of an element of 256."),
    ("design", plan("slab", 300, 1000), "64 elements are as fast: 284,544 bytes are locked away for nothing."),
    ("design", plan("vmalloc", 300, 8), "A design has `kind`"),
    ("design", plan("slab", 300, 8, note=""), "A design has `kind`"),
    ("design", plan("slab", 300, -1), "`min_nr` a number of elements up to"),
]  # fmt: skip


class TestExercises(Exercises):
    """All the ways that the storyboard lists, and some more."""

    LESSON, GOOD, BAD = "04_mempools", GOOD, BAD


# --- what passes may still be remarked on, and what the checks take for true ---------------------------------------


def test_remarks() -> None:
    assert "the kernel's soft try also drops __GFP_IO" in remarks("make_pool", pool_with_deque)
    assert "soft try" not in remarks("make_pool", pool())


def test_letters() -> None:
    names = ["make_pool", "safe_min_nr", "copy", "rx", "culprit", "get_request", "design"]
    assert list(SPECS) == names
    assert "".join(spec.letter for spec in SPECS.values()) == "ABCDEFG"


def test_the_recorded_pool_is_the_engines() -> None:
    """All steps up to the resize, and each kind of step among them."""
    min_nr, steps = pools_rules.recorded()
    real = pools_rules.RealPool(min_nr)
    assert [real.do(step) for step, _ in steps] == [state for _, state in steps]
    assert len(steps) == 17
    assert sum(step.call == "alloc" and step.element is not None for step, _ in steps) == 2
    assert any(state.freed for _, state in steps)
    assert any(step.call == "alloc" and state.element is None for step, state in steps)


def test_the_smallest_pool() -> None:
    for tasks, each in ((2, 2), (3, 2), (4, 3)):
        assert pools_rules.true_min_nr(tasks, each) == tasks * (each - 1) + 1


@pytest.mark.parametrize("seed", pools_debug.SEEDS)
def test_reports_have_a_cycle_a_victim_and_a_bystander(seed: int) -> None:
    crisis, report = pools_debug.Crisis(seed), pools_debug.report(seed)
    assert report.log.count("blocked for more than") == 1
    assert "INFO: task sync:" in report.log
    place = "pool", crisis.name
    kinds = [(row.waits == place, place in row.holds) for row in report.tasks]
    assert kinds.count((True, True)) == crisis.tasks
    assert kinds.count((True, False)) == 1
    assert sum(row.waits[0] == "timer" for row in report.tasks) == 1
    assert report.pools[crisis.name] == (0, crisis.tasks * (crisis.each - 1))


def test_reports_differ_in_form() -> None:
    kinds = {next(row.waits[0] for row in pools_debug.report(seed).tasks if row.name == "sync") for seed in range(3)}
    assert kinds == {"completion", "mutex"}
    assert {pools_debug.Crisis(seed).form for seed in pools_debug.SEEDS} == {0, 1, 2}


def test_more_elements_buy_time_and_fewer_questions() -> None:
    for seed in (1, 2):
        costs = [pools_debug.measure("slab", 300, n, seed) for n in (1, 4, 16, 32)]
        assert [cost.slowest for cost in costs] == sorted({cost.slowest for cost in costs}, reverse=True)
        assert [cost.calls for cost in costs] == sorted({cost.calls for cost in costs}, reverse=True)
        assert [cost.locked for cost in costs] == [304 * n for n in (1, 4, 16, 32)]
        assert pools_debug.measure("kmalloc", 300, 1, seed).locked == 512
