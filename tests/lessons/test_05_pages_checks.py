"""Lesson 05's questions: each listed wrong answer gets its own reason, each right one is accepted."""

from __future__ import annotations

from types import ModuleType

import pytest

from kmemlab import __GFP_NOWARN, GFP_DMA, GFP_HIGHUSER_MOVABLE, Machine
from kmemlab_widgets.lesson import Lesson, _load
from kmemlab_widgets.questions import Question
from tests.lessons.machines import CHECKS, broken_yard


@pytest.fixture(scope="module")
def checks() -> ModuleType:
    """The checks file, loaded as the lesson loads it."""
    return _load("05_pages", CHECKS)[0]


@pytest.fixture(scope="module")
def lesson() -> Lesson:
    return Lesson("05_pages", checks=CHECKS)


def stage(name: str) -> Machine:
    """The machine as it stands in the notebook where the question is asked."""
    m = Machine.from_recording("256M-a-21")
    if name == "R3":
        six = {page.pfn: page for page in (m.alloc_pages(GFP_DMA, 4) for _ in range(6))}
        for pfn in (288, 320, 336, 304):
            m.__free_pages(six[pfn], 4)
    elif name == "R4":
        for _ in range(60):
            m.alloc_pages(GFP_DMA, 0)
    elif name == "R5":
        m.alloc_pages(GFP_HIGHUSER_MOVABLE, 4)
    elif name in ("R7b", "R10"):
        for order in (7, 6, 5) if name == "R7b" else (4, 4):
            m.alloc_pages(GFP_DMA, order)
    elif name == "R9b":
        while m.alloc_pages(GFP_DMA | __GFP_NOWARN, 4):
            pass
    elif name == "R11":
        return broken_yard()
    return m


RIGHT = {
    "GUESS": ["238"], "R1": ["3"], "R2": ["288"], "R3": ["no"], "R3b": ["256"], "R4": ["42"], "R5": ["no"], "R6": ["3"],
    "R7": ["5", "64"], "R7b": ["1024"], "R8": ["down"], "R8b": ["156"], "R8c": ["no"], "R9": ["13"], "R9b": ["amount"],
    "R10": ["report"], "R11": ["0"], "RULES": ["pcp"],
}  # fmt: skip

# question, wrong answer, what its feedback must say (and no other's does)
WRONG = [
    ("R1", "2", "3 blocks of order 10 stand ready"),
    ("R1", "3.7", "736 pages remain, but they make no block"),
    ("R1", "4", "736 pages remain, but they make no block"),
    ("R1", "0", "Nothing forbids order 10"),
    ("R1", "17", "Where may a block begin?"),
    ("R2", "3072", "Large blocks are precious"),
    ("R2", "512", "That block is on a movable list"),
    ("R3", "yes", "The buddy of block 288 at order 5 is 288 XOR 32 = 256"),
    ("R3", "later", "Nothing is glued together"),
    ("R3b", "512", "That is behind the run"),
    ("R3b", "288", "Frame 288 is free already"),
    ("R3b", "287", "The page before the run alone is too small"),
    ("R3b", "0", "Further up"),
    ("R3b", "300", "its buddy is 288 XOR 32"),
    ("R4", "1", "The first 41 pages lie on the shelf"),
    ("R4", "60", "The shelf has a limit, `high`."),
    ("R4", "2", "Two free buddies on the shelf do not merge"),
    ("R4", "43", "Equal is enough"),
    ("R4", "0", "It does change"),
    ("R5", "yes", "Round 4 was the shelf"),
    ("R5", "alone", "Nobody else asked, and yet it is 54352"),
    ("R6", "238", "That is for smaller blocks"),
    ("R6", "952", "That is for smaller blocks"),
    ("R6", "1", "The other 2 are whole"),
    ("R6", "0", "3 blocks of order 10 stand ready"),
    ("R7", "64 64", "with types: Watch the two machines side by side"),
    ("R7", "5 5", "all one type: Watch the two machines side by side"),
    ("R7", "5 500", "all one type: It is 64"),
    ("R7b", "512", "A thief takes the largest"),
    ("R7b", "3072", "Of equal blocks the head of the list goes first"),
    ("R7b", "null", "Types are a preference, not a wall"),
    ("R8", "up", "The list starts at the highest zone"),
    ("R8", "all", "There is no taking turns"),
    ("R8", "one", "The first pass stops at the *low* watermark"),
    ("R8b", "42", "That is `min`, where GFP_DMA stops"),
    ("R8b", "52", "That is `low`, for the first pass"),
    ("R8b", "166", "That is where the first pass stops"),
    ("R8b", "114", "The protection comes on top"),
    ("R8b", "0", "The lower zones keep some"),
    ("R8c", "yes", "3,712 > 64 + 3,888 = 3,952"),
    ("R9", "12", "3/8 of 34 is 12.75"),
    ("R9", "17", "HIGH halves"),
    ("R9", "34", "That is where GFP_NOWAIT stops"),
    ("R9", "0", "Only MEMALLOC goes to 0"),
    ("R9b", "block", "one of order 4, one of order 5"),
    ("R9b", "both", "The second, for the block, was never made"),
    ("R10", "silent", "Here every page of the block is checked"),
    ("R10", "merge", "Half of that block is somebody else's"),
    ("R11", "3", "Only 237 such places exist"),
    ("R11", "4", "there are 0"),
    ("R11", "same", "The neighbours are not"),
    ("RULES", "merge_likely", "Without it 50.3% are right"),
    ("RULES", "steal_block", "Without it 45.9% are right"),
    ("RULES", "lowmem_reserve", "Without it 92.8% are right"),
    ("RULES", "nofragment", "Without it 100.0% are right"),
]


@pytest.mark.parametrize(("name", "answer", "reason"), WRONG, ids=lambda value: str(value)[:20])
def test_wrong_answers_get_their_reason(lesson: Lesson, name: str, answer: str, reason: str) -> None:
    card = lesson.predict(name, stage(name))
    card.choose(*(answer.split() if name == "R7" else [answer]))
    assert card.check() is False
    assert card.verdict is not None
    assert reason in card.verdict.text


def test_no_two_questions_share_a_reason() -> None:
    """A reason belongs to one mistake; where several answers are the same mistake they share it."""
    owners = {(reason, name) for name, _, reason in WRONG}
    assert len({reason for reason, _ in owners}) == len(owners) - 1, "R1 and R6 both point at the three blocks"


@pytest.mark.parametrize("name", RIGHT)
def test_right_answers(lesson: Lesson, name: str) -> None:
    m = stage(name)
    before = m.calls
    card = lesson.predict(name, m)
    card.choose(*RIGHT[name])
    assert card.check() is True, card.error
    assert m.calls == before, "the learner's machine is not touched"


def test_every_choice_is_covered(checks: ModuleType) -> None:
    """A new choice needs a line in the table above."""
    assert list(checks.PREDICTIONS) == list(RIGHT)
    for name, make in checks.PREDICTIONS.items():
        question = make(stage(name), 0)
        listed = {answer for other, answer, _ in WRONG if other == name} | set(RIGHT[name])
        if isinstance(question, Question):
            assert {choice.key for choice in question.choices} == listed
            assert all(choice.why for choice in question.choices if choice.key not in RIGHT[name])


def test_answers_follow_the_machine(lesson: Lesson) -> None:
    """Nothing is typed in: on a machine in another state the same questions have other answers."""
    m = stage("R1")
    m.alloc_pages(GFP_DMA, 10)
    for name in ("R1", "R6"):
        card = lesson.predict(name, m)
        card.choose("2")
        assert card.check() is True, name
    m = stage("R4")
    m.__free_pages(next(p for p in m.memmap.values() if p.refcount > 0 and p.zone.name == "DMA"), 0)
    card = lesson.predict("R4", m)
    card.choose("41")
    assert card.check() is True
    m = stage("R5")
    uncle = next(p for p in m.memmap.values() if p.refcount > 0 and p.order == 4).pfn & ~31 ^ 32
    while (page := m.alloc_pages(GFP_HIGHUSER_MOVABLE, 5)) and page.pfn != uncle:
        pass
    card = lesson.predict("R5", m)
    card.choose("yes")
    assert card.check() is True, "no larger buddy is free, so the block goes to the head"
