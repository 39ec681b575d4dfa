"""What every panel is: one finding in words, one drawing in two widths, and a picture that outlives the kernel.

A panel is given a machine (it then follows it, whoever drives it) or a frozen snapshot. It redraws once after
each cell however much happened in it. A drawing that fails shows its error in the panel; the cell goes on.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import ipywidgets
from IPython import get_ipython

from kmemlab.snapshot import Snapshot
from kmemlab_widgets.svg import data_uri
from kmemlab_widgets.theme import css, esc

__all__ = ["STATIC", "HtmlPanel", "LazyView", "Panel", "View", "module", "refresh_all"]

STATIC = Path(__file__).parent / "static"

log = logging.getLogger("kmemlab_widgets")
# A drawing brings its own paper and ink, so high-contrast themes leave it alone; the twin takes theirs.
_STYLE = (
    ".kml{container-type:inline-size;background:var(--kml-paper);color:var(--kml-ink)}"
    ".kml .narrow{display:none}"
    "@container (max-width:560px){.kml .wide{display:none}.kml .narrow{display:block}}"
    ".kml .twin{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:pre-line}"
    "@media (forced-colors:active){.kml svg{forced-color-adjust:none}}"
)
_live: weakref.WeakSet[Any] = weakref.WeakSet()
_hooked: list[bool] = []


@dataclass(frozen=True, slots=True)
class View:
    """What a panel shows at one moment. ``headline`` is the finding and the first line of ``twin``, the text
    for those who do not see the drawing; ``wide`` is the SVG for 868 px, ``narrow`` for 358."""

    headline: str
    twin: str
    wide: str
    narrow: str


class LazyView(View):
    """A view that draws its pictures when they are asked for: a panel drawn by the browser needs none but the saved
    one. ``picture`` is given the width, 868 or 358 px."""

    def __init__(self, headline: str, twin: str, picture: Callable[[int], str]) -> None:
        object.__setattr__(self, "headline", headline)
        object.__setattr__(self, "twin", twin)
        self.__dict__["picture"] = picture

    @cached_property
    def wide(self) -> str:
        """The picture at 868 px."""
        return str(self.__dict__["picture"](868))

    @cached_property
    def narrow(self) -> str:
        """The picture at 358 px."""
        return str(self.__dict__["picture"](358))


class Panel:
    """The part panels inherit, before their widget class. A subclass writes ``view(snapshot)`` and ``show(view)``."""

    title = "panel"
    shows: tuple[type, ...] = (Snapshot,)  # what else than a machine it can show, frozen
    watch: Any = None  # the kmemlab.observer.Observer of a panel that must see every call

    def start(self, source: Any, *, follow: bool = True) -> None:
        """Begin to show ``source``, a machine or something frozen."""
        frozen = isinstance(source, self.shows)
        self.machine = None if frozen else source
        self._snapshot = source if frozen else None
        if not frozen and not hasattr(source, "snapshot"):
            others = " or ".join(f"a {kind.__name__}" for kind in self.shows)
            raise TypeError(f"{type(self).__name__} wants a Machine or {others}, not {source!r}")
        self._seen: tuple[int, int, int] | None = None
        self._last: View | None = None
        self._away = False
        if self.watch is not None and follow:
            self.watch.begin()
        self.refresh()
        if self.machine is not None and follow:
            self._view_count = 0  # from now on the browser counts how often the panel is displayed
            self.observe(self._viewed, "_view_count")
            _live.add(self)
            _hook()

    def _viewed(self, change: Any) -> None:
        """A panel whose last display was cleared (its cell was run again) rests until it is displayed again, so that
        one nobody sees does not slow the machine."""
        self._away = not change.new
        if self.watch is not None:
            (self.watch.stop if self._away else self.watch.begin)()
        if not self._away:
            refresh_all(self.machine)

    def snapshot(self) -> Any:
        """The moment that is shown."""
        return self._snapshot if self.machine is None else self.machine.snapshot()

    def view(self, snapshot: Snapshot) -> View:
        """Draw. Pure: the same snapshot gives the same view."""
        raise NotImplementedError

    def show(self, view: View, snapshot: Snapshot | None) -> None:
        """Bring a view to the browser."""
        raise NotImplementedError

    def refresh(self) -> None:
        """Draw the machine as it is now."""
        if self.machine is not None:
            self._seen = _state_of(self.machine)
        try:
            snapshot = self.snapshot()
            view = self.view(snapshot)
            self.show(view, snapshot)
        except Exception as error:
            log.exception("%s could not draw", type(self).__name__)
            view = self._failed(error)
            self.show(view, None)
        self._last = view

    def _failed(self, error: Exception) -> View:
        headline = self._last.headline if self._last else self.title
        text = f"panel error: {type(error).__name__}: {error}; the machine is not affected. m.snapshot() still works."
        box = (
            '<div style="border-left:4px solid var(--kml-bad);background:var(--kml-badbg);color:var(--kml-ink);'
            f'padding:8px 12px"><b>{esc(headline)}</b><br>{esc(text)}</div>'
        )
        return View(headline, f"{headline}\n{text}", box, box)

    def close_panel(self) -> None:
        """Stop following the machine; the last drawing stays."""
        if self.watch is not None:
            self.watch.stop()
        _live.discard(self)

    def close(self) -> None:
        """Stop following the machine and go."""
        self.close_panel()
        super().close()  # type: ignore[misc]

    def __repr__(self) -> str:
        return self._last.twin if self._last else self.title

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        if self in _live and _state_of(self.machine) != self._seen:
            self.refresh()  # made earlier in the cell that now displays it
        bundle = super()._repr_mimebundle_(**kwargs)  # type: ignore[misc]
        data, meta = bundle if isinstance(bundle, tuple) else (bundle, {})
        data = dict(data or {})
        if self._last is not None:
            view = self._savable(self._last)
            data["text/plain"] = view.twin
            if view.wide.startswith("<svg"):
                data["text/html"] = f'<img alt="{esc(view.twin)}" src="{data_uri(view.wide)}">'
        return data, meta

    def _savable(self, view: View) -> View:
        """The view with the drawing that a notebook file keeps; where it can't be drawn, words that say why."""
        try:
            _ = view.wide  # a LazyView draws now
        except Exception as error:
            log.exception("%s could not draw", type(self).__name__)
            self._last = view = self._failed(error)
        return view


class HtmlPanel(Panel, ipywidgets.HTML):  # type: ignore[misc]
    """A panel that is a drawing and nothing more: both widths, the browser shows the one that fits."""

    def __init__(self, source: Any, *, follow: bool = True) -> None:
        ipywidgets.HTML.__init__(self)
        self.start(source, follow=follow)

    def show(self, view: View, snapshot: Snapshot | None) -> None:
        """Write both drawings and the text twin into the widget."""
        twin = f"kml-twin-{self.model_id}"
        wide, narrow = (
            svg.replace('role="img"', f'role="img" aria-describedby="{twin}"', 1) for svg in (view.wide, view.narrow)
        )
        self.value = (
            f"<style>{css()}{_STYLE}</style>"
            f'<div class="kml"><div class="wide">{wide}</div><div class="narrow">{narrow}</div>'
            f'<div class="twin" id="{twin}">{esc(view.twin)}</div></div>'
        )


def _state_of(machine: Any) -> tuple[int, int, int]:
    """What is different whenever the machine has something new to show."""
    return machine.calls, machine.changes, machine.cpu


def module(*names: str) -> str:
    """An ES module of these static files, behind what all panels share."""
    return "\n".join((STATIC / f"{name}.js").read_text(encoding="utf-8") for name in ("common", *names))


def refresh_all(machine: Any = None) -> None:
    """Redraw every panel that follows ``machine`` (or any machine) and has something new to show."""
    for panel in list(_live):
        stale = _state_of(panel.machine) != panel._seen
        if stale and not panel._away and (machine is None or panel.machine is machine):
            panel.refresh()


def _hook() -> None:
    """Redraw once after each cell."""
    if _hooked:
        return
    shell = get_ipython()
    if shell is not None:
        shell.events.register("post_run_cell", lambda *_: refresh_all())
        _hooked.append(True)
