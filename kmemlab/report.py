"""A kernel log cut into reports: what the readers of slab reports and of failure reports have in common."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

__all__ = ["Report", "pieces"]

_STAMP = r"^(?:<\d>)?\[ *\d+\.\d+\] ?"


@dataclass(slots=True, kw_only=True)
class Report(ABC):
    """One report of a log: ``lines`` has each line with what it says, ``first`` is where it begins, from 0."""

    lines: list[tuple[str, str]] = field(default_factory=list)
    first: int = 0

    @property
    @abstractmethod
    def headline(self) -> str:
        """The finding in a sentence."""

    def __str__(self) -> str:
        told = (f"{text}\n    {words}" if words else text for text, words in self.lines)
        return "\n".join((self.headline, *told))


def pieces(text: str, begins: Callable[[str], object]) -> Iterator[tuple[int, list[str]]]:
    """A log cut before each line that ``begins`` something: (number of the first line from 0, lines without stamps).

    What stands before the first such line is a piece too.
    """
    lines = [re.sub(_STAMP, "", line) for line in text.splitlines()]
    starts = [0, *(i for i, line in enumerate(lines) if i and begins(line))]
    for first, end in pairwise([*starts, len(lines)]):
        yield first, lines[first:end]
