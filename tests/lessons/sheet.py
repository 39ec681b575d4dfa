"""The tests that every lesson's questions and exercises have; a lesson's module fills in the tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import pytest

from kmemlab_widgets.lesson import Lesson
from tests.lessons.machines import CHECKS, Containing, answered, starter, told

__all__ = ["Exercises", "Questions"]


class Sheet:
    """``LESSON`` is the notebook's name. A table becomes one test a row."""

    LESSON: ClassVar[str]

    @pytest.fixture(scope="class")
    @classmethod
    def lesson(cls) -> Lesson:
        """The lesson, without its notebook."""
        return Lesson(cls.LESSON, checks=CHECKS)


class Questions(Sheet):
    """``RIGHT``: an answer for every question, or a function of the question that gives one. ``WRONG``: (question,
    answer, a part of what is said to it).

    ``MACHINES`` makes the machine a question is asked with. Lists answer several boxes or options at once.
    """

    RIGHT: ClassVar[Mapping[str, Any]]
    WRONG: ClassVar[list[tuple[str, Any, str]]]
    MACHINES: ClassVar[Mapping[str, Callable[[], Any]]] = {}

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """One test for each answer."""
        if "wrong" in metafunc.fixturenames:
            ids = [f"{name}-{str(given)[:20]}" for name, given, _ in self.WRONG]
            metafunc.parametrize("wrong", self.WRONG, ids=ids)
        elif "right" in metafunc.fixturenames:
            metafunc.parametrize("right", list(self.RIGHT.items()), ids=list(self.RIGHT))

    def test_a_wrong_answer_gets_its_reason(self, lesson: Lesson, wrong: tuple[str, Any, str]) -> None:
        """It is wrong, and what is said is meant for it."""
        name, given, reason = wrong
        assert answered(lesson, self.MACHINES, name, given) == (False, Containing(reason))

    def test_a_right_answer(self, lesson: Lesson, right: tuple[str, Any]) -> None:
        """It is accepted."""
        name, given = right
        given = given(lesson.predict(name).question) if callable(given) else given
        assert answered(lesson, self.MACHINES, name, given)[0] is True

    def test_no_two_wrong_answers_share_a_reason(self) -> None:
        """Feedback is for one mistake."""
        reasons = [reason for _, _, reason in self.WRONG]
        assert len(set(reasons)) == len(reasons)

    def test_every_question_is_here(self, lesson: Lesson) -> None:
        """The tables are complete, and the lesson is as long as it should be."""
        assert set(self.RIGHT) == set(lesson._predictions)
        assert {name for name, _, _ in self.WRONG} == set(self.RIGHT) - self.votes(lesson)
        assert len(self.RIGHT) >= 8
        assert len(lesson._exercises) >= 4

    def votes(self, lesson: Lesson) -> set[str]:
        """Questions to which no answer is wrong."""
        made = {name: self.MACHINES[name]() if name in self.MACHINES else None for name in self.RIGHT}
        return {name for name, m in made.items() if lesson.predict(name, m).question.vote}


class Exercises(Sheet):
    """``GOOD``: (exercise, a function that passes). ``BAD``: (exercise, function, a part of what it is told)."""

    GOOD: ClassVar[list[tuple[str, Callable[..., Any]]]]
    BAD: ClassVar[list[tuple[str, Callable[..., Any], str]]]

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """One test for each function."""
        if "good" in metafunc.fixturenames:
            metafunc.parametrize("good", self.GOOD, ids=[f"{i}-{name}" for i, (name, _) in enumerate(self.GOOD)])
        elif "bad" in metafunc.fixturenames:
            metafunc.parametrize("bad", self.BAD, ids=[f"{name}: {reason[:24]}" for name, _, reason in self.BAD])

    def test_a_right_function_passes(self, lesson: Lesson, good: tuple[str, Callable[..., Any]]) -> None:
        """All its checks pass."""
        assert told(lesson, *good) == []

    def test_a_wrong_function_is_told_why(self, lesson: Lesson, bad: tuple[str, Callable[..., Any], str]) -> None:
        """One of the rows speaks of its mistake."""
        name, fn, reason = bad
        assert Containing(reason) in told(lesson, name, fn)

    def test_starters_do_not_pass(self, lesson: Lesson) -> None:
        """There is something to do in each of them."""
        for name in lesson._exercises:
            assert told(lesson, name, starter(lesson, name)), name
