"""What the author of a lesson writes: questions, their answers, exercises and their checks.

Plain data and plain functions, no widgets: a checks file imports this module and ``kmemlab``, nothing else.
Wherever a text or an answer may depend on the machine, a function of the machine may stand in its place:
it is called when it is needed and not earlier, on a copy of the machine made for this call alone.
In texts, words between `backticks` are shown as code. The first line of a feedback is its headline when a
second line follows.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "PASS",
    "Box",
    "BoxesQuestion",
    "Check",
    "CheckResult",
    "Choice",
    "ExerciseSpec",
    "Mistake",
    "NumberQuestion",
    "Question",
    "QuestionError",
    "Verdict",
    "comparisons",
    "fail",
    "judge",
]

Text = str | Callable[[Any], str]
Fresh = Callable[[], Any]


class QuestionError(Exception):
    """A question that contradicts itself; the text says what its author must mend."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One option. ``why`` is the feedback when it is chosen and wrong."""

    key: str
    text: str
    why: Text = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Choose one option (or, with ``multi``, all that are right).

    ``answer`` is a key, or several keys each of which is right (with ``multi``: all of them together),
    or a function of the machine that returns these. ``right`` is shown when the answer is right; where several
    are and each deserves its own words, it maps the chosen key to them.
    ``recorded``: a recording of a real kernel shows the same, so the card may say that the kernel agreed.
    ``vote``: there is nothing right yet; the answer is kept and ``lesson.answer(name)`` gives it back.
    """

    ask: Text
    choices: Sequence[Choice]
    answer: str | Sequence[str] | Callable[[Any], Any] = ()
    right: Text | Mapping[str, Text] = ""
    code: str = ""
    recorded: bool = False
    multi: bool = False
    vote: bool = False
    note: str = "then run the next cell"

    def __post_init__(self) -> None:
        keys = [choice.key for choice in self.choices]
        if len(set(keys)) != len(keys) or len(keys) < 2:
            raise QuestionError(f"a question needs two or more choices with different keys, not {keys}")
        if isinstance(self.right, Mapping) and (strange := sorted(set(self.right) - set(keys))):
            raise QuestionError(f"`right` has words for {', '.join(strange)}, the choices are {', '.join(keys)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """One blank to fill in: a number, or one of ``options``.

    ``wrong`` names typical wrong values and their feedback, ``otherwise`` is for all others.
    A number counts as right within ``tolerance``.
    """

    label: str = ""
    answer: Any = None
    wrong: Mapping[Any, Text] = field(default_factory=dict)
    otherwise: Text = ""
    tolerance: float = 0
    unit: str = ""
    options: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxesQuestion:
    """Several blanks at once: a table of numbers, a list, a matching (``Box.options``), an order."""

    ask: Text
    boxes: Sequence[Box]
    right: Text = ""
    code: str = ""
    recorded: bool = False
    vote: bool = False
    note: str = "then run the next cell"


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberQuestion:
    """One number. ``wrong`` maps typical wrong numbers to their feedback; see ``Box``."""

    ask: Text
    answer: Any = None
    wrong: Mapping[Any, Text] = field(default_factory=dict)
    otherwise: Text = ""
    tolerance: float = 0
    unit: str = ""
    right: Text = ""
    code: str = ""
    recorded: bool = False
    vote: bool = False
    note: str = "then run the next cell"

    @property
    def boxes(self) -> tuple[Box, ...]:
        """The one blank, in the form a ``BoxesQuestion`` has."""
        return (
            Box(
                answer=self.answer,
                wrong=self.wrong,
                otherwise=self.otherwise,
                tolerance=self.tolerance,
                unit=self.unit,
            ),
        )


AnyQuestion = Question | BoxesQuestion | NumberQuestion


# --- judging ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of an answer. ``right`` is None when nothing was judged (nothing chosen, not a number);
    ``wrong`` and ``good`` name the options or blanks (by index) that are settled by it."""

    right: bool | None
    text: str
    wrong: tuple[str, ...] = ()
    good: tuple[str, ...] = ()


def _say(text: Text, fresh: Fresh) -> str:
    return text(fresh()) if callable(text) else text


def judge(question: AnyQuestion, given: Sequence[str], fresh: Fresh) -> Verdict:
    """Hold an answer against what the engine says now. ``fresh`` makes a copy of the machine.

    ``given`` holds the keys of the chosen options, or the text of each blank.
    """
    if isinstance(question, Question):
        return _judge_choice(question, tuple(given), fresh)
    return _judge_boxes(question, tuple(given), fresh)


def _judge_choice(question: Question, given: tuple[str, ...], fresh: Fresh) -> Verdict:
    keys = [choice.key for choice in question.choices]
    chosen = [key for key in keys if key in given]
    if not chosen:
        return Verdict(None, "answer first")
    right = question.right.get(chosen[0], "") if isinstance(question.right, Mapping) else question.right
    if question.vote:
        return Verdict(True, _say(right, fresh), good=tuple(chosen))
    said = question.answer(fresh()) if callable(question.answer) else question.answer
    answers = {said} if isinstance(said, str) else set(said)
    if not answers or answers - set(keys):
        raise QuestionError(f"the engine answers {said!r}, the choices are {', '.join(keys)}")
    if wrong := [choice for choice in question.choices if choice.key in chosen and choice.key not in answers]:
        return Verdict(False, _say(wrong[0].why, fresh) or "Not this one.", wrong=tuple(c.key for c in wrong))
    if question.multi and (missing := len(answers) - len(chosen)):
        return Verdict(None, f"All you ticked are right, and {missing} more {'is' if missing == 1 else 'are'}.")
    return Verdict(True, _say(right, fresh), good=tuple(chosen))


def _judge_boxes(question: BoxesQuestion | NumberQuestion, given: tuple[str, ...], fresh: Fresh) -> Verdict:
    boxes = question.boxes
    values: list[Any] = []
    for index, box in enumerate(boxes):
        text = str(given[index]).strip() if index < len(given) else ""
        if not text:
            return Verdict(None, "answer first" if len(boxes) == 1 else "fill in every box first")
        value = text if box.options else parse_number(text)
        if value is None or (box.options and text not in box.options):
            return Verdict(None, f"`{text[:40]}` is not a number" if not box.options else "choose one of the list")
        values.append(value)
    if question.vote:
        return Verdict(True, _say(question.right, fresh))
    good, wrong, why = [], [], ""
    for index, (box, value) in enumerate(zip(boxes, values, strict=True)):
        if _fits(box, value, fresh):
            good.append(str(index))
            continue
        if not wrong:
            why = _say(box.wrong.get(value, box.otherwise), fresh) or "Not this one."
            if box.label:
                why = f"{box.label}: {why}"
        wrong.append(str(index))
    if wrong:
        return Verdict(False, why, tuple(wrong), tuple(good))
    return Verdict(True, _say(question.right, fresh), (), tuple(good))


def _fits(box: Box, value: Any, fresh: Fresh) -> bool:
    answer = box.answer(fresh()) if callable(box.answer) else box.answer
    if answer is None:
        raise QuestionError(f"the blank {box.label!r} has no answer")
    answers = answer if isinstance(answer, (set, frozenset, tuple, list)) else (answer,)
    if box.options:
        return value in answers
    return any(abs(value - one) <= box.tolerance for one in answers)


def parse_number(text: str) -> int | float | None:
    """The number a person wrote: ``3,808``, ``3 808``, ``0xcc0``, ``2.1 %``, ``3,7``; None if it is none."""
    word = re.sub(r"(?<=\d)[\s\u00a0\u2009\u202f_](?=\d)", "", text.strip().rstrip("%").strip())
    word = re.sub(r",(?=\d{3}(?!\d))", "", word).replace(",", ".")
    try:
        return int(word, 0) if re.match(r"[+-]?0[xXbBoO]", word) else int(word, 10)
    except ValueError:
        pass
    try:
        value = float(word)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


# --- exercises ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One row of an exercise: what was tried, the kernel's words, why in one sentence, and where
    (seed and machine, so that it can be repeated by hand)."""

    passed: bool
    kernel: str = ""
    why: str = ""
    tried: str = ""
    where: str = ""


PASS = CheckResult(True)


def fail(why: str, kernel: str = "") -> CheckResult:
    """A row that did not pass: ``kernel`` in the kernel's words, ``why`` in one sentence."""
    return CheckResult(False, kernel, why)


@dataclass(frozen=True, slots=True)
class Check:
    """A check with a name that stands even when the learner's function raises.

    ``run(fn)`` calls the learner's function as it likes and returns ``PASS`` or ``fail(...)``. It runs under the
    watch that stops endless loops, at a third of the speed; ``prepare()`` is called before, at full speed.
    """

    tried: str
    run: Callable[[Callable[..., Any]], CheckResult]
    where: str = ""
    prepare: Callable[[], object] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExerciseSpec:
    """A task: write the function ``name``.

    ``returns`` is the type (or types) the function must return, None if any. ``budget`` is how many of
    Python's steps the learner's code may take in one check before it counts as endless.
    """

    letter: str
    title: str
    task: str
    signature: str
    starter: str
    checks: Sequence[Check | Callable[[Callable[..., Any]], CheckResult]]
    hints: Sequence[str] = ()
    returns: type | tuple[type, ...] | None = None
    budget: int = 3_000_000


@dataclass(frozen=True, slots=True)
class Mistake:
    """A typical wrong answer, as a function, with its own feedback (text, or a function of the case, what
    the learner's function returned and what is true)."""

    answer: Callable[..., Any]
    why: str | Callable[[tuple[Any, ...], Any, Any], str]


Rows = Sequence[tuple[str, str, Callable[[], Sequence[tuple[Any, ...]]]]]


def comparisons(
    rows: Rows,
    truth: Callable[..., Any],
    mistakes: Sequence[Mistake] = (),
    words: Callable[[tuple[Any, ...], Any, Any], tuple[str, str]] | None = None,
) -> list[Check]:
    """Checks for a function that is judged by its values alone.

    ``rows``: (what is tried, where, function that gives the argument tuples). ``truth(*case)`` is what the
    engine says. A learner's function that answers every case of every row as one of the ``mistakes`` does
    gets that mistake's feedback; any other gets ``words(case, got, want)``: kernel words and why.
    Arguments are handed over as copies, so a function that changes them harms nobody.
    """

    def check(cases: Callable[[], Sequence[tuple[Any, ...]]]) -> Callable[[Callable[..., Any]], CheckResult]:
        def run(fn: Callable[..., Any]) -> CheckResult:
            for case in cases():
                got, want = fn(*_copies(case)), truth(*_copies(case))
                if got != want:
                    return _explain(fn, case, got, want)
            return PASS

        return run

    def _explain(fn: Callable[..., Any], case: tuple[Any, ...], got: Any, want: Any) -> CheckResult:
        kernel, why = words(case, got, want) if words else ("", f"you say {got!r}, right is {want!r}")
        known = _recognise(fn, [c for _, _, cases in rows for c in cases()], mistakes)
        if known is not None:
            why = known.why(case, got, want) if callable(known.why) else known.why
        return fail(why, kernel)

    return [Check(tried, check(cases), where, cases) for tried, where, cases in rows]


def _copies(case: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(list(arg) if isinstance(arg, list) else dict(arg) if isinstance(arg, dict) else arg for arg in case)


def _recognise(fn: Callable[..., Any], cases: Sequence[tuple[Any, ...]], mistakes: Sequence[Mistake]) -> Mistake | None:
    """The mistake that answers every case as ``fn`` does."""
    left = list(mistakes)
    try:
        for case in cases:
            got = fn(*_copies(case))
            left = [mistake for mistake in left if mistake.answer(*_copies(case)) == got]
            if not left:
                return None
    except Exception:  # noqa: BLE001 - it fails elsewhere too: that row will say so
        return None
    return left[0] if left else None
