"""A lesson finds its checks, keeps what was answered, and its strip tells how far one is."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from kmemlab import Machine
from kmemlab_widgets.lesson import Lesson, LessonError
from kmemlab_widgets.progress import Progress

CHECKS = """
from kmemlab_widgets.questions import *

def predict(right):
    def make(m, seed):
        choices = [Choice("a", "A", "not a"), Choice("b", "B", "not b"), Choice("c", "C", "not c")]
        return Question(ask="Which?", choices=choices, answer=lambda m: right)
    return make

def guess(m, seed):
    return NumberQuestion(ask="How few pages are enough?", vote=True)

PREDICTIONS = {"P0": predict("a"), "R1": predict("b"), "guess": guess}
EXERCISES = {
    "double": ExerciseSpec(letter="A", title="", task="Double it.", signature="def double(n)", returns=int,
        starter="def double(n):\\n    ...", checks=[Check("2", lambda fn: PASS if fn(2) == 4 else fail("no"))]),
}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A learner's folder, with the checks of one lesson, being the current one."""
    (tmp_path / "checks").mkdir()
    (tmp_path / "checks" / "09_test.py").write_text(CHECKS, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KMEMLAB_PROGRESS", raising=False)
    return tmp_path


@pytest.fixture
def m() -> Machine:
    return Machine("linux-6.1", memory="64M")


def cells(view: dict[str, Any]) -> list[str]:
    return [cell["text"] for cell in view["cells"] + view["exercises"]]


def test_progress_survives_a_restart(folder: Path, m: Machine) -> None:
    lesson = Lesson("09_test")
    card = lesson.predict("P0", m)
    for key in ("c", "a"):
        card.choose(key)
        card.check()
    assert json.loads((folder / "progress.json").read_text(encoding="utf-8"))["lessons"]["09_test"]["P0"]["done"]
    again = Lesson("09_test")
    assert cells(again.progress().strip) == ["✓ 1 ·2nd", "2", "3", "A"]
    assert again.answer("P0") == "a"


def test_an_answered_card_can_be_answered_again(folder: Path, m: Machine) -> None:
    """After a restart it is open, says that it was solved, and the first success stays."""
    card = Lesson("09_test").predict("P0", m)
    card.choose("a")
    card.check()
    lesson = Lesson("09_test")
    card = lesson.predict("P0", m)
    assert card.view["note"] == "✓ answered before, 1st try"
    assert str(card).endswith("Not answered yet.")
    card.choose("b")
    card.check()
    assert cells(lesson.progress().strip)[0] == "✓ 1"


def test_tries_count_over_sessions(folder: Path, m: Machine) -> None:
    """Running the cell anew is no way to a first try."""
    for key in ("b", "c", "a"):
        card = Lesson("09_test").predict("P0", m)
        card.choose(key)
        card.check()
    assert cells(Lesson("09_test").progress().strip)[0] == "✓ 1 ·3rd"


def test_every_strip_on_show_follows(folder: Path, m: Machine) -> None:
    lesson = Lesson("09_test")
    strip, one, two = lesson.progress(), lesson.predict("P0", m), lesson.predict("R1", m)
    one.choose("a")
    one.check()
    assert cells(strip.strip) == cells(one.strip) == cells(two.strip) == ["✓ 1", "2", "3", "A"]
    assert [cell["current"] for cell in two.strip["cells"]] == [False, True, False]
    assert [cell["current"] for cell in one.strip["cells"]] == [True, False, False]
    lesson.exercise("double", lambda n: 2 * n)
    assert cells(strip.strip)[-1] == "✓ A"


def test_the_strip_in_words(folder: Path, m: Machine) -> None:
    lesson = Lesson("09_test")
    assert str(lesson.progress()) == "Lesson 09: 0 of 4 done. Questions 1:open 2:open 3:open. Exercises A:open"
    for key in ("b", "a"):
        card = lesson.predict("P0", m)
        card.choose(key)
        card.check()
    assert "1 of 4 done. Questions 1:right at the 2nd try 2:open" in str(lesson.progress())


def test_attempts_count_functions_not_runs(folder: Path) -> None:
    lesson = Lesson("09_test")

    def first(n: int) -> int:
        return n

    def second(n: int) -> int:
        return n + 2

    assert lesson.exercise("double", first).view["note"] == "1st attempt, saved"
    assert lesson.exercise("double", first).view["note"] == "1st attempt, saved"
    card = lesson.exercise("double", second)
    assert card.view["note"] == "2nd attempt, saved"
    assert card.done
    assert "attempt" not in str(card), "the twin does not depend on what was tried before"


def double(n: int) -> int:
    return n


def test_check_finds_the_newest_definition_in_the_notebook(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = Lesson("09_test").exercise("double", double)
    assert not card.done
    monkeypatch.setattr(sys.modules[__name__], "double", lambda n: n * 2)
    assert card.check() is True


def test_a_guess_is_kept_for_the_end(folder: Path, m: Machine) -> None:
    lesson = Lesson("09_test")
    assert lesson.answer("guess") is None
    card = lesson.predict("guess", m)
    card.choose("238")
    card.check()
    assert Lesson("09_test").answer("guess") == "238"


def test_another_file_of_checks(folder: Path, tmp_path_factory: pytest.TempPathFactory, m: Machine) -> None:
    """An instructor's own folder, an instructor's own file."""
    other = tmp_path_factory.mktemp("mine")
    (other / "01_mine.py").write_text(CHECKS, encoding="utf-8")
    file = other / "answers.json"
    card = Lesson("01_mine", checks=other, progress=Progress(file)).predict("P0", m)
    card.choose("a")
    card.check()
    assert file.is_file()
    assert not (folder / "progress.json").exists()


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        (None, "17_nothing", "no checks for lesson '17_nothing': looked for 17_nothing.py in"),
        (None, "../secret", "'../secret' is no lesson's name"),
        ("x = 1", "08_bad", "checks/08_bad.py has neither PREDICTIONS nor EXERCISES"),
        ("x = ", "08_bad", "checks/08_bad.py cannot be loaded: SyntaxError: invalid syntax"),
        ("import nonsense", "08_bad", "cannot be loaded: ModuleNotFoundError: No module named 'nonsense'"),
    ],
)
def test_one_line_says_what_is_wrong(folder: Path, text: str | None, name: str, message: str) -> None:
    if text is not None:
        (folder / "checks" / f"{name}.py").write_text(text, encoding="utf-8")
    with pytest.raises(LessonError) as caught:
        Lesson(name)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value._render_traceback_() == [f"LessonError: {caught.value}"]


def test_a_name_that_is_not_there(folder: Path, m: Machine) -> None:
    lesson = Lesson("09_test")
    with pytest.raises(LessonError, match="no question 'P7'; it has P0, R1, guess"):
        lesson.predict("P7", m)
    with pytest.raises(LessonError, match="no exercise 'P0'; it has double"):
        lesson.exercise("P0", double)


def test_a_broken_file_of_answers_is_told_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "progress.json").write_text("oops", encoding="utf-8")
    Lesson("09_test")
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert "kept as progress.json.broken-1" in said
    Lesson("09_test")
    assert capsys.readouterr().out == ""


def test_when_nothing_can_be_written(folder: Path, m: Machine) -> None:
    (folder / "progress.json").mkdir()
    lesson = Lesson("09_test")
    card = lesson.predict("P0", m)
    card.choose("a")
    assert card.check() is True
    assert lesson.progress().strip["note"] == "progress kept for this session only"
    assert cells(lesson.progress().strip)[0] == "✓ 1"
    assert lesson.exercise("double", lambda n: 2 * n).view["note"] == "1st attempt, kept for this session"


def test_checks_may_import_the_files_beside_them(tmp_path: Path) -> None:
    """Two lessons' helpers of one name do not meet, a changed one is read again, nothing stays on the path."""
    for name, word in (("one", "first"), ("two", "second")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "helper.py").write_text(f"WORD = {word!r}\n")
        (tmp_path / name / f"{name}.py").write_text("from helper import WORD\nPREDICTIONS = {WORD: None}\n")
    before = list(sys.path)
    assert "first" in Lesson("one", checks=tmp_path / "one")._predictions
    assert "second" in Lesson("two", checks=tmp_path / "two")._predictions
    (tmp_path / "one" / "helper.py").write_text("WORD = 'another'\n")
    assert "another" in Lesson("one", checks=tmp_path / "one")._predictions
    assert sys.path == before
    assert "helper" not in sys.modules
