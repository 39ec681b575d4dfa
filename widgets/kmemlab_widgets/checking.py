"""Run an exercise's checks on a learner's function and say in one row each what came of it.

The function is a stranger: it may raise, return anything, print a lot or never end. None of that may harm
the cell it was started from.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import linecache
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import FrameType, TracebackType
from typing import Any

from kmemlab_widgets.questions import Check, CheckResult, ExerciseSpec

__all__ = ["Report", "is_untouched", "run_checks"]

_NOT_YOURS = "The check itself failed, not your function. Please report it."
_PRINTED = 4000  # characters kept of what a function prints


@dataclass(frozen=True, slots=True)
class Report:
    """The rows of one run, and what the function printed meanwhile."""

    rows: tuple[CheckResult, ...]
    printed: str = ""

    @property
    def passed(self) -> int:
        """How many checks passed."""
        return sum(row.passed for row in self.rows)

    @property
    def all_passed(self) -> bool:
        """True if every check passed."""
        return self.passed == len(self.rows)


class _Endless(BaseException):
    """Raised inside a learner's function that does not end. Not an Exception: `except Exception` in a loop
    would swallow it."""


class _WrongType(Exception):
    """The learner's function returned something of another type than the task says."""


def run_checks(spec: ExerciseSpec, fn: Any, name: str = "") -> Report:
    """Run all checks of ``spec`` on ``fn``; never raises because of ``fn``."""
    name = name or getattr(fn, "__name__", "your function")
    if not callable(fn):
        return Report((CheckResult(False, why=f"{name} is of type {type(fn).__name__}, not a function."),))
    out = _Paper()
    rows: list[CheckResult] = []
    told: set[str] = set()
    for check in spec.checks:
        if not isinstance(check, Check):
            check = Check((check.__doc__ or check.__name__).strip().splitlines()[0].rstrip("."), check)
        with contextlib.redirect_stdout(out):
            row = _run_one(spec, check, fn, name)
        # The same accident in every row is told once.
        accident = f"{row.kernel}\n{row.why.partition('The call was')[0]}" if not row.passed else ""
        rows.append(replace(row, kernel="", why="As above.") if accident in told else row)
        if accident:
            told.add(accident)
    return Report(tuple(rows), out.getvalue())


def is_untouched(spec: ExerciseSpec, fn: Any) -> bool:
    """True if the function is still the starter: nobody has tried yet."""
    try:
        source = inspect.getsource(fn)
    except (OSError, TypeError):
        return False
    return _plain(source) == _plain(spec.starter)


def _plain(source: str) -> str:
    lines = (line.partition("#")[0].rstrip() for line in textwrap.dedent(source).splitlines())
    return "\n".join(line for line in lines if line)


class _Paper(io.StringIO):
    """Keeps the beginning of what is printed: a loop that prints for ever must not fill the memory."""

    def write(self, text: str) -> int:
        if self.tell() < _PRINTED:
            super().write(text[: _PRINTED - self.tell()])
        return len(text)


def _run_one(spec: ExerciseSpec, check: Check, fn: Callable[..., Any], name: str) -> CheckResult:
    call = _Call(fn, name, spec.returns)
    try:
        if check.prepare is not None:
            check.prepare()
    except Exception as error:  # noqa: BLE001 - a lesson's mistake must not break the learner's cell either
        last = "".join(traceback.format_exception_only(type(error), error)).strip().splitlines()[-1]
        return CheckResult(False, last, _NOT_YOURS, check.tried, check.where)
    try:
        with _budget(_globals_of(fn), spec.budget):
            row = check.run(call)
    except _WrongType as error:
        row = CheckResult(False, why=str(error))
    except _Endless:
        row = CheckResult(
            False, why=f"`{call.last}` did not end within {spec.budget:,} steps. Look for a loop that never stops."
        )
    except Exception as error:  # noqa: BLE001 - whatever the learner's code raises becomes a row
        row = _raised(error, check, call)
    return replace(row, tried=row.tried or check.tried, where=row.where or check.where)


class _Call:
    """The learner's function as the checks see it: remembers the last call, tests the type of the result."""

    def __init__(self, fn: Callable[..., Any], name: str, returns: type | tuple[type, ...] | None) -> None:
        self.fn, self.name, self.returns = fn, name, returns
        self.args: tuple[Any, ...] = ()
        self.__wrapped__ = fn

    @property
    def last(self) -> str:
        """The last call, as the learner would write it."""
        return f"{self.name}({', '.join(_short(arg) for arg in self.args)})"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.args = tuple(list(arg) if isinstance(arg, list) else arg for arg in args)
        result = self.fn(*args, **kwargs)
        if self.returns is not None and type(result) not in _types(self.returns):
            wanted = " or ".join(kind.__name__ for kind in _types(self.returns))
            got = "None: is a `return` missing?" if result is None else f"{_short(result)} ({type(result).__name__})."
            raise _WrongType(f"`{self.last}` should return {wanted}, it returned {got}")
        return result


def _types(kinds: type | tuple[type, ...]) -> tuple[type, ...]:
    return kinds if isinstance(kinds, tuple) else (kinds,)


def _short(value: Any, limit: int = 60) -> str:
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - a learner's __repr__ may raise
        text = f"<{type(value).__name__}>"
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _globals_of(fn: Any) -> dict[str, Any] | None:
    """The namespace the learner writes in: frames that run there are theirs."""
    plain = inspect.unwrap(fn) if callable(fn) else fn
    if hasattr(plain, "__func__"):
        plain = plain.__func__
    found = getattr(plain, "__globals__", None)
    if found is None and (module := sys.modules.get(getattr(plain, "__module__", None) or "")):
        found = vars(module)
    return found


def _raised(error: Exception, check: Check, call: _Call) -> CheckResult:
    """The row for an exception: the last line of the traceback, and the line in the learner's own cell."""
    last = "".join(traceback.format_exception_only(type(error), error)).strip().splitlines()[-1]
    theirs = _globals_of(call.fn)
    place: tuple[str, int] | None = None
    inside = ""
    step: TracebackType | None = error.__traceback__
    while step is not None:
        frame = step.tb_frame
        if frame.f_code is _Call.__call__.__code__:
            place = None  # what came before is the check's, even where both are written in one notebook
        elif frame.f_globals is theirs and frame.f_code is not getattr(check.run, "__code__", None):
            place = (frame.f_code.co_filename, step.tb_lineno)
        inside = frame.f_globals.get("__name__", "")
        step = step.tb_next
    if place is not None:
        text = linecache.getline(*place).strip()
        why = f"Line {place[1]} of your cell" + (f": `{text}`" if text else "") + f". The call was `{call.last}`."
        return CheckResult(False, last, why)
    if inside == __name__:  # raised by the call itself: the number of arguments does not fit
        return CheckResult(False, last, f"The call was `{call.last}`: compare it with the signature.")
    return CheckResult(False, last, _NOT_YOURS)


@contextlib.contextmanager
def _budget(theirs: dict[str, Any] | None, budget: int) -> Iterator[None]:
    """Stop the learner's code after ``budget`` instructions.

    A trace function, because threads and alarms do not exist in the browser's Python; instructions, because
    ``while True: pass`` on one line makes no line events. Only frames of the learner's namespace are counted,
    the engine runs at full speed. Not caught: an endless call inside Python's own C code, and a bare
    ``except:`` inside the loop (Python removes a trace function that raises). Then the stop button helps.
    """
    left = budget

    def count(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise _Endless
        return count

    def enter(frame: FrameType, event: str, arg: Any) -> Any:
        if frame.f_globals is not theirs:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return count

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        yield
    finally:
        sys.settrace(before)
