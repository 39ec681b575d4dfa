"""Lesson 00's questions and exercise: each listed wrong answer gets its own reason, each right one is accepted."""

from __future__ import annotations

import json
from types import ModuleType
from typing import Any

import pytest

from kmemlab import __GFP_MEMALLOC, __GFP_NOWARN, GFP_DMA, NULL, Machine
from kmemlab_widgets.checking import run_checks
from kmemlab_widgets.lesson import Lesson, _load
from kmemlab_widgets.questions import judge
from tests.lessons.machines import CHECKS, broken_yard


@pytest.fixture(scope="module")
def checks() -> ModuleType:
    """The checks file, loaded as the lesson loads it."""
    return _load("00_start", CHECKS)[0]


@pytest.fixture(scope="module")
def lesson() -> Lesson:
    return Lesson("00_start", checks=CHECKS)


@pytest.fixture(scope="module")
def fresh() -> Machine:
    return Machine.from_recording("256M-a-21")


@pytest.fixture(scope="module")
def yard() -> Machine:
    return broken_yard()


def machine_for(name: str, fresh: Machine, yard: Machine) -> Machine:
    return yard if name in ("P0", "P9") else fresh


RIGHT = {"P0": "run", "R1": "last", "R2": "3808", "R3": "no", "R4": "under1", "P9": "null"}

# question, wrong answer, what its feedback must say (and no other's does)
WRONG = [
    ("P0", "page", "where are 16 free pages side by side?"),
    ("P0", "leak", "We hold 238 pages and know each of them."),
    ("P0", "sleep", "`GFP_DMA` has no sleep bit"),
    ("R1", "lowest", "The lowest free frame of the zone is 8335, and the kernel gave 12727."),
    ("R1", "random", "Nothing here is left to chance."),
    ("R1", "zero", "Frame 0 is not free."),
    ("R2", "7", "That is the number of blocks."),
    ("R2", "3,840", "32 of these pages are already in use."),
    ("R2", "7616", "That is twice too much."),
    ("R2", "3072", "That is the last column alone."),
    ("R2", "15232", "A page has 4 KiB."),
    ("R2", "5,120", "Add it up once more."),
    ("R3", "yes", "after `0 0 1 1 1 0 1 1 0 1 3`"),
    ("R4", "99", "How often does a request go through that shelf?"),
    ("R4", "90", "How often does a request go through that shelf?"),
    ("R4", "half", "How far do two kernels go together once one page differs?"),
    ("P9", "page", "it lies on the shelf (19 -> 20 pages)"),
]


@pytest.mark.parametrize(("name", "answer", "reason"), WRONG, ids=lambda value: str(value)[:20])
def test_wrong_answers_get_their_reason(
    lesson: Lesson, fresh: Machine, yard: Machine, name: str, answer: str, reason: str
) -> None:
    card = lesson.predict(name, machine_for(name, fresh, yard))
    card.choose(answer)
    assert card.check() is False
    assert card.verdict is not None
    assert reason in card.verdict.text


def test_no_two_wrong_answers_share_a_reason() -> None:
    reasons = [reason for name, _, reason in WRONG if name != "R4"]
    assert len(set(reasons)) == len(reasons)


@pytest.mark.parametrize("name", RIGHT)
def test_right_answers(lesson: Lesson, fresh: Machine, yard: Machine, name: str) -> None:
    m = machine_for(name, fresh, yard)
    before = m.calls
    card = lesson.predict(name, m)
    card.choose(RIGHT[name])
    assert card.check() is True, card.error
    assert m.calls == before, "the learner's machine is not touched"


def test_every_choice_is_covered(checks: ModuleType, fresh: Machine, yard: Machine) -> None:
    """A new choice needs a line in the table above."""
    for name, make in checks.PREDICTIONS.items():
        question = make(machine_for(name, fresh, yard).copy(), 0)
        listed = {answer for other, answer, _ in WRONG if other == name} | {RIGHT[name]}
        for choice in getattr(question, "choices", ()):
            assert choice.key in listed
            assert choice.why


def test_the_kernel_agrees_only_where_it_was_recorded(lesson: Lesson, fresh: Machine, yard: Machine) -> None:
    agreed = set()
    for name, answer in RIGHT.items():
        card = lesson.predict(name, machine_for(name, fresh, yard))
        card.choose(answer)
        card.check()
        if "kernel agreed" in card.view["feedback"]["head"]:
            agreed.add(name)
    assert agreed == {"R2", "R4"}
    moved = fresh.copy()
    moved.alloc_pages(GFP_DMA, 0)
    card = lesson.predict("R2", moved)
    assert card.question is not None
    assert not card.question.recorded, "after a call the state is the model's, not the recording's"


def test_answers_follow_the_machine(lesson: Lesson, fresh: Machine) -> None:
    """Nothing is typed in: on a whole yard the same question has another answer."""
    card = lesson.predict("P0", fresh)
    card.choose("run")
    assert card.check() is False
    assert "It returned frames 288-303" in card.verdict.text  # type: ignore[union-attr]
    card.choose("page")
    assert card.check() is True
    moved = fresh.copy()
    moved.alloc_pages(GFP_DMA, 5)
    card = lesson.predict("R2", moved)
    card.choose("3776")
    assert card.check() is True
    whole = Machine.from_recording("256M-a-21", without=("pcp",))
    card = lesson.predict("R3", whole)
    card.choose("yes")
    assert card.check() is True


def test_nothing_is_given_away(lesson: Lesson, fresh: Machine, yard: Machine) -> None:
    """Before the right answer neither state nor twin nor picture holds what is shown after it."""
    for name, answer in RIGHT.items():
        m = machine_for(name, fresh, yard)
        card = lesson.predict(name, m)
        assert card.question is not None
        verdict = judge(card.question, [answer], m.copy)
        data, _ = card._repr_mimebundle_()
        public = json.dumps([card.view, card.strip, data["text/plain"], data["text/html"]])
        assert verdict.text not in public
        assert "3808" not in public
        assert "3,808" not in public
        again, _ = lesson.predict(name, m)._repr_mimebundle_()
        assert (again["text/plain"], again["text/html"]) == (data["text/plain"], data["text/html"])


# --- can_cut ------------------------------------------------------------------------------------


def early_return(nr_free: list[int], order: int) -> bool:
    for k in range(order, 11):  # noqa: SIM110 - the way many learners write it
        if nr_free[k]:
            return True
    return False


def by_the_highest(nr_free: list[int], order: int) -> bool:
    return max((k for k, count in enumerate(nr_free) if count), default=-1) >= order


ACCEPTED = {
    "any": lambda nr_free, order: any(nr_free[order:]),
    "loop": early_return,
    "sum": lambda nr_free, order: sum(nr_free[order:]) > 0,
    "highest": by_the_highest,
    "pages from here on": lambda nr_free, order: sum(n << k for k, n in enumerate(nr_free) if k >= order) > 0,
}


@pytest.mark.parametrize("fn", ACCEPTED.values(), ids=ACCEPTED)
def test_right_functions(checks: ModuleType, fn: Any) -> None:
    report = run_checks(checks.CAN_CUT, fn)
    assert report.all_passed, report.rows


def pages(nr_free: list[int]) -> int:
    return sum(count << k for k, count in enumerate(nr_free))


REJECTED = {
    "exact order": (lambda nr_free, order: nr_free[order] > 0, "A larger block can be split."),
    "amount": (lambda nr_free, order: pages(nr_free) >= 1 << order, "The pages must be neighbours."),
    "only larger": (lambda nr_free, order: any(nr_free[order + 1 :]), "exactly this order is fine"),
    "anything": (lambda nr_free, order: any(nr_free), "never glued together"),
    "up to it": (lambda nr_free, order: any(nr_free[: order + 1]), "Turn round"),
    "one too early": (lambda nr_free, order: any(nr_free[max(order - 1, 0) :]), "one column too early"),
    "without the last": (lambda nr_free, order: any(nr_free[order:10]), "The last column counts too"),
    "blocks as pages": (lambda nr_free, order: sum(nr_free) >= 1 << order, "You count blocks."),
    "yes": (lambda nr_free, order: True, "You always say yes."),
    "no": (lambda nr_free, order: False, "You always say no."),
}


@pytest.mark.parametrize(("fn", "reason"), REJECTED.values(), ids=REJECTED)
def test_wrong_functions_get_their_reason(checks: ModuleType, fn: Any, reason: str) -> None:
    """However it is written: a mistake is known by what it answers."""
    failed = [row for row in run_checks(checks.CAN_CUT, fn).rows if not row.passed]
    assert failed
    for row in failed:
        assert reason in row.why
        assert row.kernel
        assert row.where


def test_the_feedback_has_this_machines_numbers(checks: ModuleType) -> None:
    rows = run_checks(checks.CAN_CUT, REJECTED["exact order"][0]).rows
    assert rows[0].kernel == "0 0 0 0 0 1 1 1 0 1 3, order 4: frames 288-303"
    assert rows[0].why.startswith("Order 4: you say no, the kernel cut it out of the block of order 5.")
    rows = run_checks(checks.CAN_CUT, REJECTED["amount"][0]).rows
    assert rows[1].kernel == "237 237 236 237 0 0 0 0 0 0 0, order 4: NULL"
    assert rows[1].why.startswith("This line has 3,551 free pages, and the kernel returned NULL for 16.")


def test_an_unlisted_mistake_is_rejected_too(checks: ModuleType) -> None:
    rows = run_checks(checks.CAN_CUT, lambda nr_free, order: order < 4).rows
    assert sum(row.passed for row in rows) == 1, "the puzzle's line alone does not tell it from a right one"
    assert "You say " in rows[0].why


def test_wrong_types(checks: ModuleType) -> None:
    row = run_checks(checks.CAN_CUT, lambda nr_free, order: sum(nr_free[order:]), "can_cut").rows[0]
    assert "should return bool, it returned 7 (int)." in row.why


def test_the_judge_is_the_engine(checks: ModuleType, yard: Machine) -> None:
    """The puzzle's real machine says the same as the yard that is built from its line."""
    line = checks._line(yard)
    assert tuple(line) == checks._puzzle_line()
    for order in range(11):
        page = yard.copy().alloc_pages(GFP_DMA | __GFP_MEMALLOC | __GFP_NOWARN, order)
        assert (page is not NULL) is checks.truth(line, order)


def test_the_random_cases_are_worth_their_number(checks: ModuleType) -> None:
    cases = checks._random_cases()
    assert len(cases) == 200
    assert {order for _, order in cases} == set(range(11))
    yes = sum(checks.truth(*case) for case in cases)
    assert 50 < yes < 150
    assert len({(tuple(counts), order) for counts, order in cases}) > 180
