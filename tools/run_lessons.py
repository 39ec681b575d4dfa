"""Run lessons from top to bottom and store what they printed, in the form that is committed.

    python tools/run_lessons.py [NOTEBOOK...]        (none named: all of lessons/)

Stored outputs are for readers who run nothing. So what only a running kernel can show (widget views) is taken out,
the text and picture beside it stay, and whatever differs from run to run (times, ids, tracebacks' paths) goes too.
A lesson that fails is left as it was, and the exit code is 1.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

__all__ = ["main", "normalise", "run", "write_atomically"]

LESSONS = Path(__file__).resolve().parent.parent / "lessons"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
CELL_TIMEOUT = 120  # seconds


def run(path: Path) -> nbformat.NotebookNode:
    """Run one notebook in a fresh kernel, in its own folder, and return it normalised."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
        store_widget_state=False,
        coalesce_streams=True,
    )
    client.execute()
    return normalise(notebook)


def normalise(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Take out of a notebook what a reader cannot use and what would differ in the next run."""
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    used: set[str] = set()
    count = 0
    for cell in notebook.cells:
        cell.source = cell.source.rstrip()
        cell["id"] = _cell_id(cell, used)
        for key in ("execution", "trusted", "collapsed", "scrolled"):
            cell.metadata.pop(key, None)
        if cell.cell_type == "code":
            count += 1
            cell.execution_count = count
            cell.outputs = [kept for output in cell.outputs if (kept := _normalise_output(output, count)) is not None]
    return notebook


def _cell_id(cell: Any, used: set[str]) -> str:
    """Return an id made of the cell's text: the same in every run, and for a cell that only moved."""
    base = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:8]
    name, number = base, 1
    while name in used:
        number += 1
        name = f"{base}-{number}"
    used.add(name)
    return name


def _normalise_output(output: Any, count: int) -> Any | None:
    """Return one output as it is stored, or None if nothing of it can be."""
    if output.output_type == "error":  # the frames name this computer's folders
        output.traceback = [f"{output.ename}: {output.evalue}"]
    if output.output_type == "execute_result":
        output.execution_count = count
    if "data" in output:
        output.data.pop(WIDGET_VIEW, None)
        if not output.data:
            return None
    return output


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that a reader sees the old one or the new one and nothing between."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(temporary).chmod(path.stat().st_mode if path.exists() else 0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _in_short(error: Exception) -> str:
    """Return what went wrong in a cell, without the frames."""
    if isinstance(error, CellExecutionError):
        source = error.traceback.split("------------------")[1].strip()
        return f"{error.ename}: {error.evalue}, in the cell\n{source}"
    return str(error)


def main(arguments: list[str]) -> int:
    """Run the notebooks named, or all lessons; return the exit code."""
    os.environ["KMEMLAB_PROGRESS"] = "none"
    failed = 0
    for path in [Path(name).resolve() for name in arguments] or sorted(LESSONS.glob("*.ipynb")):
        before = path.read_text(encoding="utf-8")
        try:
            notebook = run(path)
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            print(f"failed     {path.name}: {_in_short(error)}", flush=True)
            failed += 1
            continue
        noisy = [
            cell.execution_count
            for cell in notebook.cells
            if any(output.get("name") == "stderr" for output in cell.get("outputs", ()))
        ]
        if noisy:
            print(f"failed     {path.name}: cells {noisy} wrote to stderr; a lesson must run without warnings")
            failed += 1
            continue
        after = nbformat.writes(notebook)
        after = after if after.endswith("\n") else after + "\n"
        if after != before:
            write_atomically(path, after)
        print(f"{'same' if after == before else 'written':<9}  {path.name}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
