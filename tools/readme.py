"""Write README.md's Binder badge from the one place that names the repository: [tool.kmemlab] in pyproject.toml."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from urllib.parse import quote

__all__ = ["badge", "main", "with_badge"]

ROOT = Path(__file__).resolve().parent.parent
FIRST_LESSON = "lab/tree/lessons/00_start.ipynb"
PLACE = re.compile(r"(<!-- binder -->\n).*?(<!-- /binder -->)", re.DOTALL)


def badge(pyproject: str) -> str:
    """Return the badge, linked to the first lesson, for the text of a pyproject.toml."""
    place = tomllib.loads(pyproject)["tool"]["kmemlab"]["binder"]
    where = "/".join(quote(place[key], safe="") for key in ("owner", "repository", "ref"))
    hub = "https://mybinder.org"
    return f"[![Open in Binder]({hub}/badge_logo.svg)]({hub}/v2/gh/{where}?urlpath={quote(FIRST_LESSON, safe='')})"


def with_badge(readme: str, pyproject: str) -> str:
    """Return the README's text with the badge between its two marks."""
    text, places = PLACE.subn(lambda match: f"{match[1]}{badge(pyproject)}\n{match[2]}", readme)
    if places != 1:
        raise SystemExit("README.md needs exactly one place between <!-- binder --> and <!-- /binder -->")
    return text


def main() -> int:
    """Write README.md."""
    path = ROOT / "README.md"
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    path.write_text(with_badge(path.read_text(encoding="utf-8"), pyproject), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
