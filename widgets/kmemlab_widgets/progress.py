"""The file of answers: one JSON file beside the lessons, shared by all of them.

It is written whole and moved into place, so a crash leaves the old one. Several kernels may write it: each
answer is merged into what the file holds at that moment, under a lock. A file that cannot be understood is
kept under another name, never overwritten. Where nothing can be written, the answers live as long as the
kernel does.

``KMEMLAB_PROGRESS=none`` keeps no file, ``KMEMLAB_PROGRESS=PATH`` uses that one.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows, and the browser's Python
    fcntl = None  # type: ignore[assignment]

__all__ = ["Progress", "merge"]

VERSION = 1
SESSION_ONLY = "progress kept for this session only"
Record = dict[str, Any]
Answers = dict[str, dict[str, Record]]


def merge(old: Record, new: Record) -> Record:
    """Two records of one question become one; the order does not matter when both come from different runs.

    What was solved stays solved, with the tries it took the first time; attempts never shrink.
    """
    first, second = (old, new) if old.get("done") or not new.get("done") else (new, old)
    merged = {**second, **first}
    if not first.get("done"):
        merged |= new  # nothing solved yet: the newest answer is the interesting one
    for key in ("attempts", "tries"):
        if first.get("done") and key == "tries":
            continue
        if counts := [r[key] for r in (old, new) if isinstance(r.get(key), int)]:
            merged[key] = max(counts)
    return merged


class _Broken(Exception):
    """The file holds something else than answers; the text says what is wrong."""


class Progress:
    """Answers of all lessons: ``record`` one, ``of`` a lesson. ``note`` is a line for the learner, or ""."""

    def __init__(self, path: Path | None = None, *, folder: Path | None = None) -> None:
        """``path`` is the file; None: what the environment says, else ``progress.json`` in ``folder``."""
        setting = os.environ.get("KMEMLAB_PROGRESS", "")
        if path is None and setting != "none":
            path = Path(setting) if setting else (folder or Path()) / "progress.json"
        self.path = path.resolve() if path is not None else None
        self.note = ""
        self._answers: Answers = {}
        self.refresh()

    def of(self, lesson: str) -> Mapping[str, Record]:
        """What is known of a lesson's questions: name -> record."""
        return self._answers.get(lesson, {})

    def record(self, lesson: str, name: str, record: Record) -> Record:
        """Keep a record of one question, merged with what is there; returns what is kept now."""
        _put(self._answers, lesson, name, record)
        with self._guarded(), self._lock():
            self._take(self._read_or_put_aside())
            self._write()
        return self._answers[lesson][name]

    def refresh(self) -> None:
        """Read what other kernels have written since."""
        with self._guarded():
            try:
                self._take(self._read())
            except _Broken:
                with self._lock():  # another kernel may be putting it aside just now: look again, alone
                    self._take(self._read_or_put_aside())

    def _take(self, other: Answers) -> None:
        """Merge what the file holds with what this kernel knows, the file's word first."""
        merged: Answers = {}
        for answers in (other, self._answers):
            for lesson, records in answers.items():
                for name, record in records.items():
                    _put(merged, lesson, name, record)
        self._answers = merged

    # --- the file ---------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """No trouble with the file may stop a lesson; the next answer tries again."""
        if self.path is None:
            with contextlib.suppress(_NoFile):
                yield
            return
        try:
            yield
        except _NoFile:
            pass
        except OSError:
            self.note = SESSION_ONLY
        else:
            if self.note == SESSION_ONLY:
                self.note = ""

    def _file(self) -> Path:
        if self.path is None:
            raise _NoFile
        return self.path

    def _read(self) -> Answers:
        """What the file holds. Errors: _Broken; OSError."""
        path = self._file()
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            return {}
        try:
            data = json.loads(text.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise _Broken(str(error)) from None
        if not isinstance(data, dict) or not isinstance(version := data.get("kmemlab progress"), int):
            raise _Broken("it holds no progress of kmemlab")
        if version > VERSION:  # its meaning is unknown here: leave it alone
            self.path, self.note = None, f"{SESSION_ONLY}: {path.name} was written by a newer kmemlab"
            raise _NoFile
        if (answers := _checked(data.get("lessons"))) is None:
            raise _Broken("its answers are not in the form kmemlab writes")
        return answers

    def _read_or_put_aside(self) -> Answers:
        try:
            return self._read()
        except _Broken as error:
            path, number = self._file(), 1
            while (aside := path.with_name(f"{path.name}.broken-{number}")).exists():
                number += 1
            os.replace(path, aside)
            self.note = f"{path.name} could not be read ({error}): kept as {aside.name}, a new one begun"
            return {}

    def _write(self) -> None:
        path = self._file()
        text = json.dumps({"kmemlab progress": VERSION, "lessons": self._answers}, indent=1, sort_keys=True)
        draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with open(draft, "w", encoding="utf-8") as file:
                file.write(text + "\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, path)
        except BaseException:
            with contextlib.suppress(OSError):
                draft.unlink()
            raise

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """One writer at a time. The lock is a file of its own, as the answers' file is replaced at each write.

        In the browser's Python there is nothing to lock against; a lock that cannot be had within some
        seconds is given up, since a stuck neighbour must not stop the learner.
        """
        path = self._file()
        if fcntl is None:
            yield
            return
        with open(path.with_name(f".{path.name}.lock"), "w", encoding="ascii") as file:
            for _ in range(500):
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    time.sleep(0.01)
                except OSError:
                    break  # a file system without locks
            yield


class _NoFile(Exception):
    """There is no file to read or write in this session."""


def _put(answers: Answers, lesson: str, name: str, record: Record) -> None:
    records = answers.setdefault(lesson, {})
    records[name] = merge(records[name], record) if name in records else dict(record)


def _checked(lessons: Any) -> Answers | None:
    """The answers, None if they have another form."""
    if not isinstance(lessons, dict):
        return None
    for records in lessons.values():
        if not isinstance(records, dict) or not all(isinstance(record, dict) for record in records.values()):
            return None
    return lessons
