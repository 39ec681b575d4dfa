"""The command ``kmemlab``: open the lessons, hold the model against a recording, say the version.

What goes wrong for a reason outside the program is told in one line on stderr, and the exit code is 2.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from kmemlab import lessons
from kmemlab.conform import main as conform_main

__all__ = ["JUPYTER", "lab_command", "main"]

_DEFAULT_DIR = "kmemlab-lessons"
# The same kernel without JupyterLab's debugger: 28 MiB less for each lesson that is open.
JUPYTER = Path(__file__).resolve().parent / "jupyter"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command of ``kmemlab`` and return its exit code."""
    args, rest = _parse(sys.argv[1:] if argv is None else list(argv))
    try:
        if args.command == "lab":
            return _lab(args, rest)
        if args.command == "conform":
            return conform_main(args.files, without=args.without)
        return _version()
    except lessons.LessonsError as error:
        print(f"kmemlab: {error}", file=sys.stderr)
        return 2


def _parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return the parsed arguments and, for ``lab``, those that are JupyterLab's."""
    parser = argparse.ArgumentParser(
        prog="kmemlab", description="Learn how the Linux kernel allocates memory.", allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    lab = commands.add_parser(
        "lab",
        help="copy the lessons to a folder of yours and open them in JupyterLab",
        description="Copy the lessons to DIR and open them in JupyterLab. What you changed there is kept. "
        "Options not listed here, written as --name=value, go to JupyterLab.",
        allow_abbrev=False,
    )
    lab.add_argument(
        "dir", nargs="?", type=Path, default=Path(_DEFAULT_DIR), metavar="DIR", help="default: %(default)s"
    )
    lab.add_argument("--no-browser", action="store_true", help="do not open a browser, print the address")
    lab.add_argument("--port", type=int, help="the port to listen on (default: JupyterLab's choice)")
    lab.add_argument("--ip", default="127.0.0.1", help="the address to listen on (default: %(default)s)")
    conform = commands.add_parser("conform", help="replay recordings of a real kernel and compare every page")
    conform.add_argument("files", nargs="+", metavar="FILE")
    conform.add_argument("--without", action="append", default=[], metavar="RULE", help="switch one rule off")
    commands.add_parser("version", help="print the version")
    args, rest = parser.parse_known_args(argv)
    strangers = rest if args.command != "lab" else [word for word in rest if not word.startswith("-")]
    if strangers:
        parser.error(f"unrecognized arguments: {' '.join(strangers)}")
    return args, rest


def _lab(args: argparse.Namespace, rest: list[str]) -> int:
    """Copy the lessons, then become JupyterLab."""
    if find_spec("jupyterlab") is None:
        raise lessons.LessonsError('JupyterLab is not installed here; pip install "kmemlab[lab]" brings it')
    source, folder = lessons.lessons_folder(), args.dir.expanduser()
    if folder.resolve() == source.resolve():
        print(f"{folder}: the lessons themselves, no copy made", flush=True)
    else:
        _copy(source, folder)
    command = lab_command(folder.resolve(), no_browser=args.no_browser, port=args.port, ip=args.ip, rest=rest)
    os.environ["JUPYTER_PATH"] = os.pathsep.join(filter(None, [str(JUPYTER), os.environ.get("JUPYTER_PATH")]))
    sys.stdout.flush()
    try:
        os.execv(command[0], command)
    except OSError as error:
        raise lessons.LessonsError(f"cannot start {command[0]}: {error.strerror}") from error


def _copy(source: Path, folder: Path) -> None:
    """Copy the lessons and print a line a file."""
    newer = False
    for copied in lessons.copy_lessons(source, folder):
        print(f"{copied.verdict:<10}  {folder / copied.name}")
        newer |= copied.newer
    if newer:
        print("Some lessons you changed exist in a newer version. Rename yours and start again to get it.")


def lab_command(
    folder: Path, *, no_browser: bool = False, port: int | None = None, ip: str = "127.0.0.1", rest: Sequence[str] = ()
) -> list[str]:
    """Return the command line that serves ``folder`` in JupyterLab, on this computer only unless told otherwise."""
    first = lessons.first_lesson(folder)
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={folder}", f"--ServerApp.ip={ip}"]
    command.append(f"--LabApp.default_url=/lab/tree/{first}" if first else "--LabApp.default_url=/lab")
    if port is not None:
        command.append(f"--ServerApp.port={port}")
    if no_browser:
        command.append("--no-browser")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")  # a container's only user; JupyterLab refuses otherwise
    return [*command, *rest]


def _version() -> int:
    """Print the version of kmemlab and of the Python that runs it."""
    try:
        version = metadata.version("kmemlab")
    except metadata.PackageNotFoundError:
        version = "(not installed)"
    print(f"kmemlab {version}, Python {sys.version.split()[0]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
