"""What is shipped: the wheel, the lock, Binder's files, and that nothing names a machine or a package registry."""

from __future__ import annotations

import gzip
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from tools.binder_requirements import binder_requirements
from tools.readme import badge, with_badge

ROOT = Path(__file__).resolve().parent.parent


def git_files(*options: str) -> list[str]:
    """Return the names that git lists; a copy of the repository without git has none to check."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", *options]
    listing = subprocess.run(command, capture_output=True, text=True, check=False)
    if listing.returncode:
        pytest.skip("not a git checkout")
    return [name for name in listing.stdout.split("\0") if name and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Build the wheel from a copy of the checkout in which somebody has worked."""
    folder = tmp_path_factory.mktemp("wheel")
    tree = folder / "tree"
    for name in git_files("--cached", "--others", "--exclude-standard"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tree / name)
    for junk in ("progress.json", ".ipynb_checkpoints/00_start-checkpoint.ipynb", "checks/__pycache__/a.pyc"):
        (tree / "lessons" / junk).parent.mkdir(parents=True, exist_ok=True)
        (tree / "lessons" / junk).write_text("junk")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(tree)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


@pytest.mark.slow
def test_the_wheel_holds_what_a_learner_needs(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    tracked = git_files("lessons", "kmemlab", "widgets/kmemlab_widgets")
    expected = {re.sub(r"^lessons/", "kmemlab/_lessons/", re.sub(r"^widgets/", "", name)) for name in tracked}
    assert {"kmemlab/_lessons/recordings/256M-a-21.json.gz", "kmemlab/cli.py"} <= expected
    assert not expected - names
    data = "kmemlab-0.1.0.data/data"
    assert f"{data}/share/jupyter/lab/settings/overrides.d/kmemlab.json" in names
    assert f"{data}/etc/jupyter/jupyter_server_config.d/kmemlab.json" in names
    entry_points = next(name for name in names if name.endswith("entry_points.txt"))
    assert "kmemlab = kmemlab.cli:main" in wheel.read(entry_points).decode()


@pytest.mark.slow
def test_the_wheel_holds_nothing_else(wheel: zipfile.ZipFile) -> None:
    junk = [
        name
        for name in wheel.namelist()
        if re.search(r"progress.*\.json|checkpoint|__pycache__|\.pyc$|^tests/|^tools/", name)
    ]
    assert not junk
    assert {name.split("/")[0] for name in wheel.namelist()} == {
        "kmemlab",
        "kmemlab_widgets",
        "kmemlab-0.1.0.data",
        "kmemlab-0.1.0.dist-info",
    }
    assert sum(info.compress_size for info in wheel.infolist()) < 2 * 1024 * 1024


@pytest.mark.slow
def test_the_sdist_builds_the_same_wheel(tmp_path: Path, wheel: zipfile.ZipFile) -> None:
    """From a source archive, without git, the same files come out."""
    tree = tmp_path / "tree"
    for name in git_files("--cached", "--others", "--exclude-standard"):
        if not name.startswith(("tests/kernel/", "docs/")):
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tree / name)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path), str(tree)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    (path,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(path) as again:
        assert sorted(again.namelist()) == sorted(wheel.namelist())


def test_the_lock_is_hashed_and_names_no_address() -> None:
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    pins = re.findall(r"^[a-z0-9][^\n]*==[^\n]*\\\n    --hash=sha256:", text, re.MULTILINE)
    lines = [line for line in text.splitlines() if line and not line.startswith((" ", "#"))]
    assert len(pins) == len(lines) > 100
    assert not re.search(r"://|--(extra-)?index|--find-links|^-e|@ ", text, re.MULTILINE)
    locked = {re.split("[=;]", line)[0] for line in lines}
    assert {"hatchling", "editables"} <= locked, "an editable install would fetch them without a hash"


def test_the_lock_holds_every_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ]
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert not [line for line in wanted if not re.search(rf"^{re.split('[<>=]', line)[0]}==", lock, re.MULTILINE)]


# Written in two halves, so that this file does not name them.
MACHINE_WORDS = ["/wo" + "rk/", "/fa" + "rm/", "/ro" + "ot/", "/home" + "/[a-z]"]
REGISTRIES = ["pypi" + r"\.org", "python" + r"hosted\.org", "registry" + r"\.npmjs", "deb\\." + r"debian\.org"]
NOT_OURS = re.compile("|".join([*MACHINE_WORDS, *REGISTRIES]).encode())


def foreign_words(data: bytes) -> list[bytes]:
    if data.startswith(b"\x1f\x8b"):
        data = gzip.decompress(data)
    return NOT_OURS.findall(data)


def test_no_file_names_a_machine_or_a_registry() -> None:
    found = {name: foreign_words((ROOT / name).read_bytes())[:3] for name in git_files()}
    assert not {name: words for name, words in found.items() if words}


def test_the_words_test_can_fail() -> None:
    text = f"see {MACHINE_WORDS[0]}x".encode()
    assert foreign_words(text)
    assert foreign_words(gzip.compress(text))
    assert foreign_words(b"https://files.python" + b"hosted.org/x")
    assert not foreign_words(b"the network, the workbench, /proc/buddyinfo")


def test_binder_requirements_are_in_step_with_the_lock() -> None:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    text = binder_requirements(lock)
    assert (ROOT / "binder" / "requirements.txt").read_text(encoding="utf-8") == text, (
        "run tools/binder_requirements.py"
    )
    assert {"anywidget", "ipywidgets", "jupyterlab-widgets", "matplotlib"} <= set(
        re.findall(r"^[\w-]+", text, re.MULTILINE)
    )
    assert not re.search(r"^(jupyterlab|jupyter-server|ipykernel|ipython|notebook)==", text, re.MULTILINE)


def test_binder_requirements_follow_the_lock() -> None:
    """A different lock gives different pins, markers are kept, what the base image brings is left out."""
    lock = (
        "anywidget==1.0 \\\n    --hash=sha256:0\n    # via kmemlab (pyproject.toml)\n"
        "psygnal==2.0 ; python_full_version < '3.12' \\\n    --hash=sha256:0\n    # via anywidget\n"
        "comm==3.0 \\\n    --hash=sha256:0\n    # via\n    #   ipykernel\n    #   ipywidgets\n"
        "ipywidgets==4.0 \\\n    --hash=sha256:0\n    # via anywidget\n"
        "ipykernel==5.0 \\\n    --hash=sha256:0\n    # via jupyterlab\n"
        "matplotlib==6.0 \\\n    --hash=sha256:0\n    # via kmemlab (pyproject.toml)\n"
    )
    assert binder_requirements(lock).splitlines()[1:] == [
        "anywidget==1.0",
        "ipywidgets==4.0",
        "matplotlib==6.0",
        "psygnal==2.0 ; python_full_version < '3.12'",
    ]


@pytest.mark.slow
def test_binder_builds_what_we_mean() -> None:
    """repo2docker prints its Dockerfile without Docker: our Python, our pins, then the project."""
    pytest.importorskip("repo2docker")
    command = [sys.executable, "-m", "repo2docker", "--no-build", "--debug", str(ROOT)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    text = result.stdout + result.stderr
    assert result.returncode == 0, text
    assert "environment-2epy-2d3-2e12-2dlinux-2d64-2elock" in text
    assert 'pip install --no-cache-dir -r "binder/requirements.txt"' in text
    assert text.index('-r "binder/requirements.txt"') < text.index("RUN ./binder/postBuild")
    build = ROOT / "binder" / "postBuild"
    assert build.stat().st_mode & 0o111
    assert "pip install --no-deps --no-cache-dir .\n" in build.read_text()


def test_the_readme_links_to_the_repository_named_in_pyproject() -> None:
    readme, pyproject = (
        (ROOT / "README.md").read_text(encoding="utf-8"),
        (ROOT / "pyproject.toml").read_text(encoding="utf-8"),
    )
    assert with_badge(readme, pyproject) == readme, "run tools/readme.py"
    assert "/v2/gh/" in readme
    assert readme.count("mybinder.org/v2/gh/") == 1
    assert readme.index("make lab") < readme.index("make test") < readme.index("pip install")


def test_the_badge_follows_pyproject() -> None:
    place = '[tool.kmemlab]\nbinder = { owner = "a b", repository = "c", ref = "v1" }\n'
    assert "/v2/gh/a%20b/c/v1?urlpath=lab%2Ftree%2Flessons%2F00_start.ipynb" in badge(place)
    assert badge(place) in with_badge("x\n<!-- binder -->\nold\n<!-- /binder -->\ny", place)
    with pytest.raises(SystemExit):
        with_badge("no marks", place)


def test_versions_agree() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_links_in_the_documents_lead_somewhere() -> None:
    for document in ROOT.glob("*.md"):
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", document.read_text(encoding="utf-8")):
            assert (ROOT / target).exists(), f"{document.name}: {target}"
