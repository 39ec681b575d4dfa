"""Exercises: each row says what was tried and why it failed, and a stranger's function can do no harm."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from kmemlab import GFP_DMA, Machine
from kmemlab_widgets import cards
from kmemlab_widgets.cards import Exercise
from kmemlab_widgets.checking import run_checks
from kmemlab_widgets.questions import PASS, Check, CheckResult, ExerciseSpec, comparisons, fail


def spec(*checks: Any, **more: Any) -> ExerciseSpec:
    default: dict[str, Any] = {
        "letter": "B",
        "title": "twice",
        "task": "Return twice <n>.",
        "signature": "def twice(n: int) -> int",
        "starter": "def twice(n: int) -> int:\n    ...",
        "hints": ["Add it to itself.", "n + n"],
        "returns": int,
    }
    return ExerciseSpec(checks=checks or (Check("three", three, "seed 3, 64M"), four), **default | more)


def three(fn: Callable[[int], int]) -> CheckResult:
    return PASS if fn(3) == 6 else fail("3 doubled is 6.", "BUG: <odd>")


def four(fn: Callable[[int], int]) -> CheckResult:
    """four is even."""
    return PASS if fn(4) == 8 else fail("4 doubled is 8.")


def test_rows_say_what_was_tried_and_why() -> None:
    card = Exercise(spec(), lambda n: 8)
    assert card.view["summary"] == "1 of 2 checks pass"
    assert card.view["rows"] == [
        {"ok": False, "tried": "three", "kernel": "BUG: <odd>", "why": "3 doubled is 6.", "where": "seed 3, 64M"},
        {"ok": True, "tried": "four is even", "kernel": "", "why": "", "where": ""},
    ]
    assert not card.done
    data, _ = card._repr_mimebundle_()
    assert "BUG: &lt;odd&gt;" in data["text/html"]
    assert data["text/plain"].splitlines() == [
        "Exercise B, twice: Return twice <n>.",
        "def twice(n: int) -> int",
        "1 of 2 checks pass.",
        "✕ three (seed 3, 64M)",
        "  BUG: <odd>",
        "  3 doubled is 6.",
        "✓ four is even",
    ]
    assert Exercise(spec(), lambda n: n + n).done
    assert Exercise(spec(), lambda n: 2 * n).done


def test_hints_come_one_by_one() -> None:
    card = Exercise(spec(), lambda n: 8)
    assert (card.view["hints"], card.view["hint"]) == ([], "Hint 1 of 2")
    data, _ = card._repr_mimebundle_()
    assert "n + n" not in json.dumps([card.view, data["text/plain"], data["text/html"]])
    card._on_message(card, {"do": "hint"}, [])
    assert (card.view["hints"], card.view["hint"]) == (["Add it to itself."], "Hint 2 of 2")
    card.hint()
    card.hint()
    assert (len(card.view["hints"]), card.view["hint"]) == (2, "")


def only_row(fn: Any, **more: Any) -> CheckResult:
    return run_checks(spec(Check("three", three), **more), fn, "twice").rows[0]


def test_a_function_that_raises() -> None:
    """The last line of the traceback, and the line in the learner's own cell."""
    space: dict[str, Any] = {}
    source = "def helper(n):\n    return n // 0\n\ndef twice(n):\n    x = 1\n    return helper(n)\n"
    exec(compile(source, "<cell>", "exec"), space)  # noqa: S102 - as a notebook's cell is run
    row = only_row(space["twice"])
    assert row.kernel == "ZeroDivisionError: integer division or modulo by zero"
    assert row.why == "Line 2 of your cell. The call was `twice(3)`."


def test_a_function_that_misuses_null() -> None:
    """An error raised inside the engine is put down to the learner's line."""
    space: dict[str, Any] = {"m": Machine("linux-6.1", memory="64M"), "GFP_DMA": GFP_DMA}
    exec("def twice(n):\n    page = m.alloc_pages(GFP_DMA | 0x2000, 11)\n    return page.pfn\n", space)  # noqa: S102
    row = only_row(space["twice"])
    assert "NULL has no .pfn" in row.kernel
    assert "Line 3 of your cell" in row.why


def test_the_same_accident_is_told_once() -> None:
    rows = run_checks(spec(), lambda n: 1 // 0).rows
    assert "ZeroDivisionError" in rows[0].kernel
    assert (rows[1].kernel, rows[1].why) == ("", "As above.")


@pytest.mark.parametrize(
    ("fn", "why"),
    [
        (lambda n: None, "`twice(3)` should return int, it returned None: is a `return` missing?"),
        (lambda n: "6", "`twice(3)` should return int, it returned '6' (str)."),
        (lambda n: True, "`twice(3)` should return int, it returned True (bool)."),
    ],
)
def test_a_wrong_type(fn: Any, why: str) -> None:
    assert only_row(fn).why == why


def test_a_wrong_number_of_arguments() -> None:
    row = only_row(lambda: 6)
    assert "takes 0 positional arguments but 1 was given" in row.kernel
    assert "compare it with the signature" in row.why
    assert "not a function" in only_row(6).why


def test_a_check_written_in_the_learners_notebook_is_not_the_learners_code() -> None:
    """An instructor tries out a check beside the function: lines of the check are not called the learner's."""
    row = run_checks(spec(Check("three", lambda fn: three(fn), "seed 3")), lambda: 6).rows[0]  # noqa: PLW0108 - nested on purpose
    assert "compare it with the signature" in row.why


def endless_on_one_line(n: int) -> int:
    while True: pass  # fmt: skip  # noqa: E701


def endless_generator(n: int) -> int:
    return sum(1 for _ in iter(int, 1))


def endless_that_catches(n: int) -> int:
    while True:
        try:  # noqa: SIM105
            n += 1
        except Exception:  # noqa: BLE001 - that is the point
            pass


@pytest.mark.parametrize("fn", [endless_on_one_line, endless_generator, endless_that_catches])
def test_a_function_that_never_ends(fn: Any) -> None:
    row = only_row(fn, budget=20_000)
    assert row.why == "`twice(3)` did not end within 20,000 steps. Look for a loop that never stops."


def test_a_long_function_is_no_endless_one() -> None:
    assert only_row(lambda n: sum(2 for _ in range(20_000)) // 20_000 * n).passed


def test_printing_is_fine(capsys: pytest.CaptureFixture[str]) -> None:
    def twice(n: int) -> int:
        print("n is", n)
        for _ in range(2000):
            print("x" * 100)
        return n + n

    card = Exercise(spec(), twice)
    assert card.done
    assert card.report is not None
    assert card.report.printed.startswith("n is 3\nxxx")
    assert len(card.report.printed) <= 4000
    assert capsys.readouterr().out == ""


def test_an_exercise_that_cannot_run_does_not_take_the_cell_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any) -> None:
        raise RuntimeError("our own mistake")

    monkeypatch.setattr(cards, "run_checks", broken)
    card = Exercise(spec(), lambda n: n)
    assert card.report is None
    assert "card error: RuntimeError our own mistake; the machine is not affected." in str(card)


def test_a_check_that_fails_is_not_put_on_the_learner() -> None:
    def bad(fn: Any) -> CheckResult:
        """the author's slip"""
        raise KeyError("oops")

    row = run_checks(spec(bad), lambda n: n).rows[0]
    assert row.why == "The check itself failed, not your function. Please report it."


def twice(n: int) -> int:
    # write here
    ...


def test_the_untouched_starter_is_no_attempt() -> None:
    for fn in (None, twice):
        card = Exercise(spec(), fn)
        assert card.report is None
        assert card.view["summary"] == "2 checks, none run yet"
        assert card.check() is None


def test_check_takes_the_newest_definition() -> None:
    space = {"twice": lambda n: 0}
    card = Exercise(spec(), space["twice"], find=lambda: space["twice"])
    space["twice"] = lambda n: n + n
    assert card.check() is True


def test_classes_and_generators_can_be_exercises() -> None:
    """Later lessons ask for classes, and for functions that may sleep."""

    def pool(cls: Any) -> CheckResult:
        return PASS if cls(2).get() == 2 else fail("it holds two")

    class Pool:
        def __init__(self, n: int) -> None:
            self.n = n

        def get(self) -> int:
            return self.n

    def run(fn: Any) -> CheckResult:
        return PASS if list(fn(2)) == [0, 1] else fail("it yields twice")

    def steps(n: int) -> Any:
        yield from range(n)

    def falls(n: int) -> Any:
        yield 1 // 0

    assert run_checks(spec(Check("pool", pool), returns=None), Pool).all_passed
    assert run_checks(spec(Check("run", run), returns=None), steps).all_passed
    row = run_checks(spec(Check("run", run), returns=None), falls).rows[0]
    assert "ZeroDivisionError" in row.kernel
    assert "of your cell: `yield 1 // 0`" in row.why


def test_comparisons_hand_over_copies() -> None:
    """A function that empties its list spoils no later case."""
    seen: list[list[int]] = []
    cases = [([1, 2],), ([3],)]
    checks = comparisons([("sums", "", lambda: cases)], lambda counts: seen.append(list(counts)) or sum(counts))

    def greedy(counts: list[int]) -> int:
        total = sum(counts)
        counts.clear()
        return total

    assert run_checks(spec(*checks), greedy).all_passed
    assert seen == [[1, 2], [3]]


def test_a_check_that_cannot_prepare_says_so() -> None:
    """The mistake is not the learner's, and no traceback reaches the cell."""

    def broken() -> None:
        raise OSError("no such recording")

    spec = ExerciseSpec(
        letter="A", title="", task="", signature="", starter="", checks=[Check("a case", lambda fn: PASS, "", broken)]
    )
    (row,) = run_checks(spec, lambda n: n).rows
    assert not row.passed
    assert "OSError: no such recording" in row.kernel
    assert "The check itself failed, not your function" in row.why
