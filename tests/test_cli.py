"""The command: what is copied, what is kept, what goes wrong in one line."""

from __future__ import annotations

import gzip
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from kmemlab import cli, lessons


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return a small folder of lessons, with things in it that are not for learners."""
    folder = tmp_path / "lessons"
    files = {
        "00_start.ipynb": "start",
        "01_flags.ipynb": "flags",
        "_template.ipynb": "template",
        "checks/00_start.py": "check",
        "recordings/a.json.gz": "recording",
        "LICENSE": "licence",
        "progress.json": "the author's own",
        ".ipynb_checkpoints/00_start.ipynb": "old",
        "checks/__pycache__/x.pyc": "bytes",
    }
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


LEARNERS = ["00_start.ipynb", "01_flags.ipynb", "LICENSE", "checks/00_start.py", "recordings/a.json.gz"]


def copy(source: Path, target: Path) -> dict[str, str]:
    return {copied.name: copied.verdict for copied in lessons.copy_lessons(source, target)}


def test_new_then_same(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "mine" / "deeper"
    assert copy(source, target) == dict.fromkeys(LEARNERS, "new")
    assert copy(source, target) == dict.fromkeys(LEARNERS, "same")
    assert (target / "00_start.ipynb").read_text() == "start"
    assert sorted(p.relative_to(target).as_posix() for p in target.rglob("*") if p.is_file()) == [
        lessons.RECORD,
        *LEARNERS,
    ]


def test_an_untouched_copy_is_updated(source: Path, tmp_path: Path) -> None:
    copy(source, tmp_path / "mine")
    (source / "00_start.ipynb").write_text("start, second edition")
    verdicts = copy(source, tmp_path / "mine")
    assert verdicts.pop("00_start.ipynb") == "updated"
    assert set(verdicts.values()) == {"same"}
    assert (tmp_path / "mine" / "00_start.ipynb").read_text() == "start, second edition"


def test_an_edited_copy_is_kept_for_ever(source: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine" / "00_start.ipynb"
    copy(source, mine.parent)
    mine.write_text("my notes")
    for edition in ("start", "start, second edition", "start, third edition"):
        (source / "00_start.ipynb").write_text(edition)
        kept = next(c for c in lessons.copy_lessons(source, mine.parent) if c.name == "00_start.ipynb")
        assert (kept.verdict, kept.newer) == ("kept yours", edition != "start")
        assert mine.read_text() == "my notes"


def test_an_edit_taken_back_is_updated_again(source: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine" / "00_start.ipynb"
    copy(source, mine.parent)
    mine.write_text("my notes")
    copy(source, mine.parent)
    mine.write_text("start")
    (source / "00_start.ipynb").write_text("start, second edition")
    assert copy(source, mine.parent)["00_start.ipynb"] == "updated"


def test_a_deleted_copy_comes_back(source: Path, tmp_path: Path) -> None:
    copy(source, tmp_path / "mine")
    (tmp_path / "mine" / "00_start.ipynb").unlink()
    assert copy(source, tmp_path / "mine")["00_start.ipynb"] == "new"


def test_a_file_that_was_there_before_is_kept(source: Path, tmp_path: Path) -> None:
    """Also without a record: a file that is not what we would write may be the learner's."""
    target = tmp_path / "mine"
    target.mkdir()
    (target / "00_start.ipynb").write_text("an older edition, or notes: who knows")
    assert copy(source, target)["00_start.ipynb"] == "kept yours"


@pytest.mark.parametrize(
    "text", [b"{broken", b"[]", b"null", b'{"files": 3}', b'{"files": {"00_start.ipynb": 3}}', b"\xff\xfe", b""]
)
def test_a_broken_record_is_kept_aside(text: bytes, source: Path, tmp_path: Path) -> None:
    target = tmp_path / "mine"
    copy(source, target)
    (target / "00_start.ipynb").write_text("my notes")
    for number in (1, 2):
        (target / lessons.RECORD).write_bytes(text)
        verdicts = copy(source, target)
        assert verdicts["00_start.ipynb"] == "kept yours"
        assert verdicts["01_flags.ipynb"] == "same"
        assert (target / f"{lessons.RECORD}.broken-{number}").read_bytes() == text
    assert "01_flags.ipynb" in json.loads((target / lessons.RECORD).read_text())["files"]


def test_what_was_copied_before_a_failure_is_on_record(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "mine"
    (target / "checks" / "00_start.py").mkdir(parents=True)
    with pytest.raises(lessons.LessonsError, match=r"00_start\.py"):
        copy(source, target)
    assert list(json.loads((target / lessons.RECORD).read_text())["files"]) == LEARNERS[:3]
    assert not list(target.glob(".*.ipynb.*")), "a temporary file was left"


def test_a_copy_has_the_usual_mode(source: Path, tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        copy(source, tmp_path / "mine")
    finally:
        os.umask(old)
    assert (tmp_path / "mine" / "00_start.ipynb").stat().st_mode & 0o777 == 0o644


def run(*args: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kmemlab.cli", *args]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, env=os.environ | env, timeout=60, check=False
    )


def one_line(result: subprocess.CompletedProcess[str]) -> str:
    """Return the only line on stderr of a command that failed as it should."""
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("kmemlab: ")
    return line


def test_unwritable_folders_get_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "file is not a folder" in one_line(run("lab", "file", cwd=tmp_path))
    assert "cannot copy the lessons: file" in one_line(run("lab", "file/deeper", cwd=tmp_path))
    if Path("/proc/version").exists():  # where nobody may write, root neither
        assert "/proc/mine" in one_line(run("lab", "/proc/mine", cwd=tmp_path))


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_gets_one_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    assert "Permission denied" in one_line(run("lab", "mine", cwd=tmp_path))


def test_a_missing_jupyterlab_gets_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(cli, "find_spec", lambda name: None)
    assert cli.main(["lab", str(tmp_path / "mine")]) == 2
    assert capsys.readouterr().err.startswith("kmemlab: JupyterLab is not installed")
    assert not (tmp_path / "mine").exists()


def test_missing_lessons_get_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys) -> None:
    monkeypatch.setattr(lessons.resources, "files", lambda name: tmp_path / "kmemlab")
    assert cli.main(["lab", str(tmp_path / "mine")]) == 2
    assert "has no lessons" in capsys.readouterr().err


def test_a_folder_inside_the_lessons_is_refused(source: Path) -> None:
    with pytest.raises(lessons.LessonsError, match="inside the lessons' own folder"):
        copy(source, source / "mine")


@pytest.mark.parametrize("words", [["lab", "one", "two"], ["version", "--port=3"], [], ["lb"], ["conform"]])
def test_words_nobody_knows_are_refused(words: list[str], capsys) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main(words)
    assert exit_.value.code == 2
    assert "usage: kmemlab" in capsys.readouterr().err


def test_lessons_run_in_a_kernel_without_the_debugger(monkeypatch: pytest.MonkeyPatch) -> None:
    """JupyterLab finds our specification first; the kernel it starts has no debugpy, and is ipykernel otherwise."""
    monkeypatch.setenv("JUPYTER_PATH", str(cli.JUPYTER))
    code = "import sys, ipykernel; print(sys.modules['debugpy'], 'pydevd' in sys.modules)"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    assert notebook.cells[0].outputs[0]["text"] == "None False\n"


def test_the_command_that_starts_jupyterlab(source: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """The lessons' own folder is served without a copy, options reach JupyterLab, loopback is the default."""
    commands: list[list[str]] = []

    class Replaced(BaseException):
        pass

    def execv(path: str, command: list[str]) -> None:
        commands.append(command)
        raise Replaced

    monkeypatch.setattr(cli.os, "execv", execv)
    monkeypatch.setenv("JUPYTER_PATH", "elsewhere")
    monkeypatch.setattr(lessons, "lessons_folder", lambda: source)
    for words in (
        [],
        ["--no-browser", "--port", "8899", "--ip=0.0.0.0", "--ServerApp.token="],
    ):
        with pytest.raises(Replaced):
            cli.main(["lab", str(source), *words])
    plain, full = commands
    assert os.environ["JUPYTER_PATH"].split(os.pathsep)[-1] == "elsewhere"
    assert os.environ["JUPYTER_PATH"].startswith(f"{cli.JUPYTER}{os.pathsep}")
    assert plain[:3] == [sys.executable, "-m", "jupyterlab"]
    assert {f"--ServerApp.root_dir={source}", "--LabApp.default_url=/lab/tree/00_start.ipynb"} <= set(plain)
    assert "--ServerApp.ip=127.0.0.1" in plain
    assert "--no-browser" not in plain
    assert {"--no-browser", "--ServerApp.port=8899", "--ServerApp.ip=0.0.0.0", "--ServerApp.token="} <= set(full)
    assert ("--allow-root" in plain) == (os.geteuid() == 0)
    assert "no copy made" in capsys.readouterr().out


def test_conform_exit_codes(root: Path, tmp_path: Path, capsys) -> None:
    """0: all exact. 1: a page differs. 2: a file that cannot be read."""
    recording = root / "lessons" / "recordings" / "128M-a-11.json.gz"
    assert cli.main(["conform", str(recording)]) == 0
    assert "total: predicted" in capsys.readouterr().out
    data = json.loads(gzip.decompress(recording.read_bytes()))
    first = next(op for op in data["ops"] if op[0] == 1)
    first[3] += 1
    wrong = tmp_path / "wrong.json.gz"
    wrong.write_bytes(gzip.compress(json.dumps(data).encode()))
    assert cli.main(["conform", str(wrong)]) == 1
    assert cli.main(["conform", str(tmp_path / "missing.json.gz")]) == 2


def test_version(capsys) -> None:
    assert cli.main(["version"]) == 0
    assert re.fullmatch(r"kmemlab \d+\.\d+\.\d+, Python 3\.\d+\.\d+\S*\n", capsys.readouterr().out)


@pytest.mark.slow
def test_the_lab_answers(tmp_path: Path) -> None:
    """`kmemlab lab DIR` ends in a JupyterLab that serves the copied lessons on this computer."""
    pytest.importorskip("jupyterlab")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "kmemlab.cli", "lab", "mine", "--no-browser", f"--port={port}"]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            [*command, "--IdentityProvider.token=", "--ServerApp.port_retries=0"],
            cwd=tmp_path,
            stdout=log,
            stderr=log,
            env=os.environ | {"HOME": str(tmp_path)},
        )
    try:
        listing = _fetch(server, f"http://127.0.0.1:{port}/api/contents", tmp_path / "log")
        assert "00_start.ipynb" in {entry["name"] for entry in json.loads(listing)["content"]}
    finally:
        server.terminate()
        server.wait(timeout=20)


def _fetch(server: subprocess.Popen[bytes], url: str, log: Path) -> bytes:
    """Return what ``url`` answers, waiting for the server to come up."""
    for _ in range(150):
        assert server.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.read()
        except OSError:
            time.sleep(0.2)
    pytest.fail(log.read_text())
