"""Machines as the lessons' notebooks leave them, and what a card or an exercise says to an answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import kmemlab
from kmemlab import __GFP_MEMALLOC, GFP_DMA, Machine
from kmemlab_widgets.checking import run_checks
from kmemlab_widgets.lesson import Lesson, _load

__all__ = ["CHECKS", "Containing", "answered", "broken_yard", "checks_module", "starter", "told"]

CHECKS = Path(__file__).resolve().parents[2] / "lessons" / "checks"


def checks_module(name: str) -> Any:
    """One of the lessons' checks files as a module of its own."""
    return _load(name, CHECKS)[0]


def broken_yard() -> Machine:
    """Zone DMA after the opening of lesson 00: every page taken, all but one in sixteen given back."""
    m = Machine.from_recording("256M-a-21")
    pages = []
    while page := m.alloc_pages(GFP_DMA | __GFP_MEMALLOC, 0):
        pages.append(page)
    for page in pages:
        if page.pfn % 16 != 8:
            m.__free_pages(page, 0)
    return m


class Containing(str):
    """A text that equals every text it is part of; pytest shows both when it is not."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and str(self) in str(other)

    __hash__ = str.__hash__


def answered(
    lesson: Lesson, machines: Mapping[str, Callable[[], Machine]], name: str, given: Any
) -> tuple[bool | None, str]:
    """Answer a question (a list: several options, or one text a box): was it right, and what was said."""
    make = machines.get(name)
    card = lesson.predict(name, make() if make else None)
    card.choose(*given) if isinstance(given, list) else card.choose(given)
    return card.check(), card.error or card.verdict.text


def told(lesson: Lesson, name: str, fn: Callable[..., Any]) -> list[str]:
    """Why the checks of an exercise do not pass; nothing when they do."""
    return [row.why for row in run_checks(lesson._exercises[name], fn, name).rows if not row.passed]


def starter(lesson: Lesson, name: str) -> Callable[..., Any]:
    """The function a learner begins with."""
    space: dict[str, Any] = {key: getattr(kmemlab, key) for key in kmemlab.__all__}
    exec(lesson._exercises[name].starter, space)  # noqa: S102 - the lesson's own text
    return space[name]
