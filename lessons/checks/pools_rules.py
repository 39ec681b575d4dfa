"""Exercises A and B of lesson 04: the pool itself, and how many elements it needs."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from kmemlab import GFP_ATOMIC, GFP_KERNEL, GFP_NOIO, GFP_NOWAIT, NULL, Machine, Stuck
from kmemlab.kthread import TaskCalls
from kmemlab.mempool import alloc_from_pool
from kmemlab_widgets.questions import Check, CheckResult, ExerciseSpec, Mistake, comparisons, fail
from pools_machines import SLEEP_BIT, Element, Illegal, Parts, Yields, pool_of

RECORDING = Path(__file__).resolve().parent.parent / "recordings" / "mempool.json"
MASKS = {"GFP_KERNEL": GFP_KERNEL, "GFP_NOIO": GFP_NOIO, "GFP_ATOMIC": GFP_ATOMIC, "GFP_NOWAIT": GFP_NOWAIT}
SOFTLY = 0x92000  # NOMEMALLOC | NORETRY | NOWARN: what the kernel's soft try adds
SOFT_BITS = SOFTLY | SLEEP_BIT | 0x40  # and __GFP_IO, which it drops too
WAIT = "wait"

# --- A: write the pool ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Step:
    """One call: ``alloc`` with a mask while alloc_fn works or fails, or ``free`` of an element (number, None: NULL).

    An ``alloc`` with an ``element`` has to wait, until somebody frees that one.
    """

    call: str
    gfp: str = ""
    works: bool = False
    element: int | None = None

    def __str__(self) -> str:
        if self.call == "free":
            return f"free({'NULL' if self.element is None else f'element {self.element}'})"
        waits = f", element {self.element} is given back meanwhile" if self.element is not None else ""
        return f"alloc({self.gfp}), alloc_fn {'works' if self.works else 'fails'}{waits}"


@dataclass(frozen=True, slots=True)
class State:
    """After a step: the element it gave (its number, None: NULL), the reserve's size, how often alloc_fn was called in
    it, whether one of these calls had the sleep bit, how often free_fn was called in it."""

    element: int | None
    reserve: int
    calls: int
    insisted: bool
    freed: int

    def __str__(self) -> str:
        given = "NULL" if self.element is None else f"element {self.element}"
        return f"{given}, {self.reserve} in reserve, alloc_fn asked {self.calls} times, free_fn {self.freed}"


Story = tuple[int, tuple[tuple[Step, State], ...]]  # min_nr, and what happened


@cache
def recorded() -> Story:
    """A real kernel's pool, up to where it is resized."""
    steps = json.loads(RECORDING.read_text(encoding="utf-8"))["steps"]
    story: list[tuple[Step, State]] = []
    works, before = True, steps[0][1]
    for words, after in steps[1:]:
        if words.startswith("resize"):
            break
        if "elem" not in after:
            continue
        call, *rest = words.split()
        if "alloc_fn" in words:
            works = "ok" in words
        element = after["elem"] if after["elem"] >= 0 else None
        step = Step("free", element=element)
        if call == "alloc":
            step = Step("alloc", rest[0], works, element if "another thread" in words else None)
        calls = after["alloc_calls"] - before["alloc_calls"]
        insisted = bool(calls and after["last_gfp"] & SLEEP_BIT)
        story.append((step, State(
            element if call == "alloc" else None, after["curr_nr"], calls, insisted, after["frees"] - before["frees"],
        )))  # fmt: skip
        before = after
    return steps[0][1]["min_nr"], tuple(story)


class RealPool:
    """The engine's pool, one call at a time."""

    def __init__(self, min_nr: int) -> None:
        self.m, self.parts, self.freed = Machine("linux-6.1", memory="64M"), Parts(), 0
        self.pool = self.m.mempool_create(min_nr, self.parts.alloc, self._freed, None)
        self.out: dict[int, Element] = {}

    def _freed(self, element: Any, pool_data: Any) -> None:
        self.freed += 1

    def would_wait(self, step: Step) -> bool:
        """Whether this call would find neither memory nor an element."""
        return bool(MASKS[step.gfp] & SLEEP_BIT) and not step.works and not self.pool.curr_nr

    def do(self, step: Step) -> State:
        """Carry out a step."""
        calls, freed, given = len(self.parts.masks), self.freed, None
        self.parts.works = step.works
        if step.call == "alloc":
            given = self._alloc(step)
            if given:
                self.out[given.n] = given
        else:
            self.m.mempool_free(NULL if step.element is None else self.out.pop(step.element), self.pool)
        masks = self.parts.masks[calls:]
        insisted = any(mask & SLEEP_BIT for mask in masks)
        return State(given.n if given else None, self.pool.curr_nr, len(masks), insisted, self.freed - freed)

    def _alloc(self, step: Step) -> Any:
        slow = alloc_from_pool(self.m, self.pool, MASKS[step.gfp])
        try:
            next(slow)
            assert step.element is not None
            self.m.mempool_free(self.out.pop(step.element), self.pool)
            slow.send(True)
        except StopIteration as end:
            return end.value
        raise AssertionError("an element was given back, and the waiter sleeps on")


@cache
def random_story(seed: int, length: int = 50) -> Story:
    """What the engine's pool does with random calls."""
    rng = random.Random(seed)
    min_nr, story, works = rng.randrange(1, 6), [], True
    real = RealPool(min_nr)
    while len(story) < length:
        works = works if rng.random() < 0.7 else not works
        out = sorted(real.out)
        if rng.random() < 0.4:
            step = Step("free", element=rng.choice([*out, None]))
        else:
            step = Step("alloc", rng.choice(sorted(MASKS)), works)
            if real.would_wait(step):
                step = Step("alloc", step.gfp, works, rng.choice(out))
        story.append((step, real.do(step)))
    return min_nr, tuple(story)


class YourPool:
    """The learner's pool, played through the same steps."""

    def __init__(self, make_pool: Callable[..., Any], min_nr: int) -> None:
        self.parts, self.min_nr = Parts(), min_nr
        self.out: dict[int, Any] = {}
        self.gone: list[int] = []  # given to free_fn
        self.made: list[Any] = []
        functions = make_pool(min_nr, self._alloc_fn, self._free_fn)
        if len(functions) != 2 or not all(map(callable, functions)):
            raise Illegal("Return two functions: alloc, free.", repr(functions))
        self.alloc, self.free = functions

    def _alloc_fn(self, gfp_mask: int) -> Any:
        element = self.parts.alloc(gfp_mask)
        if element:
            self.made.append(element)
        return element

    def _free_fn(self, element: Any) -> None:
        n = self._number(element, "free_fn got")
        if n in self.out or n in self.gone:
            raise Illegal(f"free_fn got {element!r}, which is {'in use' if n in self.out else 'freed already'}.")
        self.gone.append(n)

    def _number(self, element: Any, what: str) -> int:
        if not isinstance(element, Element):
            raise Illegal(f"{what} {element!r}: no element. There are elements, NULL and {WAIT!r}.")
        return element.n

    @property
    def reserve(self) -> int:
        """What was made and is neither out nor freed."""
        return len(self.made) - len(self.out) - len(self.gone)

    def do(self, step: Step) -> tuple[State, bool]:
        """Carry out a step: what came of it, and whether alloc said that it waits. Errors: Illegal."""
        calls, freed, given, waited = len(self.parts.masks), len(self.gone), None, False
        self.parts.works = step.works
        if step.call == "alloc":
            answer = self.alloc(MASKS[step.gfp])
            waited = isinstance(answer, str) and answer == WAIT
            if waited and step.element is not None:
                self.free(self.out.pop(step.element))
                answer = self.alloc(MASKS[step.gfp])
            given = self._given(answer)
        else:
            self.free(NULL if step.element is None else self.out.pop(step.element))
        masks = self.parts.masks[calls:]
        insisted = any(mask & SLEEP_BIT for mask in masks)
        return State(given, self.reserve, len(masks), insisted, len(self.gone) - freed), waited

    def _given(self, answer: Any) -> int | None:
        if answer is None or answer is NULL or (isinstance(answer, str) and answer == WAIT):
            return None
        n = self._number(answer, "alloc returned")
        if n in self.out or n in self.gone:
            raise Illegal(f"alloc returned {answer!r}, which is {'out' if n in self.out else 'freed'} already.")
        self.out[n] = answer
        return n


def _alloc_fault(step: Step, want: State, got: State, waited: bool, newest: int) -> str:
    if waited and want.element is None:
        return f"{step.gfp} may not sleep: when the reserve is empty, NULL is all that is left."
    if got.element is None and want.element is not None:
        if step.element is None:
            return "There was an element to give, and your pool gave nothing. Did free(NULL) put NULL into the reserve?"
        if waited:
            return "An element came back, and whoever was woken did not take it."
        return f"{step.gfp} may sleep: such a caller never gets NULL, it waits until somebody gives back."
    if not got.calls or (got.element != want.element and want.element == newest):
        return "Your pool hands out its own elements first. The real one asks the allocator first, always."
    if got.element != want.element:
        return f"Your pool gave element {got.element}, the real one {want.element}: the reserve is a stack."
    if got.insisted and not want.insisted:
        if got.calls > want.calls:
            return "With something in reserve, 6.1 does not insist: one soft try. (2.6.11 tried hard before.)"
        return "The first try must not wait, and your mask has __GFP_DIRECT_RECLAIM: reclaim comes after the reserve."
    if want.insisted and (not got.insisted or got.calls < want.calls):
        return "Before a caller sleeps, alloc_fn is asked once more, with the caller's whole mask: now it may reclaim."
    return f"alloc_fn was asked {got.calls} times, the real pool asks {want.calls} times."


def _free_fault(want: State, got: State, min_nr: int) -> str:
    if got.reserve > min_nr:
        return f"{got.reserve} elements in a pool of {min_nr}: when the reserve is full, the element goes to free_fn."
    if want.freed < got.freed:
        return (
            f"It went to free_fn, and the reserve stays at {got.reserve} for ever: below min_nr the pool keeps what "
            "comes back."
        )
    return f"Your reserve has {got.reserve} elements, the real one {want.reserve}."


def _plays(story: Callable[[], list[Story]]) -> Callable[[Callable[..., Any]], CheckResult]:
    def run(fn: Callable[..., Any]) -> CheckResult:
        done, plain = 0, False
        for min_nr, steps in story():
            pool = None
            try:
                pool = YourPool(fn, min_nr)
                if row := _born(pool, min_nr):
                    return row
                for number, (step, want) in enumerate(steps, 1):
                    if row := _step(pool, number, step, want):
                        return row
            except Illegal as error:
                return fail(*error.args)
            done += len(steps)
            plain |= any(mask & SOFT_BITS != SOFTLY for mask in pool.parts.masks[min_nr:] if not mask & SLEEP_BIT)
        remark = "; the kernel's soft try also drops __GFP_IO and adds NOMEMALLOC, NORETRY and NOWARN" if plain else ""
        return CheckResult(True, f"{done} of {done} steps{remark}")

    return run


def _born(pool: YourPool, min_nr: int) -> CheckResult | None:
    if pool.reserve == min_nr:
        return None
    return fail(
        f"A new pool has {pool.reserve} elements in reserve, the real one {min_nr}: they are set aside at once.",
        f"create min_nr={min_nr}",
    )


def _step(pool: YourPool, number: int, step: Step, want: State) -> CheckResult | None:
    newest = pool.parts.made
    got, waited = pool.do(step)
    must_wait = step.call == "alloc" and step.element is not None
    if got == want and waited == must_wait:
        return None
    kernel = f"step {number}, {step}: the kernel's {want}; yours {got}"
    if step.call == "alloc" and not got.freed:
        why = _alloc_fault(step, want, got, waited, newest)
        if "own elements first" in why and got.reserve != want.reserve:
            why += f" After this call your reserve is {got.reserve}, the real one {want.reserve}."
        return fail(why, kernel)
    return fail(_free_fault(want, got, pool.min_nr), kernel)


POOL = ExerciseSpec(
    letter="A",
    title="Write the pool",
    task=(
        "`make_pool(n, alloc_fn, free_fn)` sets `n` elements aside and returns two functions, `alloc(gfp)` and "
        "`free(element)`. `alloc_fn(gfp)` gives an element or NULL, `free_fn(element)` takes it for good. `alloc` "
        'returns an element, NULL, or the word `"wait"` where the kernel sleeps: then it is called again when somebody '
        "has given back. Compared are the element, the number in reserve, and how often and with which sleep bit "
        "`alloc_fn` is asked. About fifteen lines."
    ),
    signature="make_pool(n, alloc_fn, free_fn) -> (alloc, free)",
    starter=(
        "def make_pool(n, alloc_fn, free_fn):\n    reserve = [alloc_fn(GFP_KERNEL) for i in range(n)]\n\n"
        "    def alloc(gfp):\n        return reserve.pop()\n\n"
        "    def free(element):\n        free_fn(element)\n\n    return alloc, free\n"
    ),
    hints=(
        "Soft try, reserve, hard try, sleep. Who may not sleep stops before the last two.",
        "Soft: `alloc_fn(gfp & ~__GFP_DIRECT_RECLAIM)`. Hard: `alloc_fn(gfp)`, if `gfp & __GFP_DIRECT_RECLAIM`.",
        "The reserve is a list: `reserve.pop()` takes what came last, `reserve.append(element)` puts it back.",
        "`free`: NULL is ignored; below `n` the element goes into the reserve, else to `free_fn`.",
    ),
    returns=tuple,
    checks=[
        Check("a real kernel's pool, call by call", _plays(lambda: [recorded()]), "6.1.192, recorded", recorded),
        Check("random calls against the engine's pool", _plays(lambda: [random_story(seed) for seed in range(12)]),
              "6.1, seeds 0-11", lambda: [random_story(seed) for seed in range(12)]),
    ],
)  # fmt: skip


# --- B: the smallest safe pool -------------------------------------------------------------------------------------

TIMINGS = 20


def _pauses(timing: int) -> Iterator[int]:
    """Milliseconds between a task's steps; timing 0: all in step."""
    rng = random.Random(timing)
    while True:
        yield rng.randrange(1, 6) if timing else 1


@cache
def hang(tasks: int, each: int, min_nr: int, timing: int) -> str:
    """Run tasks that take ``each`` elements one after the other, hold them, give them back, while memory is gone; what
    is left in the end, in words, "" if all have ended."""
    m = Machine("linux-6.1", memory="64M")
    pool, pauses = pool_of(m, min_nr), _pauses(timing)
    held: dict[str, int] = {}

    def body(k: TaskCalls) -> Yields:
        name, mine = m.context.comm, []
        for _ in range(each):
            mine.append((yield from k.mempool_alloc(pool, GFP_NOIO)))
            held[name] = len(mine)
            yield from k.msleep(next(pauses))
        for element in mine:
            m.mempool_free(element, pool)
        del held[name]

    for n in range(tasks):
        m.spawn(body, f"task-{n}")
    try:
        m.run()
    except Stuck:
        counts = ", ".join(f"{name} holds {n}" for name, n in sorted(held.items())) or "nobody holds any"
        return f"0 of {min_nr} in reserve, {counts}, {len(m.tasks)} wait"
    return ""


@cache
def true_min_nr(tasks: int, each: int) -> int:
    """The smallest reserve with which no timing stops."""
    return next(n for n in range(10_000) if not any(hang(tasks, each, n, timing) for timing in range(TIMINGS)))


def _needs(cases: list[tuple[int, int]]) -> Callable[[], list[tuple[int, int]]]:
    def make() -> list[tuple[int, int]]:
        for case in cases:
            true_min_nr(*case)
        return cases

    return make


def _stops(tasks: int, each: int, min_nr: int) -> str:
    return next((found for timing in range(TIMINGS) if (found := hang(tasks, each, min_nr, timing))), "")


def _reserve_words(case: tuple[int, ...], got: Any, want: int) -> tuple[str, str]:
    tasks, each = case
    if got < 0:
        return "", f"`safe_min_nr({tasks}, {each})` is a number of elements, not {got}."
    if got > want:
        return f"{tasks} tasks, {each} each: {got - 1} never stops either", _too_many(got - want)
    seen = _stops(tasks, each, got)
    return f"{tasks} tasks, {each} each, min_nr {got}: {seen}", f"With min_nr {got} some timing stops for ever."


def _too_many(more: int) -> str:
    return f"Safe, but {more} element{'s' * (more != 1)} more than needed {'are' if more > 1 else 'is'} locked away."


def _one_request(case: tuple[Any, ...], got: Any, want: int) -> str:
    return f"min_nr {got} is enough for one task. Here {case[0]} tasks share it: each holds some, and all wait."


def _one_a_task(case: tuple[Any, ...], got: Any, want: int) -> str:
    tasks, each = case
    if each == 1:
        return _too_many(got - want)
    return f"{tasks} tasks hold one each, and all wait for the next one." if tasks > 1 else f"One task needs {each}."


def _by_luck(case: tuple[Any, ...], got: Any, want: int) -> str:
    tasks, each = case
    if got > want:
        return _too_many(got - want)
    return (
        f"Right for two elements each, by luck. Here {tasks} tasks can hold {each - 1} each: that is "
        f"{tasks * (each - 1)}, and you have {got}."
    )


SAFE = ExerciseSpec(
    letter="B",
    title="The smallest safe pool",
    task=(
        "So many tasks share a pool. Each takes `each` elements, one after the other, holds all of them for a while, "
        "and gives all back. Memory is gone. Return the smallest `min_nr` with which this never stops, whatever the "
        f"timing. {TIMINGS} timings are run with your number, and with one less."
    ),
    signature="safe_min_nr(tasks, each) -> int",
    starter="def safe_min_nr(tasks, each):\n    return each\n",
    hints=(
        "What is the worst moment? Let every task hold as many as it can while none of them can finish.",
        "Everybody holds all but one. How many elements are out then?",
        "One more lets somebody finish, and that one gives all of its elements back.",
    ),
    returns=int,
    checks=comparisons(
        [
            ("two tasks, two elements each", "6.1, memory gone", _needs([(2, 2)])),
            ("one task, or one element each", "6.1, memory gone", _needs([(1, 3), (1, 1), (4, 1), (7, 1)])),
            ("more tasks, more elements", "6.1, memory gone", _needs([(3, 2), (4, 3), (2, 5), (5, 4)])),
        ],
        true_min_nr,
        [
            Mistake(lambda tasks, each: each, _one_request),
            Mistake(lambda tasks, each: tasks, _one_a_task),
            Mistake(lambda tasks, each: tasks * each, lambda case, got, want: _too_many(got - want)),
            Mistake(lambda tasks, each: tasks + each - 1, _by_luck),
            Mistake(
                lambda tasks, each: tasks * (each - 1),
                "Everybody can hold all but one, and then the reserve is empty: one more is needed.",
            ),
        ],
        _reserve_words,
    ),
    budget=12_000_000,
)

EXERCISES = {"make_pool": POOL, "safe_min_nr": SAFE}
