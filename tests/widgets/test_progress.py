"""The file of answers survives crashes, strangers, several writers and folders it may not write to."""

from __future__ import annotations

import json
import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest

from kmemlab_widgets import progress as module
from kmemlab_widgets.progress import SESSION_ONLY, Progress, merge


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the answers go in a test."""
    return tmp_path / "progress.json"


def kept(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8"))["lessons"]


def test_answers_survive_a_new_kernel(file: Path) -> None:
    Progress(file).record("00_start", "P0", {"done": True, "tries": 2, "answer": ["run"]})
    assert Progress(file).of("00_start") == {"P0": {"done": True, "tries": 2, "answer": ["run"]}}
    assert Progress(file).of("01_flags") == {}


def test_what_was_solved_stays_solved() -> None:
    """The tries of the first solution stay; a later failure changes nothing."""
    solved = {"done": True, "tries": 2, "answer": ["a"]}
    failed = {"done": False, "tries": 5, "answer": ["b"]}
    assert merge(solved, failed)["done"] is merge(failed, solved)["done"] is True
    assert merge(solved, failed)["tries"] == merge(failed, solved)["tries"] == 2
    assert merge(failed, solved)["answer"] == ["a"]


def test_attempts_never_shrink() -> None:
    assert merge({"done": False, "attempts": 7}, {"done": True, "attempts": 3})["attempts"] == 7


def test_two_lessons_that_do_not_know_each_other(file: Path) -> None:
    """Both kernels read the empty file first; neither loses what the other writes."""
    one, two = Progress(file), Progress(file)
    one.record("00_start", "P0", {"done": True, "tries": 1})
    two.record("01_flags", "P0", {"done": True, "tries": 3})
    one.record("00_start", "R1", {"done": True, "tries": 1})
    assert set(kept(file)) == {"00_start", "01_flags"}
    one.refresh()
    assert one.of("01_flags")["P0"]["tries"] == 3


def _write_many(path: str, who: int, count: int) -> None:
    for number in range(count):
        Progress(Path(path)).record(f"lesson{who}", f"Q{number}", {"done": True, "tries": 1})


def test_processes_writing_at_once_lose_nothing(file: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=_write_many, args=(str(file), who, 40)) for who in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert {name: len(records) for name, records in kept(file).items()} == {f"lesson{who}": 40 for who in range(3)}
    assert not list(file.parent.glob("*.tmp"))


BROKEN = {
    "cut off": b'{"kmemlab progress": 1, "lessons": {"00_st',
    "empty": b"",
    "not text": b"\xff\xfe\x00\x01",
    "another file": b'{"cells": []}',
    "a list": b"[1, 2]",
    "answers of another form": b'{"kmemlab progress": 1, "lessons": {"00_start": {"P0": 7}}}',
    "too deep": b"[" * 100_000,
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_kept(file: Path, text: bytes) -> None:
    """It gets another name, one line says so, and a new one is begun."""
    file.write_bytes(text)
    progress = Progress(file)
    assert progress.of("00_start") == {}
    assert (file.parent / "progress.json.broken-1").read_bytes() == text
    assert "kept as progress.json.broken-1" in progress.note
    assert "\n" not in progress.note
    progress.record("00_start", "P0", {"done": True, "tries": 1})
    assert kept(file)["00_start"]["P0"]["done"] is True


def test_the_second_broken_file_does_not_overwrite_the_first(file: Path) -> None:
    for text in (b"first", b"second"):
        file.write_bytes(text)
        Progress(file)
    kept_files = [(file.parent / f"progress.json.broken-{number}").read_bytes() for number in (1, 2)]
    assert kept_files == [b"first", b"second"]


def test_a_file_that_breaks_while_we_run(file: Path) -> None:
    """What this kernel knows is written again; the broken file is kept."""
    progress = Progress(file)
    progress.record("00_start", "P0", {"done": True, "tries": 1})
    file.write_bytes(b"oops")
    progress.record("00_start", "R1", {"done": True, "tries": 1})
    assert set(kept(file)["00_start"]) == {"P0", "R1"}
    assert (file.parent / "progress.json.broken-1").read_bytes() == b"oops"


def test_a_newer_version_is_left_alone(file: Path) -> None:
    text = '{"kmemlab progress": 99, "lessons": "who knows"}'
    file.write_text(text, encoding="utf-8")
    progress = Progress(file)
    progress.record("00_start", "P0", {"done": True, "tries": 1})
    assert file.read_text(encoding="utf-8") == text
    assert "newer" in progress.note
    assert progress.of("00_start")["P0"]["done"] is True


def test_a_crash_while_writing_leaves_the_old_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    progress = Progress(file)
    progress.record("00_start", "P0", {"done": True, "tries": 1})
    before = file.read_bytes()

    def full(handle: int) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(module.os, "fsync", full)
    progress.record("00_start", "R1", {"done": True, "tries": 1})
    assert file.read_bytes() == before
    assert progress.note == SESSION_ONLY
    assert not list(file.parent.glob(".*.tmp"))
    monkeypatch.undo()
    progress.record("00_start", "R2", {"done": True, "tries": 1})
    assert progress.note == ""
    assert set(kept(file)["00_start"]) == {"P0", "R1", "R2"}


@pytest.mark.parametrize("place", ["a folder", "no such folder"])
def test_where_nothing_can_be_written(tmp_path: Path, place: str) -> None:
    if place == "a folder":
        path = tmp_path / "progress.json"
        path.mkdir()
    else:
        path = tmp_path / "nowhere" / "progress.json"
    progress = Progress(path)
    progress.record("00_start", "P0", {"done": True, "tries": 1})
    assert progress.of("00_start")["P0"]["done"] is True
    assert progress.note == SESSION_ONLY


def test_the_environment_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KMEMLAB_PROGRESS", "none")
    Progress().record("00_start", "P0", {"done": True})
    assert os.listdir(tmp_path) == []
    monkeypatch.setenv("KMEMLAB_PROGRESS", str(tmp_path / "mine.json"))
    Progress(folder=tmp_path).record("00_start", "P0", {"done": True})
    assert (tmp_path / "mine.json").is_file()
    monkeypatch.delenv("KMEMLAB_PROGRESS")
    Progress().record("00_start", "P0", {"done": True})
    assert (tmp_path / "progress.json").is_file()


def test_without_locks(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The browser's Python has no fcntl."""
    monkeypatch.setattr(module, "fcntl", None)
    Progress(file).record("00_start", "P0", {"done": True})
    assert kept(file)["00_start"]["P0"]["done"] is True
