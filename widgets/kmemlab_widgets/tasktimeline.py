"""TaskTimeline: which task ran, which slept on what, and who woke whom."""

from __future__ import annotations

from typing import Any

from kmemlab.task_watch import TaskRun, TaskWatch
from kmemlab_widgets.steps import Grid, Steps
from kmemlab_widgets.tasktimeline_draw import ACROSS, draw, headline, second_line, sentence, twin

__all__ = ["TaskTimeline"]


class TaskTimeline(Steps):
    """A lane for each task of a machine since the panel was made: ``TaskTimeline(m)``.

    Columns are the moments at which something changed; many alike, in which tasks wake and find nothing, are one.
    Errors: TypeError for what is no machine.
    """

    title = "TaskTimeline"
    shows = (TaskRun,)
    across = ACROSS
    what = "moment"

    def __init__(self, source: Any, *, follow: bool = True) -> None:
        if hasattr(source, "spawn"):
            self.watch = TaskWatch(source)
        super().__init__(source, follow=follow)

    def count(self, run: TaskRun) -> int:
        """Moments that are kept; one column is there from the beginning."""
        return max(1, len(run.moments))

    def draw(self, run: TaskRun, width: int, first: int, at: int | None) -> tuple[str, Grid]:
        """The columns, or the picture."""
        return draw(run, width, first, at)

    def say(self, run: TaskRun, i: int) -> tuple[str, str]:
        """When and what of a moment."""
        return sentence(run, i)

    def words(self, run: TaskRun, first: int, last: int, at: int) -> tuple[str, str, str]:
        """Headline, second line, text twin."""
        return headline(run), second_line(run, first, last), twin(run, at)
