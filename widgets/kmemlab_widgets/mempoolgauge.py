"""MempoolGauge: who is served when the allocator fails, and what does waiting cost?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import traitlets

from kmemlab import NULL
from kmemlab.recording import find_recording, read_json
from kmemlab.task_watch import PoolRun, PoolWatch
from kmemlab_widgets.mempoolgauge_draw import ACROSS, draw
from kmemlab_widgets.mempoolgauge_words import headline, run_of_steps, second_line, sentence, twin
from kmemlab_widgets.steps import Grid, Steps

__all__ = ["MempoolGauge"]


class MempoolGauge(Steps):
    """The reserve of a pool and every call on it since the panel was made: ``MempoolGauge(m, pool)``; or a recorded
    pool: ``MempoolGauge("mempool")``.

    While ``alloc_fn_fails`` is True (or its box is ticked) the pool's alloc_fn is not called: it says NULL.
    Errors: TypeError, ValueError, RecordingError name the argument.
    """

    title = "MempoolGauge"
    shows = (PoolRun,)
    across = ACROSS
    alloc_fn_fails = traitlets.Bool(False).tag(sync=True)
    breakable = traitlets.Bool(False).tag(sync=True)
    _between = False

    def __init__(self, source: Any, pool: Any = None, *, follow: bool = True) -> None:
        live = hasattr(source, "mempool_alloc")
        if live:
            self.watch = PoolWatch(source, pool)
            if not follow:
                self.watch.start()
        elif not isinstance(source, PoolRun):
            source = run_of_steps(_recorded(source))
        if not live:
            self.badge = source.recorded
        super().__init__(source, at=None if live else 0, follow=follow)
        self.breakable = live

    @traitlets.observe("alloc_fn_fails")
    def _break(self, change: Any) -> None:
        """Stand between the pool and its alloc_fn, from the first time that it shall fail."""
        if self.watch:
            self.watch.m.news()  # who tried in vain may try again
        if self.watch and change.new and not self._between:
            self._between = True
            asked = self.watch.pool.alloc

            def alloc_fn(gfp_mask: int, pool_data: Any) -> Any:
                return NULL if self.alloc_fn_fails else asked(gfp_mask, pool_data)

            alloc_fn.__func__ = getattr(asked, "__func__", asked)  # type: ignore[attr-defined]  # the pool's kind
            self.watch.pool.alloc = alloc_fn

    def count(self, run: PoolRun) -> int:
        """Steps that are kept."""
        return len(run.steps)

    def draw(self, run: PoolRun, width: int, first: int, at: int | None) -> tuple[str, Grid]:
        """The columns, or the picture."""
        return draw(run, width, first, at)

    def say(self, run: PoolRun, i: int) -> tuple[str, str]:
        """Number and sentence of a step."""
        return f"step {run.steps[i].n}", sentence(run.steps, i)

    def words(self, run: PoolRun, first: int, last: int, at: int) -> tuple[str, str, str]:
        """Headline, second line, text twin."""
        return headline(run), second_line(run, first, last), twin(run, at)

    def close_panel(self) -> None:
        """Stop following; alloc_fn works again, the last drawing stays."""
        self.alloc_fn_fails = False
        super().close_panel()


def _recorded(source: Any) -> Any:
    if isinstance(source, (str, Path)):
        return read_json(find_recording(source))
    if isinstance(source, Mapping):
        return source
    raise TypeError(f"MempoolGauge wants a Machine and its pool, or a recording, not {source!r:.60}")
