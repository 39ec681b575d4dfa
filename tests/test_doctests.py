"""The examples in the docstrings of the engine and the panels do what they say."""

from __future__ import annotations

import doctest
import importlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted(
    ".".join(path.relative_to(folder).with_suffix("").parts).removesuffix(".__init__")
    for folder in (ROOT, ROOT / "widgets")
    for path in (folder / ("kmemlab" if folder == ROOT else "kmemlab_widgets")).rglob("*.py")
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    importlib.import_module(name)
    # /proc lines end in a blank that an editor would strip; tests/kernel compares them exactly
    result = doctest.testmod(sys.modules[name], optionflags=doctest.NORMALIZE_WHITESPACE)
    assert not result.failed
