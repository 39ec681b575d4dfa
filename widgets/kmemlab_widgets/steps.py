"""What MempoolGauge and TaskTimeline share: time as columns, a chosen column with its sentence, steps left and right.

The browser has the columns that are seen and their sentences; for others it asks here.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import anywidget
import traitlets

from kmemlab_widgets.panel import STATIC, LazyView, Panel, View, module
from kmemlab_widgets.theme import css

__all__ = ["Grid", "Steps"]


@dataclass(frozen=True, slots=True)
class Grid:
    """Where the columns of a drawing stand: the first at ``x``, ``step`` px each, from ``top`` to ``bottom``."""

    x: float
    step: float
    top: float
    bottom: float


class Steps(Panel, anywidget.AnyWidget):
    """A panel of columns. A subclass has ``across``, ``count``, ``draw``, ``say``, ``words`` and perhaps ``watch``."""

    _esm = module("steps")
    _css = css(".kml-steps") + (STATIC / "steps.css").read_text(encoding="utf-8")
    view_data = traitlets.Unicode("{}").tag(sync=True)
    what = "step"  # what a column is
    badge = ""
    across: dict[int, int]  # width -> columns

    def __init__(self, source: Any, *, at: int | None = None, follow: bool = True) -> None:
        anywidget.AnyWidget.__init__(self)
        self._want = at  # the column to be shown; None: the newest
        self._first = dict.fromkeys(self.across, 0)
        self.on_msg(self._told)
        self.start(source, follow=follow)

    # --- what a subclass writes ------------------------------------------------------------------

    def count(self, run: Any) -> int:
        """How many columns there are, at least one."""
        raise NotImplementedError

    def draw(self, run: Any, width: int, first: int, at: int | None) -> tuple[str, Grid]:
        """The columns from ``first`` on; with ``at`` the whole picture, headline, frame and sentence included."""
        raise NotImplementedError

    def say(self, run: Any, i: int) -> tuple[str, str]:
        """Name and sentence of a column."""
        raise NotImplementedError

    def words(self, run: Any, first: int, last: int, at: int) -> tuple[str, str, str]:
        """Headline, second line, text twin."""
        raise NotImplementedError

    # --- the panel -----------------------------------------------------------------------------------

    def snapshot(self) -> Any:
        """What is shown."""
        return self.watch.run() if self.watch else self._snapshot

    def view(self, snapshot: Any) -> View:
        """Words, and the picture to be saved."""
        count = self.count(snapshot)
        self._at = at = count - 1 if self._want is None else max(0, min(self._want, count - 1))
        for width, across in self.across.items():
            first = count - across if self._want is None else self._first[width]
            first = min(max(first, at - across + 1, 0), at)
            self._first[width] = max(0, min(first, count - across))
        seen, wide = dict(self._first), self._first[868]
        self._words = self.words(snapshot, wide, min(wide + self.across[868], count) - 1, at)
        return LazyView(self._words[0], self._words[2], lambda width: self.draw(snapshot, width, seen[width], at)[0])

    def show(self, view: View, snapshot: Any) -> None:
        """Send the columns in both widths, and what each of them means."""
        if snapshot is None:
            self.view_data = json.dumps({"error": view.twin})
            return
        count, svg, grid, seen = self.count(snapshot), {}, {}, set()
        for width, across in self.across.items():
            first = self._first[width]
            seen |= set(range(first, min(first + across, count)))
            svg[width], place = self.draw(snapshot, width, first, None)
            grid[width] = asdict(place) | {"first": first, "across": min(across, count - first)}
        head, sub, twin = self._words
        self.view_data = json.dumps({
            "head": head, "sub": sub, "twin": twin, "badge": self.badge, "what": self.what, "at": self._at,
            "count": count, "svg": svg, "grid": grid, "says": {i: self.say(snapshot, i) for i in sorted(seen)},
        })  # fmt: skip

    def _told(self, _: Any, message: dict[str, Any], __: Any) -> None:
        """The browser wants a column that it does not have."""
        if isinstance(at := message.get("at"), int):
            self._want = at
            self.refresh()
            self._want = None if self.machine else at  # what is frozen stays where one looks
