"""Dmesg: the kernel log line by line; what a line of a report says, and whom it names."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import anywidget
import traitlets

from kmemlab.failure_reader import read_failure_reports
from kmemlab.report import Report
from kmemlab.sleep_reader import read_sleep_reports
from kmemlab.slub_reader import read_slab_reports
from kmemlab_widgets.panel import STATIC, Panel, View, module
from kmemlab_widgets.svg import Svg, fit
from kmemlab_widgets.theme import css, number, plural

__all__ = ["Dmesg", "Log", "draw", "read_log"]

MOST = 400  # lines of a log that are shown: its end
DRAWN = 44  # rows of the picture that outlives the kernel
NO_REPORT = "no report in the log"


@dataclass(frozen=True, slots=True)
class Log:
    """A log as the panel shows it: (line, what it says or "") and the number of its newest report's first line."""

    headline: str
    lines: tuple[tuple[str, str], ...]
    start: int
    reports: int


def read_log(text: str) -> Log:
    """Explain every report of a log. Pure."""
    lines = [(line, "") for line in text.splitlines()]
    reports: list[Report] = [*read_slab_reports(text), *read_failure_reports(text), *read_sleep_reports(text)]
    reports.sort(key=lambda report: report.first)
    for report in reports:
        for at, (line, words) in enumerate(report.lines, report.first):
            lines[at] = (line, words or lines[at][1])
    start = reports[-1].first if reports else 0
    cut = max(0, min(start, len(lines) - MOST)) if reports else max(0, len(lines) - MOST)
    start += next((i for i, (_, words) in enumerate(lines[start:]) if words), 0)
    return Log(reports[-1].headline if reports else NO_REPORT, tuple(lines[cut:]), max(0, start - cut), len(reports))


def twin(log: Log, sub: str) -> str:
    """The panel in words: the finding, then the lines that say something."""
    told = [f"{i + 1}: {text.strip()}: {words}" for i, (text, words) in enumerate(log.lines) if words]
    return "\n".join([f"{log.headline}", sub, *told[:DRAWN]])


def draw(log: Log, sub: str, width: int) -> str:
    """The newest report as SVG: each line with its number, what it says below it."""
    svg = Svg(width, log.headline)
    y = svg.heading(log.headline, sub) + 6
    room = int((width - 60) / 6.7)
    first = max(0, log.start - 1)
    for i, (text, words) in list(enumerate(log.lines))[first : first + DRAWN]:
        if not text.strip():
            continue
        short = text if len(text) <= room else text[: room - 1] + "…"
        svg.text(36, y + 12, i + 1, px=11, fill="ink2", anchor="end")
        svg.text(46, y + 12, short.replace(" ", "\u00a0"), px=11, mono=True, fill="ink" if words else "ink2")
        y += 16
        for line in fit(words, 12, width - 74) if words else ():
            svg.text(58, y + 12, line, bold=True)
            y += 16
    svg.grow(y + 6)
    return str(svg)


class Dmesg(Panel, anywidget.AnyWidget):
    """The log of a machine, or a text: ``Dmesg(m)``, ``Dmesg(text)``.

    Arrows or a click choose a line of a report and say what it means. "Paste a report" explains one of your own.
    """

    title = "Dmesg"
    shows = (str,)
    _esm = module("dmesg")
    _css = css(".kml-dmesg") + (STATIC / "dmesg.css").read_text(encoding="utf-8")
    view_data = traitlets.Unicode("{}").tag(sync=True)

    def __init__(self, source: Any, *, follow: bool = True) -> None:
        self._pasted = ""
        anywidget.AnyWidget.__init__(self)
        self.on_msg(self._told)
        self.start(source, follow=follow)

    def snapshot(self) -> Any:
        """The text that is shown."""
        return self._pasted or (self._snapshot if self.machine is None else self.machine.dmesg())

    def view(self, snapshot: Any) -> View:
        """Explain and draw."""
        self._log = log = read_log(snapshot)
        lines = len(snapshot.splitlines())
        where = "a pasted text" if self._pasted else "a text" if self.machine is None else "dmesg"
        sub = f"{where} · {plural(lines, 'line')}, {plural(log.reports, 'report')}"
        sub += f" · the last {number(len(log.lines))} lines" if len(log.lines) == MOST else ""
        self._sub = sub
        return View(log.headline, twin(log, sub), draw(log, sub, 868), draw(log, sub, 358))

    def show(self, view: View, snapshot: Any) -> None:
        """Send the lines."""
        if snapshot is None:
            self.view_data = json.dumps({"error": view.twin})
            return
        self.view_data = json.dumps({
            "head": view.headline, "sub": self._sub, "lines": self._log.lines, "start": self._log.start,
            "pasted": bool(self._pasted),
        })  # fmt: skip

    def _told(self, _: Any, message: dict[str, Any], __: Any) -> None:
        """A pasted text; an empty one brings the log back."""
        if isinstance(text := message.get("paste"), str):
            self._pasted = text
            self.refresh()
