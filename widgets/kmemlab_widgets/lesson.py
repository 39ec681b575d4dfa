"""``Lesson``: the questions and exercises of one notebook, and how far the learner has come.

The questions live in ``checks/NAME.py`` beside the notebook: plain Python with two tables, ``PREDICTIONS``
(name -> function of the machine and a seed that returns a question) and ``EXERCISES`` (name -> ExerciseSpec).
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import inspect
import sys
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from kmemlab_widgets.cards import Card, Exercise, Predict, Strip
from kmemlab_widgets.cardtext import ordinal
from kmemlab_widgets.checking import Report
from kmemlab_widgets.progress import Progress

__all__ = ["Lesson", "LessonError"]


class LessonError(Exception):
    """A lesson that cannot be found or used; one line says what is missing."""

    def _render_traceback_(self) -> list[str]:
        # IPython shows this in place of a page of frames the learner cannot do anything about.
        return [f"LessonError: {self}"]


def _folders(folder: str | Path | None) -> list[Path]:
    """Where checks may be: beside the notebook, then with the lessons that came with the package."""
    if folder is not None:
        return [Path(folder)]
    here = Path.cwd()
    found = [here / "checks", here / "lessons" / "checks"]
    if (spec := importlib.util.find_spec("kmemlab")) and spec.origin:
        package = Path(spec.origin).parent
        found += [package / "_lessons" / "checks", package.parent / "lessons" / "checks"]
    return found


def _load(name: str, folder: str | Path | None) -> tuple[ModuleType, Path]:
    """The checks of a lesson, and the folder they are in."""
    if not name.replace("_", "").replace("-", "").isalnum():
        raise LessonError(f"{name!r} is no lesson's name (letters, digits and _)")
    for place in _folders(folder):
        path = place / f"{name}.py"
        if path.is_file():
            break
    else:
        where = folder or "the folder `checks` beside this notebook, and the lessons that came with kmemlab"
        raise LessonError(f"no checks for lesson {name!r}: looked for {name}.py in {where}")
    # Loaded by path: the name begins with a digit, and a changed file must be read again.
    spec = importlib.util.spec_from_file_location(f"kmemlab_checks_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    with _neighbours(path.parent):
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            raise LessonError(f"checks/{name}.py cannot be loaded: {type(error).__name__}: {error}") from error
    return module, path.parent


@contextlib.contextmanager
def _neighbours(folder: Path) -> Iterator[None]:
    """Let a checks file import the files beside it, as they are now: none is remembered for the next lesson."""
    known = set(sys.modules)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - known:
            file = getattr(sys.modules[name], "__file__", None)
            if file and Path(file).parent == folder:
                del sys.modules[name]


class Lesson:
    """The questions of one notebook: ``Lesson("00_start")``.

    ``predict`` and ``exercise`` show cards, ``progress`` the strip, ``answer`` what was answered to a
    question. Errors: LessonError, one line.
    """

    def __init__(
        self, name: str, *, checks: str | Path | None = None, progress: Progress | None = None, echo: Any = print
    ) -> None:
        """``checks`` is another folder of checks; ``progress`` another file of answers."""
        self.name = name
        module, found = _load(name, checks)
        self._predictions: Mapping[str, Any] = getattr(module, "PREDICTIONS", {})
        self._exercises: Mapping[str, Any] = getattr(module, "EXERCISES", {})
        if not self._predictions and not self._exercises:
            raise LessonError(f"checks/{name}.py has neither PREDICTIONS nor EXERCISES")
        # Beside the lessons, when these are the learner's; never into an installed package.
        theirs = found.resolve().parent.is_relative_to(Path.cwd().resolve())
        self._progress = progress or Progress(folder=found.parent if theirs else None)
        self._cards: weakref.WeakSet[Card] = weakref.WeakSet()
        self._current = ""
        if "broken" in self._progress.note:
            echo(self._progress.note)

    def __repr__(self) -> str:
        return f"Lesson({self.name!r}): {len(self._predictions)} questions, {len(self._exercises)} exercises"

    # --- what a notebook calls ----------------------------------------------------------------------

    def predict(self, name: str, m: Any = None) -> Predict:
        """Ask question ``name`` about machine ``m`` as it is now."""
        make = self._named(self._predictions, name, "question")
        place = (list(self._predictions).index(name) + 1, len(self._predictions))
        self._current = name
        return Predict(make, m, name=name, place=place, lesson=self)

    def exercise(self, name: str, fn: Any = None) -> Exercise:
        """Run the hidden checks of exercise ``name`` on the function ``fn``."""
        spec = self._named(self._exercises, name, "exercise")
        self._current = name
        return Exercise(spec, fn, name=name, lesson=self, find=_newest(fn))

    def progress(self) -> Strip:
        """The strip: one cell a question, ✓ where it is answered."""
        self._progress.refresh()
        return Strip(self)

    def answer(self, name: str) -> Any:
        """What the learner answered to question ``name`` (a key or text, several as a list); None if nothing."""
        self._named(self._predictions, name, "question")
        given = self._record(name).get("answer")
        return given[0] if isinstance(given, list) and len(given) == 1 else given

    def _named(self, table: Mapping[str, Any], name: str, what: str) -> Any:
        if name not in table:
            raise LessonError(f"lesson {self.name} has no {what} {name!r}; it has {', '.join(table) or 'none'}")
        return table[name]

    # --- what cards call ----------------------------------------------------------------------------

    def join(self, card: Card) -> None:
        """A card is on show: its strip follows the progress."""
        self._cards.add(card)

    def answered(self, name: str, given: Sequence[str], *, right: bool) -> None:
        """Keep an answer to a question; tries count over sessions until it is right."""
        old = self._record(name)
        if not old.get("done"):
            self._keep(name, {"done": right, "tries": old.get("tries", 0) + 1, "answer": list(given)})

    def attempted(self, name: str, report: Report, fn: Any) -> None:
        """Keep the outcome of an exercise; running the same function again is no new attempt."""
        old, mark = self._record(name), _fingerprint(fn)
        attempts = old.get("attempts", 0) + (old.get("code") != mark)
        self._keep(
            name,
            {
                "done": report.all_passed,
                "attempts": attempts,
                "passed": report.passed,
                "of": len(report.rows),
                "code": mark,
            },
        )

    def attempts(self, name: str) -> int:
        """How many different functions were tried for an exercise."""
        return int(self._record(name).get("attempts", 0))

    @property
    def saved(self) -> bool:
        """True if answers go to a file."""
        return self._progress.path is not None and not self._progress.note.startswith("progress kept")

    def before(self, name: str) -> str:
        """What the file of answers says of a question, for the note on a new card."""
        record = self._record(name)
        return f"✓ answered before, {ordinal(record.get('tries', 1))} try" if record.get("done") else ""

    def _record(self, name: str) -> Mapping[str, Any]:
        return self._progress.of(self.name).get(name, {})

    def _keep(self, name: str, record: dict[str, Any]) -> None:
        self._progress.record(self.name, name, record)
        for card in list(self._cards):
            card.show_strip()

    def strip_view(self, current: str) -> dict[str, Any]:
        """The strip as plain data; ``current`` is framed, else the one shown last, else the first open one."""
        names = [*self._predictions, *self._exercises]
        is_done = [bool(self._record(name).get("done")) for name in names]
        open_ones = [name for name, done in zip(names, is_done, strict=True) if not done]
        current = current or self._current or (open_ones[0] if open_ones else "")
        cells = [self._cell(name, str(i), current) for i, name in enumerate(self._predictions, 1)]
        letters = [self._cell(name, spec.letter, current) for name, spec in self._exercises.items()]
        return {
            "title": f"Lesson {self.name.partition('_')[0]}",
            "cells": cells,
            "exercises": letters,
            "note": self._progress.note,
            "summary": f"{sum(is_done)} of {len(names)} done",
        }

    def _cell(self, name: str, label: str, current: str) -> dict[str, Any]:
        record = self._record(name)
        tries = record.get("tries", 1)
        state, text, words = "", label, "open"
        if record.get("done"):
            late = isinstance(tries, int) and tries > 1
            state, text = ("late", f"✓ {label} ·{ordinal(tries)}") if late else ("ok", f"✓ {label}")
            words = f"right at the {ordinal(tries)} try" if late else "right" if name in self._predictions else "done"
        return {"label": label, "text": text, "words": words, "state": state, "current": name == current}


def _newest(fn: Any) -> Any:
    """A function that finds the newest definition of ``fn`` in the learner's namespace."""
    space, name = getattr(fn, "__globals__", None), getattr(fn, "__name__", None)
    if not isinstance(space, dict) or space.get(name) is not fn:
        return None
    return lambda: space.get(name)


def _fingerprint(fn: Any) -> str:
    try:
        source = inspect.getsource(fn)
    except (OSError, TypeError):
        source = repr(getattr(getattr(fn, "__code__", None), "co_code", fn))
    return hashlib.sha256(source.encode()).hexdigest()[:12]
