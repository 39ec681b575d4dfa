"""The lessons as files: where they are, and how a learner gets a copy that no later version overwrites.

Beside the copies stands ``.kmemlab.json``. It holds the SHA-256 of each file as we wrote it, so that the next run
can tell a file the learner has worked in (kept, always) from one that only we have written (replaced by a newer one).
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

__all__ = ["RECORD", "Copied", "LessonsError", "copy_lessons", "first_lesson", "lesson_files", "lessons_folder"]

RECORD = ".kmemlab.json"
_OURS_ALONE = ("progress*.json", "_*.ipynb")  # an author's own answers; the template lessons are made from


class LessonsError(Exception):
    """The lessons cannot be found, read or copied; the message is one line for a person."""


@dataclass(frozen=True, slots=True)
class Copied:
    """What became of one file. ``verdict`` is "new", "same", "updated" or "kept yours".

    ``newer`` says that a kept file's lesson has changed since the learner's copy was made.
    """

    name: str
    verdict: str
    newer: bool = False


def lessons_folder() -> Path:
    """Return the folder the lessons come from: inside the installed package, else beside it in a checkout."""
    package = Path(str(resources.files("kmemlab")))
    for folder in (package / "_lessons", package.parent / "lessons"):
        if folder.is_dir():
            return folder
    raise LessonsError(f"this installation of kmemlab has no lessons (looked beside and inside {package})")


def lesson_files(source: Path) -> list[str]:
    """Return the names, relative to ``source``, of the files a learner gets, in order."""
    names = []
    for path in source.rglob("*"):
        relative = path.relative_to(source)
        hidden = any(part.startswith(".") or part == "__pycache__" for part in relative.parts)
        if path.is_file() and not hidden and not any(path.match(pattern) for pattern in _OURS_ALONE):
            names.append(relative.as_posix())
    return sorted(names)


def first_lesson(folder: Path) -> str | None:
    """Return the name of the notebook to open first, or None where there is none."""
    return min((path.name for path in folder.glob("*.ipynb") if not path.name.startswith("_")), default=None)


def copy_lessons(source: Path, target: Path) -> Iterator[Copied]:
    """Copy the lessons to ``target`` and tell of each file what became of it.

    A file that the learner has changed is never written to. Raises ``LessonsError`` when ``target`` cannot be
    written or lies inside ``source``. Left out: a lesson that no longer exists stays in the learner's folder.
    """
    if target.resolve().is_relative_to(source.resolve()):
        raise LessonsError(f"{target} lies inside the lessons' own folder; name another one")
    if target.exists() and not target.is_dir():
        raise LessonsError(f"{target} is not a folder")
    try:
        target.mkdir(parents=True, exist_ok=True)
        written = _read_record(target / RECORD)
        try:
            for name in lesson_files(source):
                yield _copy_one(source / name, target / name, name, written)
        finally:
            text = json.dumps({"format": 1, "files": written}, indent=1, sort_keys=True) + "\n"
            _write_atomically(target / RECORD, text.encode())
    except OSError as error:
        raise LessonsError(f"cannot copy the lessons: {error.filename or target}: {error.strerror}") from error


def _copy_one(source: Path, target: Path, name: str, written: dict[str, str]) -> Copied:
    """Copy one file unless it is the learner's; keep ``written`` (name -> SHA-256 we wrote) up to date."""
    data = source.read_bytes()
    ours = hashlib.sha256(data).hexdigest()
    if target.is_symlink() or target.exists():
        theirs = hashlib.sha256(target.read_bytes()).hexdigest()
        if theirs == ours:
            written[name] = ours
            return Copied(name, "same")
        if theirs != written.get(name):
            return Copied(name, "kept yours", newer=written.get(name) != ours)
        verdict = "updated"
    else:
        verdict = "new"
    target.parent.mkdir(parents=True, exist_ok=True)
    _write_atomically(target, data)
    written[name] = ours
    return Copied(name, verdict)


def _read_record(path: Path) -> dict[str, str]:
    """Return what an earlier run wrote. A record that makes no sense is kept under another name and counts as none."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except UnicodeDecodeError:
        text = ""
    try:
        files = json.loads(text)["files"]
        if all(isinstance(name, str) and isinstance(digest, str) for name, digest in files.items()):
            return dict(files)
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    number = 1
    while (aside := path.with_name(f"{path.name}.broken-{number}")).exists():
        number += 1
    path.rename(aside)
    return {}


def _write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that a reader, or a crash, sees the old one or the new one and nothing between."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        umask = os.umask(0)  # mkstemp makes files for the owner only; a lesson gets what any new file would
        os.umask(umask)
        Path(temporary).chmod(0o666 & ~umask)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
