"""make lessons: what is stored of a run, and what is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat import v4

from tools.run_lessons import WIDGET_VIEW, main, normalise


def notebook(*sources: str) -> Any:
    return v4.new_notebook(cells=[v4.new_code_cell(source) for source in sources])


def write(path: Path, *sources: str) -> Path:
    nbformat.write(notebook(*sources), path)
    return path


PANEL = """
class Panel:
    def _repr_mimebundle_(self, **kw):
        view = {"model_id": "0", "version_major": 2, "version_minor": 0}
        return {"application/vnd.jupyter.widget-view+json": view, "text/plain": "panel: 3 free"}
Panel()
"""


@pytest.mark.slow
def test_a_run_is_stored_without_widget_views_and_the_same_twice(tmp_path: Path, capsys) -> None:
    path = write(tmp_path / "a.ipynb", "print(1)\nprint(2)\n", PANEL, "1 / 0")
    raw = json.loads(path.read_text())
    raw["cells"][2]["metadata"]["tags"] = ["raises-exception"]
    raw["metadata"]["widgets"] = {"state": {}}
    path.write_text(json.dumps(raw))
    assert main([str(path)]) == 0
    first = path.read_text()
    assert main([str(path)]) == 0
    assert path.read_text() == first
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["written", "same"]
    done = json.loads(first)
    assert "widgets" not in done["metadata"]
    one, two, three = (cell["outputs"] for cell in done["cells"])
    assert [output["text"] for output in one] == [["1\n", "2\n"]]
    assert two[0]["data"] == {"text/plain": ["panel: 3 free"]}
    assert three[0]["traceback"] == ["ZeroDivisionError: division by zero"]
    assert [cell["execution_count"] for cell in done["cells"]] == [1, 2, 3]
    assert "execution" not in first.replace("execution_count", "")


@pytest.mark.slow
@pytest.mark.parametrize("source", ["1 / 0", "import sys; print('careful', file=sys.stderr)"])
def test_a_lesson_that_fails_stays_as_it_was(source: str, tmp_path: Path, capsys) -> None:
    path = write(tmp_path / "a.ipynb", source)
    before = path.read_text()
    assert main([str(path)]) == 1
    assert path.read_text() == before
    assert capsys.readouterr().out.startswith("failed")


def test_ids_follow_the_text_not_the_place() -> None:
    one, two = normalise(notebook("a", "b", "a")), normalise(notebook("b", "a", "a"))
    ids = [cell["id"] for cell in one.cells]
    assert len(set(ids)) == 3
    assert {cell["id"] for cell in two.cells} == set(ids)


def test_an_output_that_was_only_a_view_goes() -> None:
    book = notebook("x")
    book.cells[0].outputs = [v4.new_output("display_data", {WIDGET_VIEW: {"model_id": "0"}})]
    assert normalise(book).cells[0].outputs == []
