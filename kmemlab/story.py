"""The shape of a narrated request: what ``m.explain()`` returns and the RequestPath panel draws.

Plain data, so that the text and the picture cannot tell different stories.
"""

from __future__ import annotations

from typing import NamedTuple

from kmemlab.events import Event

__all__ = ["Block", "Scale", "Step", "Story", "shortfall"]


class Scale(NamedTuple):
    """One comparison ``have > sum of parts``, in pages; ``>`` is strict.

    ``parts`` names what the sum is made of: ``(("3/8 of min", 13), ("protection", 179))``.
    """

    have: int
    parts: tuple[tuple[str, int], ...]
    what: str = "free"

    @property
    def need(self) -> int:
        """The sum that must be exceeded, in pages."""
        return sum(pages for _, pages in self.parts)

    @property
    def passed(self) -> bool:
        """Whether ``have`` is above ``need``."""
        return self.have > self.need


def shortfall(have: int, need: int) -> str:
    """What a failed ``have > need`` lacks, in words: ``>`` is strict, so 148 > 155 is 8 pages short."""
    if have == need:
        return "equal is not above"
    return f"{need - have + 1:,} pages short"


class Block(NamedTuple):
    """A run of 2**order pages in the picture of a step; ``state`` is "taken", "pcp" or "free"."""

    pfn: int
    order: int
    state: str


class Step(NamedTuple):
    """One floor of the house doing one thing.

    ``floor`` is our module, ``function`` and ``file`` the kernel's; ``say`` one sentence, ``why`` its
    reason; ``verdict`` True (passed), False (said no) or None (just did it); ``gives`` is what the
    floor hands back upstairs ("1 page", "15 pages", ""). A round of the slow path is one step; what was tried
    in it are its ``parts``.
    """

    floor: str
    function: str
    file: str
    say: str
    why: str = ""
    verdict: bool | None = None
    scale: Scale | None = None
    blocks: tuple[Block, ...] = ()
    gives: str = ""
    events: tuple[Event, ...] = ()
    parts: tuple[Step, ...] = ()

    def __str__(self) -> str:
        mark = {True: "✓ ", False: "✕ ", None: ""}[self.verdict]
        return f"{self.floor:<10s} {mark}{self.say}" + (f" ({self.why})" if self.why else "")


class Story(NamedTuple):
    """A request told step by step. ``str()`` is the text; a notebook shows the same text."""

    headline: str
    steps: tuple[Step, ...] = ()
    note: str = ""

    def __str__(self) -> str:
        lines = [self.headline]
        for number, step in enumerate(self.steps, 1):
            lines.append(f"{number:2d}  {step}")
            lines.extend(f"      {part}" for part in step.parts)
        if self.note:
            lines.append(self.note)
        return "\n".join(lines)

    def __repr__(self) -> str:
        return str(self)
