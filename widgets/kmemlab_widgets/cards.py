"""The question cards: ``Predict`` asks before a cell runs, ``Exercise`` checks a function the learner wrote.

A card decides everything here, in Python: the browser gets the words to show and sends back what was chosen.
The right answer is computed when it is asked for and reaches the browser only after it was given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import anywidget
import traitlets

from kmemlab_widgets import cardtext
from kmemlab_widgets.checking import Report, is_untouched, run_checks
from kmemlab_widgets.questions import AnyQuestion, CheckResult, ExerciseSpec, Question, Verdict, judge
from kmemlab_widgets.theme import css

if TYPE_CHECKING:
    from kmemlab_widgets.lesson import Lesson

__all__ = ["Card", "Exercise", "Predict", "Strip"]

_STATIC = Path(__file__).parent / "static"


class Card(anywidget.AnyWidget):
    """What all cards share: a ``view`` (words and states, JSON) that static/cards.js draws, and the strip."""

    _esm = _STATIC / "cards.js"
    _css = css(".kml-cards") + (_STATIC / "cards.css").read_text(encoding="utf-8")
    view = traitlets.Dict().tag(sync=True)
    strip = traitlets.Dict().tag(sync=True)

    def __init__(self, lesson: Lesson | None, name: str) -> None:
        super().__init__()
        self.lesson, self.name = lesson, name
        self.error = ""
        self.on_msg(self._on_message)
        if lesson is not None:
            lesson.join(self)

    # What the browser may ask for: the message's word -> the method's name.
    _actions: ClassVar[dict[str, str]] = {}

    def _on_message(self, _widget: Any, content: Any, _buffers: Any) -> None:
        """A click or key in the browser. Whatever goes wrong is shown in the card."""
        action = self._actions.get(content.get("do", "")) if isinstance(content, dict) else None
        if action is None:
            return
        given = content.get("given", [])
        try:
            if action == "check":
                self._take(given if isinstance(given, list) else [])
            getattr(self, action)()
        except Exception as error:  # noqa: BLE001 - a broken card must not take the cell with it
            self._failed(error)

    def _take(self, given: list[Any]) -> None:
        """Take over what was chosen or typed in the browser."""

    def _failed(self, error: Exception) -> None:
        last = str(error).splitlines()[0] if str(error) else ""
        self.error = f"card error: {type(error).__name__} {last}; the machine is not affected.".replace("  ", " ")
        self.refresh()

    def refresh(self) -> None:
        """Compute what is shown anew."""
        self.view = self._view()
        self.show_strip()

    def show_strip(self) -> None:
        """Compute the strip anew."""
        if self.lesson is not None:
            self.strip = self.lesson.strip_view(self.name)

    def _view(self) -> dict[str, Any]:
        raise NotImplementedError

    def text(self) -> str:
        """The card in words. It depends on what happened to this card, not on the file of answers."""
        return cardtext.twin(self._view())

    def __str__(self) -> str:
        return self.text()

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        """Add the words and a picture for where no widget can be shown."""
        bundle = super()._repr_mimebundle_(**kwargs)
        data, meta = bundle if isinstance(bundle, tuple) else (bundle, {})
        data = {**(data or {}), "text/plain": self.text(), "text/html": cardtext.picture(self._view())}
        return data, meta


class Predict(Card):
    """Ask before the run, tell after. ``make(m, seed)`` builds the question; ``choose`` and ``check`` answer it."""

    _actions: ClassVar[dict[str, str]] = {"check": "check", "again": "try_again", "another": "another"}

    def __init__(
        self,
        make: Callable[[Any, int], AnyQuestion],
        m: Any = None,
        *,
        name: str = "",
        place: tuple[int, int] = (1, 1),
        lesson: Lesson | None = None,
    ) -> None:
        super().__init__(lesson, name)
        self._make, self._place = make, place
        # The machine of this moment: the learner's own will have moved on when the answer is checked.
        self._machine = m.copy() if hasattr(m, "copy") else m
        self.seed = 0
        self.question: AnyQuestion | None = None
        self._begin()

    def _fresh(self) -> Any:
        return self._machine.copy() if hasattr(self._machine, "copy") else self._machine

    def _begin(self) -> None:
        self.given: tuple[str, ...] = ()
        self.tried: tuple[str, ...] = ()
        self.tries = 0
        self.done = False
        self.verdict: Verdict | None = None
        try:
            self.question = self._make(self._fresh(), self.seed)
            self._ask = cardtext.say(self.question.ask, self._fresh)
        except Exception as error:  # noqa: BLE001 - shown in the card
            self._failed(error)
        else:
            self.refresh()

    @property
    def variants(self) -> bool:
        """True if the author says that other seeds give other numbers."""
        return bool(getattr(self._make, "variants", False))

    def _take(self, given: list[Any]) -> None:
        self.given = tuple(str(one)[:200] for one in given[:100])

    def choose(self, *answers: Any) -> None:
        """Choose options by key or by their text, or write numbers into the blanks."""
        keys = {}
        if isinstance(self.question, Question):
            keys = {choice.text: choice.key for choice in self.question.choices}
            unknown = [one for one in answers if one not in keys and one not in keys.values()]
            if unknown:
                raise ValueError(f"no option {unknown[0]!r}: the options are {', '.join(keys.values())}")
        self.given = tuple(str(keys.get(one, one)) for one in answers)

    def check(self) -> bool | None:
        """Judge what was chosen: True, False, or None if there was nothing to judge."""
        if self.question is None or self.done:
            return self.done or None
        given = [one for one in self.given if one not in self.tried] if self.tried else list(self.given)
        try:
            verdict = judge(self.question, given, self._fresh)
        except Exception as error:  # noqa: BLE001 - the author's answer failed, the learner is not to blame
            self._failed(error)
            return None
        self.error = ""
        self.verdict = verdict
        if verdict.right is not None:
            self.tries += 1
            self.done = verdict.right
            if isinstance(self.question, Question):
                self.tried += verdict.wrong
            if self.lesson is not None and self.seed == 0:
                self.lesson.answered(self.name, given, right=verdict.right)
        self.refresh()
        return verdict.right

    def try_again(self) -> None:
        """Put the feedback away and choose again."""
        if not self.done:
            self.verdict = None
            if isinstance(self.question, Question):
                self.given = ()
            self.refresh()

    def another(self) -> None:
        """The same question with new numbers; what was answered stays answered."""
        if self.variants:
            self.seed += 1
            self._begin()

    def _view(self) -> dict[str, Any]:
        return cardtext.predict_view(self)


class Exercise(Card):
    """Run the hidden checks on a learner's function and show what was tried and why it failed."""

    _actions: ClassVar[dict[str, str]] = {"check": "check", "hint": "hint"}

    def __init__(
        self,
        spec: ExerciseSpec,
        fn: Any = None,
        *,
        name: str = "",
        lesson: Lesson | None = None,
        find: Callable[[], Any] | None = None,
    ) -> None:
        """``name`` is the exercise's; ``find`` looks the function up again, so that Check tests the newest."""
        super().__init__(lesson, name)
        self.spec, self._fn, self._find = spec, fn, find
        self.hints = 0
        self.report: Report | None = None
        self._run()

    @property
    def done(self) -> bool:
        """True when every check passed."""
        return self.report is not None and self.report.all_passed

    def check(self) -> bool | None:
        """Run the checks again, on the newest definition; None if nobody has written the function yet."""
        if self._find is not None and (newest := self._find()) is not None:
            self._fn = newest
        return self._run()

    def _run(self) -> bool | None:
        self.error, self.report = "", None
        try:
            if self._fn is not None and not is_untouched(self.spec, self._fn):
                # What the learner's function does becomes a row; what raises here is the author's mistake.
                self.report = run_checks(self.spec, self._fn, getattr(self._fn, "__name__", self.name))
                if self.lesson is not None:
                    self.lesson.attempted(self.name, self.report, self._fn)
        except Exception as error:  # noqa: BLE001 - shown in the card
            self._failed(error)
            return None
        self.refresh()
        return None if self.report is None else self.report.all_passed

    def hint(self) -> None:
        """Show one hint more."""
        self.hints = min(self.hints + 1, len(self.spec.hints))
        self.refresh()

    def rows(self) -> Sequence[CheckResult]:
        """The rows of the last run."""
        return self.report.rows if self.report else ()

    def _view(self) -> dict[str, Any]:
        return cardtext.exercise_view(self)


class Strip(Card):
    """How far a lesson is: one cell a question, letters for exercises. It shows neither points nor red."""

    def __init__(self, lesson: Lesson) -> None:
        super().__init__(lesson, "")
        self.refresh()

    def _view(self) -> dict[str, Any]:
        assert self.lesson is not None
        return {"kind": "strip", "strip": self.lesson.strip_view("")}
